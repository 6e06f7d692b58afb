"""The sandbox as the trainer sees it: workers that hold one candidate's process each, and what came of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from selftrain.scoring.sandbox import Chosen, Ended, Limits, Stopped
from selftrain.scoring.sandbox.interpreter import surveyed
from selftrain.scoring.sandbox.process import Running
from selftrain.scoring.sandbox.workers import Spawner, Worker, WorkerLost

T = TypeVar("T")

RECYCLE_AFTER = 1000
"""Executions, after which a worker is replaced: what a server's memory fragments into is not kept for ever."""


class Process(Protocol):
    """A candidate's process while it runs. Messages are plain JSON data, each at most `output_bytes` long. Strings may
    hold lone surrogates, and floats may be nan or infinite."""

    def send(self, value: Any) -> None:
        """Send a message. Raises Stopped."""

    def receive(self) -> Any:
        """The next message, whatever the process sent. Raises Stopped where none comes."""


class Sandbox:
    """So many workers of the chosen tier. Usable from several threads, each of which holds as many workers as it asks
    for at once. Close it, or use it in a `with`.

    `driver` is a file of the standard library alone; `modules` are what candidates may import beside that. Raises
    DependencyError where one of these is not installed. Workers are started when they are first needed.
    """

    def __init__(
        self, chosen: Chosen, limits: Limits, *, driver: Path, workers: int = 1, modules: Sequence[str] = ()
    ) -> None:
        self._chosen, self._limits, self._driver = chosen, limits, Path(driver).resolve()
        self._interpreter = surveyed(tuple(modules))
        self._spawner = Spawner()
        self._changed = threading.Condition()
        self._size = max(1, workers)
        self._idle: list[Worker] = []
        self._held: set[Worker] = set()
        self._taken = 0
        self._queue: deque[object] = deque()
        self._alone = False
        self._closed = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def attempt(
        self, payloads: Sequence[Any], converse: Callable[[Sequence[Process]], T]
    ) -> tuple[T | None, tuple[Ended, ...]]:
        """Start a process per payload, each in a worker of its own, in which the driver's `main(payload, channel)`
        runs; talk to them in `converse`; then send no more and wait until they end, within their limits. Returns what
        `converse` returned, or None where it was left by Stopped, and how each process ended. An exception of another
        kind kills the processes and goes on. `converse` must not call `attempt` again.

        Where only the wall clock ran out, of a process that was at work, it is all done once more, with no other
        process in the sandbox; where the sandbox itself failed, once more in fresh workers. `converse` is called again
        then.
        """
        result, endings = self._once(payloads, converse, alone=False)
        if any(one.how == "infra_error" for one in endings):
            result, endings = self._once(payloads, converse, alone=False, fresh=True)
        if any(one.starved for one in endings):
            result, endings = self._once(payloads, converse, alone=True)
        return result, endings

    def close(self) -> None:
        """End the workers and wipe what they left. A thread that is in `attempt` finds its workers dead."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            idle, held = self._idle, list(self._held)
            self._idle = []
            self._changed.notify_all()
        for worker in idle:
            worker.close()
        for worker in held:
            worker.abandon()
        self._spawner.close()

    def _once(
        self,
        payloads: Sequence[Any],
        converse: Callable[[Sequence[Process]], T],
        *,
        alone: bool,
        fresh: bool = False,
    ) -> tuple[T | None, tuple[Ended, ...]]:
        self._acquire(len(payloads), alone)
        workers: list[Worker] = []
        running: list[Running] = []
        sound = False
        try:
            try:
                for _ in payloads:
                    workers.append(self._worker(fresh))
                for worker, payload in zip(workers, payloads, strict=True):
                    running.append(Running(worker, self._limits, payload))
                for one in running:
                    one.beside = running
                result = None
                with suppress(Stopped):
                    result = converse(running)
                endings = tuple([one.finish() for one in running])
                sound = True
                return result, endings
            except WorkerLost as lost:
                return None, tuple(Ended("infra_error", str(lost)) for _ in payloads)
        finally:
            for one in running:
                one.close()
            self._release(workers, len(payloads), alone, sound)

    def _acquire(self, count: int, alone: bool) -> None:
        """Wait in line for so many places, all at once: whoever holds some never waits for more."""
        ticket = object()
        with self._changed:
            self._size = max(self._size, count)
            self._queue.append(ticket)
            try:
                while not self._closed and not (
                    self._queue[0] is ticket
                    and not self._alone
                    and (self._taken == 0 if alone else self._taken + count <= self._size)
                ):
                    self._changed.wait()
                if self._closed:
                    raise RuntimeError("the sandbox is closed")
                self._taken += count
                self._alone = alone
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _worker(self, fresh: bool) -> Worker:
        """An idle worker, or a fresh one."""
        worker = None
        with self._changed:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            if self._idle:
                worker = self._idle.pop()
                self._held.add(worker)
        if worker is not None and fresh:
            with self._changed:
                self._held.discard(worker)
            worker.close()
            worker = None
        if worker is None:
            started = self._spawner.start(self._chosen.tier, self._interpreter, self._driver, self._limits)
            worker = Worker(started)
            with self._changed:
                self._held.add(worker)
        return worker

    def _release(self, workers: Sequence[Worker], count: int, alone: bool, sound: bool) -> None:
        """Give the places back; workers that failed, or were used for long, are ended."""
        ended = []
        with self._changed:
            for worker in workers:
                self._held.discard(worker)
                if sound and not self._closed and worker.executions < RECYCLE_AFTER:
                    self._idle.append(worker)
                else:
                    ended.append(worker)
        try:
            for worker in ended:
                worker.close()
        finally:
            with self._changed:
                self._taken -= count
                if alone:
                    self._alone = False
                self._changed.notify_all()
