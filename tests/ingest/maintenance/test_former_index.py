"""`make run` over a data folder of a former release: the index is filled anew from the originals by itself."""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from chatbot.settings import Settings as ChatSettings
from ingest.services import Services
from ingest.settings import Settings
from knowledge.access import EVERY_CUSTOMER, Access
from knowledge.identity import AuthSettings
from run import open_embedded_or_server
from tests.ingest import samples
from tests.ingest.documents import name_of, publish

pytestmark = pytest.mark.anyio


async def test_an_index_of_a_former_release_is_filled_anew(
    services: Services, settings: Settings, tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = await publish(services, samples.MARKDOWN.encode(), document_id="deposit")
    before = await services.index.passages(**name_of(version))
    former = settings.model_copy(update={"data_dir": tmp_path / "former"})
    shutil.copytree(settings.data_dir / "blobs", former.data_dir / "blobs")
    (former.data_dir / "qdrant" / "collection" / "kb-1").mkdir(parents=True)
    (former.data_dir / "qdrant" / "meta.json").write_text("{}")
    chat = ChatSettings(
        redis_url=SecretStr(redis_url),
        audit_key=SecretStr("a" * 64),
        auth=AuthSettings(issuer="https://i", audience="a", public_key_file=Path("pyproject.toml")),
        data_dir=former.data_dir,
        weights_dir=former.weights_dir,
    )
    for _ in range(2):
        async with AsyncExitStack() as stack:
            index = await open_embedded_or_server(chat, former, stack)
            assert await index.passages(**name_of(version)) == before
            access = Access(tenant="hanbit", groups=frozenset({EVERY_CUSTOMER}), as_of=services.now() + 60)
            assert await index.search("정기예금 금리", access=access, limit=3)
    assert capsys.readouterr().out.count("filled by a former release") == 1
