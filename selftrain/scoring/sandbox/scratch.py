"""The folder in which a candidate may write: how much is in it, and doing away with it.

A candidate chose the names, the depth and the modes. Standard library alone: the fork server loads this file by its
path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_FILE_BYTES, _FOLDER_BYTES = 16 << 10, 64 << 10


def _emptied(folder: int) -> list[str]:
    """Remove the files of an open folder, and the folders in it that are empty; the names of the others."""
    left = []
    for name in os.listdir(folder):
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError:
            left.append(name)
    return left


def wipe(folder: str) -> None:
    """Remove all that a candidate left, however deep and whatever its modes, without following links. Nothing else
    may be at work in the folder: the way back up is by `..`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    here = os.open(folder, flags)
    try:
        os.fchmod(here, 0o700)
        waiting = [_emptied(here)]
        inside: list[str] = []
        while waiting:
            if waiting[-1]:
                inside.append(waiting[-1].pop())
                os.chmod(inside[-1], 0o700, dir_fd=here)
                there = os.open(inside[-1], flags, dir_fd=here)
                os.close(here)
                here = there
                waiting.append(_emptied(here))
                continue
            waiting.pop()
            if inside:
                above = os.open("..", flags, dir_fd=here)
                os.close(here)
                here = above
                os.rmdir(inside.pop(), dir_fd=here)
    finally:
        os.close(here)


def used_bytes(folder: str, enough: int) -> int:
    """What is in the folder; counting ends at `enough`. Each file and folder counts for more than it holds: removing
    many takes long on a disk (3 ms were seen for a folder on ext4)."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # the others beside it count all the same
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                        total += _FOLDER_BYTES
                    else:
                        total += max(_FILE_BYTES, found.st_blocks * 512)
                    if total > enough:
                        break
        except OSError as error:  # gone again, or of a mode with which nobody can write in it, unless:
            if error.errno == errno.ENAMETOOLONG or _is_written_in_unseen(here):
                return enough + 1
    return total


def _is_written_in_unseen(folder: str) -> bool:
    """Whether files can be made in a folder that cannot be listed. The candidate cannot change its mode any more."""
    try:
        return stat.S_IMODE(os.lstat(folder).st_mode) & 0o700 == 0o300
    except OSError:
        return False


def held_bytes(pid: int, folder: str, limit: int) -> int:
    """What is in files of the folder that the process has open or mapped and that have no name any more. Only where
    /proc shows it. How large a file is that is only mapped cannot be seen; none is larger than `limit`, and two of them
    count for more than that."""
    total, opened = 0, set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    opened.add(found.st_ino)
                    total += found.st_blocks * 512
    # As bytes: the kernel writes a carriage return of a file's name as it is, and text would end a line there.
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:
        lines = [line.split(maxsplit=5) for line in maps if line.endswith(b" (deleted)\n")]
        mapped = {int(fields[4]) for fields in lines if fields[5].startswith(os.fsencode(folder) + b"/")}
        total += len(mapped - opened) * (limit // 2 + 1)
    return total


def children() -> list[int]:
    """The processes whose parent this one is. Only where /proc is that of this process."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(number) for number in listed.read().split()]
