"""Each service signs in at the stores as itself: Redis' users are those that the chart renders, PostgreSQL's roles
those of its file, on the real servers.

Everything that both APIs can be asked works under them, no command of it is refused, and what is another's is.
"""

import re
import subprocess
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import NoPermissionError

from chatbot import tables
from ingest import catalogue
from ingest.lost_passages import compare_index
from ingest.parsing import ParserSettings, open_readers
from knowledge import withdrawals
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import IndexSettings
from knowledge.storage import migrate_database
from knowledge.terms import Terms
from llm_server.scripted import Behaviour, scripted_server
from tests.charts.rendering import CHART, NAME, SEPARATE, environment, named, render
from tests.conftest import DURABLE, RedisServer, redis_server
from tests.log_and_spans import listening_to, written_log
from tests.one_process import Bank, Stores, open_bank
from tests.postgres import SHARED, Postgres
from tests.tiny_embedder import tiny_weights

pytestmark = [pytest.mark.anyio, pytest.mark.services]
PASSWORDS = {"REDIS_PASSWORD": "owner", "REDIS_CHATBOT_PASSWORD": "c", "REDIS_INGEST_PASSWORD": "i"}


LEFT_OUT = (
    *("before", "after", "cursor", "state", "readers", "expires_at"),
    *("max_tokens", "max_completion_tokens", "max_answer_tokens"),
)
"""What is refused unless it fits, or ends an answer at once."""


def users() -> list[str]:
    """Return the directives of the users, as the container's shell hands them to the server."""
    pod = named(render("values", *SEPARATE), "StatefulSet", f"{NAME}-redis")["spec"]["template"]["spec"]
    script = pod["containers"][0]["args"][0].replace("exec valkey-server", r"printf '%s\n'")
    printed = subprocess.run(["sh", "-c", script], env=PASSWORDS, capture_output=True, text=True, check=True)  # noqa: S603, S607
    options = printed.stdout.splitlines()
    return options[options.index("--user") :]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), *DURABLE, *users()) as server:
        yield server


def url_of(redis: RedisServer, service: str) -> str:
    """Return the URL by which the chart has a service sign in, at this server."""
    (container,) = named(render("values", *SEPARATE), "Deployment", f"{NAME}-{service}")["spec"]["template"]["spec"][
        "containers"
    ]
    url = environment(container)["REDIS_URL"].replace(f"{NAME}-redis:6379", f"127.0.0.1:{redis.port}")
    return re.sub(r"\$\((\w+)\)", lambda name: PASSWORDS[name[1]], url)


def run_sql(postgres: Postgres, *arguments: str) -> str:
    return postgres.run("psql", "--dbname", SHARED, "--no-align", "--tuples-only", *arguments).decode()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of a database with all tables and the roles of the file, whose user is to be filled in."""
    url = postgres.url(postgres.emptied())
    for schema in (tables.SCHEMA, catalogue.SCHEMA):
        anyio.run(migrate_database, url, withdrawals.SCHEMA, schema)
    roles = ("-v", "chatbot_password=c", "-v", "ingest_password=i", "-v", "ON_ERROR_STOP=1")
    run_sql(postgres, *roles, "--file", str(CHART / "files/postgres-roles.sql"))
    try:
        yield url.replace(f"//{postgres.user}@", "//{}@")
    finally:
        for role in ("bank_chatbot", "bank_ingest"):
            run_sql(postgres, "--command", f"DROP OWNED BY {role}", "--command", f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.getbasetemp())


@pytest.fixture
async def bank(tmp_path: Path, redis: RedisServer, weights: Path, database: str) -> AsyncGenerator[Bank]:
    async with (
        scripted_server(Behaviour(obeys=True)) as model,
        open_embedder(EmbedderSettings(folder=weights / "e5-small")) as embedder,
        open_readers(ParserSettings()) as readers,
    ):
        stores = Stores(
            redis=redis,
            model=model,
            database_url=database.format("bank_chatbot"),
            staff_database_url=database.format("bank_ingest"),
            index=IndexSettings(path=tmp_path / "data" / "qdrant"),
            weights=weights,
            embedder=embedder,
            terms=Terms(),
            readers=readers,
        )
        with written_log() as lines, listening_to(lines) as spans:
            chat = {"redis_url": SecretStr(url_of(redis, "chatbot"))}
            staff = {"redis_url": SecretStr(url_of(redis, "ingest"))}
            async with open_bank(tmp_path, stores, spans.provider, more=chat, more_of_staff=staff) as opened:
                yield opened


async def test_no_command_of_either_api_is_refused(bank: Bank, redis: RedisServer) -> None:
    job = await bank.hand_in("first")
    await bank.approve(job)
    await bank.until_answered()
    answer = await bank.ask("again")
    given: dict[str, Any] = {key: job[key] for key in ("job_id", "document_id", "version")}
    given |= {key: answer[key] for key in ("answer_id", "conversation_id")}
    given |= dict.fromkeys(LEFT_OUT)
    replies = await bank.ask_everything(given)
    assert {address: reply.text for address, reply in replies.items() if reply.status_code >= 500} == {}
    ready = (await bank.chat.http.get("/readyz")).json()
    assert (ready["redis"], ready["index"], ready["sql"]) == ("ok", "ok", "ok")
    ready = (await bank.staff.http.get("/readyz")).json()
    assert (ready["index"], ready["catalogue"]) == ("ok", "ok")
    await compare_index(bank.staff.app.state.services)
    with Redis.from_url(redis.url) as owner:
        refused = [(entry["username"], entry["object"], entry["context"]) for entry in owner.acl_log()]
        keys = {str(key.decode()) for key in owner.scan_iter()}
    assert refused == []
    assert {key.partition(":")[0] for key in keys} >= {"history", "ledger", "answers"}


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("bank_chatbot", "DELETE FROM chatbot_audit"),
        ("bank_chatbot", "UPDATE chatbot_audit SET sequence = 0"),
        ("bank_chatbot", "DELETE FROM knowledge_stop_changes"),
        ("bank_chatbot", "SELECT * FROM documents"),
        ("bank_chatbot", "UPDATE knowledge_index_state SET visible_passages = 0"),
        ("bank_chatbot", "CREATE TABLE mine (id int)"),
        ("bank_ingest", "SELECT * FROM chatbot_audit"),
        ("bank_ingest", "INSERT INTO chatbot_feedback DEFAULT VALUES"),
        ("bank_ingest", "UPDATE document_decisions SET id = 0"),
        ("bank_ingest", "INSERT INTO knowledge_service_keys DEFAULT VALUES"),
        ("bank_ingest", "DROP TABLE documents"),
    ],
)
def test_rows_of_the_other_service_and_changes_of_the_audit_are_refused(
    postgres: Postgres, database: str, role: str, statement: str
) -> None:
    assert role in database.format(role)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_sql(postgres, "--command", f"SET ROLE {role}", "--command", statement)
    assert re.search(b"permission denied|must be owner", refused.value.stderr)


def sign_in(redis: RedisServer, service: str) -> Redis:
    return Redis.from_url(url_of(redis, service))


@pytest.mark.parametrize(
    ("service", "key"),
    [
        ("chatbot", "anything"),
        ("ingest", "history:{hanbit}:kim:conversations"),
        ("ingest", "ledger:{hanbit}:all:window"),
        ("ingest", "{hanbit}:answer:1"),
    ],
)
def test_a_key_of_the_other_service_is_refused(redis: RedisServer, service: str, key: str) -> None:
    with sign_in(redis, service) as client:
        for command in (("GET", key), ("SET", key, "1"), ("DEL", key)):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
    with Redis.from_url(redis.url) as owner:
        owner.acl_log_reset()


@pytest.mark.parametrize("service", ["chatbot", "ingest"])
@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG GET dir", "ACL LIST", "SCAN 0", "SHUTDOWN", "MONITOR"]
)
def test_nobody_may_administer(redis: RedisServer, service: str, command: str) -> None:
    with sign_in(redis, service) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())
    with Redis.from_url(redis.url) as owner:
        owner.acl_log_reset()
