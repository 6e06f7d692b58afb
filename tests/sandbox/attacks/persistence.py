"""What one candidate leaves for the next. The second function of each pair is the next candidate's."""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import glob
import os
import socket
import sys
import time
from typing import Any

from given import AT_FDCWD, LIBC, attack, syscall, text_at

KEY = 0x5E1F


def read_the_scratch(facts: dict[str, Any], tell: Any) -> None:
    for folder, _, names in os.walk("."):
        tell([folder, names])
        for name in names:
            with contextlib.suppress(OSError), open(os.path.join(folder, name), errors="replace") as file:
                tell(file.read(4096))


@attack("loot", follower="read_the_scratch")
def leave_a_file(facts: dict[str, Any], tell: Any) -> None:
    with open("note", "w") as file:
        file.write(facts["note"])


@attack("loot", follower="read_the_scratch")
def leave_a_file_that_nobody_may_touch(facts: dict[str, Any], tell: Any) -> None:
    os.umask(0)
    # May be written in, but not read.
    os.mkdir("kept", 0o300)
    os.mkdir("kept/below", 0o300)
    name = f"kept/below/{facts['note']}"
    with open(name, "w") as file:
        file.write(facts["note"])
    with contextlib.suppress(OSError), open(name) as file:
        import fcntl

        # chattr +i: not even root may delete it then. An ordinary user cannot do it.
        fcntl.ioctl(file, 0x40086602, (0x10).to_bytes(8, "little"))
    for folder in ("kept/below", "kept", "."):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o500)


@attack("loot", follower="read_the_scratch")
def leave_a_file_very_deep_down(facts: dict[str, Any], tell: Any) -> None:
    # Deeper than Python recurses and longer than any path may be, as whoever wipes by recursion or by path finds out.
    here = os.getcwd()
    with open(f"top-{facts['note']}", "w") as file:
        file.write(facts["note"])
    for _ in range(1500):
        os.mkdir("d" * 20)
        os.chdir("d" * 20)
    with open(facts["note"], "w") as file:
        file.write(facts["note"])
    os.chdir(here)


def look_around(facts: dict[str, Any], tell: Any) -> None:
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", "/", os.path.expanduser("~")):
        for name in glob.glob(f"{folder}/selftrain-attack-note*"):
            with contextlib.suppress(OSError), open(name) as file:
                tell(file.read(4096))


@attack("loot", follower="look_around")
def leave_a_file_elsewhere(facts: dict[str, Any], tell: Any) -> None:
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", "/", os.path.expanduser("~")):
        with contextlib.suppress(OSError), open(f"{folder}/selftrain-attack-note-{os.getpid()}", "w") as file:
            file.write(facts["note"])


@attack("survivor")
def leave_a_daemon(facts: dict[str, Any], tell: Any) -> None:
    # Out of the session, the group and the parent's sight: killing the process group misses it.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            time.sleep(10)
        os._exit(0)


def read_shared_memory(facts: dict[str, Any], tell: Any) -> None:
    LIBC.shmat.restype = ctypes.c_void_p
    identity = syscall("shmget", KEY, 4096, 0o600)
    tell(ctypes.string_at(LIBC.shmat(identity, None, 0)).decode())
    LIBC.shmctl(identity, 0, None)


@attack("loot", follower="read_shared_memory")
def leave_shared_memory(facts: dict[str, Any], tell: Any) -> None:
    LIBC.shmat.restype = ctypes.c_void_p
    LIBC.shmdt.argtypes = [ctypes.c_void_p]
    identity = syscall("shmget", KEY, 4096, 0o1600)
    place = LIBC.shmat(identity, None, 0)
    ctypes.memmove(place, facts["note"].encode() + b"\0", len(facts["note"]) + 1)
    LIBC.shmdt(place)


def read_a_message_queue(facts: dict[str, Any], tell: Any) -> None:
    message = ctypes.create_string_buffer(1024)
    identity = syscall("msgget", KEY, 0o600)
    syscall("msgrcv", identity, message, 1000, 0, 0o4000)
    tell(message.raw[8:].split(b"\0")[0].decode())
    LIBC.msgctl(identity, 0, None)


@attack("loot", follower="read_a_message_queue")
def leave_a_message_in_a_queue(facts: dict[str, Any], tell: Any) -> None:
    message = ctypes.create_string_buffer((1).to_bytes(8, "little") + facts["note"].encode())
    syscall("msgsnd", syscall("msgget", KEY, 0o1600), message, len(facts["note"]) + 1, 0)


def read_the_keyring(facts: dict[str, Any], tell: Any) -> None:
    found = ctypes.create_string_buffer(1024)
    key = syscall("keyctl", 10, -4, text_at("user"), text_at("selftrain-attack"), 0)
    syscall("keyctl", 11, key, found, 1024)
    tell(found.value.decode())
    syscall("keyctl", 9, key, -4)


@attack("loot", follower="read_the_keyring")
def leave_a_key(facts: dict[str, Any], tell: Any) -> None:
    note = facts["note"].encode()
    syscall("add_key", text_at("user"), text_at("selftrain-attack"), ctypes.create_string_buffer(note), len(note), -4)


def ask_what_was_patched(facts: dict[str, Any], tell: Any) -> None:
    tell([getattr(builtins, "note", None), getattr(os, "note", None), os.environ.get("NOTE"), *sys.path[:2]])


@attack("loot", follower="ask_what_was_patched", same_process=True)
def leave_a_patched_interpreter(facts: dict[str, Any], tell: Any) -> None:
    builtins.note = os.note = os.environ["NOTE"] = facts["note"]  # type: ignore[attr-defined]
    sys.path.insert(0, facts["note"])


def search_its_own_memory(facts: dict[str, Any], tell: Any) -> None:
    sought = "NOTE-" + "OF-"
    for one in gc.get_objects():
        for inside in gc.get_referents(one):
            if isinstance(inside, str) and len(inside) < 4096 and sought in inside:
                tell(inside)
    # What is freed stays where it was. A pipe tells which pages can be read: write() fails on the others.
    end, start = os.pipe()
    os.set_blocking(start, False)
    about = {id(object()) >> 22, id([0] * 100) >> 22, id("x" * 1000) >> 22, id(bytes(200_000)) >> 22}
    for block in sorted({one + near for one in about for near in (-1, 0, 1)}):
        for page in range(block << 22, (block + 1) << 22, 4096):
            if LIBC.write(start, ctypes.c_void_p(page), ctypes.c_size_t(4096)) == 4096:
                bytes_there = os.read(end, 4096)
                place = bytes_there.find(sought.encode())
                if place >= 0:
                    tell(bytes_there[place : place + 64].decode(errors="replace"))


@attack("loot", follower="search_its_own_memory", same_process=True)
def be_remembered_by_the_server(facts: dict[str, Any], tell: Any) -> None:
    # Nothing to do: the note is in this candidate's payload, as another candidate's solution would be in its own.
    pass


@attack("loot", follower="ask_the_listener")
def leave_a_listener(facts: dict[str, Any], tell: Any) -> None:
    if os.fork() == 0:
        os.closerange(0, 1024)
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.bind(("127.0.0.1", facts["free"]))
            line.listen()
            end = time.monotonic() + 3
            line.settimeout(3)
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    caller, _ = line.accept()
                    caller.sendall(facts["note"].encode())
        os._exit(0)
    time.sleep(0.1)


def ask_the_listener(facts: dict[str, Any], tell: Any) -> None:
    with socket.create_connection(("127.0.0.1", facts["free"]), timeout=1) as line:
        tell(line.recv(4096).decode())


@attack("loot", follower="ask_what_was_patched", same_process=True)
def write_into_the_memory_of_the_server(facts: dict[str, Any], tell: Any) -> None:
    # The next candidate is forked from the parent: what is written there, it inherits. `here` is as good as the
    # parent's address, since a fork keeps the layout.
    os.note = facts["note"]  # type: ignore[attr-defined]
    place = sys.path[0] if sys.path else ""
    written = ctypes.create_string_buffer(facts["note"].encode())
    where = id(place) + sys.getsizeof("") - 1
    here = (ctypes.c_size_t * 2)(ctypes.addressof(written), min(len(facts["note"]), max(len(place), 1)))
    there = (ctypes.c_size_t * 2)(where, here[1])
    syscall("process_vm_writev", os.getppid(), here, 1, there, 1, 0)


def run_what_was_left(facts: dict[str, Any], tell: Any) -> None:
    import selftrain_attack_note

    tell(selftrain_attack_note.NOTE)


@attack("loot", follower="run_what_was_left")
def leave_a_module_to_import(facts: dict[str, Any], tell: Any) -> None:
    for folder in [os.getcwd(), *sys.path]:
        with contextlib.suppress(OSError), open(os.path.join(folder, "selftrain_attack_note.py"), "w") as file:
            file.write(f"NOTE = {facts['note']!r}\n")
    syscall("openat2", AT_FDCWD, text_at("."), (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0), 24)
