"""`llm-server fetch` brings a hub's model at its pinned commit, verified by the hub's digests, once."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from knowledge.embedding import EmbedderSettings, EmbeddingUnavailable, open_embedder
from tests.hub import REVISION, Hub, serving_hub
from tests.tiny_embedder import tiny_weights

pytestmark = pytest.mark.anyio
SETTINGS = EmbedderSettings(model="bank/tiny", revision=REVISION)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"


async def fetched(name: str, weights: Path, hub: Hub) -> tuple[int, str]:
    """Run `llm-server fetch` in its own process; return its status and output."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "token", "COLUMNS": "300"}  # noqa: TID251
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "llm_server", "fetch", name, "--dir", str(weights)]
    finished = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.STDOUT)
    return finished.returncode, finished.stdout.decode()


async def test_a_hubs_model_is_fetched_once_and_converted(tmp_path: Path, tiny: Path) -> None:
    weights = tmp_path / "weights"
    with pytest.raises(EmbeddingUnavailable, match=f"run `llm-server fetch bank/tiny@{REVISION}`"):
        async with open_embedder(SETTINGS.with_folder_in(weights)):
            pass
    async with serving_hub(tmp_path, tiny) as hub:
        status, output = await fetched(f"bank/tiny@{REVISION}", weights, hub)
        assert status == 0, output
        sent = list(hub.sent)
        assert (await fetched(f"bank/tiny@{REVISION}", weights, hub))[0] == 0
        assert hub.sent == sent, "what is there is not fetched again"
    assert "model.safetensors" in sent
    assert set(sent).isdisjoint({"pytorch_model.bin", "onnx/model.json", "README.md"})
    assert hub.keys == {"Bearer token"}
    async with open_embedder(SETTINGS.with_folder_in(weights)) as embedder:
        assert (embedder.name, embedder.dimensions) == ("bank/tiny@0123456789ab", 32)


async def test_bytes_that_are_not_the_hubs_are_refused(tmp_path: Path, tiny: Path) -> None:
    async with serving_hub(tmp_path, tiny) as hub:
        hub.spoilt = "model.safetensors"
        status, output = await fetched(f"bank/tiny@{REVISION}", tmp_path / "weights", hub)
        assert (status, "model.safetensors do not match the digests of the hub" in output) == (1, True), output
        assert not (tmp_path / "weights/bank--tiny@0123456789ab/fetched.json").exists()
