"""Find links, images and mail addresses that no passage contains: an injection may tell a model to show them. No I/O.

A sentence that agrees with a passage may still contain such a link, so links are checked separately.
"""

import re
from collections.abc import Iterable
from typing import Final

# A URL, an address after "www.", a mail address, a bare domain, or the target of a Markdown link.
_LINK: Final = re.compile(
    r"\b(?:https?|ftp|javascript|data|file|mailto):[^\s<>\"'|]+"
    r"|\bwww\.[^\s<>\"'|]+"
    r"|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
    r"|(?<![\w.@-])(?:[a-z0-9-]+\.)+(?:com|net|org|kr|io|co|app|me|info|biz|xyz|link|top|site|online|ru|cn|dev|ly|gg|example)"
    r"(?![a-z0-9-])(?:/[^\s<>\"'|]*)?"
    r"|(?<=\]\()[^)\s]+",
    re.IGNORECASE,
)
_TRAILING_PUNCTUATION: Final = ".,;:!?)]}>'\"…"


def first_unknown_link(text: str, sources: Iterable[str]) -> str | None:
    """Return the first link of the text that none of the sources contains, or None."""
    links = [match.group().rstrip(_TRAILING_PUNCTUATION) for match in _LINK.finditer(text)]
    if not links:
        return None
    source_text = "\n".join(sources).casefold()
    return next((link for link in links if link.casefold() not in source_text), None)
