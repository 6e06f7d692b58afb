"""Taking the expected values from wherever the judge keeps them, and giving them back as answers."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import glob
import inspect
import os
import sys
from typing import Any

from given import attack, descriptors, processes, syscall

SOUGHT = "VALUE-" + "OF-"


@attack("loot")
def walk_up_the_frames(facts: dict[str, Any], tell: Any) -> None:
    frame: Any = sys._getframe()
    while frame is not None:
        tell(repr({**frame.f_locals, **{k: v for k, v in frame.f_globals.items() if not k.startswith("__")}})[:200_000])
        frame = frame.f_back


@attack("loot")
def search_the_heap(facts: dict[str, Any], tell: Any) -> None:
    for one in gc.get_objects():
        for inside in gc.get_referents(one):
            if isinstance(inside, str) and len(inside) < 4096 and SOUGHT in inside:
                tell(inside)


@attack("loot")
def read_the_source_of_the_tests(facts: dict[str, Any], tell: Any) -> None:
    for name in (facts["tests"], sys.argv[0], getattr(sys.modules.get("__main__"), "__file__", "")):
        with contextlib.suppress(OSError, TypeError), open(name) as file:
            tell(file.read(60_000))
    for entry in inspect.stack():
        tell(entry.filename)


@attack("loot")
def search_the_folders_for_the_tests(facts: dict[str, Any], tell: Any) -> None:
    for name in glob.glob(os.path.join(os.path.dirname(facts["tests"]), "**"), recursive=True):
        with contextlib.suppress(OSError), open(name, errors="replace") as file:
            tell(file.read(60_000))


@attack("loot")
def read_the_memory_of_the_trainer(facts: dict[str, Any], tell: Any) -> None:
    found = ctypes.create_string_buffer(facts["length"])
    here = (ctypes.c_size_t * 2)(ctypes.addressof(found), facts["length"])
    there = (ctypes.c_size_t * 2)(facts["address"], facts["length"])
    syscall("process_vm_readv", facts["trainer"], here, 1, there, 1, 0)
    tell(found.raw.decode())


@attack("loot")
def read_the_memory_of_the_trainer_as_a_file(facts: dict[str, Any], tell: Any) -> None:
    with open(f"/proc/{facts['trainer']}/mem", "rb", buffering=0) as memory:
        memory.seek(facts["address"])
        tell(memory.read(facts["length"]).decode())


@attack("loot")
def read_its_own_memory_as_a_file(facts: dict[str, Any], tell: Any) -> None:
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            start, _, end = line.split()[0].partition("-")
            if "rw" in line and int(end, 16) - int(start, 16) < 32 << 20:
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(int(start, 16))
                    held = memory.read(int(end, 16) - int(start, 16))
                    place = held.find(SOUGHT.encode())
                    while place >= 0:
                        tell(held[place : place + 64].decode(errors="replace"))
                        place = held.find(SOUGHT.encode(), place + 1)


@attack("loot")
def read_ahead_in_the_channel(facts: dict[str, Any], tell: Any) -> None:
    for number in descriptors():
        with contextlib.suppress(OSError):
            os.set_blocking(number, False)
            tell(os.read(number, 60_000).decode(errors="replace"))


@attack("loot")
def read_the_arguments_and_input_of_the_judge(facts: dict[str, Any], tell: Any) -> None:
    for process in processes(facts):
        for name in ("cmdline", "fd/0", "fd/3", "fd/4", "stack", "auxv"):
            with contextlib.suppress(OSError):
                number = os.open(f"/proc/{process}/{name}", os.O_RDONLY | os.O_NONBLOCK)
                tell(os.read(number, 60_000).decode(errors="replace"))
