"""A tiny embedding model and real services over it: embedded Qdrant, a database and a blob folder of the test's own."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from tokenizers import Tokenizer

from ingest.bulk import LoadOutcome
from ingest.catalogue import Stage
from ingest.jobs import JobBrokerSettings
from ingest.parsing import ParserSettings, Readers, open_readers
from ingest.services import Services
from ingest.settings import Settings
from ingest.uploads import Uploads
from ingest.wiring import open_services
from knowledge.embedding import open_embedder
from knowledge.index import open_index
from knowledge.terms import Terms
from tests.clock import Clock
from tests.ingest.bank import Bank, served
from tests.ingest.staff import Staff, open_staff
from tests.tiny_embedder import tiny_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder whose e5-small is a random BERT of one layer over bytes: fast, and the same code path."""
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def tokenizer(weights: Path) -> Tokenizer:
    return Tokenizer.from_file(str(weights / "e5-small" / "tokenizer.json"))


@pytest.fixture
def settings(weights: Path, tmp_path: Path, redis_url: str, database_url: str) -> Settings:
    return Settings(
        weights_dir=weights,
        data_dir=tmp_path / "data",
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        delivery=JobBrokerSettings(queue=f"ingest-{uuid4().hex}"),
    )


class NoDisplay:
    """Shows no progress of a load."""

    def begin(self, documents: int) -> None: ...

    def part(self, name: str, stage: Stage, done: int, total: int) -> None: ...

    def end(self, outcome: LoadOutcome) -> None: ...

    def approved(self, done: int, total: int) -> None: ...


NOON = 1_780_023_600.0
"""2026-05-29 12:00 in Seoul."""


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture(scope="session")
def terms() -> Terms:
    """Kiwi takes a second to load."""
    return Terms()


@pytest.fixture(scope="module")  # an async fixture of the session would keep its event loop open under every later test
async def readers() -> AsyncGenerator[Readers]:
    """A process that reads files takes half a second to start."""
    async with open_readers(ParserSettings()) as readers:
        yield readers


@pytest.fixture
async def services(settings: Settings, clock: Clock, terms: Terms, readers: Readers) -> AsyncGenerator[Services]:
    """Services by the test's clock, whose jobs only the test does."""
    async with (
        open_embedder(settings.embedder) as embedder,
        open_index(settings.index, embedder, terms) as index,
        open_services(settings, index=index, parser=readers, works_jobs=False) as opened,
    ):
        yield replace(opened, now=clock, uploads=Uploads(opened.blobs, opened.catalogue, now=clock))


@pytest.fixture
async def staff(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Staff]:
    async with open_staff(services, tmp_path_factory.mktemp("keys")) as opened:
        yield opened


@pytest.fixture
def bank(weights: Path, redis_url: str, tmp_path: Path) -> Iterator[Bank]:
    with served(Bank(tmp_path, weights, redis_url)) as bank:
        yield bank
