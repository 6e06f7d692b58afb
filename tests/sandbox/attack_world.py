"""What an attack is aimed at, and what is looked at afterwards, from outside, to tell whether it came through."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY = 256 << 20
SCRATCH = 16 << 20
OUTPUT = 256 << 10


@dataclass
class Came:
    """What came back from an attack, and how the judge fared."""

    messages: list[Any] = field(default_factory=list)
    later: list[Any] = field(default_factory=list)
    """Of the next candidate."""
    output: bytes = b""
    endings: list[str] = field(default_factory=list)
    passed: bool = False
    """Whether the judge took its answers for right."""
    hung: bool = False
    error: str = ""
    """An exception in the judge."""
    parent_died: bool = False
    next_judged: bool = True
    bytes_back: int = 0


def descendants(of: int) -> dict[int, tuple[int, int]]:
    """Process id -> (threads, resident bytes), of all processes below that one, zombies left out."""
    parents: dict[int, int] = {}
    facts: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    facts[int(name)] = (int(fields[17]), int(fields[21]) * 4096)
                parents[int(name)] = int(fields[1])
    found: set[int] = set()
    fresh = {of}
    while fresh:
        fresh = {one for one, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {one: facts[one] for one in found if one in facts}


class Watch(threading.Thread):
    """Samples how many processes and threads there are below this one, how much memory they hold, and how the process
    fares that attacks are aimed at."""

    def __init__(self, state: Callable[[], tuple[object, ...]]) -> None:
        super().__init__(daemon=True)
        self.state = state
        self.states: set[tuple[object, ...]] = set()
        self.base = descendants(os.getpid())
        self.processes = self.threads = self.memory = 0
        self.ends = threading.Event()

    def run(self) -> None:
        while not self.ends.wait(0.03):
            below = descendants(os.getpid())
            self.processes = max(self.processes, len(below) - len(self.base))
            self.threads = max(self.threads, *(threads for threads, _ in below.values()), 0)
            self.memory = max(self.memory, sum(size for _, size in below.values()))
            with contextlib.suppress(OSError):
                self.states.add(self.state())

    def stop(self) -> None:
        """Look no more."""
        self.ends.set()
        if self.is_alive():
            self.join()


class World:
    """Made anew for each attack: files, a process to hurt, listeners, an expected value in the trainer's memory."""

    def __init__(self, environment_token: str, effect: str) -> None:
        self.token, self.expected, self.note = (
            f"{kind}-OF-{secrets.token_hex(8)}" for kind in ("CANARY", "VALUE", "NOTE")
        )
        self.environment_token = environment_token
        self.root = Path(tempfile.mkdtemp(prefix="attack-world-"))
        self.folder = self.root / "outside"
        self.folder.mkdir()
        (self.folder / f"named-{self.token}").touch()
        self.canary = self.folder / "kept"
        self.canary.write_text(self.token + " " * secrets.randbelow(5000))
        self.canary.chmod(0o644)
        (self.folder / "link").symlink_to(f"/nowhere/{self.token}")
        held = self.folder / "held"
        held.write_text(self.token)
        self.held = os.open(held, os.O_RDWR)
        os.set_inheritable(self.held, True)
        (self.root / "tests").mkdir()
        self.tests = self.root / "tests" / "tests.json"
        self.tests.write_text(f'[["7", "{self.expected}"]]')
        self.memory = ctypes.create_string_buffer(self.expected.encode())
        self.heard: list[bytes] = []
        self.sockets: list[socket.socket] = []
        self.victim = subprocess.Popen(
            ["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.facts: dict[str, Any] = {
            "canary": str(self.canary),
            "relative": os.path.relpath(self.canary),
            "folder": str(self.folder),
            "link": str(self.folder / "link"),
            "held": self.held,
            "tests": str(self.tests),
            "trainer": os.getpid(),
            "victim": self.victim.pid,
            "address": ctypes.addressof(self.memory),
            "length": len(self.expected),
            **(self._listeners() if effect == "heard" else {"free": free_port()}),
        }
        self.before = self.outside()
        self.victim_before = self.state_of_the_victim()
        self.own_memory = resident()
        self.watch = Watch(self.state_of_the_victim)
        if effect in ("processes", "threads", "memory", "victim"):
            self.watch.start()

    def _listeners(self) -> dict[str, Any]:
        named = str(self.root / "listening")
        abstract = secrets.token_hex(8)
        places: dict[str, tuple[int, int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, 0, ("127.0.0.1", 0)),
            "sctp": (socket.AF_INET, socket.SOCK_STREAM, 132, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0, named),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, 0, "\0" + abstract),
            "datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM, 0, named + ".dgram"),
            "abstract_datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM, 0, "\0" + abstract + ".dgram"),
        }
        facts: dict[str, Any] = {"sctp": 9, "free": free_port()}
        for name, (family, kind, protocol, place) in places.items():
            with contextlib.suppress(OSError):
                one = socket.socket(family, kind, protocol)
                self.sockets.append(one)
                one.bind(place)
                if kind == socket.SOCK_STREAM:
                    one.listen(8)
                facts[name] = place.lstrip("\0") if isinstance(place, str) else one.getsockname()[1]
                threading.Thread(target=self._listen, args=(one, kind), daemon=True).start()
        threading.Thread(target=self._call, args=(facts["free"],), daemon=True).start()
        return facts

    def _listen(self, one: socket.socket, kind: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                if kind == socket.SOCK_DGRAM:
                    self.heard.append(one.recv(4096))
                    continue
                caller, _ = one.accept()
                with caller:
                    caller.settimeout(1)
                    self.heard.append(caller.recv(4096) or b"(connected)")

    def _call(self, port: int) -> None:
        """Keep calling a port at which nobody should answer."""
        end = time.monotonic() + 4
        while time.monotonic() < end and self.sockets:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2) as line:
                line.settimeout(0.5)
                if heard := line.recv(4096):
                    self.heard.append(heard)
            time.sleep(0.02)

    def outside(self) -> dict[str, Any]:
        """Everything about the files that are not the candidates'."""
        state: dict[str, Any] = {"memory": self.memory.raw}
        for path in (self.folder, *sorted(self.folder.rglob("*"))):
            facts = path.lstat()
            attributes = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            times = facts.st_mtime_ns if path.is_file() else 0
            state[str(path)] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size, times, attributes, content)
        return state

    def state_of_the_victim(self) -> tuple[object, ...]:
        """What others may have done to it."""
        number = self.victim.pid
        if (code := self.victim.poll()) is not None:
            return ("ended", code)
        status = Path(f"/proc/{number}/status").read_text()
        state = next(line for line in status.splitlines() if line.startswith("State")).split()[1]
        return (
            state if state in "TtZX" else "lives",
            os.getpriority(os.PRIO_PROCESS, number),
            tuple(sorted(os.sched_getaffinity(number))),
            resource.prlimit(number, resource.RLIMIT_NOFILE),
            Path(f"/proc/{number}/oom_score_adj").read_text(),
        )

    def wait_for_the_victim(self) -> tuple[object, ...]:
        """Its state, once a signal has had time to arrive."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.victim.wait(0.1)
        return self.state_of_the_victim()

    def close(self) -> None:
        """Leave nothing behind."""
        self.watch.stop()
        with contextlib.suppress(OSError):
            self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()
        os.close(self.held)
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.sockets.clear()
        remove(self.root)
        clean_up_elsewhere(self.note)


def clean_up_elsewhere(note: str) -> None:
    """Remove what the attacks on other folders left there, where nothing held them; only what holds this note, as other
    suites may run at the same time."""
    for folder in (
        *sys.path,
        os.getcwd(),
        "/tmp",
        "/dev/shm",
        "/var/tmp",
        "/run",
        "/",
        "/dev",
        os.path.expanduser("~"),
    ):
        with contextlib.suppress(OSError):
            for one in (*Path(folder).glob("selftrain?attack*"), *Path(folder).glob("__pycache__/selftrain?attack*")):
                if note.encode() in one.read_bytes():
                    one.unlink()


def remove(folder: Path) -> None:
    """Remove a folder that an attack has been in. Python's rmtree gives up on trees deeper than it recurses."""
    if subprocess.run(["rm", "-rf", folder], capture_output=True, check=False).returncode:
        subprocess.run(["chattr", "-R", "-i", folder], capture_output=True, check=False)
        subprocess.run(["chmod", "-R", "u+rwX", folder], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", folder], capture_output=True, check=False)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
