"""Every connection of both services encrypted, and their own APIs, by certificates of an authority of the tests' own.

The packaged Redis of the tests was built without TLS: a relay that speaks it stands before the real server, and before
the tests' S3. PostgreSQL, the model, the identity provider and the trace collector speak it themselves.
"""

import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import boto3  # type: ignore[import-untyped]  # publishes no types
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm
from pydantic import SecretStr

from edge import ServerTlsSettings
from ingest.parsing import ParserSettings, open_readers
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.identity import AuthSettings
from knowledge.index import IndexSettings
from knowledge.terms import Terms
from knowledge.tls import TlsFiles, TlsSettings
from llm_server.scripted import scripted_server
from telemetry.setup import TraceSettings, tracing
from tests.certificates import certificates, server_context
from tests.conftest import DURABLE, redis_server
from tests.e2e.conftest import until
from tests.e2e.events import end_of, read_events
from tests.e2e.relay import wired
from tests.embedding_server import listening
from tests.ingest.keys import ISSUER
from tests.one_process import Bank, Stores, open_bank
from tests.postgres import SHARED, served_encrypted
from tests.s3 import served_s3

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.services]

DOCUMENT = "# 해외 송금\n\n해외 송금 수수료는 건당 5,000원입니다. 전신료는 건당 8,000원입니다.\n"
QUESTION = "해외 송금 수수료는 얼마인가요?"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("authority"))


@dataclass
class Web:
    """An identity provider and a trace collector."""

    url: str = ""
    traces: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def provider_and_collector(authority: Path, public_key: Path) -> AsyncGenerator[Web]:
    """Serve both; the key is read when somebody asks for it."""
    peers, app = Web(), web.Application()

    async def keys(_: web.Request) -> web.Response:
        key = load_pem_public_key(await anyio.Path(public_key).read_bytes())
        assert isinstance(key, EllipticCurvePublicKey)
        return web.json_response({"keys": [ECAlgorithm.to_jwk(key, as_dict=True)]})

    async def traces(request: web.Request) -> web.Response:
        peers.traces.append(await request.read())
        return web.Response(body=b"")

    app.add_routes([web.get("/keys", keys), web.post("/v1/traces", traces)])
    async with listening(app, server_context(authority)) as peers.url:
        yield peers


@pytest.fixture(scope="module")
def weights() -> Path:
    """Where `llm-server fetch e5-small` put the embedding model; `make test` has run it."""
    root = os.environ.get("WEIGHTS_DIR") or "~/.cache/bank-chatbot/weights"  # noqa: TID251  the test runner's own edge
    return Path(root).expanduser()


@pytest.fixture
async def encrypted(authority: Path, weights: Path, tmp_path: Path) -> AsyncGenerator[tuple[Bank, Web]]:
    """Both services, as `make run` has them, and every other part behind TLS."""
    tls, of_all = server_context(authority), TlsFiles(ca_file=authority / "ca.pem")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # PostgreSQL takes encrypted connections of its network only.
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"
        postgres = stack.enter_context(served_encrypted(authority, rules))
        database = f"postgresql+asyncpg://{postgres.user}@127.0.0.1:{postgres.port}/{SHARED}?ssl=verify-full"
        redis = stack.enter_context(redis_server(tmp_path / "redis", *DURABLE))
        s3 = stack.enter_context(served_s3())
        boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"], aws_access_key_id="test", aws_secret_access_key="test",
                     region_name="us-east-1").create_bucket(Bucket="originals")  # fmt: skip
        to_s3 = await enter(wired(s3["AWS_ENDPOINT_URL"], tls))
        for name, value in {**s3, "AWS_ENDPOINT_URL": to_s3.url}.items():
            patch.setenv(name, value)
        to_redis = await enter(wired(redis.url, tls))
        peers = await enter(provider_and_collector(authority, tmp_path / "key.pub"))
        stores = Stores(
            redis=redis,
            model=await enter(scripted_server(tls=tls)),
            database_url=database,
            index=IndexSettings(path=tmp_path / "data" / "qdrant"),
            weights=weights,
            embedder=await enter(open_embedder(EmbedderSettings(folder=weights / "e5-small"))),
            terms=Terms(),
            readers=await enter(open_readers(ParserSettings())),
        )
        collector = TraceSettings(otlp_endpoint=peers.url)
        provider = stack.enter_context(tracing("test", collector, tls=TlsSettings().with_defaults(of_all).context()))
        # The collector answers in this loop, which the end of tracing would hold up.
        stack.push_async_callback(partial(anyio.to_thread.run_sync, provider.force_flush))
        more = {
            "tls": of_all,
            "auth": AuthSettings(issuer=ISSUER, jwks_url=f"{peers.url}/keys"),
            "redis_url": SecretStr(to_redis.url.replace("https:", "rediss:")),
            "database_url": SecretStr(database),
            "blob_url": "s3://originals",
            "traces": collector,
            "server_tls": ServerTlsSettings(cert_file=authority / "server.pem", key_file=authority / "server.key"),
        }
        trusted = ssl.create_default_context(cafile=authority / "ca.pem")
        bank = await enter(open_bank(tmp_path, stores, provider, more=more, trusted=trusted))
        yield bank, peers


async def test_an_answer_over_tls_quotes_the_passage_that_was_reviewed(
    encrypted: tuple[Bank, Web],
) -> None:
    bank, web = encrypted
    staff, approver = bank.staff.headers("kim", "staff"), bank.staff.headers("lee", "staff", "approver")
    file = ("remittance.md", DOCUMENT.encode())
    reply = await bank.staff.http.post("/v1/documents", files={"file": file}, headers=staff)
    assert reply.status_code == 202, reply.text
    job = reply.json()

    async def indexed() -> bool:
        return bool((await bank.staff.http.get(f"/v1/jobs/{job['job_id']}", headers=staff)).json()["state"] == "done")

    await until(indexed, 10)
    path = f"/v1/documents/{job['document_id']}/versions/{job['version']}"
    shown = (await bank.staff.http.get(f"{path}/passages", headers=approver)).json()["passages"]
    assert (await bank.staff.http.post(f"{path}/approve", headers=approver, json={})).status_code == 200
    quoted: list[str] = []

    async def cited() -> bool:
        customer = bank.chat.headers(uuid4().hex, "customer")
        async with bank.chat.http.stream("POST", "/v1/chat", json={"message": QUESTION}, headers=customer) as response:
            assert response.status_code == 200, await response.aread()
            events = [event async for event in read_events(response)]
        assert end_of(events).name == "done", events
        for event in events:
            if event.name == "citation":
                address = f"/v1/answers/{event.answer_id}/sources/{event.field('n')}"
                quoted.append((await bank.chat.http.get(address, headers=customer)).json()["text"])
        return bool(quoted)

    await until(cited, 10)
    assert set(quoted) <= {passage["text"] for passage in shown}
    ready = (await bank.chat.http.get("/readyz")).json()
    assert {part: ready[part] for part in ("redis", "sql", "models")} == {"redis": "ok", "sql": "ok", "models": "ok"}
    await until(lambda: web.traces, 10)
