"""The bank under chaos: replicas with clocks of their own, models and Redis, two of each, and PostgreSQL."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError

from chatbot.api import LocalSigner, key_pair
from tests.conftest import DURABLE, RedisServer, free_port, redis_server
from tests.e2e.cluster import Cluster, Server, balanced, scripted
from tests.e2e.conftest import DOCUMENTS, chat_environment, load
from tests.e2e.faketime import with_clock
from tests.e2e.switch import Switch
from tests.postgres import SHARED, Postgres, served

LIMIT_TOKENS = 1_000_000_000
SETTINGS = {
    "TURN__ANSWER": "written",
    "TURN__LONGEST_ANSWER": "60",
    "DRAIN_SECONDS": "1",
    "REFUSE_SECONDS": "2",
    "ADMISSION__SLOTS": "64",
    "LEDGER__REPLICAS": "2",
    **{
        f"LEDGER__LIMITS__{scope}__{dimension}": str(most)
        for scope in ("TENANT", "USER", "MODEL")
        for dimension, most in {
            "TOKENS_PER_MINUTE": LIMIT_TOKENS,
            "TOKENS_PER_DAY": LIMIT_TOKENS,
            "REQUESTS_PER_MINUTE": 100_000,
            "CONCURRENT": 1000,
        }.items()
    },
}
"""The product's own but for limits that nobody meets, a drain that answers outlive, and a longest answer that lets an
opening which a dead process left be closed while the comparison waits."""
TOKEN_SECONDS = 0.05
START_SECONDS = 300.0
SCRIPT = {
    "answer": (
        "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다. 가입 후 1개월이 지나지 않으면 이자를 지급하지 "
        "않습니다. 샘물 정기예금의 기본 금리는 연 3.1%이며 가입 기간은 12개월입니다. 최소 가입 금액은 100만원입니다."
    ),
    "token_seconds": TOKEN_SECONDS,
    "probe": 0.99,
}
"""What both models do from their first moment, also when they are started again: replicas of one model say the same."""


class RedisPair:
    """A primary and a replica behind one address, which leads to whoever is primary."""

    def __init__(self, servers: tuple[RedisServer, RedisServer], folder: Path) -> None:
        self.servers = servers
        self.primary = 0
        first, second = (f"127.0.0.1:{server.port}" for server in servers)
        self.switch = Switch(first, second, folder, "redis-switch")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.switch.port}/0"

    @property
    def leader(self) -> RedisServer:
        return self.servers[self.primary]

    @property
    def follower(self) -> RedisServer:
        return self.servers[1 - self.primary]

    def follow(self) -> None:
        """Make the other server a replica of the primary, and wait until it has what there is."""
        with BlockingRedis(port=self.follower.port, socket_timeout=5) as client:
            client.replicaof("127.0.0.1", str(self.leader.port))
            deadline = time.monotonic() + 20
            while client.info("replication").get("master_link_status") != "up":
                assert time.monotonic() < deadline, "the replica never followed"
                time.sleep(0.05)

    def detach(self) -> None:
        """Let the replica lag from now on: it is cut off, as a primary that nobody asks."""
        with BlockingRedis(port=self.follower.port, socket_timeout=5) as client:
            client.replicaof("NO", "ONE")

    def demote(self) -> None:
        """Make the primary a replica that refuses writes, with everybody's connections still leading to it."""
        with BlockingRedis(port=self.leader.port, socket_timeout=5) as client:
            client.replicaof("127.0.0.1", str(self.follower.port))

    def hide(self) -> None:
        """Lead nobody to the primary any more, and break the connections to it."""
        self.switch.hide(self.primary)

    def promote(self) -> None:
        """Make the other server the primary, and lead everybody there."""
        self.primary = 1 - self.primary
        with BlockingRedis(port=self.leader.port, socket_timeout=5) as client:
            client.replicaof("NO", "ONE")
        self.switch.lead_to(self.primary)

    def wait(self) -> None:
        """Return when the address leads to a primary."""
        deadline = time.monotonic() + 20
        with BlockingRedis.from_url(self.url, socket_timeout=1) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    if client.info("replication")["role"] == "master":
                        return
                time.sleep(0.05)
        raise TimeoutError("no Redis leads")


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Everything that faults are done to."""

    cluster: Cluster
    redis: RedisPair
    postgres: Postgres
    database_url: str
    folders: tuple[Path, Path]
    clocks: tuple[Path, Path]
    """The files that say how far off each replica's clock is."""

    def lock_audit(self, seconds: float) -> None:
        """Hold a lock that every write of the audit waits for."""
        self.postgres.query(
            f"BEGIN; LOCK TABLE chatbot_audit IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds}); COMMIT"
        )

    def sql_activity(self) -> str:
        """Return what the connections to the database are doing, but for idle ones."""
        return self.postgres.query(
            "SELECT state, wait_event_type, wait_event, now() - query_start, left(query, 60) FROM pg_stat_activity "
            "WHERE state <> 'idle' AND pid <> pg_backend_pid()"
        )


@contextlib.contextmanager
def opened_bank(folder: Path) -> Iterator[Bank]:
    """Start everything, with the documents loaded, and stop it in the end."""
    first, second = folder / "first", folder / "second"
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(served())
        database_url = postgres.url(SHARED)
        own = {"DATA_DIR": str(first), "DATABASE_URL": database_url}
        load(DOCUMENTS, dict(os.environ) | own, folder / "load.log")  # noqa: TID251  children inherit it
        shutil.copytree(first / "qdrant", second / "qdrant")
        servers = tuple(stack.enter_context(redis_server(folder / f"redis-{n}", *DURABLE)) for n in range(2))
        redis = RedisPair((servers[0], servers[1]), folder)
        stack.callback(redis.switch.stop)
        redis.wait()
        redis.follow()
        script = folder / "script.json"
        script.write_text(json.dumps(SCRIPT), encoding="utf-8")
        models = (scripted(folder, 0, script=script), scripted(folder, 1, script=script))
        clocks = (folder / "clock-0", folder / "clock-1")
        private, public = key_pair(first)
        environment = chat_environment(public, redis.url) | {
            "DATABASE_URL": database_url,
            "LLM_URLS": ",".join(model.url for model in models),
            "LLM_PROFILE": "scripted",
            **SETTINGS,
        }
        replicas = (
            replica(first, environment | with_clock(clocks[0])),
            replica(second, environment | with_clock(clocks[1])),
        )
        balancer = balanced(folder, replicas)
        for server in (*models, *replicas, balancer):
            stack.callback(server.stop, signal.SIGKILL)
            server.start()
        for server in replicas:
            start_again(server)
        for server in (*models, *replicas, balancer):
            server.wait()
        yield Bank(
            cluster=Cluster(
                port=balancer.port,
                replicas=replicas,
                models=models,
                fallback=None,
                environment=environment,
                stats=folder / "haproxy.sock",
                database=folder / "none",
                redis=stack.enter_context(BlockingRedis.from_url(redis.url)),
                signer=LocalSigner(private.read_text("ascii")),
            ),
            redis=redis,
            postgres=postgres,
            database_url=database_url,
            folders=(first, second),
            clocks=clocks,
        )


def replica(data: Path, environment: Mapping[str, str]) -> Server:
    """Return a replica of the chat API as a program of its own, which its clock needs."""
    port, log = free_port(), data.with_suffix(".log")
    mine = {**environment, "DATA_DIR": str(data), "PORT": str(port)}
    command = [sys.executable, "-m", "chatbot", "serve"]

    def begin() -> "subprocess.Popen[bytes]":
        with log.open("ab") as out:
            return subprocess.Popen(command, env=mine, stdout=out, stderr=out, process_group=0)  # noqa: S603

    return Server(begin=begin, port=port, log=log, ready="/readyz")


def start_again(replica: Server) -> None:
    """Start a replica and wait until it listens; one that ends while a store is unavailable is started again.

    Raises:
        TimeoutError: it never listens.
    """
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client() as http:
        while time.monotonic() < deadline:
            if replica.process is None or replica.process.poll() is not None:
                replica.start()
            with contextlib.suppress(httpx2.TransportError):
                http.get(f"{replica.url}/livez")
                return
            time.sleep(0.2)
    raise TimeoutError(f"{replica.log} says why it never started")
