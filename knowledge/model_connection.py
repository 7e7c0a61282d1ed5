"""The HTTP connection to a model's server, shared by answers, embeddings and reranking: address, TLS, errors.

EndpointFailed             the call failed; `outcome` is a closed set for metrics
├── EndpointStopped        stopped       the bank has stopped it
├── EndpointAway           it is not available now
│   ├── Unreachable        unreachable   no connection
│   ├── QueueFull          busy          it is healthy, but its queue is full
│   ├── DeadlineExceeded   slow          a deadline passed; `phase` says which
│   └── ReplyBroken        broken        an error status, a cut connection, undecodable bytes, an aborted answer
└── EndpointRefused        it rejects us or the request; a retry does not help
    ├── RequestRejected    refused       our request is at fault; `body` is the beginning of the server's reply
    ├── WrongModel         unfit         it serves another model, or has no such route
    └── AccessDenied       unfit         it rejects our key or certificate, or we do not trust its certificate
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeVar

import aiohttp
import msgspec
from yarl import URL

from knowledge.breaker import CallResult
from knowledge.tls import tls_reason

FailureName = Literal["unreachable", "busy", "slow", "broken", "refused", "unfit", "stopped"]
Phase = Literal["first token", "between tokens", "whole answer", "reply"]

# Three connection attempts that time out must leave time for the hand-off within 2 s.
CONNECT_SECONDS = 0.6
# Over the internet, TLS included: a lost packet is retransmitted after a second.
REMOTE_CONNECT_SECONDS = 2.5
# uvicorn, and so vLLM, closes idle connections after 5 s. Drop ours earlier, so that no call uses a closed one.
KEEP_ALIVE_SECONDS = 4.0
MOST_REPLY_BYTES = 64 * 2**20
# Limits for reading the body of an error response.
_LONGEST_REFUSAL_BYTES = 8192
_REFUSAL_SECONDS = 1.0
# vLLM's admission control, Ollama and OpenAI answer 503 with these words. Any other 503 is a failure: from a proxy, a
# broken engine, or a server that is still loading its model.
_BUSY_WORDS = (b"on a different instance", b"server busy", b"overloaded")
# OpenAI's reasoning models reject `logprobs` with a 403 of this type.
_BAD_REQUEST = b"invalid_request_error"
_IDENTIFIER = re.compile(r"[\w.\[\]-]{1,60}", re.ASCII)

_Result = TypeVar("_Result")

RESULTS: Final[Mapping[str, CallResult | None]] = {
    "ok": CallResult.OK,
    "left": None,  # the caller was cancelled
    "busy": None,
    "stopped": None,
    "refused": CallResult.OK,
    "unreachable": CallResult.FAILED,
    "slow": CallResult.FAILED,
    "broken": CallResult.FAILED,
    "unfit": CallResult.FAILED,
}
"""The breaker's result for each outcome; None if the outcome does not reflect the server's health."""


class EndpointFailed(Exception):
    """A call to an endpoint failed."""

    outcome: ClassVar[FailureName] = "broken"


class EndpointStopped(EndpointFailed):
    """The bank has stopped the endpoint."""

    outcome = "stopped"


class EndpointAway(EndpointFailed):
    """The endpoint is not available now."""


class Unreachable(EndpointAway):
    outcome = "unreachable"


class QueueFull(EndpointAway):
    outcome = "busy"


class DeadlineExceeded(EndpointAway):
    outcome = "slow"

    def __init__(self, phase: Phase, endpoint: str) -> None:
        super().__init__(f"{endpoint}: no answer in time (the deadline for the {phase})")
        self.phase = phase


class ReplyBroken(EndpointAway):
    outcome = "broken"


class EndpointRefused(EndpointFailed):
    """The endpoint rejects us or the request; a retry does not help."""


class RequestRejected(EndpointRefused):
    outcome = "refused"

    def __init__(self, message: str, *, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


class WrongModel(EndpointRefused):
    outcome = "unfit"


class AccessDenied(EndpointRefused):
    outcome = "unfit"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAccess:
    """The parts of every request to an endpoint: headers (with its key), our TLS, and extra body fields."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    extra_body: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remedies:
    """The remedies in error messages: the settings for the key, for TLS, and for the address and model."""

    key: str = "set LLM_API_KEY, or `api_key_variable` of its entry"
    tls: str = "set `ca_file`, `cert_file` and `key_file`"
    address: str = "look at LLM_URLS and LLM_MODEL, or `urls` and `model` of its entry"


class Connection:
    """One address of a model's server over a shared HTTP session.

    `address` is the IP address to connect to instead of resolving the URL's host; TLS still verifies the host.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        *,
        access: EndpointAccess | None = None,
        address: str | None = None,
        remedies: Remedies | None = None,
    ) -> None:
        self.url = url
        self.access = access or EndpointAccess()
        self._at = url if address is None else url.with_host(address)
        self._host_header = {} if address is None else {"Host": url.host_port_subcomponent or ""}
        self._server_name = url.host if address is not None and url.scheme == "https" else None
        self._remedies = remedies or Remedies()
        self._http = http
        self._waits: set[asyncio.Timeout] = set()
        self.stopped = False
        self._connect_seconds = REMOTE_CONNECT_SECONDS if url.scheme == "https" else CONNECT_SECONDS
        self.name = f"{self._at.host}:{self._at.port}{url.path.rstrip('/')}"

    async def send(
        self, method: Literal["GET", "POST"], path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """Send a request to a path below the address, or to the address itself if `path` is empty."""
        target = self._at
        if path:
            target = target.joinpath(path.removeprefix("/")).with_query(self._at.query)
        return await self._http.request(
            method,
            target,
            data=None if body is None else msgspec.json.encode(body),
            allow_redirects=False,  # send prompts and keys only to the configured address
            headers={"Content-Type": "application/json", **self._host_header, **self.access.headers, **(headers or {})},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            ssl=self.access.tls or True,
            server_hostname=self._server_name,
        )

    async def exchange(
        self,
        method: Literal["GET", "POST"],
        path: str,
        body: object = None,
        *,
        until: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body of a non-streamed reply, with a deadline at the event loop's time `until`.

        Raises:
            EndpointFailed: always one of its subclasses.
        """

        async def reply() -> bytes:
            async with await self.send(method, path, body, headers) as response:
                await self.check_status(response)
                return await self.read_body(response)

        with self.translating_errors():
            return await self.with_deadline(reply(), "reply", until)

    async def with_deadline(self, work: Awaitable[_Result], phase: Phase, until: float) -> _Result:
        """Await a part of a call with a deadline in the event loop's time; `stop` ends the wait too."""
        wait = asyncio.timeout_at(0 if self.stopped else until)  # 0 is in the past of the event loop's time
        self._waits.add(wait)
        try:
            async with wait:
                return await work
        except aiohttp.ServerTimeoutError:  # a TimeoutError, but a failed connection
            raise
        except TimeoutError as exc:
            if self.stopped:
                raise EndpointStopped(f"{self.name}: stopped") from exc
            raise DeadlineExceeded(phase, self.name) from exc
        finally:
            self._waits.discard(wait)

    def stop(self) -> None:
        """Reject new calls, and end the calls in progress with `EndpointStopped`."""
        self.stopped = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time())

    async def check_status(self, response: aiohttp.ClientResponse) -> None:
        """Raise the exception for a status other than 200."""
        if response.status == 200:
            return
        beginning = await _beginning(response)
        response.close()
        # A 403 with an HTML page comes from a firewall that blocks the question; a wrong key would fail an earlier GET.
        by_firewall = response.status == 403 and response.method == "POST" and beginning.lstrip().startswith(b"<")
        raise self.failure(response.status, beginning, by_firewall=by_firewall)

    def failure(self, status: int, beginning: bytes, *, by_firewall: bool = False) -> EndpointFailed:
        """Return the exception for a status and the beginning of its body."""
        if status == 429 and b"insufficient_quota" in beginning:
            return AccessDenied(f"{self.name}: its quota is used up")
        if status in (429, 529) or (status == 503 and any(words in beginning for words in _BUSY_WORDS)):
            return QueueFull(f"{self.name}: its queue is full ({status})")
        if status in (401, 403) and _BAD_REQUEST not in beginning and not by_firewall:
            return AccessDenied(f"{self.name}: it refused the key ({status}): {self._remedies.key}")
        reason = "by a firewall before it" if by_firewall else refusal_names(beginning)
        reason = f"{status}: {reason}" if reason else str(status)
        if status in (400, 403, 413, 422):
            return RequestRejected(f"{self.name}: it refused the request ({reason})", body=beginning)
        if status in (404, 405, 501):
            return WrongModel(f"{self.name}: it has no such model or route ({reason}): {self._remedies.address}")
        return ReplyBroken(f"{self.name}: status {status}")

    async def read_body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a reply.

        Raises:
            ReplyBroken: the body exceeds `MOST_REPLY_BYTES`.
        """
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > MOST_REPLY_BYTES:
                raise ReplyBroken(f"{self.name}: the reply exceeds {MOST_REPLY_BYTES >> 20} MiB")
        return bytes(body)

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Translate aiohttp's exceptions to subclasses of `EndpointFailed`."""
        try:
            yield
        except (aiohttp.ClientError, OSError, RecursionError) as exc:
            reason = tls_reason(exc)
            if reason:
                raise AccessDenied(f"{self.name}: no TLS connection ({reason}): {self._remedies.tls}") from exc
            if isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise Unreachable(f"{self.name}: no connection") from exc
            # Only the class: a parser's message quotes its input, which may be a customer's answer.
            hint = " (a server that wants a client certificate does this, too)" if self.url.scheme == "https" else ""
            raise ReplyBroken(f"{self.name}: {type(exc).__name__}{hint}") from exc


@asynccontextmanager
async def open_session() -> AsyncGenerator[aiohttp.ClientSession]:
    """Open the HTTP session for model servers; admission limits the connections, and each call sets its own timeout."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A gateway that compresses a stream buffers its tokens until the end.
        headers={"Accept-Encoding": "identity"},
    ) as http:
        yield http


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of an error response's body, as much as arrives in time."""
    beginning = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_REFUSAL_SECONDS):
            while data := await response.content.read(_LONGEST_REFUSAL_BYTES - len(beginning)):
                beginning += data
    return beginning


def refusal_names(body: bytes) -> str:
    """Return the code and names in a server's error (`unsupported_parameter, max_tokens`), or "".

    The server's message is omitted because it may quote the prompt.
    """
    try:
        error = msgspec.json.decode(body)["error"]
        values = [error.get(name) for name in ("code", "param", "type")]
    except (msgspec.MsgspecError, LookupError, AttributeError, TypeError, ValueError):
        return ""
    return ", ".join(name for name in values if isinstance(name, str) and _IDENTIFIER.fullmatch(name))
