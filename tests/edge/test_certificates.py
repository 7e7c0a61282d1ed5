"""A service's certificate, its check of client certificates, and renewal without a restart."""

import asyncio
import io
import shutil
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream
from cryptography import x509
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from edge import ServerTlsSettings, bind, listening
from edge import certificates as edge_certificates
from edge.connection_limits import ConnectionLimits
from tests.certificates import certificates
from tests.log_and_spans import written_log
from tests.patience import patient

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Each service has its own event loop."""
    return "asyncio", {"use_uvloop": request.param}


LIMITS = ConnectionLimits(head_seconds=0.5)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_certificates, "CHECK_SECONDS", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The service's folder, like a mounted Secret: a link to the folder with the current files."""
    link = tmp_path / "shown"
    link.symlink_to(certificates(tmp_path / "first"))
    return link


def show(link: Path, folder: Path) -> None:
    """Replace all files at once, as the kubelet does."""
    link.with_name("next").symlink_to(folder)
    link.with_name("next").rename(link)


def counting_app(more: anyio.Event) -> FastAPI:
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def words() -> AsyncGenerator[bytes]:
            yield b"begun,"
            await more.wait()
            yield b"ended"

        return StreamingResponse(words())

    @app.get("/")
    async def scheme() -> str:
        return "here"

    return app


Serve = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def served(folder: Path) -> Serve:
    @asynccontextmanager
    async def serve(more: anyio.Event | None = None, **files: Path) -> AsyncGenerator[int]:
        settings = ServerTlsSettings(cert_file=folder / "server.pem", key_file=folder / "server.key", **files)
        with bind("127.0.0.1", 0) as bound:
            async with listening(counting_app(more or anyio.Event()), bound, limits=LIMITS, certificate=settings):
                yield bound.getsockname()[1]

    return serve


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "ca.pem")


async def seen_by(port: int, folder: Path) -> int:
    """Return the serial number of the certificate that a new connection receives."""
    async with (
        await anyio.connect_tcp("127.0.0.1", port) as wire,
        await TLSStream.wrap(wire, hostname="127.0.0.1", ssl_context=trusting(folder)) as stream,
    ):
        shown = stream.extra(TLSAttribute.peer_certificate_binary) or b""  # noqa: S610  no database
        return x509.load_der_x509_certificate(shown).serial_number


def serial_of(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes()).serial_number


async def until_seen(port: int, folder: Path) -> None:
    with anyio.fail_after(patient(4)):
        while True:
            try:
                assert await seen_by(port, folder) == serial_of(folder)
            except ssl.SSLError:
                await anyio.sleep(0.05)
            else:
                return


async def test_plain_text_is_refused_where_tls_is_served(served: Serve, folder: Path) -> None:
    async with served() as port, httpx2.AsyncClient(verify=trusting(folder)) as http:
        assert (await http.get(f"https://127.0.0.1:{port}/")).json() == "here"
        with pytest.raises(httpx2.TransportError):
            await http.get(f"http://127.0.0.1:{port}/")
        assert (await http.get(f"https://127.0.0.1:{port}/")).json() == "here"


async def test_a_version_before_1_2_is_refused(served: Serve, folder: Path) -> None:
    old = trusting(folder)
    with pytest.deprecated_call():
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with served() as port, await anyio.connect_tcp("127.0.0.1", port) as wire:
        with pytest.raises((ssl.SSLError, anyio.BrokenResourceError)):
            await TLSStream.wrap(wire, hostname="127.0.0.1", ssl_context=old)


async def refused(port: int, context: ssl.SSLContext) -> bool:
    async with httpx2.AsyncClient(verify=context) as http:
        try:
            return (await http.get(f"https://127.0.0.1:{port}/")).status_code != 200
        except httpx2.TransportError:
            return True


async def test_only_client_certificates_of_the_authority_are_accepted(
    served: Serve, folder: Path, tmp_path: Path
) -> None:
    stranger = certificates(tmp_path / "stranger")
    async with served(client_ca_file=folder / "ca.pem") as port:
        ours, none, theirs = (trusting(folder) for _ in range(3))
        ours.load_cert_chain(folder / "client.pem", folder / "client.key")
        theirs.load_cert_chain(stranger / "client.pem", stranger / "client.key")
        assert [await refused(port, context) for context in (ours, none, theirs)] == [False, True, True]


async def ended(wire: SocketStream) -> float:
    """Return the seconds until the other end closes the connection."""
    began = time.monotonic()
    with anyio.fail_after(20):
        try:
            while await wire.receive():
                pass
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return time.monotonic() - began
    raise AssertionError


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "a hello"])
async def test_an_unfinished_handshake_is_closed(served: Serve, begun: bytes) -> None:
    async with served() as port, await anyio.connect_tcp("127.0.0.1", port) as wire:
        if begun:
            await wire.send(begun)
        assert LIMITS.head_seconds - 0.1 < await ended(wire) < LIMITS.head_seconds + patient(1)


async def test_a_request_sent_with_the_handshakes_end_is_answered(served: Serve, folder: Path) -> None:
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(folder).wrap_bio(received, sent, server_hostname="127.0.0.1")
    async with served() as port, await anyio.connect_tcp("127.0.0.1", port) as wire:
        with anyio.fail_after(20):
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await wire.send(sent.read())
                    received.write(await wire.receive())
            client.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await wire.send(sent.read())  # the handshake's last message, and the request
            reply = b""
            while b"here" not in reply:
                received.write(await wire.receive())
                with suppress(ssl.SSLWantReadError):
                    while True:  # a reply may come as several records
                        reply += client.read(65536)
    assert reply.startswith(b"HTTP/1.1 200 OK")


async def test_a_hello_sent_before_the_accept_begins_a_handshake(served: Serve, folder: Path) -> None:
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trusting(folder).wrap_bio(ssl.MemoryBIO(), sent, server_hostname="127.0.0.1").do_handshake()
    async with served() as port:
        with socket.create_connection(("127.0.0.1", port)) as wire:  # blocks the event loop
            wire.sendall(sent.read())
            wire.settimeout(0)
            with anyio.fail_after(20):
                reply = await asyncio.get_running_loop().sock_recv(wire, 65536)
    assert reply.startswith(b"\x16\x03"), "a message of the handshake"


async def test_streams_continue_while_a_renewed_certificate_is_loaded(
    served: Serve, folder: Path, tmp_path: Path
) -> None:
    more, second = anyio.Event(), certificates(tmp_path / "second")
    async with (
        served(more) as port,
        httpx2.AsyncClient(verify=trusting(folder), timeout=20) as http,
        http.stream("GET", f"https://127.0.0.1:{port}/slow") as reply,
    ):
        parts = reply.aiter_bytes()
        assert await anext(parts) == b"begun,"
        show(folder, second)
        await until_seen(port, second)
        more.set()
        assert b"".join([part async for part in parts]) == b"ended"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with written_log() as written:
        yield written


@pytest.mark.parametrize("is_replaced", [True, False], ids=["not of the key", "missing"])
async def test_an_unusable_certificate_is_not_loaded(
    served: Serve, folder: Path, tmp_path: Path, lines: io.StringIO, *, is_replaced: bool
) -> None:
    second = certificates(tmp_path / "second")
    async with served() as port:
        first = shutil.copytree(folder, tmp_path / "copied")
        (folder / "server.pem").unlink()
        if is_replaced:
            shutil.copy(second / "server.pem", folder / "server.pem")
        with anyio.fail_after(patient(4)):
            while "certificate_load_failed" not in lines.getvalue():
                await anyio.sleep(0.02)
        assert await seen_by(port, first) == serial_of(first)
        shutil.copytree(second, folder, dirs_exist_ok=True)
        await until_seen(port, second)


def test_unusable_certificate_files_are_refused(folder: Path, tmp_path: Path) -> None:
    second = certificates(tmp_path / "second")
    for files, sentence in (
        ({"cert_file": tmp_path / "none.pem"}, "none.pem is not a file"),
        ({"cert_file": folder / "server.pem", "key_file": second / "server.key"}, "is not a certificate with its key"),
        ({"client_ca_file": folder / "ca.pem"}, "need the cert_file that the service shows"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            ServerTlsSettings.model_validate(files)
