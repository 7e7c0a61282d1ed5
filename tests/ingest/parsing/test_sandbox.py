"""The sandbox of the process that reads files: the calls that it refuses, and the log of a missing restriction."""

import ctypes
import errno
import importlib
import json.decoder
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

import ingest.parsing
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


def in_a_closed_process(act: Callable[[], object], document: Path | None = None, user: int | None = None) -> str:
    """Return "done", or the name of the error that an act ends in within the sandbox, there as another user."""
    reader, writer = os.pipe()
    result = "it died"
    child = os.fork()
    if child == 0:
        try:
            if user is not None:
                os.setuid(user)
            enter_sandbox(document)
            act()
            result = "done"
        except OSError as exc:
            result = type(exc).__name__ + f" {exc.errno}"
        finally:
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
    assert in_a_closed_process(there.read_text, there) == "done"
    if Restriction.WRITES in available_restrictions():
        assert in_a_closed_process((tmp_path / "new").touch) != "done"
        assert in_a_closed_process(there.unlink) != "done"
        assert in_a_closed_process(lambda: there.rename(tmp_path / "moved")) != "done"
    assert there.exists()


def test_the_reading_process_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        act = partial(socket.create_connection, server.getsockname(), timeout=5)
        act().close()
        if {Restriction.NETWORK, Restriction.TCP} & {*available_restrictions()}:
            assert in_a_closed_process(act) != "done"


def test_every_restriction_that_this_kernel_has_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    # The kernel's answer, not the sandbox's: below 1 it has no Landlock, or the container forbids it.
    taken, version = available_restrictions(), ctypes.CDLL(None).syscall(LANDLOCK, None, ctypes.c_size_t(0), 1)
    assert Restriction.FILE_WRITES in taken
    assert (Restriction.WRITES in taken) == (Restriction.READS in taken) == (version >= 1)
    assert (Restriction.CALLS in taken) == (platform.machine() in {"x86_64", "aarch64"})
    assert (Restriction.TCP in taken) == (version >= FIRST_WITH_TCP)
    # No skip: with CI=true that fails, and a kernel without Landlock is no fault of ours.
    for restriction in (restriction for restriction in Restriction if restriction not in taken):
        with capsys.disabled():
            sys.stdout.write(f"\nnot tried on this machine: {restriction}\n")


NOBODY = 65534
REFUSED = f"PermissionError {errno.EACCES}"


@pytest.mark.parametrize("user", [None, NOBODY] if os.getuid() == 0 else [None])
def test_the_reading_process_sees_its_document_and_its_libraries_only(tmp_path: Path, user: int | None) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in str(folder):  # which closes its folders to other users
            folder.chmod(0o755)
    document, key = tmp_path / "document.pdf", tmp_path / "signing.key"
    for file in (document, key):
        file.write_text("x")
        file.chmod(0o644)
    if Restriction.READS not in available_restrictions():
        return  # `test_every_restriction…` says so
    inside = partial(in_a_closed_process, document=document, user=user)
    assert inside(document.read_text) == "done"
    assert inside(lambda: subprocess.run(["/bin/true"], check=True)) == "done"
    if user is None:  # another may not be let into this interpreter's folder
        assert inside(lambda: importlib.reload(json.decoder)) == "done"
    assert inside(key.read_text) == REFUSED
    assert inside(lambda: [*tmp_path.iterdir()]) == REFUSED
    assert inside(Path(f"/proc/{os.getpid()}/environ").read_bytes) == REFUSED
    assert inside(Path("/etc/passwd").read_bytes) == REFUSED
    beside = Path(ingest.parsing.__file__).parents[2] / "pyproject.toml"
    assert inside(beside.read_bytes) in (REFUSED, f"FileNotFoundError {errno.ENOENT}")  # installed there is none


@pytest.mark.parametrize("user", [None, NOBODY] if os.getuid() == 0 else [None])
def test_the_reading_process_sends_no_signal_and_opens_no_socket(user: int | None) -> None:
    if Restriction.CALLS not in available_restrictions():
        return
    refused = f"PermissionError {errno.EPERM}"
    acts: list[Callable[[], object]] = [
        partial(os.kill, os.getppid(), 0),
        partial(os.kill, os.getpid(), signal.SIGTERM),
        partial(os.killpg, os.getpgid(0), 0),
        partial(signal.pidfd_send_signal, 0, 0),
        partial(resource.prlimit, os.getpid(), resource.RLIMIT_NOFILE),
        *(partial(socket.socket, family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK)),
        socket.socketpair,
    ]
    assert {in_a_closed_process(act, user=user) for act in acts} == {refused}


ALL = tuple(Restriction)
BYTES, WRITES, READS, CALLS = Restriction.FILE_WRITES, Restriction.WRITES, Restriction.READS, Restriction.CALLS
# The default seccomp profile of a pod forbids namespaces.
IN_A_POD = (BYTES, WRITES, Restriction.TCP, READS, CALLS)


@pytest.mark.parametrize(("taken", "missing", "enough"), [
    (ALL, [], True), (IN_A_POD, [], True), ((BYTES, WRITES, READS, CALLS), [], True), ((), list(Restriction), False),
    ((BYTES, WRITES, READS, Restriction.NETWORK), [CALLS], False), ((BYTES, CALLS), [WRITES, READS], False),
])  # fmt: skip
def test_a_missing_restriction_is_named_unless_another_replaces_it(
    taken: Sequence[Restriction], missing: Sequence[Restriction], *, enough: bool
) -> None:
    assert missing_restrictions(taken) == missing
    assert are_sufficient(taken) is enough


@pytest.mark.anyio
async def test_a_missing_restriction_is_logged_once_a_parser(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(require_walls=True), (*LYING, *ALL)) as parser:
        assert await parser.restrictions() == ALL
    assert caplog.messages == []
    async with open_parser(ParserSettings(), (*LYING, BYTES, Restriction.NETWORK)) as parser:
        assert await parser.restrictions() == (BYTES, Restriction.NETWORK)
        await parser.stop()
        await parser.parse(file)
    assert caplog.messages == [f"parser_sandbox_layers_missing: {WRITES}; {READS}; {CALLS}"]


@pytest.mark.anyio
async def test_where_restrictions_are_required_a_parser_without_them_does_not_start(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"")
    async with open_parser(ParserSettings(require_walls=True), (*LYING, BYTES)) as parser:
        for use in (parser.restrictions, partial(parser.parse, file)):
            with pytest.raises(ParserUnavailable, match="REQUIRE_WALLS"):
                await use()


@pytest.mark.anyio
async def test_a_process_that_does_not_start_is_no_fault_of_a_file(tmp_path: Path) -> None:
    (good := tmp_path / "good").write_bytes(b"")
    async with open_parser(ParserSettings(), (sys.executable, "-c", "")) as parser:
        for use in (parser.restrictions, partial(parser.parse, good), partial(parser.preview, good, 1)):
            with pytest.raises(ParserUnavailable, match="does not start"):
                await use()
