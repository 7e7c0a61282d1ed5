"""The client of a JSON model endpoint (embeddings, reranking): settings, retries and circuit breaker.

`model_connection.py` defines its errors.
"""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import aiohttp
from pydantic import AnyHttpUrl, Field, JsonValue, SecretStr, model_validator
from yarl import URL

from knowledge.breaker import Breaker, BreakerSettings
from knowledge.model_connection import (
    RESULTS,
    Connection,
    EndpointAccess,
    EndpointAway,
    EndpointFailed,
    EndpointRefused,
    Remedies,
    open_session,
)
from knowledge.tls import TlsSettings

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.5
"""The limits of the wait between attempts: its upper bound doubles each time, and jitter takes off up to a half."""
_JITTER = random.SystemRandom()
_VERSION = re.compile(r"v\d+")


class ModelEndpointSettings(TlsSettings, frozen=True):
    """The address of a model's server and the credentials for it."""

    url: AnyHttpUrl | None = Field(None, description="A server with the model has this URL.")
    model: str | None = Field(None, description="The server knows the model by this name.")
    api_key: SecretStr | None = Field(None, description="The server is called with this key.")
    extra_body: dict[str, JsonValue] = Field({}, description="These fields are added to every request, as JSON.")

    @model_validator(mode="after")
    def _endpoint_can_be_used(self) -> Self:
        if any((self.ca_file, self.cert_file, self.key_file)) and (self.url is None or self.url.scheme != "https"):
            raise ValueError("TLS files are set, but the url does not begin with https://")
        return self

    def key(self) -> str | None:
        """Return the server's key."""
        return None if self.api_key is None else self.api_key.get_secret_value()


class ModelEndpoint:
    """One address of a model's server; `setting` is the prefix of the setting names in error messages."""

    def __init__(
        self, http: aiohttp.ClientSession, url: URL, *, setting: str, access: EndpointAccess, breaker: Breaker
    ) -> None:
        remedies = Remedies(
            key=f"set {setting}__API_KEY to the one of this server",
            tls=f"set {setting}__CA_FILE, {setting}__CERT_FILE and {setting}__KEY_FILE",
            address=f"look at {setting}__URL and {setting}__MODEL",
        )
        self._connection = Connection(http, url, access=access, remedies=remedies)
        self._breaker = breaker

    @property
    def name(self) -> str:
        """The server's host, port and path."""
        return self._connection.name

    async def ask(self, body: Mapping[str, object], *, within_seconds: float, most_attempts: int) -> bytes:
        """Return the reply's body; retry while the endpoint is away, up to `most_attempts` within the deadline.

        Raises:
            EndpointAway, EndpointRefused: the error of the last attempt that the deadline did not cut short.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + within_seconds
        wait = FIRST_WAIT_SECONDS
        failure: EndpointAway | None = None
        for attempt in range(1, most_attempts + 1):
            try:
                return await self._ask_once(body, deadline)
            except EndpointAway as exc:
                if failure is None or now() < deadline:
                    failure = exc
                pause = _JITTER.uniform(wait / 2, wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
                if attempt == most_attempts or now() + pause >= deadline:
                    raise failure from failure.__cause__
                await asyncio.sleep(pause)
        raise ValueError("most_attempts is below 1")

    async def _ask_once(self, body: Mapping[str, object], deadline: float) -> bytes:
        """Call once if the breaker permits it, and record the outcome.

        Raises:
            EndpointAway, EndpointRefused: the call failed, or the breaker is open.
        """
        permit = self._breaker.permit() or self._breaker.probe()
        if permit is None:
            raise EndpointAway(f"{self.name}: it has failed too often and is not asked for a while")
        outcome = "left"
        try:
            reply = await self._connection.exchange("POST", "", body, until=deadline)
            outcome = "ok"
        except EndpointFailed as exc:
            outcome = "refused" if isinstance(exc, EndpointRefused) else exc.outcome
            raise
        finally:
            self._breaker.record(permit, RESULTS[outcome])
        return reply


@asynccontextmanager
async def open_model_endpoint(
    settings: ModelEndpointSettings, url: URL, *, setting: str
) -> AsyncGenerator[ModelEndpoint]:
    """Open a client for a model's server at `url`, without sending a request.

    Raises:
        EndpointRefused: the key or the TLS files cannot be read.
    """
    try:
        key = await asyncio.to_thread(settings.key)
        tls = await asyncio.to_thread(settings.context) if url.scheme == "https" else None
    except (OSError, UnicodeDecodeError) as exc:  # ssl.SSLError is an OSError
        raise EndpointRefused(f"the key or the TLS files of {setting} cannot be used: {exc}") from exc
    access = EndpointAccess(headers={"Authorization": f"Bearer {key}"} if key else {}, tls=tls)
    async with open_session() as http:
        breaker = Breaker(BreakerSettings(), jitter=partial(_JITTER.uniform, 0.8, 1.0))
        yield ModelEndpoint(http, url, setting=setting, access=access, breaker=breaker)


def call_address(server: URL, call: str) -> URL:
    """Return the URL of a call (`v1/embeddings`) on a server whose address may end with `/v1` or with the call.

    An address that ends with the call's name is the call itself if a version precedes the name (`/v1/embeddings`), or
    if it has a query (Azure).
    """
    path = server.path.rstrip("/")
    name = call.rpartition("/")[2]
    parent, _, last = path.rpartition("/")
    has_version = _VERSION.fullmatch(parent.rpartition("/")[2]) is not None
    if last == name and (has_version or server.query_string):
        return server
    return server.with_path(f"{path.removesuffix('/v1')}/{call}", keep_query=True)
