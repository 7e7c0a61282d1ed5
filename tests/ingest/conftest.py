"""A tiny embedding model and real services over it: embedded Qdrant, a database and a blob folder of the test's own."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr
from tokenizers import Tokenizer

from ingest.catalogue import Catalogue
from ingest.parsing import Chunking, Parser, ParserSettings, Readers, open_parser, open_readers
from ingest.services import Services
from ingest.settings import Settings
from ingest.uploads import Uploads
from ingest.wiring import open_services
from knowledge.embedding import Embedder, EmbedderSettings, open_embedder
from knowledge.index import IndexSettings, open_index
from knowledge.storage import open_engine
from knowledge.terms import Terms
from tests.clock import Clock
from tests.conftest import made_once
from tests.ingest.bank import Bank, served
from tests.ingest.staff import Staff, open_staff
from tests.postgres import Postgres
from tests.tiny_embedder import tiny_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder whose e5-small is a random BERT of one layer over bytes: fast, and the same code path."""
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def tokenizer(weights: Path) -> Tokenizer:
    return Tokenizer.from_file(str(weights / "e5-small" / "tokenizer.json"))


@pytest.fixture(scope="session")
def chunking(weights: Path) -> Chunking:
    return Chunking(str(weights / "e5-small"))


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with this release's tables, which are made once: the steps take 0.1 s."""
    base = tmp_path_factory.getbasetemp()
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copy(made_once(base, "migrated-sqlite", _migrated_sqlite) / "bank.db", tmp_path)
        return f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    migrated = made_once(base, "migrated-postgresql", partial(_migrated_postgresql, postgres))
    return postgres.url(postgres.emptied(migrated / "bank.sql"))


def _migrated_sqlite(folder: Path) -> None:
    folder.mkdir()
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{folder / 'bank.db'}"))


def _migrated_postgresql(postgres: Postgres, folder: Path) -> None:
    folder.mkdir()
    asyncio.run(_migrate(postgres.url(postgres.emptied())))
    (folder / "bank.sql").write_bytes(postgres.dump())


async def _migrate(url: str) -> None:
    engine = open_engine(url)
    await Catalogue(engine).create_tables()
    await engine.dispose()


@pytest.fixture(scope="session")
def shared_settings(weights: Path) -> Settings:
    return Settings(weights_dir=weights)


@pytest.fixture
def settings(shared_settings: Settings, tmp_path: Path, database_url: str) -> Settings:
    """Settings of the test's own; to read the environment takes as long as a short test."""
    own = {"data_dir": tmp_path / "data", "database_url": SecretStr(database_url)}
    return shared_settings.model_copy(update=own)


NOON = 1_780_023_600.0
"""2026-05-29 12:00 in Seoul."""


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture(scope="session")
def terms() -> Terms:
    """Kiwi takes a second to load."""
    return Terms()


@dataclass(frozen=True)
class Loaded:
    """What takes long to load and remembers nothing: an embedder, and processes that draw pages and read files."""

    embedder: Embedder
    previewer: Parser
    readers: Readers


@pytest.fixture(scope="module")  # an async fixture of the session would keep its event loop open under every later test
async def loaded(weights: Path) -> AsyncGenerator[Loaded]:
    async with (
        open_embedder(EmbedderSettings(folder=weights / "e5-small")) as embedder,
        open_parser(ParserSettings().of_one_page()) as previewer,
        open_readers(ParserSettings()) as readers,
    ):
        yield Loaded(embedder, previewer, readers)


@pytest.fixture(scope="session")
def empty_index(weights: Path, terms: Terms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index without passages; to make one takes the disk a second."""

    async def make(folder: Path) -> None:
        async with (
            open_embedder(EmbedderSettings(folder=weights / "e5-small")) as embedder,
            open_index(IndexSettings(path=folder), embedder, terms),
        ):
            pass

    return made_once(tmp_path_factory.getbasetemp(), "empty-index", lambda folder: asyncio.run(make(folder)))


@pytest.fixture
def index_settings(settings: Settings, empty_index: Path) -> IndexSettings:
    """Settings of an index of the test's own, in which no passage is."""
    folder = settings.index.path
    assert folder is not None
    folder.parent.mkdir(parents=True)
    subprocess.run(["cp", "-R", empty_index, folder], check=True)  # noqa: S603, S607  its files are sparse, and stay so
    return settings.index


@pytest.fixture
async def services(
    settings: Settings, index_settings: IndexSettings, clock: Clock, terms: Terms, loaded: Loaded
) -> AsyncGenerator[Services]:
    """Services by the test's clock, whose jobs only the test does."""
    async with (
        open_index(index_settings, loaded.embedder, terms) as index,
        open_services(settings, index=index, parser=loaded.readers, with_worker=False) as opened,
    ):
        uploads = Uploads(opened.blobs, opened.catalogue, now=clock)
        yield replace(opened, now=clock, previewer=loaded.previewer, uploads=uploads)


@pytest.fixture
async def staff(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Staff]:
    async with open_staff(services, tmp_path_factory.mktemp("keys")) as opened:
        yield opened


@pytest.fixture
def bank(weights: Path, tmp_path: Path) -> Iterator[Bank]:
    with served(Bank(tmp_path, weights)) as bank:
        yield bank
