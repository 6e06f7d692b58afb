"""`python without_sandbox.py PROGRAM ARGUMENTS...`: execute a program where neither Landlock nor user namespaces exist,
as in some containers. A seccomp filter answers for the kernel; x86_64 and aarch64."""

from __future__ import annotations

import os
import sys

from selftrain.scoring.sandbox import confinement, syscalls

LANDLOCK = (444, 445, 446)
UNSHARE = {"x86_64": 272, "aarch64": 97}


def lacking_filter(machine: str) -> bytes:
    audit, table = syscalls.TABLES[machine]
    make = syscalls._instruction
    refuse, absent, allow = (make(syscalls._RETURN, value) for value in (0x50001, 0x50026, 0x7FFF0000))
    steps = [make(syscalls._LOAD, 4), make(syscalls._JEQ, audit, 1, 0), allow, make(syscalls._LOAD, 0)]
    for number in (*LANDLOCK, table["clone3"]):
        steps += [make(syscalls._JEQ, number, 0, 1), absent]
    steps += [make(syscalls._JEQ, UNSHARE[machine], 0, 1), refuse]
    steps += [make(syscalls._JEQ, table["clone"], 0, 3), syscalls._argument(0)]
    steps += [make(syscalls._JSET, 0x10000000, 0, 1), refuse, allow]
    return b"".join(steps)


if __name__ == "__main__":
    confinement.drop_privileges()
    confinement.confine(None, lacking_filter(syscalls.architecture()))
    os.execvp(sys.argv[1], sys.argv[1:])
