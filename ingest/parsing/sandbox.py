"""The sandbox of a process that reads a file: before it opens the file it gives up network and writing to files.

Both come from the kernel and need no privilege, but a container may forbid them: a restriction that is refused is left
out, and `enter_sandbox` returns those in force; `available_restrictions` tries it out beforehand. Resource limits
(memory, CPU seconds) are set beside it and are never refused.
"""

import ctypes
import os
import resource
from collections.abc import Collection, Iterator
from enum import StrEnum

# Linux: clone(2), prctl(2), landlock_create_ruleset(2). Landlock's calls have the same numbers on every architecture.
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
# write, remove folder and file, make of every kind (bits 4 to 12); from version 2 on move, from 3 on truncate
_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 13))
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11  # bind and connect, from version 4 on


class Restriction(StrEnum):
    """What a process in the sandbox can no longer do, and by which means."""

    NETWORK = "no network: a namespace of its own without interfaces"
    TCP = "no TCP: Landlock"
    WRITES = "no file is made, changed or removed: Landlock"
    BYTES = "no byte is written to a file: RLIMIT_FSIZE"


# One of each group at least, where the sandbox is required: without a network namespace Landlock still forbids TCP.
_REQUIRED = ((Restriction.BYTES,), (Restriction.WRITES,), (Restriction.NETWORK, Restriction.TCP))


def missing_restrictions(in_force: Collection[Restriction]) -> list[Restriction]:
    """Return the restrictions that were refused; TCP is not missing where there is no network at all."""
    without_network = Restriction.NETWORK in in_force
    return [r for r in Restriction if r not in in_force and not (r is Restriction.TCP and without_network)]


def are_sufficient(in_force: Collection[Restriction]) -> bool:
    """Tell whether a process under these restrictions writes to no file and speaks no TCP."""
    return all(any(restriction in in_force for restriction in group) for group in _REQUIRED)


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


def enter_sandbox() -> tuple[Restriction, ...]:
    """Give up network and files for good, in this process and its children; only in a process of one thread."""
    return tuple(_restricted())


def available_restrictions() -> tuple[Restriction, ...]:
    """Return what `enter_sandbox` would return here, tried in a fork; only in a process of one thread."""
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


def _restricted() -> Iterator[Restriction]:
    kernel = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    yield Restriction.BYTES
    # As root without a user namespace, in which root could no longer read other owners' files.
    if kernel.unshare(_CLONE_NEWNET) == 0 or kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        yield Restriction.NETWORK
    yield from _landlocked(kernel)


def _landlocked(kernel: ctypes.CDLL) -> Iterator[Restriction]:
    version = kernel.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return
    files = _WRITES | (_MOVE if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    with_tcp = version >= 4
    ruleset = _Ruleset(files, _TCP if with_tcp else 0)
    size = ctypes.c_size_t(ctypes.sizeof(_Ruleset) if with_tcp else 8)
    rules = kernel.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if rules < 0:
        return
    try:
        unprivileged = kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        if unprivileged and kernel.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0:
            yield Restriction.WRITES
            if with_tcp:
                yield Restriction.TCP
    finally:
        os.close(rules)
