"""Each endpoint has its own key, TLS, headers and fields; without them one sentence says which is missing."""

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

from chatbot.models.client import open_models
from chatbot.models.endpoint import Endpoint
from chatbot.models.settings import ModelSettings, ModelsMisconfigured
from knowledge.model_connection import open_session
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.certificates import certificates
from tests.chatbot.models.scripted_pool import PATIENT, Served, ask, handled

pytestmark = pytest.mark.anyio

KEY = "sk-of-the-bank"


@asynccontextmanager
async def guarded(folder: Path) -> AsyncGenerator[ScriptedModel]:
    """Serve a model that wants a key, TLS with an authority of the bank's own, and a certificate of the client."""
    certificates(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    async with scripted_server(Behaviour(answer="예."), api_key=KEY, tls=tls) as server:
        yield server


def settings(folder: Path, *entries: dict[str, Any]) -> ModelSettings:
    """Write a MODELS_FILE; entries are primaries of the scripted model unless they say something else."""
    file, common = folder / "models.yaml", {"profile": "scripted"}
    file.write_text(json.dumps([{"name": f"m{n}", **common, **entry} for n, entry in enumerate(entries)]), "utf-8")
    return ModelSettings(models_file=file)


def credentials(folder: Path) -> dict[str, str]:
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    return {"api_key_variable": "KEY_OF_THE_TEST", **{name: str(folder / file) for name, file in files.items()}}


@pytest.fixture(autouse=True)
def _key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)


async def test_an_endpoint_is_reached_with_its_key_and_certificates(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        entry = {"urls": [server.url], **credentials(tmp_path)}
        async with open_models(settings(tmp_path, entry)) as models:
            assert (await ask(Served(models, [server]))).text == "예."
            await models.pool.ping()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (["api_key_variable"], r"refused the key \(401\)"),
        (["ca_file"], r"no TLS connection \(self-signed certificate in certificate chain\)"),
    ],
)
async def test_without_one_of_them_the_boot_ends_with_a_sentence(
    tmp_path: Path, missing: list[str], sentence: str
) -> None:
    async with guarded(tmp_path) as server:
        known = {name: value for name, value in credentials(tmp_path).items() if name not in missing}
        with pytest.raises(ModelsMisconfigured, match=sentence):
            async with open_models(settings(tmp_path, {"urls": [server.url], **known})):
                pass


async def test_a_refusing_endpoint_beside_a_working_one_does_not_stop_the_boot(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server, scripted_server(Behaviour(answer="예.")) as other:
        with capture_logs() as logs:
            async with open_models(settings(tmp_path, {"urls": [server.url]}, {"urls": [other.url]})) as models:
                assert (await ask(Served(models, [server, other]))).text == "예."
        assert [entry["event"] for entry in logs if "no TLS connection" in entry.get("error", "")]


async def test_the_key_of_llm_urls_is_not_sent_to_a_models_file(tmp_path: Path) -> None:
    async with guarded(tmp_path) as server:
        files = credentials(tmp_path)
        del files["api_key_variable"]
        file = settings(tmp_path, {"urls": [server.url], **files}).model_copy(update={"llm_api_key": SecretStr(KEY)})
        with pytest.raises(ModelsMisconfigured, match=r"refused the key \(401\)"):
            async with open_models(file):
                pass


async def test_headers_and_fields_of_an_endpoint_go_with_every_generation(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    async def generate(request: web.Request) -> web.Response:
        if request.method == "POST":
            seen.append((dict(request.headers), await request.json()))
        return web.Response(status=503)

    async with handled(generate) as url:
        entry = {
            "urls": [url],
            "model": "m",
            "api_key_variable": "KEY_OF_THE_TEST",
            "headers": {"X-Project": "cards"},
            "extra_body": {"repetition_penalty": 1.1},
        }
        async with open_models(settings(tmp_path, entry)):  # it asks each one word
            pass
    headers, body = seen[-1]
    assert (headers["Authorization"], headers["X-Project"]) == (f"Bearer {KEY}", "cards")
    assert headers["Accept-Encoding"] == "identity", "a gateway that compresses keeps tokens back"
    assert (body["repetition_penalty"], body["stream"], body["return_token_ids"]) == (1.1, True, True)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"api_key_variable": "NOT_SET_ANYWHERE"},
            "m0 in MODELS_FILE: the api_key_variable 'NOT_SET_ANYWHERE' is not set",
        ),
        ({"headers": {"Authorization": "Bearer x"}}, "a key cannot be in this file"),
        ({"ca_file": "/nowhere/ca.pem"}, "is not a file"),
        ({"tokenizer": "/nowhere"}, r"LLM_TOKENIZER .* is not a readable tokenizer"),
    ],
)
async def test_an_unusable_entry_ends_the_boot_with_a_sentence(
    tmp_path: Path, entry: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelsMisconfigured, match=sentence):
        async with open_models(settings(tmp_path, {"urls": ["http://127.0.0.1:1"], **entry})):
            pass


async def test_an_adapter_has_the_context_of_its_base_model() -> None:
    cards = [{"id": "base", "max_model_len": 4096}, {"id": "adapter", "max_model_len": None}]

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": cards})

    async with handled(models) as url, open_session() as http:
        endpoint = Endpoint(http, url, PATIENT, model="adapter")
        assert await endpoint.read_model() == 4096
    assert endpoint.model == "adapter"
