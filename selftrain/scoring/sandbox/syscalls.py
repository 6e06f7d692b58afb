"""Which system calls a candidate's process may make: a seccomp filter that allows a list and refuses all else.

A list of what is allowed stays closed when kernels learn new calls. It holds what Python with threads, files in its
scratch folder, socket pairs (asyncio), clocks and numpy needs. What Landlock governs (opening, making and removing
files) is allowed here; what it does not govern (chmod, chown, utime, extended attributes, truncate by path, readlink,
sockets, System V and POSIX queues, statfs, watching files) is not. Of one process nothing can make another, so its
address space limit bounds all of its memory.

The numbers are the kernel's, for x86_64 and aarch64. The filter was tested on x86_64; that of aarch64 was not run.
Standard library alone: the fork server loads this file by its path.
"""

from __future__ import annotations

import errno
import platform
import struct


def _table(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (entry.split() for entry in text.split(";") if entry.strip())}


_X86_64 = _table(
    """
    read 0; write 1; close 3; fstat 5; lstat 6; stat 4; poll 7; lseek 8; mmap 9; mprotect 10; munmap 11; brk 12;
    rt_sigaction 13; rt_sigprocmask 14; rt_sigreturn 15; pread64 17; pwrite64 18; readv 19; writev 20; access 21;
    pipe 22; select 23; sched_yield 24; mremap 25; msync 26; madvise 28; dup 32; dup2 33; pause 34; nanosleep 35;
    getitimer 36; alarm 37; setitimer 38; getpid 39; sendfile 40; recvfrom 45; recvmsg 47; shutdown 48;
    getsockname 51; getpeername 52; setsockopt 54; getsockopt 55; exit 60; wait4 61; uname 63; flock 73; fsync 74;
    fdatasync 75; ftruncate 77; getcwd 79; chdir 80; fchdir 81; rename 82; mkdir 83; rmdir 84; link 86; unlink 87;
    symlink 88; umask 95; gettimeofday 96; getrlimit 97; setrlimit 160; getrusage 98; sysinfo 99; times
    100; getuid 102; getgid 104; geteuid 107; getegid 108; getppid 110; getpgrp 111; getgroups 115; getresuid 118;
    getresgid 120; getpgid 121; getsid 124; rt_sigpending 127; rt_sigtimedwait 128; rt_sigsuspend 130; sigaltstack
    131; fstatfs 138; arch_prctl 158; gettid 186; futex 202; sched_getaffinity 204; getdents64 217; set_tid_address
    218; restart_syscall 219; fadvise64 221; clock_gettime 228; clock_getres 229; clock_nanosleep 230; exit_group
    231; epoll_wait 232; epoll_ctl 233; epoll_pwait 281; epoll_create1 291; mkdirat 258; newfstatat 262; unlinkat
    263; renameat 264; renameat2 316; linkat 265; symlinkat 266; faccessat 269; faccessat2 439;
    pselect6 270; ppoll 271; set_robust_list 273; timerfd_create 283; timerfd_settime 286; timerfd_gettime 287;
    signalfd4 289; eventfd2 290; dup3 292; pipe2 293; preadv 295; pwritev 296; preadv2 327; pwritev2 328; getcpu
    309; getrandom 318; membarrier 324; statx 332; rseq 334; close_range 436; waitid 247; ioctl 16; socketpair 53;
    sendto 44; clone 56; kill 62; tgkill 234; fcntl 72; prctl 157; openat 257; prlimit64 302; copy_file_range 326;
    clone3 435; openat2 437; io_uring_setup 425; io_uring_enter 426; io_uring_register 427; memfd_create 319;
    memfd_secret 447;
    """
)
_AARCH64 = _table(
    """
    read 63; write 64; close 57; fstat 80; lseek 62; mmap 222; mprotect 226; munmap 215; brk 214; rt_sigaction 134;
    rt_sigprocmask 135; rt_sigreturn 139; pread64 67; pwrite64 68; readv 65; writev 66; sched_yield 124; mremap 216;
    msync 227; madvise 233; dup 23; nanosleep 101; getitimer 102; setitimer 103; getpid 172; sendfile 71; recvfrom
    207; recvmsg 212; shutdown 210; getsockname 204; getpeername 205; setsockopt 208; getsockopt 209;
    exit 93; wait4 260; uname 160; flock 32; fsync 82; fdatasync 83; ftruncate 46; getcwd 17; chdir 49; fchdir 50;
    umask 166; gettimeofday 169; getrlimit 163; setrlimit 164; getrusage 165; sysinfo 179; times 153; getuid 174;
    getgid 176; geteuid 175; getegid 177; getppid 173; getgroups 158; getresuid 148; getresgid 150; getpgid 155;
    getsid 156; rt_sigpending 136; rt_sigtimedwait 137; rt_sigsuspend 133; sigaltstack 132; fstatfs 44; gettid 178;
    futex 98; sched_getaffinity 123; getdents64 61; set_tid_address 96; restart_syscall 128; fadvise64 223;
    clock_gettime 113; clock_getres 114; clock_nanosleep 115; exit_group 94; epoll_ctl 21; epoll_pwait 22;
    epoll_create1 20; mkdirat 34; newfstatat 79; unlinkat 35; renameat 38; renameat2 276; linkat 37; symlinkat 36;
    faccessat 48; faccessat2 439; pselect6 72; ppoll 73; set_robust_list 99; timerfd_create 85;
    timerfd_settime 86; timerfd_gettime 87; signalfd4 74; eventfd2 19; dup3 24; pipe2 59; preadv 69; pwritev 70;
    preadv2 286; pwritev2 287; getcpu 168; getrandom 278; membarrier 283; statx 291; rseq 293; close_range 436;
    waitid 95; ioctl 29; socketpair 199; sendto 206; clone 220; kill 129; tgkill 131; fcntl 25; prctl 167; openat
    56; prlimit64 261; copy_file_range 285; clone3 435; openat2 437; io_uring_setup 425; io_uring_enter 426;
    io_uring_register 427; memfd_create 279; memfd_secret 447;
    """
)

_JUDGED = (
    *("mmap", "ioctl", "socketpair", "sendto", "clone", "kill", "tgkill", "fcntl", "prctl", "openat", "prlimit64"),
    "setrlimit",
)
_MISSING = (
    *("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_create", "memfd_secret"),
    *("copy_file_range", "close_range"),
)
"""Answered with ENOSYS, upon which older calls are taken instead: clone3 hides its flags from a filter, and close_range
can give a thread descriptors of its own, in which nobody would look for files."""

TABLES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
TESTED = ("x86_64",)

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _ABSENT = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_PRETEND = _ERRNO
"""Not made, and answered with success."""
_LOAD, _JEQ, _JGE, _JGT, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x54, 0x06
_X32 = 0x40000000

_IOCTLS = (0x5401, 0x5413, 0x5421, 0x541B, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONBIO, FIONREAD, FIONCLEX, FIOCLEX. FIOASYNC and FIOSETOWN would send signals to others."""
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)
"""Duplicate, flags, locks, the size of a pipe. F_SETOWN with F_SETSIG would send any signal to any process."""
_PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory."""
_THREAD, _FILES = 0x10000, 0x400
_NAMESPACES = 0x7E020080
_O_ACCMODE_TRUNC = 0o1003
_O_TRUNC = 0o1000
_SIGKILL = 9
_MAP_STACK = 0x20000
_LEAST_STACK = 256 << 10


def architecture() -> str:
    """The machine's, as in TABLES, or whatever else it is called."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF)


def _argument(index: int, high: bool = False) -> bytes:
    """Load the lower (or upper) half of an argument; both architectures are little-endian."""
    return _instruction(_LOAD, 16 + 8 * index + 4 * high)


def _one_of(index: int, values: tuple[int, ...]) -> bytes:
    steps = [_argument(index)]
    for value in values:
        steps += [_instruction(_JEQ, value, 0, 1), _instruction(_RETURN, _ALLOW)]
    return b"".join(steps) + _instruction(_RETURN, _REFUSE)


def _to_itself(pid: int, signal_at: int) -> bytes:
    """Signals to its own process, but SIGKILL: dying by that one is a sign that the machine ran out of memory."""
    return b"".join(
        [
            _argument(0),
            _instruction(_JEQ, pid, 0, 2),
            _argument(signal_at),
            _instruction(_JEQ, _SIGKILL, 0, 1),
            _instruction(_RETURN, _REFUSE),
            _instruction(_RETURN, _ALLOW),
        ]
    )


def _judged(name: str, pid: int) -> bytes:
    """The steps for a call whose arguments decide; each way through them returns."""
    allow, refuse = _instruction(_RETURN, _ALLOW), _instruction(_RETURN, _REFUSE)
    match name:
        case "ioctl":
            return _one_of(1, _IOCTLS)
        case "fcntl":
            return _one_of(1, _FCNTLS)
        case "prctl":
            return _one_of(0, _PRCTLS)
        case "setrlimit":
            return _instruction(_RETURN, _PRETEND)
        case "prlimit64":  # solutions of contests ask for more stack; less processor time would look like the machine's
            own = _argument(0) + _instruction(_JEQ, 0, 1, 0) + refuse
            new = _argument(2) + _instruction(_JEQ, 0, 0, 3) + _argument(2, high=True) + _instruction(_JEQ, 0, 0, 1)
            return own + new + allow + _instruction(_RETURN, _PRETEND)
        case "kill":
            return _to_itself(pid, 1)
        case "tgkill":
            return _to_itself(pid, 2)
        case "clone":  # a thread that shares all descriptors, in no new namespace
            is_thread = _argument(0) + _instruction(_JSET, _THREAD, 0, 3) + _instruction(_JSET, _FILES, 0, 2)
            return is_thread + _instruction(_JSET, _NAMESPACES, 1, 0) + allow + refuse
        case "openat":  # O_TRUNC of a file opened for reading truncates it, which Landlock governs from ABI 3 only
            flags = _argument(2) + _instruction(_AND, _O_ACCMODE_TRUNC)
            return flags + _instruction(_JEQ, _O_TRUNC, 1, 0) + allow + refuse
        case "mmap":  # small stacks would make room for tens of thousands of threads in the address space allowed
            steps = _argument(3) + _instruction(_JSET, _MAP_STACK, 0, 5) + _argument(1, high=True)
            steps += _instruction(_JEQ, 0, 0, 3) + _argument(1) + _instruction(_JGE, _LEAST_STACK, 1, 0)
            return steps + _instruction(_RETURN, _ERRNO | errno.EAGAIN) + allow
        case "sendto":  # without an address
            nowhere = _argument(4) + _instruction(_JEQ, 0, 0, 3) + _argument(4, high=True)
            return nowhere + _instruction(_JEQ, 0, 0, 1) + allow + refuse
        case "socketpair":  # Unix and of type stream: a datagram socket could send to any other by its address
            pair = _argument(0) + _instruction(_JEQ, 1, 0, 4) + _argument(1) + _instruction(_AND, 0xF)
            return pair + _instruction(_JEQ, 1, 0, 1) + allow + refuse
    raise ValueError(name)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


_PID_TO_COME = 0x7EADBEEF


def for_process(program: bytes, pid: int) -> bytes:
    """The filter that was built without `pid`, for the process of that number in its own namespace."""
    return program.replace(_instruction(_JEQ, _PID_TO_COME, 0, 2), _instruction(_JEQ, pid, 0, 2))


def seccomp_filter(pid: int = _PID_TO_COME, machine: str | None = None) -> bytes:
    """The program, 8 bytes an instruction. KeyError on an architecture that TABLES lacks."""
    audit, table = TABLES[machine or architecture()]
    steps = [
        _instruction(_LOAD, 4),
        _instruction(_JEQ, audit, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, 0),
        _instruction(_JGE, _X32, 0, 1),
        _instruction(_RETURN, _KILL),
    ]
    for first, last in _ranges([number for name, number in table.items() if name not in (*_JUDGED, *_MISSING)]):
        if first == last:
            steps += [_instruction(_JEQ, first, 0, 1), _instruction(_RETURN, _ALLOW)]
        else:
            steps += [_instruction(_JGE, first, 0, 2), _instruction(_JGT, last, 1, 0), _instruction(_RETURN, _ALLOW)]
    for name in _JUDGED:
        judged = _judged(name, pid)
        steps += [_instruction(_JEQ, table[name], 0, len(judged) // 8), judged]
    for name in _MISSING:
        steps += [_instruction(_JEQ, table[name], 0, 1), _instruction(_RETURN, _ABSENT)]
    return b"".join([*steps, _instruction(_RETURN, _REFUSE)])
