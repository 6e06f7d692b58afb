"""Getting out by new namespaces, other programs, and the kernel's less guarded doors."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from typing import Any

from given import AT_FDCWD, LIBC, attack, first_of, syscall, text_at


def done(tell: Any, what: str, result: object = "") -> None:
    tell({"done": f"{what} {result}".strip()})


@attack("claim")
def unshare_a_user_namespace(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "unshare", syscall("unshare", 0x10000000))


@attack("claim", root=True)
def unshare_the_mounts(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "unshare", syscall("unshare", 0x00020000))


@attack("claim")
def clone_into_a_user_namespace(facts: dict[str, Any], tell: Any) -> None:
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0], arguments[4] = 0x10000000, 17

    def by_clone3() -> int:
        return syscall("clone3", arguments, ctypes.sizeof(arguments))

    def by_clone() -> int:
        return syscall(220 if platform.machine() == "aarch64" else 56, 0x10000000 | 17, 0, 0, 0, 0)

    child = first_of(by_clone3, by_clone)
    if child == 0:
        os._exit(0)
    done(tell, "a child in a new user namespace,", child)


@attack("claim", root=True)
def join_the_namespaces_of_the_trainer(facts: dict[str, Any], tell: Any) -> None:
    def by_the_file() -> int:
        return syscall("setns", os.open(f"/proc/{facts['trainer']}/ns/uts", os.O_RDONLY), 0)

    def by_the_process() -> int:
        return syscall("setns", syscall("pidfd_open", facts["trainer"], 0), 0x04000000)

    done(tell, "setns", first_of(by_the_file, by_the_process))


@attack("claim", root=True)
def mount_a_file_system(facts: dict[str, Any], tell: Any) -> None:
    # The plain attacker moves into a mount namespace of its own first, so that nothing outside is mounted over.
    try:
        syscall("unshare", 0x00020000)
        LIBC.mount(None, b"/", None, 0x44000, None)
    except OSError:
        pass
    os.mkdir("over")
    done(tell, "mount", syscall("mount", text_at("none"), text_at("over"), text_at("tmpfs"), 0, 0))


@attack("claim", root=True)
def mount_by_the_newer_calls(facts: dict[str, Any], tell: Any) -> None:
    done(
        tell,
        "a detached mount",
        first_of(
            lambda: syscall("fsopen", text_at("tmpfs"), 0),
            lambda: syscall("open_tree", AT_FDCWD, text_at("/"), 1),
        ),
    )


@attack("claim", root=True)
def change_the_root(facts: dict[str, Any], tell: Any) -> None:
    os.chroot(".")
    done(tell, "chroot")


@attack("claim", root=True)
def pivot_the_root(facts: dict[str, Any], tell: Any) -> None:
    syscall("unshare", 0x00020000)
    LIBC.mount(None, b"/", None, 0x44000, None)
    os.makedirs("root/old")
    if LIBC.mount(b"none", b"root", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    os.mkdir("root/old")
    done(tell, "pivot_root", syscall("pivot_root", text_at("root"), text_at("root/old")))


@attack("claim")
def set_up_an_io_uring(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "io_uring", syscall("io_uring_setup", 4, (ctypes.c_uint32 * 30)()))


@attack("claim")
def load_a_program_into_the_kernel(facts: dict[str, Any], tell: Any) -> None:
    attributes = (ctypes.c_uint32 * 30)(2, 4, 8, 1)
    done(tell, "a map of bpf", syscall("bpf", 0, attributes, ctypes.sizeof(attributes)))


@attack("claim")
def watch_the_processor(facts: dict[str, Any], tell: Any) -> None:
    attributes = (ctypes.c_uint64 * 16)()
    # type software, size 128; config cpu-clock; excluding the kernel and the hypervisor, which needs least rights.
    attributes[0], attributes[1], attributes[5] = 1 | 128 << 32, 0, 1 << 5 | 1 << 6
    done(tell, "perf", syscall("perf_event_open", attributes, 0, -1, -1, 0))


@attack("claim")
def handle_page_faults(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "userfaultfd", syscall("userfaultfd", 1))


@attack("claim")
def read_the_keys_of_the_session(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "keyring", syscall("keyctl", 0, -3, 1))


@attack("claim")
def run_another_program(facts: dict[str, Any], tell: Any) -> None:
    printed = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=False).stdout
    if printed.strip() == "42":
        done(tell, "another Python printed", printed)


@attack("loot")
def become_another_program(facts: dict[str, Any], tell: Any) -> None:
    sys.stdout.flush()
    os.execv("/bin/cat", ["cat", facts["canary"]])


@attack("loot")
def become_a_program_that_is_in_memory(facts: dict[str, Any], tell: Any) -> None:
    number = syscall("memfd_create", text_at("program"), 0)
    with open("/bin/cat", "rb") as program:
        os.write(number, program.read())
    given = (ctypes.c_char_p * 3)(b"cat", os.fsencode(facts["canary"]), None)
    syscall("execveat", number, text_at(""), given, (ctypes.c_char_p * 1)(None), 0x1000)


@attack("claim")
def ask_to_be_traced(facts: dict[str, Any], tell: Any) -> None:
    done(tell, "ptrace", syscall("ptrace", 0, 0, 0, 0))


@attack("claim")
def change_its_personality(facts: dict[str, Any], tell: Any) -> None:
    syscall("personality", 0x0400000)
    if syscall("personality", 0xFFFFFFFF) & 0x0400000:
        done(tell, "READ_IMPLIES_EXEC is set")


@attack("claim", root=True)
def read_the_log_of_the_kernel(facts: dict[str, Any], tell: Any) -> None:
    read = ctypes.create_string_buffer(4096)
    done(tell, "bytes of the log:", syscall("syslog", 3, read, 4096))


@attack("claim")
def run_a_set_user_id_program(facts: dict[str, Any], tell: Any) -> None:
    # no_new_privs is what makes such programs harmless; PR_GET_NO_NEW_PRIVS is 39.
    if LIBC.prctl(39, 0, 0, 0, 0) == 0:
        done(tell, "such a program would be obeyed")


@attack("claim")
def open_a_device(facts: dict[str, Any], tell: Any) -> None:
    for device in ("/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/ptmx", "/dev/vda", "/dev/mem", "/dev/kmsg"):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError:
            continue
        done(tell, device)


@attack("claim", root=True)
def become_another_user(facts: dict[str, Any], tell: Any) -> None:
    os.setgroups([12345])
    os.setresgid(12345, 12345, 12345)
    os.setresuid(12345, 12345, 12345)
    done(tell, "user and group", os.getuid())


@attack("loot")
def find_out_what_the_processes_share(facts: dict[str, Any], tell: Any) -> None:
    # KCMP_FILE between the trainer's descriptor and all of ours tells which of them are the same open file.
    syscall("kcmp", os.getpid(), facts["trainer"], 0, 0, facts["held"])
    with mmap.mmap(-1, 4096) as page, open(f"/proc/{facts['trainer']}/fd/{facts['held']}", "rb") as file:
        page.write(file.read(2048))
        tell(page[:2048].decode(errors="replace"))
