"""vLLM with the small profile, started as an operator would."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_port

PROFILE = "cpu-small"
LLM_SERVER = Path(sys.executable).parent / "llm-server"


@dataclass(frozen=True, slots=True)
class Engine:
    """A vLLM, and the `llm-server` that started it."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def await_ready(self) -> None:
        """Wait until it has generated a token."""
        timer = threading.Timer(300, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        timer.cancel()
        assert ready.startswith("ready"), self.log.read_text("utf-8")[-3000:]

    def kill(self) -> None:
        """End vLLM at once, with all its processes: they are a process group."""
        of = self.process.pid
        children = Path(f"/proc/{of}/task/{of}/children").read_text("ascii").split()
        assert children, "vLLM is not running"
        for child in children:
            os.killpg(int(child), signal.SIGKILL)


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Start vLLM with the small profile, as an operator would, and stop it in the end."""
    port, log = free_port(), folder / "vllm.log"
    command = [str(LLM_SERVER), "serve", "--profile", PROFILE, "--port", str(port), "--log-file", str(log)]
    with (
        (folder / "llm-server.err").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,  # noqa: S603
    ):
        try:
            yield Engine(f"http://127.0.0.1:{port}", server, log)
        finally:
            server.terminate()
            server.wait(60)
