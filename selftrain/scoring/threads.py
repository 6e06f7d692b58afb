"""The threads that a scorer judges on beside the one that samples.

They live as long as the scorer: the kernel ends a worker process with the thread that spawned it. They wait for worker
processes without holding the interpreter, and are daemons, so that one that hangs cannot keep a process from ending.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

Task = Callable[[], None]
END_SECONDS = 10.0
JUDGING = "selftrain_judging"


class JudgingThreads:
    """So many threads over one queue. Tasks must not raise. Threads start with the first task."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self.is_closed = False
        self._threads: list[threading.Thread] = []

    def put(self, task: Task) -> None:
        """Have it done after all that waits."""
        with self._changed:
            self._tasks.append(task)
            self._start()
            self._changed.notify()

    def put_first(self, tasks: Sequence[Task]) -> None:
        """Have them done before all that waits, in order: what is begun ends before anything else begins."""
        with self._changed:
            self._tasks.extendleft(reversed(tasks))
            self._start()
            self._changed.notify_all()

    def stop(self) -> None:
        """Begin nothing more, now and ever."""
        with self._changed:
            self.is_closed = True
            self._tasks.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """After `stop`: wait until what was begun has ended, at most `END_SECONDS`."""
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _start(self) -> None:
        if not self._threads and not self.is_closed:
            names = (f"{JUDGING}_{number}" for number in range(self.count))
            self._threads = [threading.Thread(target=self._serve, name=name, daemon=True) for name in names]
            for thread in self._threads:
                thread.start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self.is_closed:
                    self._changed.wait()
                if self.is_closed:
                    return
                task = self._tasks.popleft()
            task()
            del task  # an idle thread keeps no block alive
