"""An answer's events as they come over the wire."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import httpx2
import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """One server-sent event as it came over the wire."""

    id: str
    name: str
    data: bytes

    def field(self, name: str) -> object:
        """Return one field of its JSON."""
        return msgspec.json.decode(self.data)[name]

    @property
    def answer_id(self) -> str:
        """The id of its answer."""
        return self.id.partition(".")[0]


async def read_events(response: httpx2.Response) -> AsyncGenerator[SentEvent]:
    """Yield the events of a streaming response."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield SentEvent(id=fields.get("id", ""), name=fields["event"], data=fields["data"].encode())
            fields = {}


def text_of(events: Sequence[SentEvent]) -> str:
    """Return the answer's text."""
    return "".join(str(event.field("text")) for event in events if event.name == "token")


def end_of(events: Sequence[SentEvent]) -> SentEvent:
    """Return the `done` or `error` that a whole stream ends with, the only one in it."""
    assert [event for event in events if event.name in {"done", "error"}] == [events[-1]], "exactly one done or error"
    return events[-1]


def notice_codes(events: Sequence[SentEvent]) -> list[object]:
    """Return the codes of the notices, in order."""
    return [event.field("code") for event in events if event.name == "notice"]
