"""Using up the machine. Each stops by itself, well before a machine that does not hold it would suffer."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading
import time
from typing import Any

from given import LIBC, attack, syscall

HELD = 0.25
"""Seconds that a bomb stands still, so that whoever watches from outside sees it."""


def hold_children(count: int, make: Any) -> None:
    for _ in range(count):
        if make() == 0:
            time.sleep(HELD)
            os._exit(0)
    time.sleep(HELD)


@attack("processes")
def fork_many(facts: dict[str, Any], tell: Any) -> None:
    hold_children(20, os.fork)


@attack("processes")
def fork_many_by_clone3(facts: dict[str, Any], tell: Any) -> None:
    arguments = (ctypes.c_uint64 * 11)()
    arguments[4] = 17  # SIGCHLD
    hold_children(20, lambda: syscall("clone3", arguments, ctypes.sizeof(arguments)))


@attack("processes")
def spawn_many(facts: dict[str, Any], tell: Any) -> None:
    for _ in range(20):
        os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(0.6)"], {})
    time.sleep(HELD)


@attack("threads", seconds=1.5)
def start_many_threads(facts: dict[str, Any], tell: Any) -> None:
    threading.stack_size(1 << 15)
    ends = threading.Event()
    with contextlib.suppress(RuntimeError):
        for _ in range(1500):
            threading.Thread(target=ends.wait, args=(5,), daemon=True).start()
    time.sleep(HELD)
    ends.set()


@attack("memory")
def take_much_memory(facts: dict[str, Any], tell: Any) -> None:
    held = [bytearray(b"x") * (50 << 20) for _ in range(9)]
    time.sleep(HELD)
    del held


@attack("memory")
def take_much_memory_in_many_processes(facts: dict[str, Any], tell: Any) -> None:
    for _ in range(4):
        if os.fork() == 0:
            held = bytearray(b"x") * (100 << 20)
            time.sleep(3 * HELD)
            os._exit(bool(held) - 1)
    time.sleep(3 * HELD)


@attack("memory")
def take_much_memory_in_threads(facts: dict[str, Any], tell: Any) -> None:
    held: list[bytearray] = []
    threads = [threading.Thread(target=lambda: held.append(bytearray(b"x") * (55 << 20))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    time.sleep(HELD)


@attack("claim")
def take_memory_that_is_a_file(facts: dict[str, Any], tell: Any) -> None:
    number = syscall("memfd_create", ctypes.create_string_buffer(b"mine"), 0)
    for _ in range(5):
        os.write(number, b"x" * (8 << 20))
    tell({"done": f"a memfd of {os.fstat(number).st_blocks * 512} bytes"})


@attack("claim")
def take_memory_that_is_shared(facts: dict[str, Any], tell: Any) -> None:
    identity = syscall("shmget", 0, 300 << 20, 0o1600)
    tell({"done": f"a shared segment of 300 MiB, {identity}"})
    ctypes.CDLL(None).shmctl(identity, 0, None)


@attack("blocks")
def fill_the_disk_with_one_file(facts: dict[str, Any], tell: Any) -> None:
    with open("big", "wb", buffering=0) as file:
        try:
            for _ in range(60):
                file.write(b"x" * (1 << 20))
        finally:
            tell({"blocks": os.fstat(file.fileno()).st_blocks})


def fill(folder: str, tell: Any) -> None:
    taken = 0
    try:
        for number in range(60):
            with open(f"{folder}/part-{number}", "wb", buffering=0) as file:
                file.write(b"x" * (1 << 20))
                taken += os.fstat(file.fileno()).st_blocks
    finally:
        # Without a file system of a size of its own a judge can only look from time to time.
        time.sleep(HELD)
        tell({"blocks": taken})


@attack("blocks")
def fill_the_disk_with_many_files(facts: dict[str, Any], tell: Any) -> None:
    fill(".", tell)


@attack("blocks")
def fill_a_folder_that_cannot_be_listed(facts: dict[str, Any], tell: Any) -> None:
    os.mkdir("closed", 0o300)
    fill("closed", tell)


@attack("blocks")
def fill_the_disk_among_names_that_come_and_go(facts: dict[str, Any], tell: Any) -> None:
    # Whoever counts them and stops at the first that is gone again does not see the others.
    ends = threading.Event()

    def churn() -> None:
        number = 0
        while not ends.is_set():
            number = (number + 1) % 300
            os.close(os.open(f"gone-{number}", os.O_CREAT))
            os.unlink(f"gone-{number}")

    threads = [threading.Thread(target=churn, daemon=True) for _ in range(3)]
    for one in threads:
        one.start()
    try:
        fill(".", tell)
    finally:
        ends.set()


@attack("blocks")
def fill_the_disk_with_files_without_names(facts: dict[str, Any], tell: Any) -> None:
    taken = 0
    held = []
    try:
        for _ in range(6):
            number = os.open(".", os.O_TMPFILE | os.O_RDWR)
            os.write(number, b"x" * (8 << 20))
            taken += os.fstat(number).st_blocks
            held.append(number)
    finally:
        time.sleep(HELD)
        tell({"blocks": taken})


@attack("blocks")
def fill_the_disk_with_files_that_are_only_mapped(facts: dict[str, Any], tell: Any) -> None:
    taken = 0
    # Python's own mmap keeps a descriptor, by which it could be seen.
    LIBC.mmap.restype = ctypes.c_void_p
    LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    try:
        for _ in range(6):
            number = os.open("part", os.O_CREAT | os.O_RDWR)
            os.write(number, b"x" * (8 << 20))
            place = LIBC.mmap(None, 8 << 20, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, number, 0)
            if place != ctypes.c_void_p(-1).value:
                taken += os.fstat(number).st_blocks
            os.unlink("part")
            os.close(number)
    finally:
        time.sleep(HELD)
        tell({"blocks": taken})


@attack("blocks")
def fill_what_is_mounted_in_memory(facts: dict[str, Any], tell: Any) -> None:
    taken = 0
    # The root folder too: in a namespace it is often a tmpfs without a bound.
    for folder in ("/dev/shm", "/run", "/", "/dev", "/var/tmp"):
        for number in range(5):
            name = os.path.join(folder, f"selftrain-attack-{os.getpid()}-{number}")
            with contextlib.suppress(OSError):
                with open(name, "wb", buffering=0) as file:
                    for _ in range(12):
                        file.write(b"x" * (1 << 20))
                    taken += os.fstat(file.fileno()).st_blocks
                os.unlink(name)
    tell({"blocks": taken})


@attack("files", seconds=8.0)
def make_many_files(facts: dict[str, Any], tell: Any) -> None:
    made = 0
    try:
        for number in range(4_600):
            os.close(os.open(str(number), os.O_CREAT))
            made = number
    finally:
        time.sleep(HELD)
        tell({"files": made})


@attack("flood")
def print_much(facts: dict[str, Any], tell: Any) -> None:
    for _ in range(64):
        sys.stdout.write("x" * (1 << 20))
        sys.stderr.write("x" * (1 << 20))


@attack("flood")
def send_a_long_message(facts: dict[str, Any], tell: Any) -> None:
    tell("x" * (48 << 20))


@attack("flood")
def send_many_messages(facts: dict[str, Any], tell: Any) -> None:
    for _ in range(2000):
        tell("x" * 30_000)
