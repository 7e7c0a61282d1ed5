"""Either service, started with TLS to a part that has a foreign certificate or speaks plain text, ends with a sentence
that names the part; the bank's authorities are set once for all parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from chatbot.__main__ import app as chatbot
from chatbot.settings import Settings as ChatSettings
from ingest.__main__ import app as ingest
from ingest.settings import Settings as StaffSettings
from knowledge.tls import TlsRefused, check_connections
from tests.certificates import certificates, server_context
from tests.conftest import free_port
from tests.tls_peers import peer

BOTH = {
    "Redis": {"REDIS_URL": "rediss://{}/0"},
    "the database": {"DATABASE_URL": "postgresql+asyncpg://bank:secret@{}/chatbot?ssl=verify-full"},
    "Qdrant": {"QDRANT_URL": "https://{}"},
    "the embedder": {"EMBEDDER__URL": "https://{}", "EMBEDDER__MODEL": "m"},
    "the identity provider": {"AUTH__JWKS_URL": "https://{}/keys"},
    "the sign-in provider": {
        "OIDC__ISSUER": "https://{}",
        "AUTH__ISSUER": "https://{}",
        "OIDC__CLIENT_ID": "c",
        "OIDC__CLIENT_SECRET": "s",
        "OIDC__SESSION_KEY": "k" * 32,
    },
    "the trace collector": {"TRACES__OTLP_ENDPOINT": "https://{}"},
}
PLACES = [
    *[(kind, part, place) for kind in (ChatSettings, StaffSettings) for part, place in BOTH.items()],
    (ChatSettings, "the model primary", {"LLM_URLS": "https://{}"}),
    (ChatSettings, "the reranker", {"RERANKER__URL": "https://{}", "RERANKER__MODEL": "m"}),
    (ChatSettings, "the anchors' bucket", {"AUDIT_ANCHORS": "s3://anchors", "AWS_ENDPOINT_URL": "https://{}"}),
    (StaffSettings, "the originals' bucket", {"BLOB_URL": "s3://originals", "AWS_ENDPOINT_URL": "https://{}"}),
]
OWN = {
    "Redis": "REDIS_TLS",
    "the database": "DATABASE_TLS",
    "Qdrant": "QDRANT",
    "the embedder": "EMBEDDER",
    "the identity provider": "AUTH_TLS",
    "the trace collector": "TRACES_TLS",
    "the model primary": "LLM_TLS",
    "the sign-in provider": "OIDC__TLS",
    "the reranker": "RERANKER",
    "the anchors' bucket": "AUDIT_ANCHORS_TLS",
    "the originals' bucket": "BLOB_TLS",
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def peers(ours: Path, foreign: Path) -> Iterator[dict[str, str]]:
    """The addresses of two peers: one that the bank's authority has certified, and one of another."""
    with peer(server_context(ours)) as certified, peer(server_context(foreign)) as uncertified:
        yield {"ours": certified, "another authority": uncertified}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, ours: Path, tmp_path: Path) -> pytest.MonkeyPatch:
    for name, value in {
        "TLS__CA_FILE": ours / "ca.pem",
        "DATA_DIR": tmp_path,
        "PORT": free_port(),
        "INGEST_PORT": free_port(),
        "REDIS_URL": "redis://127.0.0.1:1",
        "AUDIT_KEY": "k" * 32,
        "AUTH__ISSUER": "https://sso.example",
        "AUTH__JWKS_URL": "http://127.0.0.1:1",
        "LLM_URLS": "http://127.0.0.1:1",
        "LLM_PROFILE": "scripted",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "part", "place"), PLACES)
async def test_a_part_is_checked_against_its_authorities(
    kind: type[ChatSettings | StaffSettings],
    part: str,
    place: dict[str, str],
    peers: dict[str, str],
    foreign: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    async def refusal(peer_name: str) -> str:
        for name, value in place.items():
            environment.setenv(name, value.format(peers[peer_name]))
        try:
            await check_connections(kind().connections)
        except TlsRefused as refused:
            return str(refused)
        return ""

    assert await refusal("ours") == ""
    message = await refusal("another authority")
    assert message.startswith(f"no TLS with {part} ({peers['another authority']}): ")
    assert f"set {OWN[part]}__CA_FILE" in message
    environment.setenv(f"{OWN[part]}__CA_FILE", str(foreign / "ca.pem"))
    assert await refusal("another authority") == ""
    environment.delenv(f"{OWN[part]}__CA_FILE")
    environment.delenv("TLS__CA_FILE")
    assert await refusal("ours") != ""


@pytest.mark.parametrize("kind", [ChatSettings, StaffSettings])
@pytest.mark.parametrize("setting", ["REDIS_TLS", "DATABASE_TLS", "QDRANT", "AUTH_TLS", "TRACES_TLS"])
def test_files_of_a_part_whose_url_asks_for_plain_text_are_refused(
    kind: type[ChatSettings | StaffSettings], setting: str, foreign: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("QDRANT_URL", "http://127.0.0.1:1")
    kind()  # those of all are no reason
    environment.setenv(f"{setting}__CA_FILE", str(foreign / "ca.pem"))
    with pytest.raises(ValidationError, match=f"{setting}__CA_FILE is set, but the URL of .* asks for plain text"):
        kind()


@pytest.mark.parametrize("program", [chatbot, ingest], ids=["chatbot", "ingest"])
def test_a_start_ends_with_the_sentence(program: object, foreign: Path, environment: pytest.MonkeyPatch) -> None:
    with peer(server_context(foreign)) as address:
        environment.setenv("REDIS_URL", f"rediss://{address}/0")
        done = CliRunner().invoke(program, ["serve"])  # type: ignore[arg-type]
    assert done.exit_code == 1, done.output
    assert f"no TLS with Redis ({address}): its certificate is refused" in done.output
    assert "Traceback" not in done.output
