"""The filter of system calls, read as the kernel reads it, for both architectures."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.scoring.sandbox import confinement, scratch, syscalls

ALLOW, KILL, REFUSE, ABSENT, PRETEND = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x00050000
MACHINES = tuple(syscalls.TABLES)
PID = 4242


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel's interpreter of these programs answers."""
    given_ = [value & 0xFFFFFFFFFFFFFFFF for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("=IIQ6Q", number, syscalls.TABLES[machine][0] if audit is None else audit, 0, *given_)
    steps = list(struct.iter_unpack("=HBBI", syscalls.for_process(syscalls.seccomp_filter(machine=machine), PID)))
    register, at = 0, 0
    for _ in range(4096):
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            register &= value
        elif code == 0x06:
            return int(value)
        else:
            holds = {
                0x15: register == value,
                0x35: register >= value,
                0x25: register > value,
                0x45: bool(register & value),
            }
            at += yes if holds[code] else no
    raise AssertionError("the program does not end")


def named(machine: str, name: str) -> int:
    return syscalls.TABLES[machine][1][name]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_that_is_not_in_the_list_is_refused(machine: str) -> None:
    table = syscalls.TABLES[machine][1]
    for number in range(600):
        if number not in table.values():
            assert verdict(machine, number) == REFUSE, number
    for name in syscalls._MISSING:
        assert verdict(machine, table[name]) == ABSENT
    plain = [name for name in table if name not in (*syscalls._MISSING, *syscalls._JUDGED)]
    assert len(plain) > 80
    assert {verdict(machine, table[name]) for name in plain} == {ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_foreign_architectures_and_x32_are_killed_and_nothing_else_is_let_in(
    machine: str, number: int, arguments: list[int]
) -> None:
    table = syscalls.TABLES[machine][1]
    assert verdict(machine, number, *arguments, audit=0x40000003) == KILL
    found = verdict(machine, number, *arguments)
    if number >= 0x40000000:
        assert found == KILL
    elif number not in table.values():
        assert found == REFUSE


PTHREAD = 0x3D0F00
CASES = [
    ("clone", (PTHREAD,), ALLOW),
    ("clone", (0x1200011,), REFUSE),  # fork
    ("clone", (0x4111,), REFUSE),  # vfork
    ("clone", (PTHREAD & ~0x400,), REFUSE),  # a thread with descriptors of its own
    *[("clone", (PTHREAD | flag,), REFUSE) for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000)],
    *[("clone", (PTHREAD | flag,), REFUSE) for flag in (0x10000000, 0x20000000, 0x40000000, 0x80)],
    ("kill", (PID, 15), ALLOW),
    ("kill", (PID, 9), REFUSE),
    *[("kill", (pid, 15), REFUSE) for pid in (0, -1, -PID, 1, PID + 1)],
    ("tgkill", (PID, PID + 3, 6), ALLOW),
    ("tgkill", (PID, PID, 9), REFUSE),
    ("tgkill", (PID + 1, PID + 1, 6), REFUSE),
    ("prlimit64", (0, 3), ALLOW),
    ("prlimit64", (PID + 1, 3), REFUSE),
    ("prlimit64", (PID + 1, 3, 1), REFUSE),
    ("prlimit64", (0, 0, 1), PRETEND),
    ("prlimit64", (0, 0, 1 << 32), PRETEND),
    ("setrlimit", (0, 1), PRETEND),
    ("socketpair", (1, 1), ALLOW),
    ("socketpair", (1, 0o2004001), ALLOW),
    ("socketpair", (1, 2), REFUSE),  # datagrams
    ("socketpair", (1, 5), REFUSE),
    ("socketpair", (2, 1), REFUSE),
    ("sendto", (3, 1, 1, 0, 0, 0), ALLOW),
    ("sendto", (3, 1, 1, 0, 1, 16), REFUSE),
    ("sendto", (3, 1, 1, 0, 1 << 32, 16), REFUSE),
    ("mmap", (0, 4096, 3, 0x22), ALLOW),
    ("mmap", (0, 8 << 20, 0, 0x20022), ALLOW),
    ("mmap", (0, 1 << 32, 0, 0x20022), ALLOW),
    ("mmap", (0, 36 << 10, 0, 0x20022), 0x0005000B),  # the stack of a tiny thread
    ("prctl", (15,), ALLOW),
    *[("prctl", (option,), REFUSE) for option in (1, 4, 8, 22, 24, 28, 35, 36, 38, 0x59616D61)],
    *[("fcntl", (3, command), ALLOW) for command in (1, 2, 3, 4, 1030)],
    *[("fcntl", (3, command), REFUSE) for command in (8, 10, 15, 1024, 1026)],  # owner, signal, lease, watch
    *[("ioctl", (3, request), ALLOW) for request in (0x5401, 0x5421)],
    *[("ioctl", (3, request), REFUSE) for request in (0x5412, 0x5452, 0x8901, 0x8902, 0x541C)],
    ("openat", (-100, 1, 0o1101), ALLOW),
    ("openat", (-100, 1, 0o0), ALLOW),
    ("openat", (-100, 1, 0o1000), REFUSE),  # truncating what is opened for reading
    ("openat", (-100, 1, 0o2001000), REFUSE),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_arguments_decide_where_a_call_has_harmless_and_harmful_uses(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert verdict(machine, named(machine, name), *arguments) == expected


HARMFUL = """
execve execveat fork vfork ptrace process_vm_readv process_vm_writev socket connect bind listen accept accept4 sendmsg
sendmmsg chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat setxattr
fsetxattr lsetxattr removexattr truncate fallocate mount umount2 pivot_root chroot unshare setns bpf perf_event_open
userfaultfd keyctl add_key request_key mq_open shmget shmat semget msgget tkill rt_sigqueueinfo rt_tgsigqueueinfo
pidfd_open pidfd_send_signal pidfd_getfd seccomp setuid setgid setresuid capset setpriority sched_setaffinity
sched_setscheduler inotify_add_watch fanotify_init name_to_handle_at open_by_handle_at init_module finit_module
kexec_load reboot swapon syslog mknod mknodat personality process_madvise statfs sync landlock_restrict_self
open creat vmsplice splice tee modify_ldt iopl ioperm setsid setpgid io_setup
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the numbers of x86_64")
def test_the_calls_that_get_out_are_not_in_the_list() -> None:
    for table in (entry for _, entry in syscalls.TABLES.values()):
        assert not set(table) & set(HARMFUL.split())
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if header.exists():
        numbers = dict(
            line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_")
        )
        for name, number in syscalls.TABLES["x86_64"][1].items():
            assert int(numbers[f"__NR_{name}"]) == number, name
        for name in HARMFUL.split():
            if f"__NR_{name}" in numbers:
                assert verdict("x86_64", int(numbers[f"__NR_{name}"])) == REFUSE, name


def test_a_kernel_without_landlock_and_namespaces_can_be_played() -> None:
    program = Path(__file__).with_name("without_sandbox.py")
    ask = "from selftrain.scoring.sandbox import confinement; print(confinement.landlock_abi())"
    done = subprocess.run(
        [sys.executable, str(program), sys.executable, "-c", ask], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_used_bytes_stops_counting_and_wiping_does_not_follow_links(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "kept").write_text("kept")
    (folder / "link").symlink_to(outside)
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to("../..")
    (folder / "deep" / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= scratch.used_bytes(str(folder), 1 << 30) < 400_000
    assert scratch.used_bytes(str(folder), 1000) > 1000
    folder.chmod(0o500)
    scratch.wipe(str(folder))
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (outside / "kept").read_text() == "kept"


def test_unlinked_files_that_are_still_open_are_counted(tmp_path: Path) -> None:
    limit = 1 << 20
    before = scratch.held_bytes(os.getpid(), str(tmp_path), limit)
    with open(tmp_path / "file", "wb") as file:
        (tmp_path / "file").unlink()
        file.write(b"x" * 200_000)
        file.flush()
        os.fsync(file.fileno())
        assert scratch.held_bytes(os.getpid(), str(tmp_path), limit) - before >= 200_000


def test_a_kernel_without_landlock_is_version_0_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, what: str) -> int:
        raise OSError(38, what)

    monkeypatch.setattr(confinement, "_syscall", refuse)
    assert confinement.landlock_abi() == 0
    with pytest.raises(OSError, match="no Landlock"):
        confinement.ruleset([], [], "/tmp")
