"""A run on a Qdrant server: it is empty before the run, and empty after it."""

import pytest

from evals.quality.server_index import ServerNotEmpty, empty_server
from ingest.settings import Settings
from tests.qdrant_server import FakeServer

pytestmark = pytest.mark.anyio


async def test_a_run_takes_an_empty_server_and_leaves_it_empty() -> None:
    server = FakeServer()
    await server.server.start_server()
    try:
        settings = Settings.model_validate({"qdrant_url": str(server.server.make_url("/"))})
        with pytest.raises(ServerNotEmpty, match="holds kb-1: set QDRANT_URL to a server without collections"):
            async with empty_server(settings):
                pass
        assert server.names == {"kb-1"}
        server.aliased = False
        async with empty_server(settings):
            server.aliased = True
        assert server.names == set()
    finally:
        await server.server.close()
    with pytest.raises(ServerNotEmpty, match="its collections cannot be listed"):
        async with empty_server(settings):
            pass
