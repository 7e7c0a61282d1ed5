"""A seccomp filter for the current process: no sockets, signals, access to other processes, or mounts.

It is a deny list because interpreters, parsers and tesseract make different calls on each distribution; files are
protected by Landlock (`sandbox`). The filter is a classic BPF program (seccomp(2)) over the call's number and
arguments. A call through another architecture kills the process; calls through x32 are refused.
"""

import ctypes
import errno
import platform
import re
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
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a new namespace would restore dropped rights.
_NAMESPACES: Final = 0x7E020000

_TABLE: Final = """
    socket 41 198  connect 42 203  accept 43 202  sendto 44 206  sendmsg 46 211  bind 49 200  listen 50 201
    socketpair 53 199  accept4 288 242  sendmmsg 307 269  kill 62 129  tkill 200 130  tgkill 234 131
    rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240  ptrace 101 117  process_vm_readv 310 270
    process_vm_writev 311 271  kcmp 312 272  unshare 272 97  setns 308 268  mount 165 40  umount2 166 39
    pivot_root 155 41  chroot 161 51  bpf 321 280  perf_event_open 298 241  add_key 248 217  request_key 249 218
    keyctl 250 219  userfaultfd 323 282  open_by_handle_at 304 265  init_module 175 105  delete_module 176 106
    finit_module 313 273  kexec_load 246 104  kexec_file_load 320 294  setpriority 141 140  sched_setparam 142 118
    sched_setscheduler 144 119  sched_setaffinity 203 122  sched_setattr 314 274  ioprio_set 251 30
    migrate_pages 256 238  move_pages 279 239  shmget 29 194  shmat 30 196  shmctl 31 195  semget 64 190  semop 65 193
    semctl 66 191  msgget 68 186  msgsnd 69 189  msgrcv 70 188  msgctl 71 187  mq_open 240 180  mq_unlink 241 181
    reboot 169 142  swapon 167 224  swapoff 168 225  sethostname 170 161  setdomainname 171 162  settimeofday 164 170
    clock_settime 227 112  adjtimex 159 171  clock_adjtime 305 266  acct 163 89  quotactl 179 60  syslog 103 116
    fanotify_init 300 262  iopl 172 -  ioperm 173 -  pidfd_send_signal 424 424  io_uring_setup 425 425
    io_uring_enter 426 426  io_uring_register 427 427  open_tree 428 428  move_mount 429 429  fsopen 430 430
    fsconfig 431 431  fsmount 432 432  fspick 433 433  pidfd_open 434 434  pidfd_getfd 438 438
    process_madvise 440 440  mount_setattr 442 442  process_mrelease 448 448
"""
_REFUSED: Final = re.findall(r"(\w+) (\d+) (\d+|-)", _TABLE)
"""The refused calls with their numbers on x86_64 and aarch64 ("-": absent there)."""


@dataclass(frozen=True, slots=True)
class _Architecture:
    """An architecture's audit number, its refused calls, and the calls whose arguments are checked."""

    number: int
    refused: Mapping[str, int]
    clone: int
    prlimit64: int


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(0xC000003E, {name: int(x86) for name, x86, _ in _REFUSED}, clone=56, prlimit64=302),
    "aarch64": _Architecture(
        0xC00000B7, {name: int(arm) for name, _, arm in _REFUSED if arm != "-"}, clone=220, prlimit64=261
    ),
}
_CLONE3: Final = 435  # a filter can't read its flags (in memory); ENOSYS makes the C library fall back to clone


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_calls() -> bool:
    """Install the filter for this thread and its children; return whether the kernel accepted it."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    code = program_for(platform.machine())
    program = _Program(len(code) // 8, code)
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def program_for(machine: str) -> bytes:
    """Return the filter for a machine name from `uname`; raise KeyError if it is unknown."""
    return b"".join(_instructions(_ARCHITECTURES[machine]))


def _instructions(architecture: _Architecture) -> Iterator[bytes]:
    """Yield the program's instructions (`struct sock_filter`: code, jump if true, jump if false, operand)."""

    def step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return pack("<HBBI", code, if_true, if_false, operand)

    refuse = step(_RETURN, _REFUSE | errno.EPERM)
    yield step(_LOAD, _ARCHITECTURE)
    yield step(_EQUALS, architecture.number, 1, 0)
    yield step(_RETURN, _KILL)
    yield step(_LOAD, _NUMBER)
    yield from (step(_AT_LEAST, _X32, 0, 1), refuse)
    for number in architecture.refused.values():
        yield from (step(_EQUALS, number, 0, 1), refuse)
    yield from (step(_EQUALS, _CLONE3, 0, 1), step(_RETURN, _REFUSE | errno.ENOSYS))
    # clone may not create a namespace; prlimit64 may only target the caller itself (0).
    yield from (step(_EQUALS, architecture.clone, 0, 3), step(_LOAD, _FIRST_ARGUMENT))
    yield from (step(_ANY_BIT, _NAMESPACES, 0, 1), refuse)
    yield step(_LOAD, _NUMBER)
    yield from (step(_EQUALS, architecture.prlimit64, 0, 3), step(_LOAD, _FIRST_ARGUMENT))
    yield from (step(_EQUALS, 0, 1, 0), refuse)
    yield step(_RETURN, _ALLOW)
