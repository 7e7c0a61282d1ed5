"""The Qdrant server of `QDRANT_URL` as the index of a run, which leaves it without the collections that it made."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from ingest.settings import Settings

_TIMEOUT = aiohttp.ClientTimeout(total=30)


class ServerNotEmpty(Exception):
    """The Qdrant server holds collections already, or does not answer; the message names it."""


class _Described(msgspec.Struct):
    name: str


class _Listed(msgspec.Struct):
    collections: list[_Described]


class _Reply(msgspec.Struct):
    result: _Listed


@asynccontextmanager
async def empty_server(settings: Settings) -> AsyncGenerator[None]:
    """Run the block on the server of the settings, where one is set, and remove the collections that it has made.

    Raises:
        ServerNotEmpty: it holds collections, which may be what a bank's customers are answered from.
    """
    if settings.qdrant_url is None:
        yield
        return
    url, key = URL(str(settings.qdrant_url)), settings.qdrant_api_key
    tls = await asyncio.to_thread(settings.qdrant.context) if url.scheme == "https" else True
    headers = {"api-key": key.get_secret_value()} if key is not None else {}
    async with aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, raise_for_status=True) as http:

        async def collections() -> list[str]:
            async with http.get(url / "collections", ssl=tls) as response:
                listed = msgspec.json.decode(await response.read(), type=_Reply).result.collections
            return [collection.name for collection in listed]

        try:
            held = await collections()
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
            raise ServerNotEmpty(f"{url}: its collections cannot be listed ({type(exc).__name__})") from exc
        if held:
            raise ServerNotEmpty(f"{url} holds {', '.join(held)}: set QDRANT_URL to a server without collections")
        try:
            yield
        finally:
            for name in await collections():
                if re.fullmatch(rf"{re.escape(settings.index.alias)}-\d+", name):
                    async with http.delete(url / "collections" / name, ssl=tls):
                        pass
