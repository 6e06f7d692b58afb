"""What the trainer sees of processes in /proc. Where it sees nothing (another user's, a hidden /proc), that is said.

Candidates have no /proc to read, and their server has none in the tier "bubblewrap".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_WORKING = b"RD"
"""Running or in line for a processor; waiting for a disk."""


def children(pid: int) -> list[int]:
    """The processes that its first thread started; none where they cannot be seen."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as listed:
        return [int(number) for number in listed.read().split()]
    return []


def tree(pid: int) -> Iterator[int]:
    """The process and all that descends from it."""
    yield pid
    for child in children(pid):
        yield from tree(child)


def threads(pid: int) -> int:
    """How many threads the process has; 0 where that cannot be seen."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    return 0


def is_asleep(pid: int) -> bool:
    """Whether every thread of the process sleeps, waits or was stopped: that is no lack of processor time. False where
    it cannot be seen."""
    states = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{thread}/stat", "rb") as stat,
            ):
                states.add(stat.read().rpartition(b")")[2].split()[0])
    return bool(states) and not any(one in _WORKING for one in states)
