"""The sandbox of the process that reads files: what it can no longer do, and what is said where that is missing."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from ingest.parsing.process import ParserSettings, ParserUnavailable, open_parser
from ingest.parsing.sandbox import (
    Restriction,
    are_sufficient,
    available_restrictions,
    enter_sandbox,
    missing_restrictions,
)
from tests.ingest.lying_fork_server import PROGRAM as LYING

LANDLOCK = 444  # landlock_create_ruleset, on every architecture
FIRST_WITH_TCP = 4


def in_a_closed_process(act: Callable[[], object]) -> str:
    """Return "done", or the name of the error that an act ends in after `close_in`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        enter_sandbox()
        try:
            act()
            result = "done"
        except OSError as exc:
            result = type(exc).__name__ + f" {exc.errno}"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result


def test_the_reading_process_writes_no_file(tmp_path: Path) -> None:
    (there := tmp_path / "there").write_text("x")
    assert in_a_closed_process(lambda: there.write_text("more")) != "done"
    assert in_a_closed_process(there.read_text) == "done"
    if Restriction.WRITES in available_restrictions():
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
        if {Restriction.NETWORK, Restriction.TCP} & {*available_restrictions()}:
            assert in_a_closed_process(act) != "done"


def test_a_child_process_is_in_the_sandbox_too(tmp_path: Path) -> None:
    made = tmp_path / "made"
    in_a_closed_process(lambda: subprocess.run(["/bin/sh", "-c", f"echo x > {made}"], check=False, capture_output=True))  # noqa: S603
    assert not made.exists() or made.stat().st_size == 0


def landlock_version() -> int:
    """Return the kernel's answer, not the sandbox's: below 1 it has no Landlock, or the container forbids it."""
    version: int = ctypes.CDLL(None).syscall(LANDLOCK, None, ctypes.c_size_t(0), 1)
    return version


def test_every_restriction_that_this_kernel_has_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    taken, version = available_restrictions(), landlock_version()
    assert Restriction.BYTES in taken
    assert (Restriction.WRITES in taken) == (version >= 1)
    assert (Restriction.TCP in taken) == (version >= FIRST_WITH_TCP)
    # No skip: with CI=true that fails, and a kernel without Landlock is no fault of ours.
    for restriction in (restriction for restriction in Restriction if restriction not in taken):
        with capsys.disabled():
            sys.stdout.write(f"\nnot tried on this machine: {restriction}\n")


ALL = tuple(Restriction)
IN_A_POD = (Restriction.BYTES, Restriction.WRITES, Restriction.TCP)  # the default seccomp profile forbids namespaces


@pytest.mark.parametrize(
    ("taken", "missing", "enough"),
    [
        (ALL, [], True),
        ((Restriction.BYTES, Restriction.WRITES, Restriction.NETWORK), [], True),
        (IN_A_POD, [Restriction.NETWORK], True),
        ((Restriction.BYTES, Restriction.WRITES), [Restriction.NETWORK, Restriction.TCP], False),
        ((Restriction.BYTES, Restriction.NETWORK), [Restriction.WRITES], False),
        ((), [Restriction.NETWORK, Restriction.TCP, Restriction.WRITES, Restriction.BYTES], False),
    ],
)
def test_which_restrictions_are_missed_and_which_are_enough(
    taken: Sequence[Restriction], missing: Sequence[Restriction], *, enough: bool
) -> None:
    assert missing_restrictions(taken) == missing
    assert are_sufficient(taken) is enough


def fork_server_with(*restrictions: Restriction) -> tuple[str, ...]:
    return (*LYING, *restrictions)


@pytest.mark.anyio
async def test_a_missing_restriction_is_said_once_a_parser(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(), fork_server_with(*IN_A_POD)) as parser:
        assert await parser.restrictions() == IN_A_POD
        await parser.stop()
        await parser.parse(file)
    assert caplog.messages == [f"parser_walls_missing: {Restriction.NETWORK}"]


@pytest.mark.anyio
async def test_a_parser_under_every_restriction_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_parser(ParserSettings(require_walls=True), fork_server_with(*ALL)) as parser:
        assert await parser.restrictions() == ALL
    assert caplog.messages == []


@pytest.mark.anyio
async def test_where_restrictions_are_required_a_parser_without_them_does_not_start(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(require_walls=True), fork_server_with(Restriction.BYTES)) as parser:
        with pytest.raises(ParserUnavailable, match="REQUIRE_WALLS"):
            await parser.restrictions()
        with pytest.raises(ParserUnavailable):
            await parser.parse(file)


@pytest.mark.anyio
async def test_the_fork_server_names_the_restrictions_of_its_forks() -> None:
    async with open_parser(ParserSettings()) as parser:
        assert await parser.restrictions() == available_restrictions()


@pytest.mark.anyio
async def test_a_process_that_does_not_start_is_no_parser_and_no_fault_of_a_file(tmp_path: Path) -> None:
    (good := tmp_path / "good").write_bytes(b"")
    async with open_parser(ParserSettings(), (sys.executable, "-c", "")) as parser:
        for use in (parser.restrictions, partial(parser.parse, good), partial(parser.preview, good, 1)):
            with pytest.raises(ParserUnavailable, match="does not start"):
                await use()
