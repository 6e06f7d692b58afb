"""Confining the process that calls: Landlock, capabilities, resource limits, and putting a seccomp filter in force.

    landlock_abi     what the kernel's Landlock knows; 0 where there is none
    ruleset          a Landlock ruleset that allows reading some files and folders, and writing in one
    drop_privileges  no capability, and no way to regain one by executing a file
    confine          the ruleset, then the filter, in force for the calling thread and all that it starts

Landlock does not govern stat, chmod, chown, utime, extended attributes, Unix sockets and UDP: the filter (syscalls.py)
refuses all of these but stat. Every error is an OSError: a process that could not be confined must not go on.
Standard library alone: the fork server loads this file by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on all architectures
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_RIGHTS_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files each ABI knows; the later ones know as many as the fifth."""
_TCP, _SCOPES = 3, 3
_QUIET = 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 36, 38, 47

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: object, what: str) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments), what)


def _prctl(option: int, *arguments: int, what: str) -> int:
    given = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(ctypes.c_int(option), *given), what)


def landlock_abi() -> int:
    """The version of Landlock's interface in the running kernel; 0 where it is absent or switched off."""
    try:
        version = ctypes.c_uint(1)
        return _syscall(_CREATE, ctypes.c_void_p(None), ctypes.c_size_t(0), version, what="landlock")
    except OSError:
        return 0


def _allow(ruleset_fd: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)
        _syscall(
            _ADD, ctypes.c_int(ruleset_fd), ctypes.c_int(1), rule, ctypes.c_uint(0), what=f"landlock_add_rule({path})"
        )
    finally:
        os.close(opened)


def ruleset(readable: Iterable[str], devices: Iterable[str], scratch: str) -> int:
    """A file descriptor of a ruleset that handles every right the kernel knows, TCP and scopes too. Files and folders
    in `readable` may be read, devices also written, and in `scratch` regular files, folders and links made."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError("this kernel has no Landlock")
    handled = (1 << _RIGHTS_KNOWN.get(abi, 16)) - 1
    packed = struct.pack("=QQQ", handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    opened = _syscall(
        *(_CREATE, ctypes.create_string_buffer(packed, 24), ctypes.c_size_t(size), ctypes.c_uint(0)),
        what="landlock_create_ruleset",
    )
    reading = _READ_FILE | _READ_DIR
    writing = _WRITE_FILE | _TRUNCATE
    making = _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
    for path in readable:
        _allow(opened, path, reading & handled)
    for path in devices:
        _allow(opened, path, (reading | writing) & handled)
    _allow(opened, scratch, (reading | writing | making) & handled)
    return opened


def drop_privileges() -> None:
    """Give up every capability, and the way back to them."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, what="no_new_privs")
    with contextlib.suppress(OSError):  # beyond the last one, or not a superuser, who has none to drop
        for capability in range(64):
            _prctl(_PR_CAPBSET_DROP, capability, what="capbset_drop")
    with contextlib.suppress(OSError):
        _prctl(_PR_CAP_AMBIENT, 4, what="cap_ambient")
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    _checked(_libc.capset(header, ctypes.create_string_buffer(24)), "capset")


def dumpable(is_so: bool) -> None:
    """Whether other processes of the same user may look into this one."""
    _prctl(_PR_SET_DUMPABLE, int(is_so), what="dumpable")


def die_with_parent(signal_number: int) -> None:
    """Get that signal when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, what="pdeathsig")


def adopt_orphans() -> None:
    """Become the parent of all that descends from this process when its own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, what="subreaper")


def limit(cpu_seconds: float, memory_bytes: int, file_bytes: int) -> None:
    """Resource limits of the calling process, soft and hard alike. Processor time is in whole seconds and a second
    more than asked: the fork server reads the clock of the process itself."""
    seconds = int(cpu_seconds) + 2
    stack = min(64 << 20, memory_bytes // 4)  # the kernel keeps 128 MiB free below the stack of a process
    for which, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, stack),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def limit_tasks(count: int) -> None:
    """Limit the threads of the user, as its own namespace counts them; the kernel does not hold the machine's root
    to it."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    value = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (value, value))


def confine(ruleset_fd: int | None, program: bytes) -> None:
    """Put the ruleset and then the filter in force. There is no way back."""
    if ruleset_fd is not None:
        flags = ctypes.c_uint(_QUIET if landlock_abi() >= 7 else 0)
        _syscall(_RESTRICT, ctypes.c_int(ruleset_fd), flags, what="landlock_restrict_self")
    steps = ctypes.create_string_buffer(program, len(program))
    filter_ = _Program(len(program) // 8, ctypes.cast(steps, ctypes.c_void_p))
    given = (ctypes.c_ulong(2), ctypes.byref(filter_), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_SECCOMP), *given), "seccomp")
