"""The connection that appends: replies in order, a broken or hung one is left behind, on a Redis of its own."""

import asyncio
import signal
import ssl
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from chatbot.errors import StoreUnavailable
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, RedisSettings, open_redis
from chatbot.streams.pipelined_connection import PipelinedConnection, open_pipelined_connection
from tests.conftest import RedisServer, free_port

pytestmark = pytest.mark.anyio

ECHO = "redis.call('INCR', KEYS[1]) return ARGV[1]"
FAULTY = "return redis.call('INCR', 'no', 'number')"
ROUNDS = 200
WITHIN = 5.0


@pytest.fixture
async def client(server: RedisServer) -> AsyncGenerator[Redis]:
    async with open_redis(server.url, RedisSettings()) as client:
        yield client


@pytest.fixture
async def pipelined(client: Redis) -> AsyncGenerator[PipelinedConnection]:
    async with open_pipelined_connection(client) as pipelined:
        yield pipelined


async def opened(client: Redis) -> int:
    """Return how many connections Redis has seen."""
    return int((await client.info("stats"))["total_connections_received"])


async def test_everybody_gets_their_own_reply_also_beside_refusals(
    client: Redis, pipelined: PipelinedConnection
) -> None:
    echo, faulty = client.register_script(ECHO), client.register_script(FAULTY)
    replies: dict[int, object] = {}

    async def ask(n: int) -> None:
        try:
            replies[n] = await pipelined.run(echo if n % 5 else faulty, ["n"], [n], within=WITHIN)
        except ResponseError as refused:
            replies[n] = refused

    async with asyncio.TaskGroup() as tasks:
        for n in range(ROUNDS):
            tasks.create_task(ask(n))
    for n, reply in replies.items():
        assert reply == str(n).encode() if n % 5 else isinstance(reply, ResponseError)
    assert len(replies) == ROUNDS
    assert len([entry for entry in await client.client_list() if entry["cmd"] == "evalsha"]) == 1


async def test_who_gives_up_waiting_takes_nobody_elses_reply_and_breaks_nothing(
    server: RedisServer, client: Redis, pipelined: PipelinedConnection
) -> None:
    echo, replies = client.register_script(ECHO), list[object]()
    await pipelined.run(echo, ["n"], ["first"], within=WITHIN)
    connections = await opened(client)

    async def ask(word: str) -> None:
        replies.append(await pipelined.run(echo, ["n"], [word], within=WITHIN))

    server.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(word)) for word in ("one", "two", "three")]
        await anyio.sleep(0.05)
        asked[1].cancel()
        server.signal(signal.SIGCONT)
    assert replies == [b"one", b"three"]
    assert await client.get("n") == b"4", "what nobody waits for is done all the same"
    assert await opened(client) == connections


async def test_a_script_that_redis_has_forgotten_is_loaded_again(client: Redis, pipelined: PipelinedConnection) -> None:
    echo = client.register_script(ECHO)
    assert await pipelined.run(echo, ["n"], ["a"], within=WITHIN) == b"a"
    await client.script_flush()
    assert await pipelined.run(echo, ["n"], ["b"], within=WITHIN) == b"b"


async def test_a_script_that_redis_never_has_is_not_loaded_for_ever(
    client: Redis, pipelined: PipelinedConnection
) -> None:
    echo = client.register_script(ECHO)
    echo.sha = "0" * 40
    with anyio.fail_after(WITHIN), pytest.raises(NoScriptError):
        await pipelined.run(echo, ["n"], ["a"], within=WITHIN)


async def test_a_restarted_redis_is_found_again_at_once(
    server: RedisServer, client: Redis, pipelined: PipelinedConnection
) -> None:
    echo = client.register_script(ECHO)
    await pipelined.run(echo, ["n"], ["a"], within=WITHIN)
    server.restart()
    assert await pipelined.run(echo, ["n"], ["b"], within=WITHIN) == b"b"


async def test_who_gives_up_on_a_hung_redis_leaves_no_reply_to_the_next(
    server: RedisServer, client: Redis, pipelined: PipelinedConnection
) -> None:
    echo = client.register_script(ECHO)
    await pipelined.run(echo, ["n"], ["a"], within=WITHIN)
    connections = await opened(client)
    server.signal(signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(pipelined.run(echo, ["n"], ["beside it"], within=WITHIN))
        with pytest.raises(TimeoutError):
            await pipelined.run(echo, ["n"], ["late"], within=0.1)
        server.signal(signal.SIGCONT)
    assert waiting.result() == b"beside it", "it is asked again on the next connection"
    assert await pipelined.run(echo, ["n"], ["next"], within=WITHIN) == b"next"
    assert await opened(client) == connections + 1, "the hung one is left behind"


async def test_a_redis_that_was_demoted_is_left_and_away_although_it_answers_a_ping(
    client: Redis, pipelined: PipelinedConnection
) -> None:
    echo, breaker = client.register_script(ECHO), RedisBreaker(RedisBreakerSettings(), ping=client.ping)
    assert await pipelined.run(echo, ["n"], [1], within=WITHIN) == b"1"
    await client.replicaof("127.0.0.1", "1")
    connections = await opened(client)
    with pytest.raises(StoreUnavailable):
        await breaker.call_within(lambda left: pipelined.run(echo, ["n"], [2], within=left))
    assert breaker.is_open
    assert await opened(client) > connections, "another connection may lead to the master"
    await client.replicaof("NO", "ONE")
    assert await pipelined.run(echo, ["n"], [3], within=WITHIN) == b"3"


async def test_without_redis_it_says_so() -> None:
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0")
    async with open_pipelined_connection(nowhere) as pipelined:
        with pytest.raises(RedisConnectionError):
            await pipelined.run(nowhere.register_script(ECHO), ["n"], ["a"], within=WITHIN)
    await nowhere.aclose()


async def test_it_uses_the_clients_credentials_name_and_database(server: RedisServer) -> None:
    async with open_redis(server.url, RedisSettings()) as admin:
        await admin.acl_setuser("bank", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
        url = server.url.replace("//", "//bank:secret@").replace("/0", "/3?client_name=appends")
        async with open_redis(url, RedisSettings()) as client, open_pipelined_connection(client) as pipelined:
            assert await pipelined.run(client.register_script(ECHO), ["n"], ["a"], within=WITHIN) == b"a"
            assert await client.get("n") == b"1"
            [own] = [entry for entry in await admin.client_list() if entry["cmd"] == "evalsha"]
        assert (own["user"], own["name"], own["db"]) == ("bank", "appends", "3")


async def test_credentials_that_redis_refuses_count_as_no_connection(server: RedisServer) -> None:
    url = server.url.replace("//", "//nobody:wrong@")
    async with open_redis(url, RedisSettings()) as client, open_pipelined_connection(client) as pipelined:
        with pytest.raises(RedisConnectionError):
            await pipelined.run(client.register_script(ECHO), ["n"], ["a"], within=WITHIN)


async def relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass the bytes of a listener's connection on to Redis and back."""
    from_redis, to_redis = await asyncio.open_connection("127.0.0.1", port)

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pass_on(reader, to_redis))
        tasks.create_task(pass_on(from_redis, writer))


async def test_it_connects_over_a_socket_file(server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "redis.sock"
    async with (
        await asyncio.start_unix_server(partial(relay, server.port), file),
        open_redis(f"unix://{file}?db=2", RedisSettings()) as client,
        open_pipelined_connection(client) as pipelined,
    ):
        assert await pipelined.run(client.register_script(ECHO), ["n"], ["a"], within=WITHIN) == b"a"


async def test_it_connects_over_tls_and_only_to_a_certificate_that_it_trusts(
    server: RedisServer, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with await asyncio.start_server(partial(relay, server.port), "127.0.0.1", 0, ssl=tls) as listener:
        port = listener.sockets[0].getsockname()[1]
        for trusted in (True, False):
            url = f"rediss://127.0.0.1:{port}/0" + (f"?ssl_ca_certs={certificate}" if trusted else "")
            async with open_redis(url, RedisSettings()) as client, open_pipelined_connection(client) as pipelined:
                asked = pipelined.run(client.register_script("return 'a'"), [], [], within=WITHIN)
                if trusted:
                    assert await asked == b"a"
                else:
                    with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                        await asked


def self_signed(folder: Path) -> Path:
    """Write a key and its certificate for 127.0.0.1 into one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file
