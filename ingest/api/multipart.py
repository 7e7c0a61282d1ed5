"""A streamed multipart form (RFC 7578): its single file as a stream, and its fields once the form has ended.

Parsed by python-multipart. Nothing is written to disk, and only one read of the body is in memory.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import anyio
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from ingest.errors import BadRequest

FILE = "file"
MOST_FIELDS = 200
MOST_FIELD_BYTES = 16 * 1024
SILENT_SECONDS = 60.0
"""The maximum pause between two reads of the body."""


@dataclass(slots=True)
class _Part:
    """A partially received part: its Content-Disposition, and a field's value or a file's name."""

    disposition: bytearray = field(default_factory=bytearray)
    name: str = ""
    file_name: str | None = None
    value: bytearray = field(default_factory=bytearray)


class Form:
    """A form with one file, named `file`, and short fields, in any order."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name: str | None = None
        self._body = body
        self._part = _Part()
        self._header = bytearray()
        self._pieces: list[bytes] = []
        self._has_ended = False
        self._parser = self._parser_of(content_type)

    async def file(self) -> AsyncGenerator[bytes]:
        """Yield the file's bytes; afterwards `fields` and `file_name` are complete.

        Raises:
            BadRequest: the form is malformed or incomplete, or its fields are too many or too long.
        """
        while chunk := await self._next():
            try:
                self._parser.write(chunk)
            except FormParserError as exc:
                raise BadRequest("the form is broken") from exc
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
        if not self._has_ended:
            raise BadRequest("the form breaks off")

    def _parser_of(self, content_type: str) -> MultipartParser:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise BadRequest("send multipart/form-data with a boundary")
        try:
            return MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_begin": self._begin_header,
                    "on_header_field": self._read_header,
                    "on_header_value": self._read_disposition,
                    "on_headers_finished": self._open,
                    "on_part_data": self._read,
                    "on_part_end": self._close,
                    "on_end": self._end,
                },
            )
        except FormParserError as exc:
            raise BadRequest("the form's boundary is too long") from exc

    async def _next(self) -> bytes:
        """Return the next bytes of the body, or b"" at its end."""
        try:
            with anyio.fail_after(SILENT_SECONDS):
                while (chunk := await anext(self._body, None)) == b"":
                    continue
        except TimeoutError as exc:
            raise BadRequest(f"nothing came for {SILENT_SECONDS:.0f} s") from exc
        except ClientDisconnect as exc:
            raise BadRequest("the form breaks off") from exc
        return chunk or b""

    def _begin(self) -> None:
        self._part = _Part()

    def _begin_header(self) -> None:
        self._header = bytearray()

    def _read_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _read_disposition(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._part.disposition += data[start:end]

    def _open(self) -> None:
        _, options = parse_options_header(bytes(self._part.disposition))
        if b"name" not in options:
            raise BadRequest("a part of the form has no name")
        self._part.name = _text(options[b"name"])
        if b"filename" not in options:
            return
        if self._part.name != FILE or self.file_name is not None:
            raise BadRequest(f"send one file, as {FILE!r}")
        self._part.file_name = self.file_name = _text(options[b"filename"])

    def _read(self, data: bytes, start: int, end: int) -> None:
        if self._part.file_name is not None:
            self._pieces.append(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > MOST_FIELD_BYTES:
            raise BadRequest(f"{self._part.name!r} is longer than {MOST_FIELD_BYTES} bytes")

    def _close(self) -> None:
        if self._part.file_name is not None:
            return
        self.fields.append((self._part.name, _text(bytes(self._part.value))))
        if len(self.fields) > MOST_FIELDS:
            raise BadRequest(f"a form has at most {MOST_FIELDS} fields")

    def _end(self) -> None:
        self._has_ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
