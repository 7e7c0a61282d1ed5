"""OLE containers: HWP 5 documents are read; encrypted or old Office files and Outlook messages are refused by name."""

import re
from io import BytesIO
from pathlib import Path

import olefile

from ingest.parsing.hwp import parse_hwp
from ingest.parsing.parsed import Parsed, Reason, Unreadable

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_MESSAGE = re.compile(r"__properties_version1\.0|__substg1\.0_", re.IGNORECASE)


def parse_ole(path: Path) -> Parsed:
    """Return an HWP 5 document.

    Raises:
        Unreadable: any other kind of file, or an HWP that cannot be read.
    """
    data = path.read_bytes()
    if _ENCRYPTED_PACKAGE in data:
        raise Unreadable(Reason.ENCRYPTED, "the document is protected by a password")
    try:
        with olefile.OleFileIO(BytesIO(data)) as container:
            names = {"/".join(parts) for parts in container.listdir()}
            if "FileHeader" in names and any(name.startswith("BodyText/") for name in names):
                return parse_hwp(data, container)
    except (OSError, ValueError, IndexError, TypeError, AttributeError) as exc:
        raise Unreadable(Reason.MALFORMED, "the file's container is damaged") from exc
    if any(_MESSAGE.match(name) for name in names):
        raise Unreadable(Reason.UNKNOWN_TYPE, "Outlook's .msg files are not supported: save the message as .eml")
    raise Unreadable(Reason.UNKNOWN_TYPE, "old Office formats (.doc, .xls, .ppt) are not supported: save as .docx")
