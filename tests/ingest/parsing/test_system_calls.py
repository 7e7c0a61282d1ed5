"""The seccomp filter for each architecture, run call by call: what the kernel would do, on machines that are not here.

`unistd/*.txt` are the kernel's own numbers (Linux 6.12, include/uapi: `asm/unistd_64.h` of x86_64, and
`asm-generic/unistd.h`, which aarch64 uses); `refused.txt` has the names that must be refused. The interpreter follows
Documentation/networking/filter.rst.
"""

import errno
from pathlib import Path
from struct import pack, unpack, unpack_from

import pytest

from ingest.parsing.system_calls import program_for

NUMBERS = Path(__file__).parent / "unistd"
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # include/uapi/linux/audit.h
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
NOT_THERE = 0x00050000 | errno.ENOSYS
CLONE_NEWUSER, CLONE_NEWNET, CLONE_OF_A_THREAD = 0x10000000, 0x40000000, 0x3D0F00

REFUSED = frozenset((NUMBERS / "refused.txt").read_text().split())
NEEDED = ("read", "write", "openat", "close", "mmap", "brk", "futex", "exit_group", "execve", "wait4", "dup3", "clone")


def numbers(machine: str) -> dict[str, int]:
    lines = (NUMBERS / f"{machine}.txt").read_text().splitlines()
    return {name: int(number) for number, name in map(str.split, lines)}


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Return the filter's verdict on a call, as the kernel runs classic BPF."""
    data = pack("<iIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code = [unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = held = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x20:  # load a word: seccomp takes aligned ones within its data only
            assert operand % 4 == 0
            (held,) = unpack("<I", data[operand : operand + 4])
        elif operation == 0x06:
            return int(operand)
        else:
            holds = {0x15: held == operand, 0x35: held >= operand, 0x45: held & operand != 0}[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_each_call_of_the_kernel_is_refused_by_its_name_or_allowed(machine: str) -> None:
    program, arch = program_for(machine), AUDIT_ARCH[machine]
    known = numbers(machine)
    verdicts = {name: verdict(program, arch, number) for name, number in known.items()}
    assert {name for name, what in verdicts.items() if what == REFUSE} == REFUSED & set(known)
    assert {name for name, what in verdicts.items() if what not in (ALLOW, REFUSE)} == {"clone3"}
    assert verdicts["clone3"] == NOT_THERE
    assert all(verdicts[name] == ALLOW for name in NEEDED)
    assert REFUSED - set(known) <= {"iopl", "ioperm"}  # ARM has no ports


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_calls_by_other_numbers_and_with_other_arguments(machine: str) -> None:
    program, arch, number = program_for(machine), AUDIT_ARCH[machine], numbers(machine)
    for other in (AUDIT_ARCH["aarch64" if machine == "x86_64" else "x86_64"], 0x40000003, 0x40000028):
        assert verdict(program, other, number["read"]) == KILL
    assert verdict(program, arch, 0x40000000 | number["read"]) == REFUSE  # x32's
    assert verdict(program, arch, number["clone"], CLONE_OF_A_THREAD) == ALLOW
    for namespace in (CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNET | CLONE_OF_A_THREAD):
        assert verdict(program, arch, number["clone"], namespace) == REFUSE
    assert verdict(program, arch, number["prlimit64"], 0) == ALLOW
    assert verdict(program, arch, number["prlimit64"], 1) == REFUSE
