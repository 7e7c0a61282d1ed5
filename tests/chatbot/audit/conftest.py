"""An audit over the test's database."""

from collections.abc import AsyncGenerator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.audit.trail import Audit, open_audit
from tests.audit import SETTINGS


@pytest.fixture
async def audit(engine: AsyncEngine) -> AsyncGenerator[Audit]:
    async with open_audit(engine, SETTINGS) as audit:
        yield audit
