"""Two replicas of the chat API behind HAProxy, over one Redis, one SQL database and two model endpoints."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from redis import Redis as BlockingRedis

from chatbot.api import LocalSigner, key_pair
from tests.conftest import free_port
from tests.e2e import model
from tests.e2e.conftest import (
    TENANT,
    audited,
    chat_environment,
    copy_loaded,
    scripted_process,
    signed_in,
    signed_token,
    until,
    wait_for,
)
from tests.e2e.events import SentEvent, read_events
from tests.e2e.metrics import total
from tests.e2e.switch import PATHS
from tests.forked import Forked
from tests.patience import patient

NEEDS_HAPROXY = pytest.mark.skipif(shutil.which("haproxy", path=PATHS) is None, reason="needs haproxy")
LEDGER = f"ledger:{{{TENANT}}}"
# What a bank's balancer does: leaves a replica that is not ready, asks another one where nothing was begun (a 503
# begins nothing), and hangs up on a replica when the customer has.
HAPROXY = """
global
  maxconn 2000
  stats socket {socket} mode 600
defaults
  mode http
  timeout connect 1s
  timeout check 2s
  timeout client 60s
  timeout server 60s
  retries 5
  option redispatch 1
  option abortonclose
  option http-buffer-request
  retry-on conn-failure 503
frontend customers
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter 300ms fall 1 rise 1
  server replica-0 127.0.0.1:{first}
  server replica-1 127.0.0.1:{second}
"""


@dataclass(kw_only=True)
class Server:
    """A process that listens on a port of its own, and may be killed and started again."""

    begin: Callable[[], "subprocess.Popen[bytes] | Forked"]
    port: int
    log: Path
    ready: str
    process: "subprocess.Popen[bytes] | Forked | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process without waiting for it."""
        self.process = self.begin()

    def wait(self) -> None:
        """Wait until its readiness probe answers 200."""
        assert self.process is not None
        wait_for(f"{self.url}{self.ready}", self.process, self.log, seconds=90)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to this process and wait until it has ended."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None


@dataclass(kw_only=True)
class Cluster:
    """Replicas, models, balancer and stores, as in production but two of each."""

    port: int
    replicas: tuple[Server, Server]
    models: tuple[Server, Server]
    fallback: Server | None
    environment: dict[str, str] = field(repr=False)
    stats: Path
    database: Path
    redis: BlockingRedis = field(repr=False)
    signer: LocalSigner

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, sub: str, *, role: str = "customer") -> str:
        return signed_token(self.signer, sub, tenant=TENANT, role=role)

    def client(self, sub: str, *, url: str | None = None, role: str = "customer") -> httpx2.AsyncClient:
        """Return a signed-in client of the balancer, or of one replica."""
        return signed_in(url or self.url, self.token(sub, role=role))

    async def tell(self, **behaviour: object) -> None:
        """Change what both scripted models do."""
        for server in self.models:
            await model.tell(server.url, **behaviour)

    async def restore(self) -> None:
        """Set the models back."""
        for server in (*self.models, *([self.fallback] if self.fallback else [])):
            await model.restore(server.url)

    async def idle(self) -> bool:
        return not await self._generating()

    async def _generating(self) -> list[Server]:
        return [server for server in self.models if await model.running(server.url)]

    async def working(self) -> Server:
        """Return the model that generates; wait until one does."""
        generating: list[Server] = []

        async def one_does() -> bool:
            generating.extend(await self._generating())
            return bool(generating)

        await until(one_does)
        return generating[0]

    async def counted(self, name: str, **labels: str) -> float:
        """Return the sum of a counter over the replicas and over the labels that are not named."""
        return sum([await total(replica.url, name, **labels) for replica in self.replicas])

    async def owner(self) -> int:
        """Return which replica runs the only answer there is; wait until one does."""
        owners: list[int] = []

        async def one_does() -> bool:
            for n, replica in enumerate(self.replicas):
                if await total(replica.url, "chatbot_active_answers"):
                    owners.append(n)
            return bool(owners)

        await until(one_does)
        assert len(owners) == 1
        return owners[0]

    async def at_rest(self) -> bool:
        """Return whether no answer runs and no slot is taken anywhere."""
        names = ("chatbot_active_answers", "chatbot_busy_slots", "chatbot_queued_answers")
        return not any([await total(replica.url, name) for replica in self.replicas for name in names])

    def up(self) -> set[str]:
        """Return the replicas that the balancer sends customers to."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.stats))
            asking.sendall(b"show stat\n")
            statistics = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
        rows = [line.split(",") for line in statistics.splitlines()]
        return {row[1] for row in rows if len(row) > 17 and row[0] == "replicas" and row[17].startswith("UP")} - {
            "BACKEND"
        }

    async def whole(self) -> None:
        """Start the killed processes and wait until the balancer uses every replica."""
        for server in (*self.models, *self.replicas):
            if server.process is None:
                server.start()
        for server in (*self.models, *self.replicas):
            server.wait()
        await until(lambda: len(self.up()) == len(self.replicas), 10)

    def spent_today(self, sub: str) -> int:
        """Return how many tokens the ledger has charged a customer."""
        return sum(int(value) for value in self.redis.hgetall(f"{LEDGER}:user:{sub}:days").values())

    def slots(self, sub: str) -> int:
        """Return how many answers of a customer hold a slot."""
        return int(self.redis.zcard(f"{LEDGER}:user:{sub}:leases"))

    def audited(self, answer_id: str) -> list[str]:
        """Return the kinds of an answer's audit rows."""
        return audited(self.database, answer_id)

    async def ask(self, http: httpx2.AsyncClient, message: str) -> list[SentEvent]:
        """Ask and return every event, over as many connections as it takes."""
        events: list[SentEvent] = []
        await self.follow(http, events, message=message)
        return events

    async def follow(
        self, http: httpx2.AsyncClient, events: list[SentEvent], *, message: str | None = None, silence: float = 0.0
    ) -> None:
        """Read until the last event; where the connection ends before, go on as an EventSource does.

        The next event then comes within 3 s, and `silence` seconds later where a successor has nothing to say yet.
        """
        lost_at: float | None = None
        while not (events and events[-1].name in {"done", "error"}):
            if message is not None and not events:
                opened = http.stream("POST", "/v1/chat", json={"message": message})
            else:
                address = f"/v1/answers/{events[-1].id.partition('.')[0]}/events"
                opened = http.stream("GET", address, headers={"last-event-id": events[-1].id})
            with contextlib.suppress(httpx2.TransportError):
                async with opened as response:
                    assert response.status_code == 200, (response.status_code, await response.aread())
                    async for event in read_events(response):
                        if lost_at is not None:
                            assert time.monotonic() - lost_at <= patient(3.0) + silence, "the stream goes on within 3 s"
                            lost_at = None
                        events.append(event)
            lost_at = lost_at or time.monotonic()
            assert events, "an answer that was never accepted"
            assert time.monotonic() - lost_at < patient(10), "the stream never went on"


@contextlib.contextmanager
def clustered(folder: Path, redis_url: str, *, smaller: str = "", **settings: str) -> Iterator[Cluster]:
    """Give each replica its own copy of the index of the loaded documents, and serve; `smaller` names a fallback.

    The models may think: they do once they are told to.
    """
    first, second = folder / "first", folder / "second"
    copy_loaded(folder.parent, first)
    private, public = key_pair(first)
    models = (scripted(folder, 0), scripted(folder, 1))
    fallback = scripted(folder, 2, name=smaller) if smaller else None
    if fallback is not None:
        settings["MODELS_FILE"] = str(models_file(folder, models, fallback))
    environment = chat_environment(public, redis_url) | {
        "DATABASE_URL": f"sqlite+aiosqlite:///{first / 'bank.db'}",
        "LLM_URLS": ",".join(model.url for model in models),
        "LLM_PROFILE": "scripted",
        "LEDGER__LIMITS__TENANT__CONCURRENT": "1000",
        "LEDGER__LIMITS__USER__CONCURRENT": "100",
        "TURN__THINKING_TOKENS": "200",
        **settings,
    }
    shutil.copytree(first / "qdrant", second / "qdrant")
    replicas = (api(first, environment), api(second, environment))
    balancer = balanced(folder, replicas)
    servers = (*models, *([fallback] if fallback else []), *replicas, balancer)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(BlockingRedis.from_url(redis_url))
        for server in servers:
            stack.callback(server.stop, signal.SIGKILL)
            server.start()
        for server in servers:
            server.wait()
        yield Cluster(
            port=balancer.port,
            replicas=replicas,
            models=models,
            fallback=fallback,
            environment=environment,
            stats=folder / "haproxy.sock",
            database=first / "bank.db",
            redis=redis,
            signer=LocalSigner(private.read_text("ascii")),
        )


def models_file(folder: Path, primaries: Sequence[Server], fallback: Server) -> Path:
    """Write the MODELS_FILE of two endpoints of one model, and a smaller one."""
    shared = {"profile": "scripted"}
    groups = [
        {"name": "main", "urls": [model.url for model in primaries], **shared},
        {"name": "small", "group": "fallback", "urls": [fallback.url], **shared},
    ]
    file = folder / "models.yaml"
    file.write_text(json.dumps(groups), encoding="utf-8")  # JSON is YAML
    return file


def scripted(folder: Path, n: int, *, name: str = "scripted", script: Path | None = None) -> Server:
    """Return a scripted model, which behaves from its start as the file says."""
    port, log = free_port(), folder / f"model-{n}.log"
    options = ["--port", str(port), "--name", name, *(["--script", str(script)] if script else [])]
    return Server(begin=lambda: scripted_process(options, log), port=port, log=log, ready="/health")


def api(data: Path, environment: dict[str, str]) -> Server:
    port, log = free_port(), data.with_suffix(".log")
    mine = environment | {"DATA_DIR": str(data), "PORT": str(port)}
    return Server(begin=lambda: Forked("chatbot.__main__", ["serve"], mine, log), port=port, log=log, ready="/readyz")


def balanced(folder: Path, replicas: tuple[Server, Server]) -> Server:
    port, config, log = free_port(), folder / "haproxy.cfg", folder / "haproxy.log"
    text = HAPROXY.format(socket=folder / "haproxy.sock", port=port, first=replicas[0].port, second=replicas[1].port)
    config.write_text(text, encoding="utf-8")
    command = [shutil.which("haproxy", path=PATHS) or "haproxy", "-db", "-f", str(config)]
    return Server(begin=lambda: spawned(command, log), port=port, log=log, ready="/readyz")


def spawned(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, process_group=0)  # noqa: S603  Ctrl-C is ours
