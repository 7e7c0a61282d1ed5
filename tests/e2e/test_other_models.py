"""A product with an embedder and a model of others: what it says of them at the start and in `/readyz`."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx2
import pytest

from knowledge.embedding import EmbedderSettings, open_embedder
from tests.e2e.conftest import KOREAN, scripted_model, served
from tests.e2e.events import text_of
from tests.embedding_server import embedding_server

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.services]

SHIPPED = Path(__file__).parents[2] / "chatbot/calibration.yaml"


async def test_values_of_another_model_are_told_once_and_an_embedder_that_is_away_only_degrades(
    tmp_path: Path, redis_url: str
) -> None:
    async with AsyncExitStack() as stack:
        own = EmbedderSettings().below(Path(os.environ.get("WEIGHTS_DIR", "~/.cache/bank-chatbot/weights")))  # noqa: TID251
        e5 = await stack.enter_async_context(open_embedder(own))
        away = await stack.enter_async_context(AsyncExitStack())
        server = await away.enter_async_context(embedding_server(e5.embed_passages, name=e5.name))
        endpoints = stack.enter_context(scripted_model(tmp_path))
        there = {
            "EMBEDDER__URL": server.url,
            "EMBEDDER__MODEL": server.name,
            "EMBEDDER__TOKENIZER": str(own.folder),
            "CALIBRATION_FILE": str(SHIPPED),
        }
        starting = served(tmp_path, redis_url, endpoints, **there)
        product = await anyio.to_thread.run_sync(stack.enter_context, starting)  # it embeds by our server meanwhile
        async with httpx2.AsyncClient(base_url=product.url) as http:
            parts = dict.fromkeys(("index", "embedder", "sql", "redis", "models"), "ok")
            assert (await http.get("/readyz")).json() == {"status": "ready", **parts, "calibration": "does not fit"}
            async with product.client() as lee:
                assert (await product.ask(lee, KOREAN))[-1].name == "done"
            await away.aclose()
            reply = await http.get("/readyz")
            assert (reply.status_code, reply.json()["embedder"]) == (200, "unavailable")
        async with product.client() as lee:
            assert "1599-0000" in text_of(await product.ask(lee, KOREAN)), "a person is named"
        said = [
            line for line in (tmp_path / "chat.log").read_text("utf-8").splitlines() if "calibration_mismatch" in line
        ]
        assert len(said) == 1
        assert "not of the model scripted: the model's own word decides what is answered" in said[0]
