"""Reading what is not the candidate's: files, the environment, other processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

from given import AT_FDCWD, attack, descriptors, processes, syscall, text_at


@attack("loot")
def open_the_file(facts: dict[str, Any], tell: Any) -> None:
    with open(facts["canary"]) as file:
        tell(file.read())


@attack("loot")
def open_the_file_by_openat2(facts: dict[str, Any], tell: Any) -> None:
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
    tell(os.read(syscall("openat2", AT_FDCWD, text_at(facts["canary"]), how, 24), 4096).decode())


@attack("loot", root=True)
def open_the_file_by_its_handle(facts: dict[str, Any], tell: Any) -> None:
    handle, mounted = ctypes.create_string_buffer(136), ctypes.c_int()
    ctypes.c_uint.from_buffer(handle).value = 128
    syscall("name_to_handle_at", AT_FDCWD, text_at(facts["canary"]), handle, ctypes.byref(mounted), 0)
    at = os.open(os.path.dirname(facts["canary"]), os.O_RDONLY)
    tell(os.read(syscall("open_by_handle_at", at, handle, os.O_RDONLY), 4096).decode())


@attack("size")
def ask_for_the_size_of_the_file(facts: dict[str, Any], tell: Any) -> None:
    tell({"size": os.stat(facts["canary"]).st_size})


@attack("loot")
def list_the_folder(facts: dict[str, Any], tell: Any) -> None:
    tell(os.listdir(facts["folder"]))


@attack("loot")
def follow_a_link_of_its_own(facts: dict[str, Any], tell: Any) -> None:
    os.symlink(facts["canary"], "looks-harmless")
    with open("looks-harmless") as file:
        tell(file.read())


@attack("loot")
def read_where_a_link_points(facts: dict[str, Any], tell: Any) -> None:
    tell(os.readlink(facts["link"]))


@attack("loot")
def read_its_environment(facts: dict[str, Any], tell: Any) -> None:
    tell(dict(os.environ))


@attack("loot")
def read_the_environment_of_other_processes(facts: dict[str, Any], tell: Any) -> None:
    for process in processes(facts):
        with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as file:
            tell(file.read(60_000).decode(errors="replace"))


@attack("loot")
def read_the_command_lines_of_other_processes(facts: dict[str, Any], tell: Any) -> None:
    for process in processes(facts):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
            tell(file.read(60_000).decode(errors="replace"))


@attack("loot")
def reach_the_file_through_another_process(facts: dict[str, Any], tell: Any) -> None:
    for process in processes(facts):
        for inside in (f"root{facts['canary']}", f"cwd/{facts['relative']}", f"fd/{facts['held']}"):
            with contextlib.suppress(OSError), open(f"/proc/{process}/{inside}") as file:
                tell(file.read(4096))


@attack("loot")
def read_inherited_descriptors(facts: dict[str, Any], tell: Any) -> None:
    for number in descriptors():
        with contextlib.suppress(OSError):
            tell(os.pread(number, 4096, 0).decode(errors="replace"))


@attack("loot")
def take_a_descriptor_out_of_the_trainer(facts: dict[str, Any], tell: Any) -> None:
    process = syscall("pidfd_open", facts["trainer"], 0)
    tell(os.pread(syscall("pidfd_getfd", process, facts["held"], 0), 4096, 0).decode())


@attack("loot", judge="marker")
def print_the_file_as_its_answer(facts: dict[str, Any], tell: Any) -> None:
    with open(facts["canary"]) as file:
        print(file.read(), flush=True)


@attack("loot")
def map_the_file_into_memory(facts: dict[str, Any], tell: Any) -> None:
    import mmap

    number = os.open(facts["canary"], os.O_RDONLY)
    with mmap.mmap(number, 0, prot=mmap.PROT_READ) as mapped:
        tell(mapped[:4096].decode())
