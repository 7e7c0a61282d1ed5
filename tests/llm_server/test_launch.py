"""`llm-server serve` is ready only after a generation, ends its processes, and reports an error in one sentence.

The scripted server replaces vLLM, behind a program with vLLM's command line, because these tests cover the launcher.
Tests marked `vllm` start vLLM itself with these arguments.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from llm_server.__main__ import app
from llm_server.launch import ServeSettings, command
from llm_server.profile import load_profile
from tests.certificates import certificates
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
# Replaces `python -m vllm.entrypoints.cli.main serve MODEL … --port N …`, with an engine process like vLLM's.
STAND_IN = """#!/bin/sh
while [ "$1" != "--port" ]; do shift; done
echo "engine of its own"
sleep 600 &
exec {python} -m llm_server.scripted --port "$2" --name qwen2.5-coder-0.5b-int8 {more}
"""


@pytest.fixture
def port() -> int:
    return free_port()


@contextmanager
def serving(python: Path, port: int, tmp_path: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command with the given interpreter in place of vLLM's."""
    environment = {**os.environ, "LLM_PYTHON": str(python), "DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}  # noqa: TID251
    options = ["--profile", "cpu-small", "--model", str(tmp_path), "--port", str(port), *more]
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "llm_server", "serve", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's descendants."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return [*children, *(pid for child in children for pid in descendants(child))]


def all_gone(pids: list[int]) -> bool:
    """Return whether the processes ended within ten seconds; a zombie counts as ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = [path for pid in pids if (path := Path(f"/proc/{pid}/stat")).exists()]
        if not [path for path in alive if path.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"]:
            return True
        time.sleep(0.05)
    return False


def stand_in(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable, more=more), encoding="utf-8")
    path.chmod(0o755)
    return path


def refusal(python: Path, port: int, *options: str, folder: Path) -> str:
    """Return the only line that a `serve` that fails in this process prints, on standard error."""
    environment = {"LLM_PYTHON": str(python), "DATA_DIR": str(folder), "WEIGHTS_DIR": str(folder)}
    arguments = ["serve", "--profile", "cpu-small", "--port", str(port), *options]
    failed = CliRunner().invoke(app, arguments, env=environment)
    assert (failed.exit_code, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    return failed.stderr


def test_ready_follows_a_generation_and_a_signal_ends_all(tmp_path: Path, port: int) -> None:
    with serving(stand_in(tmp_path), port, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://127.0.0.1:{port}\n"
        (warmed,) = httpx2.get(f"http://127.0.0.1:{port}/stats").json()["requests"]
        assert warmed["ended"] in {"stop", "length"}
        assert warmed["top_logprobs"], "what a probe asks for is compiled before the first customer comes"
        children = descendants(process.pid)
        assert len(children) >= 2, "the stand-in and its engine"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert all_gone(children)
    assert "engine of its own" in (tmp_path / "logs" / "vllm-cpu-small.log").read_text(encoding="utf-8")


def test_with_a_certificate_it_is_served_and_watched_over_tls(tmp_path: Path, port: int) -> None:
    folder = certificates(tmp_path / "authority", host="llm.bank.example")
    files = f"--ssl-certfile {folder / 'server.pem'} --ssl-keyfile {folder / 'server.key'}"
    with serving(stand_in(tmp_path, files), port, tmp_path, *files.split()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready https://127.0.0.1:{port}\n"
        with httpx2.Client(verify=ssl.create_default_context(cafile=folder / "ca.pem")) as http:
            extensions = {"sni_hostname": "llm.bank.example"}
            reply = http.get(f"https://127.0.0.1:{port}/health", extensions=extensions)
        assert reply.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_vllm_reloads_a_changed_certificate_by_itself(tmp_path: Path) -> None:
    files = {"ssl_certfile": Path("c.pem"), "ssl_keyfile": Path("k.pem")}
    profile = load_profile("cpu-small")
    settings = ServeSettings(profile=profile, model="m", python=tmp_path, log_file=None, **files)
    assert command(settings)[-5:] == ["--ssl-certfile", "c.pem", "--ssl-keyfile", "k.pem", "--enable-ssl-refresh"]


def test_vllm_writes_to_our_output_and_ends_with_the_launcher(tmp_path: Path, port: int) -> None:
    with serving(stand_in(tmp_path), port, tmp_path, "--log-file", "-") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "engine of its own\n"
        while (line := process.stdout.readline()) != f"ready http://127.0.0.1:{port}\n":
            assert line, "the launcher ended"
        server = descendants(process.pid)[:1]
        process.kill()
        assert all_gone(server)
    assert not (tmp_path / "logs").exists()


def test_a_signal_while_it_loads_ends_it_at_once(tmp_path: Path, port: int) -> None:
    behaviour = tmp_path / "script.json"
    behaviour.write_text('{"hung": true}', encoding="utf-8")
    with serving(stand_in(tmp_path, f"--script {behaviour}"), port, tmp_path) as process:
        started = tmp_path / "logs" / "vllm-cpu-small.log"
        wait_for_line(started, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def wait_for_line(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the log has `ready`, which the scripted server writes once it listens."""
    while process.poll() is None:
        if path.exists() and "ready" in path.read_text(encoding="utf-8"):
            return
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    pytest.fail("the command ended")


def test_a_taken_port_is_reported_before_the_model_is_loaded(tmp_path: Path, port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        message = refusal(stand_in(tmp_path), port, "--model", str(tmp_path), folder=tmp_path)
    assert f"Port {port} on 127.0.0.1 cannot be used" in message


def test_an_interpreter_without_vllm_is_named(tmp_path: Path, port: int) -> None:
    message = refusal(Path(sys.executable), port, "--model", str(tmp_path), folder=tmp_path)
    assert "has no vLLM: run scripts/setup, or set LLM_PYTHON" in message


def test_vllms_last_error_and_its_log_are_named_when_it_ends(tmp_path: Path, port: int) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho loading\necho 'ValueError: no room for the cache'\nexit 3\n", encoding="utf-8")
    path.chmod(0o755)
    message = refusal(path, port, "--model", str(tmp_path), folder=tmp_path)
    assert "vLLM ended with status 3 after saying: ValueError: no room for the cache" in message
    assert "logs/vllm-cpu-small.log" in message


def test_missing_weights_are_named(tmp_path: Path, port: int) -> None:
    message = refusal(stand_in(tmp_path), port, folder=tmp_path)
    assert "run `llm-server fetch cpu-small` first" in message
