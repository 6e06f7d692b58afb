"""The signs of life of the ranks of a run, and the watch over them.

Each rank writes a sign about once a second and reads those of the others: a counter, what the rank does, whether it was
asked to stop, whether it failed. A second thread counts how long each has been quiet. When a rank is lost, the main
thread is given some seconds to leave by an error; one that sits in a collective cannot, and the process is ended. No
thread but the one that writes and reads can be held up by the store, and none holds up the main thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from selftrain import errors
from selftrain.errors import Interrupted, PhaseError, SelftrainError

BEAT_SECONDS = 1.0
TICK_SECONDS = 0.25
# A main thread that can leave by an error does so in this time after a rank was lost.
GRACE_SECONDS = 15.0
# A failing rank stays at most so long for the others to read why.
LINGER_SECONDS = 5.0
GO_ON = "everything finished is saved: run the same command again to go on"


class Store(Protocol):
    """What is needed of torch.distributed's TCPStore."""

    def set(self, key: str, value: str, /) -> None:
        """Write a value."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all keys exist."""
        ...

    def multi_get(self, keys: list[str], /) -> list[bytes]:
        """The values of keys that exist."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs: machine and process namespace, and which process of it, also after its id is used again."""

    machine: str
    process: int
    started: str

    @classmethod
    def here(cls) -> Place:
        """Of this process."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        except OSError:  # some sandboxes: whether another process lives is left to its signs
            machine = secrets.token_hex()
        return cls(machine, os.getpid(), _state(os.getpid())[1])

    def is_dead(self, seen_from: Place) -> bool:
        """Whether the process is surely dead; False for one on another machine."""
        if self.machine != seen_from.machine:
            return False
        state, started = _state(self.process)
        return started != self.started or state in "ZX"


def _state(process: int) -> tuple[str, str]:
    """State letter and start time of a process, empty where there is none."""
    try:
        # The name in parentheses can hold anything.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", ""
    return fields[0], fields[19]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the run cannot go on, as every rank reports it: the rank at fault, and an error of `selftrain.errors`."""

    rank: int
    kind: str
    message: str

    @classmethod
    def of(cls, rank: int, error: BaseException, doing: str) -> Failure:
        """What the other ranks are told when this one leaves by that error."""
        if isinstance(error, Interrupted):
            return cls(rank, Interrupted.__name__, str(error))
        if isinstance(error, SelftrainError):
            kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
            return cls(rank, kind.__name__, f"rank {rank} failed at {doing!r}: {error}")
        name = type(error).__name__
        return cls(rank, PhaseError.__name__, f"rank {rank} failed at {doing!r}: {name}: {error}; see its own message")

    def error(self) -> SelftrainError:
        """To be raised by a rank that leaves because of it."""
        found = getattr(errors, self.kind)(self.message)
        assert isinstance(found, SelftrainError)
        return found


@dataclass(frozen=True, slots=True)
class Sign:
    """What a rank tells of itself."""

    beat: int
    place: Place
    doing: str
    asked: str | None
    failure: Failure | None
    left: bool

    @classmethod
    def read(cls, data: bytes) -> Sign:
        """From what `json.dumps(asdict(...))` wrote."""
        found: dict[str, Any] = json.loads(data)
        found["place"] = Place(**found["place"])
        found["failure"] = Failure(**found["failure"]) if found["failure"] else None
        return cls(**found)


class Heartbeat:
    """The signs of one rank to the others and of the others to it, from `start` to `stop`.

    `doing` is what this rank does, for the others' messages. `asked` is a signal that another rank received. `lost` is
    the error to leave by, once another rank has failed or is taken for dead.
    """

    def __init__(
        self, rank: int, size: int, *, host: int | None, dead_after: float, own_signal: Callable[[], str | None]
    ) -> None:
        self.doing = "the start"
        self.asked: str | None = None
        self.lost: SelftrainError | None = None
        self.unreachable: Exception | None = None
        self._rank = rank
        self._others = [other for other in range(size) if other != rank]
        self._host = host
        self._dead_after = dead_after
        self._interval = min(max(BEAT_SECONDS, size / 64), dead_after / 5)
        self._own_signal = own_signal
        self._place = Place.here()
        self._signs: dict[int, Sign] = {}
        self._failure: Failure | None = None
        # After a failure: what to leave with, whether the user will be told elsewhere, and the seconds given so far.
        self._exit_code, self._told, self._given = Interrupted.exit_code, False, 0.0
        self._left = False
        self._writing = False
        self._passes = 0
        # Seconds without news, of the time in which this process itself was awake.
        self._quiet = dict.fromkeys(self._others, 0.0)
        self._store_quiet = 0.0
        self._wake, self._closed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, connect: Callable[[], Store]) -> None:
        """Begin. `connect` is called in the thread that alone uses what it gives."""
        for target, arguments in ((self._beat_on, (connect,)), (self._watch, ())):
            thread = threading.Thread(target=target, args=arguments, name=f"selftrain{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def missing(self) -> list[int]:
        """The ranks that have given no sign yet."""
        return [rank for rank in self._others if rank not in self._signs]

    def doing_of(self, rank: int) -> str:
        """What that rank did at its last sign."""
        return self._signs[rank].doing if rank in self._signs else "the start"

    def look_around(self, seconds: float = 3.0) -> None:
        """Wait until signs were read that are newer than this call."""
        passes, until = self._passes, time.monotonic() + seconds
        while (
            self._passes < passes + 2 and self.lost is None and time.monotonic() < until and not self._closed.is_set()
        ):
            self._wake.set()
            time.sleep(0.02)

    def wait_for_loss(self, seconds: float) -> bool:
        """Whether a rank is lost, or is found to be within that time."""
        until = time.monotonic() + seconds
        while self.lost is None and time.monotonic() < until:
            time.sleep(0.05)
        return self.lost is not None

    def fail(self, error: BaseException, exit_code: int) -> None:
        """Tell the others that this rank leaves by that error, and give them time to read it."""
        with self._lock:
            self._failure = self._failure or Failure.of(self._rank, error, self.doing)
        self._exit_code, self._told, self._given = exit_code, True, 0.0
        until = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < until and self._writing and not all(map(self._knows, self._others)):
            self._wake.set()
            time.sleep(0.05)

    def leave(self) -> None:
        """Tell the others that this rank is done, and stop."""
        self._left = True
        self.look_around()
        until = time.monotonic() + self._dead_after
        while self._host == self._rank and time.monotonic() < until and not all(map(self._knows, self._others)):
            time.sleep(0.02)
        self.stop()

    def stop(self) -> None:
        """End the threads, unless the store holds one up."""
        self._closed.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def _knows(self, rank: int) -> bool:
        sign, lost = self._signs.get(rank), self._failure is not None and self._failure.rank == rank
        return lost or sign is None or sign.left or sign.failure is not None or sign.place.is_dead(self._place)

    # The thread that writes and reads

    def _beat_on(self, connect: Callable[[], Store]) -> None:
        try:
            store = connect()
        except Exception as error:  # whatever it is, the main thread raises it
            self.unreachable = error
            return
        self._writing = True
        while not self._closed.is_set():
            try:
                self._write_and_read(store)
            except RuntimeError:  # what torch's errors of a lost connection are
                self._writing = False
                if not self._left:
                    self._lose_store("is gone")
                return
            self._wake.wait(self._interval)
            self._wake.clear()

    def _write_and_read(self, store: Store) -> None:
        sign = Sign(self._passes, self._place, self.doing, self._own_signal(), self._failure, self._left)
        store.set(f"sign/{self._rank}", json.dumps(asdict(sign)))
        # Looked for before the signs are read: a rank that left properly has said so by the time it is gone.
        dead = {rank for rank, one in self._signs.items() if one.place.is_dead(self._place)}
        here = [rank for rank in self._others if rank in self._signs or store.check([f"sign/{rank}"])]
        for rank, data in zip(here, store.multi_get([f"sign/{rank}" for rank in here]) if here else [], strict=True):
            sign = Sign.read(data)
            if rank not in self._signs or self._signs[rank].beat != sign.beat:
                self._quiet[rank] = 0.0
            self._signs[rank] = sign
        self._store_quiet = 0.0
        self._judge(dead)
        self._passes += 1

    def _judge(self, dead: set[int]) -> None:
        for rank, sign in self._signs.items():
            if sign.asked is not None and self.asked is None:
                self.asked = f"{sign.asked}, which rank {rank} received"
            if sign.failure is not None:
                self._lose(sign.failure)
            elif rank in dead and not sign.left:
                self._lose_rank(rank, "died (it left no message; a lack of memory is the usual reason)")

    # The thread that watches

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(TICK_SECONDS):
            # A process that was itself stopped for an hour has not waited for an hour.
            passed = min(time.monotonic() - last, 4 * TICK_SECONDS)
            last = time.monotonic()
            self._store_quiet += passed
            for rank in self._others:
                self._quiet[rank] += passed
            if self._failure is None:
                self._listen()
                continue
            self._given += passed
            if self._given > GRACE_SECONDS:
                self._end()

    def _listen(self) -> None:
        if self._left:
            return
        start = 2 * self._dead_after
        if self._store_quiet > (self._dead_after if self._passes else start):
            self._lose_store(f"did not answer for {self._store_quiet:.0f} s")
            return
        for rank, quiet in self._quiet.items():
            sign = self._signs.get(rank)
            if sign is None and quiet > start:
                self._lose_rank(rank, f"has not started in {quiet:.0f} s (twice ranks.dead_after_seconds)")
            elif sign is not None and quiet > self._dead_after and not sign.left:
                self._lose_rank(rank, f"gave no sign of life for {quiet:.0f} s (ranks.dead_after_seconds)")

    def _lose_store(self, how: str) -> None:
        if not self._passes:
            message = f"the processes have not found each other: their meeting point {how}; start all of them again"
            self._lose(Failure(self._rank, Interrupted.__name__, message))
        elif self._host is None:
            message = f"the launcher, which keeps the connections between the processes, {how}; {GO_ON}"
            self._lose(Failure(self._rank, Interrupted.__name__, message))
        else:
            self._lose_rank(self._host, f"{how} (it kept the connections between the processes)")

    def _lose_rank(self, rank: int, how: str) -> None:
        message = f"rank {rank} {how}, last seen at {self.doing_of(rank)!r}; {GO_ON}"
        self._lose(Failure(rank, Interrupted.__name__, message))
        # One that was only stopped must not wake up and go on alone; the others are leaving in any case.
        sign = self._signs.get(rank)
        if sign is not None and sign.place.machine == self._place.machine and not sign.place.is_dead(self._place):
            with contextlib.suppress(OSError):
                os.kill(sign.place.process, signal.SIGKILL)

    def _lose(self, failure: Failure) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
                self.lost = failure.error()
                self._exit_code = self.lost.exit_code
        self._wake.set()

    def _end(self) -> None:
        if not self._told:
            message = "".join(one if one.isprintable() else " " for one in str(self.lost))
            os.write(2, f"selftrain: rank {self._rank}, at {self.doing!r}: {message}\n".encode())
        os._exit(self._exit_code)


def end_process(code: int) -> None:
    """End it at once, whatever its threads are at; what was said is written out."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
