"""Addresses in an answer that no passage holds: a link, an image or a mailbox that a model was told to show (pure).

A sentence may say what a passage says and carry a stranger's link all the same, so comparison alone lets it through.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_ADDRESS: Final = re.compile(
    r"\b(?:https?|ftp|javascript|data|file|mailto):[^\s<>\"'|]+"
    r"|\bwww\.[^\s<>\"'|]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w.@-])(?:[a-z0-9-]+\.)+(?:com|net|org|kr|io|co|app|me|info|biz|xyz|link|top|site|online|ru|cn|dev|ly|gg|example)"
    r"(?![a-z0-9-])(?:/[^\s<>\"'|]*)?"
    r"|(?<=\]\()[^)\s]+",
    re.IGNORECASE,
)
_TRAILING: Final = ".,;:!?)]}>'\"…"


def foreign_address(text: str, sources: Iterable[str]) -> str | None:
    """Return the first address of a text that stands in none of the sources, or nothing."""
    found = list(_addresses(text))
    if not found:
        return None
    known = "\n".join(sources).casefold()
    return next((address for address in found if address.casefold() not in known), None)


def _addresses(text: str) -> Iterator[str]:
    for found in _ADDRESS.finditer(text):
        yield found.group().rstrip(_TRAILING)
