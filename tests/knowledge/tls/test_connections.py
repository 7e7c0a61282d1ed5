"""A TLS failure is reported in one sentence; an unavailable component is not reported."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from knowledge.tls import Connection, TlsFiles, TlsRefused, TlsSettings, check_connections
from tests.certificates import certificates, server_context
from tests.conftest import free_port
from tests.tls_peers import peer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("foreign"))


async def refusal(url: str, **tls: object) -> str:
    """Return the sentence about a component named Redis; empty if there is none."""
    connection = Connection(part="Redis", url=url, setting="REDIS_TLS", tls=TlsSettings.model_validate(tls))
    try:
        await check_connections(lambda: [connection])
    except TlsRefused as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize(
    ("scheme", "made", "trusted", "reason"),
    [
        ("https", {}, "other", "certificate"),
        ("rediss", {"host": "redis.bank.example"}, "own", "IP address mismatch"),
        ("postgresql", {"hours": -1}, "own", "certificate has expired"),
    ],
    ids=["another authority", "another name", "expired"],
)
async def test_a_certificate_that_is_refused_is_named_with_the_setting(
    ours: Path, tmp_path: Path, scheme: str, made: dict[str, Any], trusted: str, reason: str
) -> None:
    folder = certificates(tmp_path / "theirs", **made)
    with peer(server_context(folder)) as address:
        ca_file = (ours if trusted == "other" else folder) / "ca.pem"
        message = await refusal(f"{scheme}://{address}", ca_file=ca_file)
    assert re.match(
        rf"no TLS with Redis \({address}\): its certificate is refused \(.*{reason}.*\): .* set REDIS_TLS__CA_FILE",
        message,
    )


@pytest.mark.parametrize("scheme", ["https", "rediss", "postgresql"])
async def test_plain_text_is_named(ours: Path, scheme: str) -> None:
    with peer(None) as address:
        message = await refusal(f"{scheme}://{address}", ca_file=ours / "ca.pem")
        assert message.startswith(f"no TLS with Redis ({address}): it speaks plain text")


async def test_a_plain_redis_is_named_although_it_waits_for_a_line(ours: Path, redis_url: str) -> None:
    message = await refusal(redis_url.replace("redis:", "rediss:"), ca_file=ours / "ca.pem")
    assert "it speaks plain text" in message


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_part_that_wants_our_certificate_is_named(ours: Path, foreign: Path, newest: ssl.TLSVersion) -> None:
    context = server_context(ours)
    context.maximum_version = newest
    context.load_verify_locations(ours / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with peer(context) as address:
        trusted = {"ca_file": ours / "ca.pem"}
        mine = {"cert_file": ours / "client.pem", "key_file": ours / "client.key"}
        theirs = {"cert_file": foreign / "client.pem", "key_file": foreign / "client.key"}
        assert await refusal(f"rediss://{address}", **trusted, **mine) == ""
        for none_of_it in ({}, theirs):
            message = await refusal(f"rediss://{address}", **trusted, **none_of_it)
            assert message.endswith("set REDIS_TLS__CERT_FILE and REDIS_TLS__KEY_FILE to one that it accepts")


async def test_an_absent_component_and_a_plain_text_url_are_not_reported(foreign: Path) -> None:
    assert await refusal(f"rediss://127.0.0.1:{free_port()}") == ""
    with peer(server_context(foreign)) as address:
        assert await refusal(f"redis://{address}") == ""


async def test_every_component_without_tls_has_its_sentence(ours: Path) -> None:
    with peer(None) as plain, peer(server_context(ours)) as encrypted:
        tls = TlsSettings(ca_file=ours / "ca.pem")
        parts = {"Redis": f"rediss://{plain}", "Qdrant": f"https://{encrypted}", "the embedder": f"https://{plain}"}
        made = [Connection(part=part, url=url, setting="X", tls=tls) for part, url in parts.items()]
        with pytest.raises(TlsRefused, match=r"^no TLS with Redis \(.*; no TLS with the embedder \([^;]*$"):
            await check_connections(lambda: made)


def test_invalid_tls_files_are_refused_by_name(ours: Path, foreign: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(ValidationError, match=r"ca_file\n.*none.pem is not a file"):
        TlsFiles(ca_file=tmp_path / "none.pem")
    with pytest.raises(ValidationError, match=r"ca_file\n.*text.pem holds no certificate in PEM format"):
        TlsFiles(ca_file=text)
    with pytest.raises(ValidationError, match="is not a certificate with its key"):
        TlsFiles(cert_file=ours / "client.pem", key_file=foreign / "client.key")
    with pytest.raises(ValidationError, match="key_file needs the cert_file"):
        TlsFiles(key_file=ours / "client.key")
