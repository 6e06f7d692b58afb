"""What the process of every mirror does: obey its parent, follow metrics.jsonl, remember what is safe elsewhere.

Its parent writes one line of JSON to its stdin (the order: what to mirror, as what) and one line when the run is done.
End of input, or another parent, means that the run was killed: then too it copies what the ledger holds and ends. The
other way goes one line at most, when it is no use to wait for this process any longer.

What is safe is known from `mirrored.json`, which is written only after the tracker has closed or acknowledged what it
was given. Everything else is copied again by the next attempt.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn, Protocol

from selftrain.records import digest
from selftrain.tracking.ledger import LEDGER_FILE, Row, without_timings

POLL_SECONDS = 0.5
MIRRORED_FILE = "mirrored.json"
LOCK_FILE = "mirror.lock"
NICENESS = 5
PATIENCE_SECONDS = 90.0


class Parent:
    """What the run says, read from a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = b""
        self._pid = os.getppid()

    def order(self) -> dict[str, Any]:
        """The first line. Raises EOFError when the run ended before it."""
        while b"\n" not in self._pending:
            chunk = os.read(self._descriptor, 65536)
            if not chunk:
                raise EOFError("the run ended before it said what to mirror")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        order: dict[str, Any] = json.loads(line)
        return order

    def is_done(self, wait_seconds: float) -> bool:
        """Whether the run is done or dead; waits up to so long for it."""
        if not self._pending:
            readable, _, _ = select.select([self._descriptor], [], [], wait_seconds)
            if not readable:
                # a forked worker may hold the pipe open after the run was killed
                return os.getppid() != self._pid
        return True


class Tail:
    """The rows of a growing file, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_rows(self) -> Iterator[Row]:
        """The whole lines that were added since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


class Mirrored:
    """What is safe: names of rows, and of what was made from them; and which files were left open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.safe: set[str] = set()
        self.open: set[str] = set()
        try:
            known = json.loads(path.read_text())
            self.safe, self.open = set(known["rows"]), set(known.get("open", ()))
        except (OSError, ValueError, KeyError, TypeError):
            return  # there is none, or no whole one: everything is copied again

    def write(self) -> None:
        """Replace the file in one step."""
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with temporary.open("w") as file:
            json.dump({"rows": sorted(self.safe), "open": sorted(self.open)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


class Copy(Protocol):
    """Takes the rows of the ledger to where they are mirrored."""

    def add(self, row: Row) -> None:
        """Copy the row unless it is safe."""

    def work(self) -> None:
        """Do one piece of what takes longer than a row, if there is any."""

    def excuse(self) -> str | None:
        """Why it is no use to wait for `close`, if so. Asked once, from another thread, when the run is done."""

    def close(self) -> None:
        """Copy what is left, wait until it has arrived, and note what is safe."""


def name_of(row: Row) -> str:
    """What stands for a row in mirrored.json: two equal runs give it the same name."""
    return digest(without_timings(row))[:16]


def say(text: str) -> None:
    """One line into the mirror's log."""
    print(" ".join(text.split()), flush=True)


def words_of(error: Exception) -> str:
    """The error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def leave(code: int, why: str) -> NoReturn:
    """Exit with the reason as the last line of the log, where the parent looks for it."""
    say(why)
    # sys.exit would let the tracker's own exit handlers wait for the server that just failed
    os._exit(code)


def bound(seconds: float) -> None:
    """End this process if it is not back here in time, even when no one is left to kill it. 0: no bound."""
    signal.alarm(0 if seconds == 0 else int(seconds) + 1)


def follow(make: Callable[[dict[str, Any], Mirrored], Copy]) -> None:
    """Copy until the run is done or dead, then close. What is safe is kept in the order's `folder` of the run."""
    # A scheduler that preempts the run signals this process too; it ends when the run says so, or is dead.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)  # what it costs, it takes from nobody
    parent = Parent(sys.stdin.fileno())
    order = parent.order()
    folder = Path(order["run_dir"]) / order["folder"]
    folder.mkdir(exist_ok=True)
    with only_mirror(folder, parent):
        bound(PATIENCE_SECONDS)
        copy = make(order, Mirrored(folder / MIRRORED_FILE))
        tail = Tail(Path(order["run_dir"]) / LEDGER_FILE)
        # A thread of its own, as whatever the copy is at may take long just when nobody answers.
        Thread(target=_excuse, args=(parent, order["news"], copy), daemon=True).start()
        is_done = False
        while not is_done:
            bound(0)
            is_done = parent.is_done(POLL_SECONDS)
            for row in tail.new_rows():
                bound(PATIENCE_SECONDS)
                copy.add(row)
            bound(PATIENCE_SECONDS)
            copy.work()
        bound(PATIENCE_SECONDS)
        copy.close()


def _excuse(parent: Parent, news: int, copy: Copy) -> None:
    """Tell the parent, when the run is done, if it shall not wait for this process, which goes on for a while."""
    while not parent.is_done(POLL_SECONDS):
        pass
    why = copy.excuse()
    if why is not None:
        say(why)
        with suppress(OSError):
            os.write(news, why.encode()[:1000])


@contextmanager
def only_mirror(folder: Path, parent: Parent) -> Iterator[None]:
    """Wait for the mirror of an earlier attempt, which may still be copying.

    Raises TimeoutError when it is still there long after this run is done.
    """
    with (folder / LOCK_FILE).open("w") as lock:
        deadline = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is None and parent.is_done(0):
                    deadline = time.monotonic() + PATIENCE_SECONDS
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"another mirror of this run works in {folder}") from None
                time.sleep(0.1)
        yield
