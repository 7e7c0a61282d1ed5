"""A seccomp filter that a process puts on itself: no sockets, no signals, no look into other processes, no mounts.

Nor does root set the clock or the name of the machine, or restart it.

A list of what is refused, not of what is allowed: interpreters, parsers and tesseract of each distribution call
something else, and files are walled in by Landlock (`sandbox`). The filter is a classic BPF program (seccomp(2)) over
the number of the call and its arguments; a call by another architecture's or by x32's numbers is refused too.
"""

import ctypes
import errno
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from struct import pack
from typing import Final

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # the low 16 bits of a refusal are its errno
_LOAD, _EQUALS, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half comes first
_X32 = 0x40000000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a new namespace would give back what was given up.
_NAMESPACES: Final = 0x7E020000

# The same numbers on both architectures.
_RECENT: Final = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "process_mrelease": 448,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Architecture:
    """Its audit number, the calls that it refuses by number, and those of which arguments are looked at."""

    number: int
    refused: Mapping[str, int]
    clone: int
    prlimit64: int


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(
        0xC000003E,
        {
            "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
            "socketpair": 53, "accept4": 288, "sendmmsg": 307, "kill": 62, "tkill": 200, "tgkill": 234,
            "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101, "process_vm_readv": 310,
            "process_vm_writev": 311, "kcmp": 312, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166,
            "pivot_root": 155, "chroot": 161, "bpf": 321, "perf_event_open": 298, "add_key": 248, "request_key": 249,
            "keyctl": 250, "userfaultfd": 323, "open_by_handle_at": 304, "init_module": 175, "delete_module": 176,
            "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320, "setpriority": 141,
            "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314,
            "ioprio_set": 251, "migrate_pages": 256, "move_pages": 279, "shmget": 29, "shmat": 30, "shmctl": 31,
            "semget": 64, "semop": 65, "semctl": 66, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71,
            "mq_open": 240, "mq_unlink": 241,
            "reboot": 169, "swapon": 167, "swapoff": 168, "sethostname": 170, "setdomainname": 171,
            "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305, "acct": 163,
            "quotactl": 179, "syslog": 103, "fanotify_init": 300, "iopl": 172, "ioperm": 173,
        },
        clone=56,
        prlimit64=302,
    ),
    "aarch64": _Architecture(
        0xC00000B7,
        {
            "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202, "connect": 203, "sendto": 206,
            "sendmsg": 211, "accept4": 242, "sendmmsg": 269, "kill": 129, "tkill": 130, "tgkill": 131,
            "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117, "process_vm_readv": 270,
            "process_vm_writev": 271, "kcmp": 272, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39,
            "pivot_root": 41, "chroot": 51, "bpf": 280, "perf_event_open": 241, "add_key": 217, "request_key": 218,
            "keyctl": 219, "userfaultfd": 282, "open_by_handle_at": 265, "init_module": 105, "delete_module": 106,
            "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294, "setpriority": 140,
            "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "sched_setattr": 274,
            "ioprio_set": 30, "migrate_pages": 238, "move_pages": 239, "shmget": 194, "shmctl": 195, "shmat": 196,
            "semget": 190, "semctl": 191, "semop": 193, "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189,
            "mq_open": 180, "mq_unlink": 181,
            "reboot": 142, "swapon": 224, "swapoff": 225, "sethostname": 161, "setdomainname": 162,
            "settimeofday": 170, "clock_settime": 112, "adjtimex": 171, "clock_adjtime": 266, "acct": 89,
            "quotactl": 60, "syslog": 116, "fanotify_init": 262,
        },
        clone=220,
        prlimit64=261,
    ),
}  # fmt: skip
_CLONE3: Final = 435  # its flags are in memory that a filter cannot see: "not there" makes the C library use clone


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refused_calls() -> Mapping[str, int]:
    """Return the numbers of the calls that are refused on this machine, whatever their arguments; none if unknown."""
    architecture = _ARCHITECTURES.get(platform.machine())
    return {**architecture.refused, **_RECENT} if architecture else {}


def refuse_calls() -> bool:
    """Put the filter on this thread and its children for good; return whether the kernel took it."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    code = program_for(platform.machine())
    program = _Program(len(code) // 8, code)
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def program_for(machine: str) -> bytes:
    """Return the filter for a machine by the name that `uname` gives it; a KeyError if it is unknown."""
    return b"".join(_instructions(_ARCHITECTURES[machine]))


def _instructions(architecture: _Architecture) -> Iterator[bytes]:
    """Yield the program's instructions, `struct sock_filter` each: code, jump if true, jump if false, operand."""

    def step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return pack("<HBBI", code, if_true, if_false, operand)

    refuse = step(_RETURN, _REFUSE | errno.EPERM)
    yield step(_LOAD, _ARCHITECTURE)
    yield step(_EQUALS, architecture.number, 1, 0)
    yield step(_RETURN, _KILL)
    yield step(_LOAD, _NUMBER)
    yield from (step(_AT_LEAST, _X32, 0, 1), refuse)
    for number in (*architecture.refused.values(), *_RECENT.values()):
        yield from (step(_EQUALS, number, 0, 1), refuse)
    yield from (step(_EQUALS, _CLONE3, 0, 1), step(_RETURN, _REFUSE | errno.ENOSYS))
    # clone makes no namespace; prlimit64 is about the caller itself, which is 0.
    yield from (step(_EQUALS, architecture.clone, 0, 3), step(_LOAD, _FIRST_ARGUMENT))
    yield from (step(_ANY_BIT, _NAMESPACES, 0, 1), refuse)
    yield step(_LOAD, _NUMBER)
    yield from (step(_EQUALS, architecture.prlimit64, 0, 3), step(_LOAD, _FIRST_ARGUMENT))
    yield from (step(_EQUALS, 0, 1, 0), refuse)
    yield step(_RETURN, _ALLOW)
