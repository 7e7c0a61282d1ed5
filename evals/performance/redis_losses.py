"""What acknowledged writes a Redis loses when it is killed: alone, with a replica, and with `WAIT`.

usage: python -m evals.performance.redis_losses [rounds]

One client writes as fast as it is acknowledged; after two seconds the server is killed (SIGKILL), and what comes back
is counted.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from evals.redis_program import redis_program

SECONDS = 2.0
CUT_SECONDS = 0.3
AOF = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
SNAPSHOT = ("--appendonly", "no", "--save", "3600 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a Redis is set up and how it fails."""

    name: str
    options: tuple[str, ...] = AOF
    replicated: bool = True
    waits: bool = False
    cut: bool = False


KINDS = (
    Kind(name="alone, appendonly everysec, its process is killed", replicated=False),
    Kind(name="alone, snapshots only, its process is killed", options=SNAPSHOT, replicated=False),
    Kind(name="its replica is promoted"),
    Kind(name="its replica is promoted, the link was cut 0.3 s before", cut=True),
    Kind(name="the same, WAIT 1 after each write", waits=True, cut=True),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A Redis of its own."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        where = [
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(folder),
            "--logfile",
            str(folder / "log"),
        ]
        self._command = [redis_program(), *where, *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)  # noqa: S603  our own arguments
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client().ping()
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=2)

    def follow(self, primary: "Server") -> None:
        """Become a replica, and wait until it has what there is."""
        self.client().replicaof("127.0.0.1", str(primary.port))
        while self.client().info("replication")["master_link_status"] != "up":
            time.sleep(0.02)

    def lead(self) -> None:
        """Become a primary with what it has."""
        self.client().replicaof("NO", "ONE")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def lost(folder: Path, kind: Kind) -> tuple[int, int, float]:
    """Return the acknowledged writes, how many of them are lost, and the age in seconds of the oldest lost one."""
    primary = Server(folder / "primary", kind.options)
    replica = Server(folder / "replica", kind.options) if kind.replicated else None
    try:
        if replica is not None:
            replica.follow(primary)
        acknowledged = write(primary, replica, kind)
        died = time.monotonic()
        primary.kill()
        if replica is None:
            primary.start()
        else:
            replica.lead()
        kept = {int(n) for n in (replica or primary).client().lrange("written", 0, -1)}
        gone = [at for n, at in acknowledged.items() if n not in kept]
        return len(acknowledged), len(gone), died - min(gone) if gone else 0.0
    finally:
        for server in (primary, replica):
            if server is not None:
                server.kill()


def write(primary: Server, replica: Server | None, kind: Kind) -> dict[int, float]:
    """Write numbers for a while; return the instants at which they were acknowledged."""
    acknowledged: dict[int, float] = {}
    number, began, whole = 0, time.monotonic(), True
    with primary.client() as client:
        while (now := time.monotonic() - began) < SECONDS:
            if kind.cut and whole and replica is not None and now > SECONDS - CUT_SECONDS:
                replica.lead()
                whole = False
            client.rpush("written", number)
            if not kind.waits or client.wait(1, 100) == 1:
                acknowledged[number] = time.monotonic()
            number += 1
    return acknowledged


def main() -> None:
    """Print a row a kind of Redis."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for kind in KINDS:
        results = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                results.append(lost(Path(folder), kind))
        written, gone, oldest = (max(column) for column in zip(*results, strict=True))
        sys.stdout.write(f"{kind.name}: of {written} acknowledged at most {gone} lost, the oldest {oldest:.2f} s old\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
