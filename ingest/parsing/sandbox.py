"""Sandbox a file-reading process: it can access its file and libraries, but no network and no other process.

Every restriction comes from the kernel, needs no privilege and applies to root too. A container may forbid some of
them: those are skipped, `enter_sandbox` returns the ones in force, and `available_restrictions` tests them beforehand.
Resource limits (memory, CPU seconds) are set separately and are never refused.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from ingest.parsing.system_calls import refuse_calls

# Linux: clone(2), prctl(2), landlock_create_ruleset(2). Landlock's call numbers are the same on every architecture.
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_READS = _EXECUTE | _READ_FILE | _READ_FOLDER
# write, remove (folder, file), create any kind of file (bits 4 to 12); version 2 adds move, 3 adds truncate
_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 13))
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11  # bind and connect, since version 4
_SCOPES = 0b11  # abstract Unix sockets and signals out of the sandbox, since version 6

# Paths that Python, the parsers and tesseract read besides their own folders, if present.
_SYSTEM: Final = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/fonts", "/etc/localtime", "/etc/alternatives", "/etc/mime.types", "/dev/null", "/dev/zero", "/dev/urandom",
    "/dev/random", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip


class Restriction(StrEnum):
    """A restriction on a sandboxed process, and the mechanism that enforces it."""

    NETWORK = "no network: a separate namespace without interfaces"
    TCP = "no TCP: Landlock"
    WRITES = "no file is made, changed or removed: Landlock"
    FILE_WRITES = "no byte is written to a file: RLIMIT_FSIZE"
    READS = "no file is read but the document and the libraries: Landlock"
    CALLS = "no socket, no signal, no look into another process: seccomp"


_REQUIRED: Final = (Restriction.FILE_WRITES, Restriction.WRITES, Restriction.READS, Restriction.CALLS)


def missing_restrictions(in_force: Collection[Restriction]) -> list[Restriction]:
    """Return the restrictions that are not in force; those of the network only if nothing else blocks the network."""
    blocks_network = Restriction.CALLS in in_force or Restriction.NETWORK in in_force
    needless = {Restriction.NETWORK, Restriction.TCP} if blocks_network else set()
    return [r for r in Restriction if r not in in_force and r not in needless]


def are_sufficient(in_force: Collection[Restriction]) -> bool:
    """Return whether a process with these restrictions can read only its document, write no file and use no network."""
    return all(restriction in in_force for restriction in _REQUIRED)


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def enter_sandbox(document: Path | None = None) -> tuple[Restriction, ...]:
    """Irrevocably enter the sandbox with all future children; this process must have only one thread."""
    return tuple(_apply_restrictions(document))


def available_restrictions() -> tuple[Restriction, ...]:
    """Return the restrictions that `enter_sandbox` applies here, tested in a fork; needs a single-threaded process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, "\n".join(enter_sandbox()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read()
    os.waitpid(child, 0)
    return tuple(map(Restriction, names.splitlines()))


def _apply_restrictions(document: Path | None) -> Iterator[Restriction]:
    """Apply every restriction that the kernel allows to this process; yield each."""
    kernel = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    yield Restriction.FILE_WRITES
    # Root needs no user namespace, and inside one it couldn't read other owners' files.
    if kernel.unshare(_CLONE_NEWNET) == 0 or kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        yield Restriction.NETWORK
    yield from _apply_landlock(kernel, document)
    if refuse_calls():
        yield Restriction.CALLS


def _apply_landlock(kernel: ctypes.CDLL, document: Path | None) -> Iterator[Restriction]:
    """Restrict files and TCP with Landlock, if the kernel has it; yield the restrictions that are in force."""
    version = kernel.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return
    writes = _WRITES | (_MOVE if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    with_tcp = version >= 4
    ruleset = _Ruleset(writes | _READS, _TCP if with_tcp else 0, _SCOPES if version >= 6 else 0)
    fields = 1 + (version >= 4) + (version >= 6)  # a kernel refuses a longer struct than its own, each field 8 bytes
    rules = kernel.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(8 * fields), 0)
    if rules < 0:
        return
    try:
        paths = [*libraries(), document] if document else libraries()
        allows_paths = all(_allow_reading(kernel, rules, path) for path in paths)
        unprivileged = kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        if allows_paths and unprivileged and kernel.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0:
            yield Restriction.WRITES
            yield Restriction.READS
            if with_tcp:
                yield Restriction.TCP
    finally:
        os.close(rules)


def libraries() -> tuple[Path, ...]:
    """Return the existing files and folders that reading any document may need.

    Of a source folder on the import path, only the packages are returned, because data and keys may lie beside them.
    """
    installed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    packages = {Path(file).resolve().parent for name, file in _packages() if "." not in name}
    source_packages = {folder for folder in packages if not any(folder.is_relative_to(root) for root in installed)}
    paths = [*sorted(installed | source_packages), *map(Path, _SYSTEM)]
    return tuple(path for path in paths if os.access(path, os.F_OK))


def _packages() -> Iterator[tuple[str, str]]:
    """Yield the loaded packages with their files."""
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if hasattr(module, "__path__") and isinstance(file, str):
            yield name, file


def _allow_reading(kernel: ctypes.CDLL, rules: int, path: Path) -> bool:
    """Allow reading a file or a whole folder; return whether that succeeded, or this user can't reach the path."""
    with suppress(FileNotFoundError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = _Beneath(_READS if path.is_dir() else _EXECUTE | _READ_FILE, descriptor)
            status = kernel.syscall(_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0)
            return bool(status == 0)
        finally:
            os.close(descriptor)
    return True
