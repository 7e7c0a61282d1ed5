"""What the process that reads a file gives up before it opens it: the network and every way to write a file.

Both come from the kernel and need no privilege, but a container may forbid them: each step that is refused is left out,
and `close_in` says which were taken; `walls_here` tries it out beforehand. Resource limits (memory, CPU seconds) are
set beside it and are never refused.
"""

import ctypes
import os
import resource
from collections.abc import Collection, Iterator
from enum import StrEnum

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_NO_NEW_PRIVILEGES = 38
# Landlock's system calls have the same numbers on every architecture.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
# write, remove folder and file, make of every kind (bits 4 to 12); from version 2 on move, from 3 on truncate
_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 13))
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11  # bind and connect, from version 4 on


class Walled(StrEnum):
    """What a process can no longer do."""

    NETWORK = "no network: a namespace of its own without interfaces"
    TCP = "no TCP: Landlock"
    WRITES = "no file is made, changed or removed: Landlock"
    BYTES = "no byte is written to a file: RLIMIT_FSIZE"


# Of each of these one wall at least, where walls are required: without a network namespace Landlock still forbids TCP.
_REQUIRED = ((Walled.BYTES,), (Walled.WRITES,), (Walled.NETWORK, Walled.TCP))


def lacking(taken: Collection[Walled]) -> list[Walled]:
    """Return the walls that were refused; TCP is none of them where there is no network at all."""
    return [wall for wall in Walled if wall not in taken and not (wall is Walled.TCP and Walled.NETWORK in taken)]


def are_enough(taken: Collection[Walled]) -> bool:
    """Tell whether a process behind these walls writes to no file and speaks no TCP."""
    return all(any(wall in taken for wall in walls) for walls in _REQUIRED)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


def close_in() -> tuple[Walled, ...]:
    """Give up network and files for good, in this process and its children; only in a process of one thread."""
    return tuple(_closed_in())


def walls_here() -> tuple[Walled, ...]:
    """Return what `close_in` gives up here, tried in a fork; only in a process of one thread."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, "\n".join(close_in()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return tuple(map(Walled, said.splitlines()))


def _closed_in() -> Iterator[Walled]:
    kernel = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    yield Walled.BYTES
    # As root without a user namespace, in which root could no longer read other owners' files.
    if kernel.unshare(_NEW_NETWORK) == 0 or kernel.unshare(_NEW_USER | _NEW_NETWORK) == 0:
        yield Walled.NETWORK
    yield from _landlocked(kernel)


def _landlocked(kernel: ctypes.CDLL) -> Iterator[Walled]:
    version = kernel.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return
    files = _WRITES | (_MOVE if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    with_tcp = version >= 4
    ruleset = _Ruleset(files, _TCP if with_tcp else 0)
    size = ctypes.c_size_t(ctypes.sizeof(_Ruleset) if with_tcp else 8)
    rules = kernel.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if rules < 0:
        return
    try:
        if kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and kernel.syscall(_RESTRICT_SELF, rules, 0) == 0:
            yield Walled.WRITES
            if with_tcp:
                yield Walled.TCP
    finally:
        os.close(rules)
