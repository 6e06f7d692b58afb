"""The processes of a run, and being asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from selftrain.errors import ConfigError, Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class World:
    """This process among those of the run, and whether it was asked to stop.

    SIGTERM, SIGUSR1 (preemption) and Ctrl-C ask: the block or step in hand is finished and published, then the program
    leaves with exit code 75. A second Ctrl-C or SIGTERM leaves at once; what was committed is safe either way.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._signal: int | None = None

    def require_one_process(self) -> None:
        """Raise ConfigError under a launcher that started several processes."""
        if self.size > 1:
            raise ConfigError(
                f"the launcher started {self.size} processes; a run takes one process: "
                "use `selftrain run`, or `accelerate launch --num_processes 1 -m selftrain run`"
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals that ask to stop, for as long as the block lasts."""
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number != signal.SIGUSR1:
            # The second request: leave now, as a kill would; nothing half-published can be seen.
            os._exit(Interrupted.exit_code)
        self._signal = number

    def asked_to_stop(self) -> bool:
        """Whether a signal has asked to stop."""
        return self._signal is not None

    def check(self) -> None:
        """Raise Interrupted if asked to stop. Called where everything done so far is published."""
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise Interrupted(f"stopped by {name}; everything finished is saved: run the same command again to go on")
