"""Changing what is not the candidate's: write, delete, chmod and their relatives."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

from given import AT_FDCWD, attack, descriptors, first_of, syscall, text_at


@attack("changed")
def overwrite_the_file(facts: dict[str, Any], tell: Any) -> None:
    with open(facts["canary"], "w") as file:
        file.write("mine")


@attack("changed")
def append_to_the_file(facts: dict[str, Any], tell: Any) -> None:
    with open(facts["canary"], "a") as file:
        file.write("mine")


@attack("changed")
def cut_the_file_short(facts: dict[str, Any], tell: Any) -> None:
    os.truncate(facts["canary"], 1)


@attack("changed")
def delete_the_file(facts: dict[str, Any], tell: Any) -> None:
    os.unlink(facts["canary"])


@attack("changed")
def rename_the_file(facts: dict[str, Any], tell: Any) -> None:
    first_of(
        lambda: os.rename(facts["canary"], facts["canary"] + ".old"), lambda: os.rename(facts["canary"], "brought-home")
    )


@attack("changed")
def change_the_mode_of_the_file(facts: dict[str, Any], tell: Any) -> None:
    first_of(
        lambda: os.chmod(facts["canary"], 0o777),
        lambda: syscall("chmod", text_at(facts["canary"]), 0o777),
        lambda: syscall("fchmodat2", AT_FDCWD, text_at(facts["canary"]), 0o777, 0),
    )


@attack("changed", root=True)
def give_the_file_away(facts: dict[str, Any], tell: Any) -> None:
    os.chown(facts["canary"], 12345, 12345)


@attack("changed")
def change_the_times_of_the_file(facts: dict[str, Any], tell: Any) -> None:
    os.utime(facts["canary"], (1, 1))


@attack("changed")
def change_the_attributes_of_the_file(facts: dict[str, Any], tell: Any) -> None:
    first_of(
        lambda: os.setxattr(facts["canary"], "user.mine", b"1"),
        lambda: syscall("setxattr", text_at(facts["canary"]), text_at("user.mine"), text_at("1"), 1, 0),
    )


@attack("changed")
def make_something_in_the_folder(facts: dict[str, Any], tell: Any) -> None:
    inside = os.path.join(facts["folder"], "mine")
    first_of(
        lambda: os.mkdir(inside),
        lambda: os.symlink("/", inside),
        lambda: os.mkfifo(inside),
        lambda: os.link(facts["canary"], inside),
        lambda: open(inside, "x").close(),
    )


@attack("changed")
def bring_the_file_home_by_a_hard_link(facts: dict[str, Any], tell: Any) -> None:
    os.link(facts["canary"], "home")
    with open("home", "a") as file:
        file.write("mine")


@attack("changed")
def write_to_inherited_descriptors(facts: dict[str, Any], tell: Any) -> None:
    for number in descriptors():
        # pwrite fails on pipes and sockets, so it leaves the channel alone.
        with contextlib.suppress(OSError):
            os.pwrite(number, b"mine", 0)
        with contextlib.suppress(OSError):
            os.fchmod(number, 0o777)


@attack("changed")
def leave_links_for_the_judge_to_clean_up(facts: dict[str, Any], tell: Any) -> None:
    # Whoever makes these writable before removing them, or walks into them, changes what they point at.
    for name, target in (("file", facts["canary"]), ("folder", facts["folder"])):
        os.symlink(target, name)
        for depth in ("a", "a/b"):
            os.makedirs(depth, exist_ok=True)
            os.symlink(target, f"{depth}/{name}")
    os.mkdir("a/closed", 0)


@attack("changed")
def write_to_the_memory_of_the_trainer(facts: dict[str, Any], tell: Any) -> None:
    def by_the_system_call() -> None:
        mine = ctypes.create_string_buffer(b"mine")
        here = (ctypes.c_size_t * 2)(ctypes.addressof(mine), 4)
        there = (ctypes.c_size_t * 2)(facts["address"], 4)
        syscall("process_vm_writev", facts["trainer"], here, 1, there, 1, 0)

    def by_proc() -> None:
        with open(f"/proc/{facts['trainer']}/mem", "r+b", buffering=0) as memory:
            memory.seek(facts["address"])
            memory.write(b"mine")

    first_of(by_the_system_call, by_proc)
