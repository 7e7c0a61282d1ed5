"""A hub's model is downloaded at its pinned commit, verified against the hub's digests, and fetched once."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from knowledge.embedding.embedding import open_embedder
from knowledge.embedding.errors import EmbedderMissing
from knowledge.embedding.hub import STAMP, fetch_model
from knowledge.embedding.settings import EmbedderSettings
from tests.hub import REVISION, Hub, serving_hub
from tests.tiny_embedder import tiny_weights

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"


def settings(hub: Hub, weights: Path) -> EmbedderSettings:
    fields = {"hub": hub.url, "model": "bank/tiny", "revision": REVISION, "api_key": "token"}
    return EmbedderSettings.model_validate(fields).below(weights)


async def bring(*names: str, weights: Path, hub: Hub) -> tuple[int, str]:
    """Run `llm-server fetch` in its own process; return its status and output."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "token", "COLUMNS": "300"}  # noqa: TID251
    command = [sys.executable, "-m", "llm_server", "fetch", *names, "--dir", str(weights)]
    finished = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.STDOUT)
    return finished.returncode, finished.stdout.decode()


@pytest.fixture(scope="module")
async def brought(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The folder into which the command downloaded the hub's model."""
    place = tmp_path_factory.mktemp("brought")
    async with serving_hub(place, tiny) as hub:
        status, said = await bring(f"bank/tiny@{REVISION}", weights=place, hub=hub)
    assert status == 0, said
    assert hub.keys == {"Bearer token"}
    return place / "bank--tiny@0123456789ab"


async def test_a_model_of_a_hub_embeds_and_is_fetched_once(tmp_path: Path, tiny: Path, brought: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(brought / "openvino", weights / brought.name / "openvino")  # seconds less
    async with serving_hub(tmp_path, tiny) as hub:
        async with open_embedder(settings(hub, weights)) as embedder:
            assert (embedder.name, embedder.dimensions) == ("bank/tiny@0123456789ab", 32)
        sent = list(hub.sent)
        async with open_embedder(settings(hub, weights)) as embedder:
            assert len(await embedder.embed_queries(["a"])) == 1
    assert hub.sent == sent, "what is there is not fetched again"
    assert "model.safetensors" in sent
    assert set(sent).isdisjoint({"pytorch_model.bin", "onnx/model.json", "README.md"})
    assert hub.keys == {"Bearer token"}
    assert sorted(os.listdir(weights)) == ["bank--tiny@0123456789ab"]
    assert set(os.listdir(tmp_path)) == {"tiny", "weights"}


@pytest.mark.parametrize("spoilt", ["model.safetensors", "1_Pooling/config.json"])
async def test_other_bytes_than_the_hub_names_are_refused_and_what_was_whole_is_kept(
    tmp_path: Path, tiny: Path, spoilt: str
) -> None:
    async with serving_hub(tmp_path, tiny) as hub:
        hub.spoilt = spoilt
        known = settings(hub, tmp_path / "weights")
        with pytest.raises(EmbedderMissing, match=f"{spoilt} sent bytes that do not match the digest of the hub"):
            await fetch_model(known)
        before = list(hub.sent)
        hub.spoilt = ""
        await fetch_model(known)
        assert not set(before) - {spoilt} & set(hub.sent[len(before) :])
        assert spoilt in hub.sent[len(before) :]


async def test_a_hub_without_the_model_says_so(tmp_path: Path, tiny: Path) -> None:
    async with serving_hub(tmp_path, tiny) as hub:
        other = settings(hub, tmp_path / "weights").model_copy(update={"model": "bank/none"})
        with pytest.raises(EmbedderMissing, match=rf"bank/none cannot be fetched from 127\.0\.0\.1 at {REVISION}"):
            await fetch_model(other)


async def test_the_command_fetches_from_a_hub_and_a_bucket_has_the_copy_by_its_digest(
    tmp_path: Path, tiny: Path, brought: Path
) -> None:
    (converted,) = os.listdir(brought / "openvino")
    assert "model.xml" in os.listdir(brought / "openvino" / converted), "an embedder is converted where it is fetched"
    folder, second = tmp_path / "bucket", tmp_path / "second"
    shutil.copytree(brought, folder)
    shutil.copytree(brought / "openvino", second / brought.name / "openvino")  # seconds less
    async with serving_hub(tmp_path, tiny) as hub:
        hub.bucket = folder
        digest = hashlib.sha256((folder / STAMP).read_bytes()).hexdigest()
        copy, name = f"{hub.url}/bucket/tiny@{digest}", f"bank/tiny@{REVISION}"
        status, said = await bring(copy, name, weights=second, hub=hub)
        assert status == 0, said
        assert hub.sent == [], "the hub is not asked for what the bucket has brought"
        async with open_embedder(settings(hub, second)) as embedder:
            assert embedder.name == "bank/tiny@0123456789ab"
        status, said = await bring(f"{hub.url}/bucket/tiny@{'0' * 64}", weights=tmp_path / "third", hub=hub)
        assert (status, "fetched.json is not 000" in said) == (1, True)
        (folder / "model.safetensors").write_bytes(b"?" * (folder / "model.safetensors").stat().st_size)
        status, said = await bring(copy, weights=tmp_path / "third", hub=hub)
        assert (status, "model.safetensors sent bytes that do not match" in said) == (1, True)
        assert not (tmp_path / "third/bank--tiny@0123456789ab" / STAMP).exists()
        assert (await bring("bank/tiny@main", weights=second, hub=hub))[0] == 2
