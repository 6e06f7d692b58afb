"""What every attack has at hand. Sent into the candidate's process as text, so it imports the standard library alone.

An attack is a function `(facts, tell)` of one of the modules beside this one; the module is its family. `facts` is what
the attacker is assumed to know (paths, process ids, ports, addresses), `tell` sends a message to the judge.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100

# (x86_64, aarch64); None: there is no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None),
    "chmod": (90, None),
    "fork": (57, None),
    "ptrace": (101, 117),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "execveat": (322, 281),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "prlimit64": (302, 261),
    "clone3": (435, 435),
    "openat2": (437, 437),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fchmodat2": (452, 452),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "mq_open": (240, 180),
    "syslog": (103, 116),
    "setxattr": (188, 5),
    "personality": (135, 92),
    "kcmp": (312, 272),
}


@dataclass(frozen=True)
class Attack:
    """`effect` names what the judge looks at from outside (see attack_effects.EFFECTS)."""

    name: str
    family: str
    effect: str
    follower: str = ""
    """The function that the next candidate runs."""
    judge: str = "messages"
    """How the plain judge decides: by messages, `exit` code, or a `marker` in the output."""
    seconds: float = 3.0
    """Wall time of one candidate."""
    same_process: bool = False
    """The plain judge runs the next candidate in the same process, as in-process judges do."""
    cut_off: bool = False
    """Signals to everybody: only in a process-id namespace of its own."""
    root: bool = False
    """An ordinary user may not do this anyway."""


ATTACKS: dict[str, Attack] = {}


def attack(effect: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the function into the suite."""

    def entered(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        ATTACKS[name] = Attack(name, function.__module__, effect, **options)
        return function

    return entered


def syscall(name: str | int, *arguments: Any) -> int:
    """The system call itself, past whatever Python or libc would check. Raises OSError."""
    number = name if isinstance(name, int) else NUMBERS[name][platform.machine() == "aarch64"]
    if number is None:
        raise OSError(38, f"no {name} on this architecture")
    plain = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def text_at(path: str) -> ctypes.Array[ctypes.c_char]:
    """A C string."""
    return ctypes.create_string_buffer(os.fsencode(path))


def first_of(*attempts: Callable[[], Any]) -> Any:
    """What the first attempt that gets through returns; the last one's error where none does."""
    last: Exception = OSError("nothing to try")
    for one in attempts:
        try:
            return one()
        except Exception as error:
            last = error
    raise last


def descriptors() -> Iterator[int]:
    """Those open here, found by trying, as /proc may not be there."""
    for number in range(3, 1024):
        with contextlib.suppress(OSError):
            os.fstat(number)
            yield number


def processes(facts: dict[str, Any]) -> Iterator[int]:
    """Process ids worth looking at: the trainer, its neighbours, and all that /proc shows."""
    yield from dict.fromkeys((facts["trainer"], os.getppid(), 1))
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
