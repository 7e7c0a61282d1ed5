"""One line of plain text: a title, a product or a file name, as every reader sees it."""

import unicodedata
from typing import Final

# Control and format characters (some invisible, some change the text's direction), surrogates, line separators.
_NOT_PLAIN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_plain(text: str) -> bool:
    """Return whether a text shows all its characters in their order; U+202E would show `fdp.exe` as `exe.pdf`."""
    return not any(unicodedata.category(char) in _NOT_PLAIN for char in text)


def is_line(text: str) -> bool:
    """Return whether a text can be a title or a product: 1 to 300 plain characters on one line, not only spaces."""
    return bool(text.strip()) and len(text) <= 300 and is_plain(text)


def plain(text: str) -> str:
    """Return the text without the characters that are not plain."""
    return "".join(char for char in text if unicodedata.category(char) not in _NOT_PLAIN)
