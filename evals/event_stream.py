"""Reads the events of an answer from a stream, for `make run` and evals."""

from collections.abc import AsyncGenerator

import aiohttp

from chatbot.events import Event, from_json


async def read_events(response: aiohttp.ClientResponse) -> AsyncGenerator[Event]:
    """Yield the events of a server-sent event stream."""
    name = ""
    async for line in response.content:
        field_name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field_name == b"event":
            name = value.decode()
        elif field_name == b"data":
            yield from_json(name, value)
