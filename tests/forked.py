"""Runs our programs as forks of a process that has imported them, so that the imports run only once."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = "tests.imported_programs"


class Forked:
    """A running program, with the part of `subprocess.Popen`'s interface that tests use."""

    def __init__(self, program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([IMPORTED])
        self._process: ForkServerProcess = context.Process(
            target=run, args=(program, list(arguments), dict(environment), str(log)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Return the exit status.

        Raises:
            TimeoutError: the program still runs after `seconds`.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError
        return self._process.exitcode


def run(program: str, arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """Replace this process's environment, output and arguments by the program's, and run it."""
    os.environ.clear()  # noqa: TID251  the program's environment
    os.environ.update(environment)  # noqa: TID251  the program's environment
    with Path(log).open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = [program, *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_module(program).app()


def run_to_the_end(program: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Run a program to completion; fail with its output unless it exits with 0."""
    began = time.monotonic()
    status = Forked(program, arguments, environment, log).wait(180)
    assert status == 0, (
        f"{program} ended with {status} after {time.monotonic() - began:.0f} s: {log.read_text('utf-8')}"
    )
