"""Fixtures: one provider per module, and pages that sign in there."""

from collections.abc import AsyncGenerator, Iterator
from uuid import uuid4

import pytest

from knowledge.bank import Banks, read_banks
from tests.bank import write_bank
from tests.conftest import free_port
from tests.edge.sign_in.pages import DUSK, Pages, opened
from tests.oidc_provider import Provider, provider


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Banks:
    return read_banks(write_bank(tmp_path_factory.mktemp("bank")))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(port: int) -> Iterator[Provider]:
    origin = f"http://127.0.0.1:{port}"
    with provider(origin, DUSK, logout_at=origin) as running:
        yield running


@pytest.fixture
async def pages(running: Provider, port: int, redis_url: str, banks: Banks) -> AsyncGenerator[Pages]:
    running.let_tokens_last(300)
    async with opened(running, f"http://127.0.0.1:{port}", redis_url, banks, session_key=uuid4().hex) as pages:
        yield pages
