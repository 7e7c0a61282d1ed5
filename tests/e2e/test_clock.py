"""A replica whose own clock is hours off, over PostgreSQL: customers notice nothing of it."""

import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2
import msgspec
import pytest

from chatbot.api import LocalSigner, key_pair
from chatbot.audit import Closed, Opened
from tests.e2e.chaos.bank import replica
from tests.e2e.cluster import Server
from tests.e2e.conftest import (
    KOREAN,
    TENANT,
    chat_environment,
    copy_loaded,
    new_customer,
    scripted_model,
    signed_in,
    signed_token,
    until,
)
from tests.e2e.events import end_of, read_events
from tests.e2e.faketime import LIBRARY, set_clock, with_clock
from tests.postgres import Postgres

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (apt-get install libfaketime)"),
]
HOURS = 5 * 3600


@dataclass(frozen=True)
class OffClock:
    """A chat API, the file that says how far off its clock is, and where its audit is."""

    server: Server
    file: Path
    signer: LocalSigner
    postgres: Postgres

    def client(self, who: str) -> httpx2.AsyncClient:
        return signed_in(self.server.url, signed_token(self.signer, who, tenant=TENANT, role="customer"))

    async def is_off(self, seconds: float) -> bool:
        """Return whether the process itself takes it to be so many seconds later."""
        async with httpx2.AsyncClient() as http:
            date = parsedate_to_datetime((await http.get(f"{self.server.url}/livez")).headers["date"])
        return abs(date.timestamp() - time.time() - seconds) < 60

    def entries(self, answer_id: str) -> list[Opened | Closed]:
        asked = f"SELECT body FROM chatbot_audit WHERE answer_id = '{answer_id}' ORDER BY at"  # noqa: S608  our own id
        return [msgspec.json.decode(body, type=Opened | Closed) for body in self.postgres.query(asked).splitlines()]


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory, redis_url: str, postgres: Postgres) -> Iterator[OffClock]:
    folder, database = tmp_path_factory.mktemp("off"), postgres.emptied()
    data, file = folder / "data", folder / "clock"
    private, public = key_pair(data)
    own = {"DATA_DIR": str(data), "DATABASE_URL": postgres.url(database)}
    own["REDIS__SLOW_AFTER"] = "2"  # beside other tests: a late reply would be a 503 of the history
    copy_loaded(folder.parent, data)
    with scripted_model(folder) as model:
        environment = chat_environment(public, redis_url, **own, **model, **with_clock(file))
        server = replica(data, environment)
        server.start()
        try:
            server.wait()
            yield OffClock(server, file, LocalSigner(private.read_text("ascii")), postgres)
        finally:
            server.stop(signal.SIGKILL)
            shutil.rmtree(data)


@pytest.mark.parametrize("seconds", [HOURS, -HOURS], ids=["ahead", "behind"])
async def test_a_replica_whose_clock_is_hours_off_answers_as_any_other(
    off: OffClock, fault_round: int, seconds: int
) -> None:
    del fault_round
    set_clock(off.file, seconds)
    await until(lambda: off.is_off(seconds), 5)
    began = time.time()
    async with off.client(new_customer()) as http:
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
            assert response.status_code == 200, await response.aread()
            events = [event async for event in read_events(response)]
        done = end_of(events)
        assert (done.field("finish_reason"), done.field("written")) == ("stop", True)
        reply = await http.get(f"/v1/conversations/{events[0].field('conversation_id')}")
        assert reply.status_code == 200, reply.text
        limits = (await http.get("/v1/limits")).json()
    times = [message["at"] for message in reply.json()["messages"]]
    times += [entry.at for entry in off.entries(events[0].answer_id)]
    assert len(times) == 4
    assert all(began - 60 < at < time.time() + 60 for at in times), "history and audit have the database's time"
    assert limits["remaining_requests"] == limits["limit_requests"] - 1
