"""A run on a Qdrant server: it has no collections before the run, and none of the run after it."""

import pytest

from evals.quality.server_index import ServerNotEmpty, empty_server
from ingest.settings import Settings
from tests.qdrant_server import FakeServer

pytestmark = pytest.mark.anyio


async def test_a_run_takes_an_empty_server_and_removes_only_its_own_collections() -> None:
    server = FakeServer()
    await server.server.start_server()
    try:
        settings = Settings.model_validate({"qdrant_url": str(server.server.make_url("/"))})
        with pytest.raises(ServerNotEmpty, match="holds kb-1: set QDRANT_URL to a server without collections"):
            async with empty_server(settings):
                pass
        assert server.names == {"kb-1"}
        server.names, server.alias = set(), None
        async with empty_server(settings):
            server.names = {"kb-1", "kb-of-the-bank", "bank-1"}
        assert [request.path for request in server.requests if request.method == "DELETE"] == ["/collections/kb-1"]
    finally:
        await server.server.close()
    with pytest.raises(ServerNotEmpty, match="its collections cannot be listed"):
        async with empty_server(settings):
            pass
