"""`make run` on machines and data folders that are not as they should be; it leaves no process behind."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from chatbot.api import key_pair
from run import (
    CannotRun,
    lock_folder,
    port_of,
    prepare_identity,
    redis_server,
    run_process,
)
from tests.conftest import free_port
from tests.patience import patient
from tests.tiny_embedder import tiny_weights

ROOT = Path(__file__).parents[1]
REDIS = """
import asyncio, os, pathlib, run, sys
async def main(data):
    with run.lock_folder(data) as lock:
        async with run.redis_server(data, lock) as url:
            print(url, flush=True)
            await asyncio.Event().wait()
asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Restore the environment: `make run` sets what the services read."""
    before = dict(os.environ)  # noqa: TID251  what the services read
    yield
    os.environ.clear()  # noqa: TID251
    os.environ.update(before)  # noqa: TID251


def test_a_second_make_run_on_the_same_data_names_its_settings(tmp_path: Path) -> None:
    sentence = f"another `make run` uses {tmp_path}: stop it, or set DATA_DIR, PORT and INGEST_PORT"
    with lock_folder(tmp_path), pytest.raises(CannotRun, match=sentence), lock_folder(tmp_path):
        pass
    assert not is_held(tmp_path)


def test_a_disk_that_is_nearly_full_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("run.FREE_BYTES", 1 << 60)
    with pytest.raises(CannotRun, match=f"MiB are free in {tmp_path} and .* set DATA_DIR"), lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80 ", "８０"])
def test_a_port_that_is_not_a_number_names_its_setting(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_PORT", port)
    with pytest.raises(CannotRun, match=f"INGEST_PORT={port} is not a port"):
        port_of("INGEST_PORT", 8001)


def test_a_damaged_signing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTH__ISSUER", "DEMO_KEY_FILE", "AUDIT_KEY"):
        monkeypatch.delenv(name, raising=False)
    key_pair(tmp_path)
    (tmp_path / "demo-key.pem").write_bytes(b"\xff")
    with pytest.raises(CannotRun, match=f"{tmp_path}/demo-key.pem is not a private key: remove it"):
        prepare_identity(tmp_path, "127.0.0.1")


def test_redis_ends_when_make_run_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # noqa: TID251  a child's environment
    command = [sys.executable, "-c", REDIS, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:  # noqa: S603  ours
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith("redis://")
        with pytest.raises(CannotRun, match="another `make run`"), lock_folder(tmp_path):
            pass
        killed.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + patient(10)
    while is_held(tmp_path):  # Redis keeps the lock as long as it runs
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_empty_start_loads_no_sample_documents_and_asks_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251  a child's environment
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(tmp_path),
        "PORT": str(free_port()),
        "INGEST_PORT": str(free_port()),
        "EMBEDDER__FOLDER": str(tiny_weights(tmp_path_factory.getbasetemp()) / "e5-small"),
        "LLM_URLS": "http://127.0.0.1:1",
        "LLM_PROFILE": "scripted",
    }
    command = [sys.executable, str(ROOT / "run.py"), "--once", "--empty"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert (started.returncode, started.stdout) == (0, ""), started.stderr
    with closing(sqlite3.connect(tmp_path / "bank.db")) as database:
        assert database.execute("SELECT count(*) FROM documents").fetchone() == (0,)


def is_held(data: Path) -> bool:
    try:
        with lock_folder(data):
            return False
    except CannotRun:
        return True


@pytest.mark.anyio
async def test_redis_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    with (
        lock_folder(tmp_path) as lock,
        pytest.raises(CannotRun, match=r"Redis did not start: .+ manifest .+ if .+ is damaged, remove"),
    ):
        async with redis_server(tmp_path, lock):
            pass


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []
    running = anyio.Event()

    async def start() -> None:
        async with run_process("/bin/sh", "-c", "sleep 600 & echo $!; wait", log=tmp_path / "err") as process:
            assert process.stdout is not None
            pids.extend((process.pid, int(await process.stdout.readline())))
            running.set()
            await process.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await running.wait()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(patient(10)):
        while any(map(is_running, pids)):
            await anyio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether the process exists; one that has ended and that nobody has waited for does not count."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    except FileNotFoundError:
        return False
