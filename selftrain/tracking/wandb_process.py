"""The process that copies metrics.jsonl to Weights & Biases: `python -m selftrain.tracking.wandb_process`.

Its parent writes one line of JSON to its stdin (what to mirror, as which run) and one line when the run is done.
End of input, or another parent, means that the run was killed: then too it copies what the ledger holds and ends.

Which rows are safe is known from `wandb/mirrored.json`, which is written only after W&B closed a fragment cleanly
(offline, each attempt writes a fragment of its own under the one run id). Every other row is logged again by the next
attempt: the fragments together always hold every row, and after a clean end none of them twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import wandb

from selftrain.records import digest
from selftrain.tracking.axes import SUMMARY_PHASE, axis_of, chart_points, patterns, summary_values
from selftrain.tracking.ledger import Row, without_timings
from selftrain.tracking.wandb_mirror import CANNOT_FINISH, CANNOT_START, FOLDER

POLL_SECONDS = 0.5
MIRRORED_FILE = "mirrored.json"


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


class Copy:
    """Rows on their way into one W&B run, which is opened for the first row that is not safe already."""

    def __init__(self, order: dict[str, Any], safe: set[str]) -> None:
        self.order = order
        self.safe = safe
        self.run: Any = None
        self._defined: set[str] = set()

    def open(self) -> None:
        """Start the W&B run; exits with CANNOT_START when W&B will not have it."""
        if self.run is not None:
            return
        try:
            wait_for_a_free_name(Path(self.order["run_dir"]) / FOLDER)
            self.run = open_run(self.order)
        except Exception as error:  # the whole of wandb is behind this call
            leave(CANNOT_START, error)
        self.run.define_metric("round", hidden=True)
        self.run.define_metric("global_step", hidden=True)

    def add(self, row: Row) -> None:
        """Log the row unless an earlier fragment holds it."""
        name = digest(without_timings(row))[:16]
        if name in self.safe:
            return
        self.open()
        if row["phase"] == SUMMARY_PHASE:
            self.run.summary.update(summary_values(row))
        else:
            for pattern in set(patterns(row)) - self._defined:
                self.run.define_metric(pattern, step_metric=axis_of(row))
                self._defined.add(pattern)
            self.run.log(chart_points(row))
        self.safe.add(name)

    def close(self) -> None:
        """Wait for W&B to have it all; exits with CANNOT_FINISH when it does not get it in time."""
        if self.run is None:
            return
        try:
            self.run.finish()
        except Exception as error:  # as above
            leave(CANNOT_FINISH, error)


def leave(code: int, error: Exception) -> NoReturn:
    """Exit with the reason as the last line of the log, where the parent looks for it."""
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
    # sys.exit would let wandb's own exit handler wait seconds more for the server that just failed
    os._exit(code)


def open_run(order: dict[str, Any]) -> Any:
    """A W&B run that sends rows and the shown config and nothing else: no code, console, git, host or machine data."""
    seconds = order["start_seconds"]
    settings = wandb.Settings(
        mode=order["mode"],
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        program="selftrain",
        program_relpath="selftrain",
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=seconds,
        login_timeout=seconds,
        finish_timeout=seconds,
        finish_timeout_raises=True,
    )
    return wandb.init(dir=order["run_dir"], config=order["config"], resume="allow", settings=settings, **order["run"])


def wait_for_a_free_name(folder: Path) -> None:
    """W&B names fragments by the second of their start: a second one in that second would overwrite the first."""
    while any(folder.glob(f"*run-{time.strftime('%Y%m%d_%H%M%S')}-*")):
        time.sleep(0.1)


def read_safe_rows(path: Path) -> set[str]:
    """The rows that closed fragments hold; none when there is no such file, or no whole one."""
    try:
        return set(json.loads(path.read_text())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_safe_rows(path: Path, rows: set[str]) -> None:
    """Replace the file in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump({"rows": sorted(rows)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def only_mirror(folder: Path, wait_seconds: float) -> Iterator[None]:
    """Wait for the mirror of a killed attempt, which may still be copying. Raises TimeoutError."""
    with (folder / "mirror.lock").open("w") as lock:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another mirror of this run works in {folder}") from None
                time.sleep(0.1)
        yield


def main() -> None:
    """Copy until the run is done or dead, then close and note what is safe."""
    # A scheduler that preempts the run signals this process too; it ends when the run says so, or is dead.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = Parent(sys.stdin.fileno())
    order = parent.order()
    folder = Path(order["run_dir"]) / FOLDER
    folder.mkdir(exist_ok=True)
    with only_mirror(folder, wait_seconds=3 * order["start_seconds"]):
        copy = Copy(order, read_safe_rows(folder / MIRRORED_FILE))
        tail = Tail(Path(order["run_dir"]) / "metrics.jsonl")
        if not copy.safe:
            copy.open()  # a first attempt shows up at once, not when its first phase is done
        is_done = False
        while not is_done:
            signal.alarm(0)
            is_done = parent.is_done(POLL_SECONDS)
            # SIGALRM ends a process that wandb holds, even when no one is left to kill it
            signal.alarm(int(2 * order["start_seconds"]) + 1)
            for row in tail.new_rows():
                copy.add(row)
        copy.close()
        write_safe_rows(folder / MIRRORED_FILE, copy.safe)


if __name__ == "__main__":
    main()
