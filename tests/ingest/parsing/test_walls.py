"""What the process that reads files can no longer do, and what is said where a wall is missing."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from ingest.parsing.process import NoParser, ParserSettings, open_parser
from ingest.parsing.sandbox import Walled, are_enough, close_in, lacking, walls_here

LANDLOCK = 444  # landlock_create_ruleset, on every architecture
FIRST_WITH_TCP = 4


def in_a_closed_process(act: Callable[[], object]) -> str:
    """Return "done", or the name of the error that an act ends in after `close_in`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        close_in()
        try:
            act()
            said = "done"
        except OSError as exc:
            said = type(exc).__name__ + f" {exc.errno}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_the_reading_process_writes_no_file(tmp_path: Path) -> None:
    (there := tmp_path / "there").write_text("x")
    assert in_a_closed_process(lambda: there.write_text("more")) != "done"
    assert in_a_closed_process(there.read_text) == "done"
    if Walled.WRITES in walls_here():
        assert in_a_closed_process((tmp_path / "new").touch) != "done"
        assert in_a_closed_process(there.unlink) != "done"
        assert in_a_closed_process(lambda: there.rename(tmp_path / "moved")) != "done"
    assert there.exists()


def reach(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=5).close()


def test_the_reading_process_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        act = partial(reach, server.getsockname())
        act()
        if {Walled.NETWORK, Walled.TCP} & {*walls_here()}:
            assert in_a_closed_process(act) != "done"


def test_a_child_process_is_walled_in_too(tmp_path: Path) -> None:
    made = tmp_path / "made"
    in_a_closed_process(lambda: subprocess.run(["/bin/sh", "-c", f"echo x > {made}"], check=False, capture_output=True))  # noqa: S603
    assert not made.exists() or made.stat().st_size == 0


def landlock_version() -> int:
    """Return the kernel's answer, not the sandbox's: below 1 it has no Landlock, or the container forbids it."""
    version: int = ctypes.CDLL(None).syscall(LANDLOCK, None, ctypes.c_size_t(0), 1)
    return version


def test_every_wall_that_this_kernel_has_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    taken, version = walls_here(), landlock_version()
    assert Walled.BYTES in taken
    assert (Walled.WRITES in taken) == (version >= 1)
    assert (Walled.TCP in taken) == (version >= FIRST_WITH_TCP)
    # No skip: with CI=true that fails, and a kernel without Landlock is no fault of ours.
    for wall in (wall for wall in Walled if wall not in taken):
        with capsys.disabled():
            sys.stdout.write(f"\nnot tried on this machine: {wall}\n")


ALL = tuple(Walled)
IN_A_POD = (Walled.BYTES, Walled.WRITES, Walled.TCP)  # the default seccomp profile forbids namespaces


@pytest.mark.parametrize(
    ("taken", "missing", "enough"),
    [
        (ALL, [], True),
        ((Walled.BYTES, Walled.WRITES, Walled.NETWORK), [], True),
        (IN_A_POD, [Walled.NETWORK], True),
        ((Walled.BYTES, Walled.WRITES), [Walled.NETWORK, Walled.TCP], False),
        ((Walled.BYTES, Walled.NETWORK), [Walled.WRITES], False),
        ((), [Walled.NETWORK, Walled.TCP, Walled.WRITES, Walled.BYTES], False),
    ],
)
def test_which_walls_are_missed_and_which_are_enough(
    taken: Sequence[Walled], missing: Sequence[Walled], *, enough: bool
) -> None:
    assert lacking(taken) == missing
    assert are_enough(taken) is enough


def template_behind(*walls: Walled) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.ingest.lying_template", *walls)


@pytest.mark.anyio
async def test_a_missing_wall_is_said_once_a_parser(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(), template_behind(*IN_A_POD)) as parser:
        assert await parser.walls() == IN_A_POD
        await parser.stop()
        await parser.parse(file)
    assert caplog.messages == [f"parser walls missing: {Walled.NETWORK}"]


@pytest.mark.anyio
async def test_a_parser_behind_every_wall_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_parser(ParserSettings(require_walls=True), template_behind(*ALL)) as parser:
        assert await parser.walls() == ALL
    assert caplog.messages == []


@pytest.mark.anyio
async def test_where_walls_are_required_a_parser_without_them_does_not_start(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(require_walls=True), template_behind(Walled.BYTES)) as parser:
        with pytest.raises(NoParser, match="REQUIRE_WALLS"):
            await parser.walls()
        with pytest.raises(NoParser):
            await parser.parse(file)


@pytest.mark.anyio
async def test_the_template_says_which_walls_its_forks_take() -> None:
    async with open_parser(ParserSettings()) as parser:
        assert await parser.walls() == walls_here()


@pytest.mark.anyio
async def test_a_process_that_does_not_start_is_no_parser() -> None:
    async with open_parser(ParserSettings(), (sys.executable, "-c", "")) as parser:
        with pytest.raises(NoParser, match="does not start"):
            await parser.walls()
