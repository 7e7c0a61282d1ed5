"""E-mail (RFC 5322) to Markdown: subject as heading, sender, date and body; attachments are only listed.

An attachment is a separate document with its own approval and dates, so it must be uploaded separately.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import MIMEPart
from email.utils import parsedate_to_datetime

from ingest.parsing.html import parse_html
from ingest.parsing.parsed import Format, LeftOut, Parsed, Reason, Unreadable, one_page
from ingest.parsing.text import decode

MOST_PARTS = 1000
LONGEST_SUBJECT = 10_000  # characters: a longer one hides a document in a header
# At least two header fields, with their continuation lines.
_HEADER = re.compile(rb"\A(?:[A-Za-z-]{2,40}:[ \t][^\n]*+\n(?:[ \t][^\n]*+\n)*+){2,}")
# A field that only mail has, or a sender with a recipient, subject or date.
_MAIL_FIELDS = re.compile(
    rb"^(received|mime-version|message-id|return-path|delivered-to):[ \t]"
    rb"|^from:[ \t](?s:.*)^(to|subject|date):[ \t]|^(to|subject|date):[ \t](?s:.*)^from:[ \t]",
    re.IGNORECASE | re.MULTILINE,
)
_KOREAN = {"euc-kr", "ks_c_5601-1987", "ks_c_5601", "ksc5601", "ks_c_5601-1989"}
_ENCRYPTED = {"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"}


def is_mail(head: bytes) -> bool:
    """Return whether the bytes start with the header of a mail."""
    match = _HEADER.match(head)
    return match is not None and _MAIL_FIELDS.search(match.group()) is not None


def parse_mail(data: bytes) -> Parsed:
    """Parse a message; raise Unreadable if it is damaged, encrypted or has too many parts."""
    try:
        message = message_from_bytes(data, policy=policy.default)
        parts = list(_parts(message))
        title = _field(message, "Subject")
        if len(title) > LONGEST_SUBJECT:
            raise Unreadable(Reason.TOO_LARGE, f"the Subject has more than {LONGEST_SUBJECT:,} characters")
        body, left_out = _body(message, parts)
        text = "\n\n".join([*_header_lines(message, title), body, *_attachment_list(parts)])
    except (MessageError, LookupError, ValueError, AttributeError, TypeError) as exc:
        raise Unreadable(Reason.MALFORMED, "the message is damaged") from exc
    return one_page(Format.EML, text.strip(), title or None, left_out)


def _parts(message: MIMEPart) -> Iterator[MIMEPart]:
    """Yield the message's parts in order; an attached message is one part."""
    pending = [message]
    count = 0
    while pending:
        part = pending.pop(0)
        count += 1
        if count > MOST_PARTS:
            raise Unreadable(Reason.HOSTILE, f"it has more than {MOST_PARTS} parts")
        if part.get_content_type() in _ENCRYPTED and part.get_param("smime-type") != "signed-data":
            raise Unreadable(Reason.ENCRYPTED, "the message is encrypted")
        if part.get_content_maintype() == "multipart":
            pending[:0] = part.iter_parts()
        else:
            yield part


def _header_lines(message: MIMEPart, title: str) -> Iterator[str]:
    if title:
        yield f"# {title}"
    sender = _field(message, "From")
    if sender:
        yield f"From: {sender}"
    date = _field(message, "Date")
    try:
        yield f"Date: {parsedate_to_datetime(date).isoformat(' ', 'minutes')}"
    except (ValueError, TypeError):
        if date:
            yield f"Date: {date}"


def _field(message: MIMEPart, name: str) -> str:
    """Return a header field's decoded value, or "" if it is missing."""
    raw = next((str(value) for field, value in message.raw_items() if field.lower() == name.lower()), "")
    if any("\udc80" <= c <= "\udcff" for c in raw):  # bytes without a declared encoding
        return " ".join(decode(raw.encode("utf-8", "surrogateescape")).split())
    return " ".join(str(message.get(name, "")).split())


def _body(message: MIMEPart, parts: list[MIMEPart]) -> tuple[str, Mapping[LeftOut, int]]:
    """Return the body and its left-out counts.

    If the mail has an HTML and a plain body that are not alternatives (multipart/mixed), return both. Otherwise return
    the HTML body, unless the plain body has over twice as many letters.
    """
    bodies = [part for part in parts if not _is_attachment(part) and part.get_content_maintype() == "text"]
    html_bodies = [parse_html(_decoded_text(p)) for p in bodies if p.get_content_subtype() == "html"]
    plain_texts = [_decoded_text(p).strip() for p in bodies if p.get_content_subtype() != "html"]
    left_out = sum((Counter(parsed.left_out) for parsed in html_bodies), Counter[LeftOut]())
    html = "\n\n".join(parsed.pages[0].markdown for parsed in html_bodies)
    plain = "\n\n".join(plain_texts)
    is_mixed = message.get_content_type() == "multipart/mixed" and html_bodies and plain_texts
    if is_mixed and not any(p.get_content_type() == "multipart/alternative" for p in message.walk()):
        return f"{plain}\n\n{html}", left_out
    prefers_html = sum(map(str.isalnum, html)) * 2 >= sum(map(str.isalnum, plain))
    return (html, left_out) if prefers_html else (plain, {})


def _decoded_text(part: MIMEPart) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes) or not data:
        return ""
    charset = (part.get_content_charset() or "ascii").lower()
    if charset in _KOREAN:  # Korean mail declares EUC-KR and uses its superset cp949
        charset = "cp949"
    try:
        return data.decode(charset).replace("\r\n", "\n")
    except (LookupError, UnicodeDecodeError):
        return decode(data)


def _is_attachment(part: MIMEPart) -> bool:
    return part.get_content_disposition() == "attachment" or part.get_filename() is not None


def _attachment_list(parts: list[MIMEPart]) -> Iterator[str]:
    names = [
        " ".join((part.get_filename() or part.get_content_type()).split())
        for part in parts
        if _is_attachment(part) or part.get_content_maintype() not in {"text", "image"}
    ]
    if names:
        yield "\n".join(["Attachments, not read:", "", *(f"- {name}" for name in names)])
