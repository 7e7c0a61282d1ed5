"""A model behind HTTP that answers JSON with JSON (embeddings, reranking): its key, TLS, deadline, retries and breaker.

EndpointFailed      the call failed
├── EndpointAway    it cannot be asked now: no connection, no answer in time, or its breaker is open
│   └── EndpointBusy it works, and has too much to do
└── EndpointRefused it refuses what we are or ask, and asking again does not help; the message says what to set
"""

import asyncio
import random
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import aiohttp
import msgspec
from pydantic import AnyHttpUrl, Field, JsonValue, SecretStr, model_validator
from yarl import URL

from knowledge.breaker import Breaker, BreakerSettings, CallResult
from knowledge.tls import TlsSettings, tls_reason

CONNECT_SECONDS = 0.6
KEEP_ALIVE_SECONDS = 4.0
"""Most servers close an idle connection after 5 s: ours are kept for less, or a call would meet a closed one."""
MOST_REPLY_BYTES = 64 * 2**20
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.5
"""Between two attempts: each wait may be twice as long as the one before, and is at least half as long as it may be."""
_JITTER = random.SystemRandom()
_VERSION = re.compile(r"v\d+")
_TRANSIENT = frozenset({408, 425, 500, 502, 503, 504})


class EndpointFailed(Exception):
    """A call failed."""


class EndpointAway(EndpointFailed):
    """It cannot be asked now."""


class EndpointBusy(EndpointAway):
    """It works, and has too much to do: its breaker stays as it is."""


class EndpointRefused(EndpointFailed):
    """It refuses what we are or ask; asking again does not help."""


class ModelEndpointSettings(TlsSettings, frozen=True):
    """Where a model is served, and with which credentials it is asked."""

    url: AnyHttpUrl | None = Field(None, description="the address of a server with the model")
    model: str | None = Field(None, description="the model's name there")
    api_key: SecretStr | None = Field(None, description="the server's key")
    api_key_file: Path | None = Field(None, description="a file with the server's key")
    extra_body: dict[str, JsonValue] = Field(
        {}, description="fields of every request beside those of the product, as JSON"
    )

    @model_validator(mode="after")
    def _endpoint_can_be_used(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("set api_key or api_key_file, not both")
        if self.api_key_file is not None and not self.api_key_file.is_file():
            raise ValueError(f"{self.api_key_file} is not a file")
        if self.has_files and (self.url is None or self.url.scheme != "https"):
            raise ValueError("TLS files are set, but the url does not begin with https://")
        return self

    def key(self) -> str | None:
        """Return the server's key (blocking where it is in a file)."""
        if self.api_key_file is not None:
            return self.api_key_file.read_text("utf-8").strip()
        return None if self.api_key is None else self.api_key.get_secret_value()


class ModelEndpoint:
    """One address of a model's server; `setting` begins the names of the settings that a refusal mentions."""

    def __init__(
        self, http: aiohttp.ClientSession, url: URL, *, setting: str, tls: ssl.SSLContext | None, breaker: Breaker
    ) -> None:
        self.name = f"{url.host}:{url.port}{url.path}"
        self._http = http
        self._url = url
        self._setting = setting
        self._tls = tls
        self._breaker = breaker

    async def ask(self, body: Mapping[str, object], *, within_seconds: float, most_attempts: int) -> bytes:
        """Return the reply's body; what may pass by itself is tried again, at most so often, within the deadline.

        Raises:
            EndpointAway, EndpointRefused: the last attempt failed; where the deadline cut it short, the one before.
        """
        now = asyncio.get_running_loop().time
        deadline, wait = now() + within_seconds, FIRST_WAIT_SECONDS
        failed: EndpointAway | None = None
        for attempt in range(1, most_attempts + 1):
            try:
                return await self._permitted(body, deadline)
            except EndpointAway as exc:
                if failed is None or now() < deadline:
                    failed = exc
                pause = _JITTER.uniform(wait / 2, wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
                if attempt == most_attempts or now() + pause >= deadline:
                    raise failed from failed.__cause__
                await asyncio.sleep(pause)
        raise ValueError("most_attempts is below 1")

    async def _permitted(self, body: Mapping[str, object], deadline: float) -> bytes:
        """Ask once where the breaker permits it, and tell it how that ended.

        Raises:
            EndpointAway, EndpointRefused: it failed.
        """
        permit = self._breaker.permit() or self._breaker.probe()
        if permit is None:
            raise EndpointAway(f"{self.name}: it has failed too often and is not asked for a while")
        try:
            reply = await self._asked(body, deadline)
        except EndpointRefused:
            self._breaker.record(permit, CallResult.OK)  # it works, and says no
            raise
        except EndpointBusy:
            self._breaker.abandon(permit)
            raise
        except EndpointAway:
            self._breaker.record(permit, CallResult.FAILED)
            raise
        except BaseException:
            self._breaker.abandon(permit)
            raise
        self._breaker.record(permit, CallResult.OK)
        return reply

    async def _asked(self, body: Mapping[str, object], deadline: float) -> bytes:
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._http.post(
                    self._url,
                    data=msgspec.json.encode(body),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,  # texts and a key go to the configured address and nowhere else
                    ssl=self._tls or True,
                ) as response,
            ):
                reply = await _bounded(response)
                self._check_status(response.status, reply)
                return reply
        except TimeoutError as exc:
            raise EndpointAway(f"{self.name}: no answer in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            if reason := tls_reason(exc):
                raise EndpointRefused(
                    f"{self.name}: no TLS connection ({reason}): set {self._setting}__CA_FILE, "
                    f"{self._setting}__CERT_FILE and {self._setting}__KEY_FILE"
                ) from exc
            hint = " (a server that wants a client certificate does this, too)" if self._url.scheme == "https" else ""
            raise EndpointAway(f"{self.name}: {type(exc).__name__}{hint}") from exc

    def _check_status(self, status: int, reply: bytes) -> None:
        if status == 200:
            return
        if status == 429:
            raise EndpointBusy(f"{self.name}: it has too much to do (429)")
        if status in _TRANSIENT:
            raise EndpointAway(f"{self.name}: status {status}")
        if status in (401, 403):
            raise EndpointRefused(
                f"{self.name}: it refused the key ({status}): set {self._setting}__API_KEY or "
                f"{self._setting}__API_KEY_FILE to the one of this server"
            )
        said = _reason(reply) if status == 404 else ""  # of a model's name; elsewhere it may quote a customer's text
        raise EndpointRefused(
            f"{self.name}: it refused the request ({status}{f': {said}' if said else ''}): look at "
            f"{self._setting}__URL and {self._setting}__MODEL"
        )


@asynccontextmanager
async def open_model_endpoint(
    settings: ModelEndpointSettings, url: URL, *, setting: str
) -> AsyncGenerator[ModelEndpoint]:
    """Open the connections to a model's server at `url`; nothing is asked yet.

    Raises:
        EndpointRefused: the key or the TLS files cannot be read.
    """
    try:
        key = await asyncio.to_thread(settings.key)
        tls = await asyncio.to_thread(settings.context) if url.scheme == "https" else None
    except (OSError, UnicodeDecodeError) as exc:  # ssl.SSLError is an OSError
        raise EndpointRefused(f"the key or the TLS files of {setting} cannot be used: {exc}") from exc
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
    ) as http:
        breaker = Breaker(BreakerSettings(), jitter=partial(_JITTER.uniform, 0.8, 1.0))
        yield ModelEndpoint(http, url, setting=setting, tls=tls, breaker=breaker)


def call_address(server: URL, call: str) -> URL:
    """Return where a server's call (`v1/embeddings`) is: most name theirs with `/v1`, some with the call itself.

    One that ends with the call's name alone is the call where it has a query (Azure); else it may be a prefix.
    """
    path, name = server.path.rstrip("/"), call.rpartition("/")[2]
    before, _, last = path.rpartition("/")
    if last == name and (server.query_string or _VERSION.fullmatch(before.rpartition("/")[2])):
        return server
    return server.with_path(f"{path.removesuffix('/v1')}/{call}", keep_query=True)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST_REPLY_BYTES:
            raise aiohttp.ClientPayloadError("a reply without an end")
        parts.append(part)
    return b"".join(parts)


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorReply(msgspec.Struct):
    """OpenAI's and vLLM's shape, and what TEI and Cohere write beside it."""

    error: _Error | str = ""
    message: str = ""


_LONGEST_REASON = 200
_ERRORS = msgspec.json.Decoder(_ErrorReply)


def _reason(reply: bytes) -> str:
    """Return what a server says of its refusal, as one short line."""
    try:
        decoded = _ERRORS.decode(reply)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    said = decoded.error.message if isinstance(decoded.error, _Error) else decoded.error
    return " ".join((said or decoded.message).split())[:_LONGEST_REASON]
