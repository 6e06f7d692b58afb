"""The processes of a run: what they decide together, and being asked to stop.

Every process (rank) runs the same program. With one of them everything here is trivial and loads no torch; with
several, `selftrain.ranks` connects them. Ranks must make the calls that wait for each other in the same order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from selftrain import errors
from selftrain.config import RanksConfig
from selftrain.errors import ConfigError, Interrupted, PhaseError, SelftrainError

if TYPE_CHECKING:
    from selftrain.ranks import Ranks

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# A launcher passes a signal on to ranks that a scheduler has sent it to already.
ONE_REQUEST_SECONDS = 2.0
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")

T = TypeVar("T")


class World:
    """This process among those of the run, and whether it was asked to stop.

    SIGTERM, SIGUSR1 (preemption) and Ctrl-C ask: the block or step in hand is finished and published, then the program
    leaves with exit code 75. A second Ctrl-C or SIGTERM leaves at once; what was committed is safe either way. What is
    asked of one rank is asked of all.
    """

    def __init__(self) -> None:
        self.rank = _of_environment("RANK", 0)
        self.size = _of_environment("WORLD_SIZE", 1)
        self.local_rank = _of_environment("LOCAL_RANK", 0)
        self._signal: int | None = None
        self._asked_at = 0.0
        self._ranks: Ranks | None = None
        if self.size > 1:
            # Read when torch is imported. Its C++ side warns of every connection that a lost rank leaves behind, with a
            # stack, just when one line should say what happened; and of DDP's arguments.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that decides, writes receipts and speaks to the user."""
        return self.rank == 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals that ask to stop, for as long as the block lasts."""
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def connected(self, config: RanksConfig) -> Iterator[None]:
        """Join the other ranks for as long as the block lasts; with one rank, nothing.

        Within it, torch.distributed has its process group, which Accelerate and the Trainer take as theirs. A rank that
        leaves the block by an error takes the others with it: they raise an error that names it, or are ended where
        they cannot raise.
        """
        if self.size == 1:
            yield
            return
        from selftrain.ranks import Ranks

        ranks = Ranks(self.rank, self.size, self.local_rank, config, self._own_signal)
        with ranks.joined():
            self._ranks = ranks
            try:
                yield
            finally:
                self._ranks = None

    def from_first(self, make: Callable[[], T], what: str) -> T:
        """What `make()` gives on the first rank, on every rank. The others do not call it.

        An error of the first rank's `make` is raised on every rank: the same type and message if it is a
        SelftrainError, else PhaseError on the others. The value must be one that pickle can copy.
        """
        if self.size == 1:
            return make()
        ranks = self._connection()
        if not self.is_first:
            value, error = ranks.receive_from_first(what)
            if error is not None:
                if isinstance(error, SelftrainError):
                    error.is_told = True
                raise error
            return value  # type: ignore[no-any-return]
        ranks.doing = what
        try:
            made = make()
        except Exception as error:
            ranks.send_to_all(what, None, _for_the_others(error, what))
            raise
        ranks.send_to_all(what, made, None)
        return made

    def gather(self, value: T, what: str) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        return [value] if self.size == 1 else self._connection().gather(value, what)

    def barrier(self, what: str) -> None:
        """Wait until every rank is here."""
        self.gather(None, what)

    def require_agreement(self, what: str, digest: str) -> None:
        """Raise PhaseError, naming ranks and digests, unless every rank has the same one."""
        found = self.gather(digest, what)
        if len(set(found)) > 1:
            ranks_of = {
                one: [str(rank) for rank, other in enumerate(found) if other == one] for one in sorted(set(found))
            }
            listed = ", ".join(f"{one[:12]} on rank {' and '.join(ranks)}" for one, ranks in ranks_of.items())
            raise PhaseError(
                f"the processes do not agree on {what}: {listed}; start all of them with the same command, on the same "
                "files, and run again"
            )

    def claim(self, work: str, index: int) -> bool:
        """Whether this rank is the first to ask for that piece of the work; True with one rank."""
        return self.size == 1 or self._connection().claim(f"{work}/{index}")

    def any(self, flag: bool, what: str) -> bool:
        """Whether the flag is set on any rank."""
        return any(self.gather(flag, what))

    def busy_with(self, what: str) -> None:
        """Say what this rank does, in case the others must say where it was lost. Costs nothing."""
        if self._ranks is not None:
            self._ranks.doing = what

    def asked_to_stop(self) -> bool:
        """Whether a signal has asked to stop, here or, a second or so ago, on another rank."""
        return self._asked() is not None

    def check(self) -> None:
        """Raise Interrupted if asked to stop. Called where everything done so far is published.

        With several ranks also raises if another one died or failed.
        """
        if self._ranks is not None:
            self._ranks.raise_if_lost()
        asked = self._asked()
        if asked is None:
            return
        if self._ranks is not None:
            # Launchers send SIGTERM to the ranks that are left when one has died: that is the thing to report.
            self._ranks.look_around()
            self._ranks.raise_if_lost()
        raise Interrupted(f"stopped by {asked}; everything finished is saved: run the same command again to go on")

    def _own_signal(self) -> str | None:
        return None if self._signal is None else signal.Signals(self._signal).name

    def _asked(self) -> str | None:
        return self._own_signal() or (self._ranks.asked if self._ranks is not None else None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self._signal is not None and number != signal.SIGUSR1
        if again and time.monotonic() - self._asked_at > (ONE_REQUEST_SECONDS if _launched() else 0.0):
            # The second request: leave now, as a kill would; nothing half-published can be seen.
            os._exit(Interrupted.exit_code)
        if self._signal is None:
            self._asked_at = time.monotonic()
            if not _launched():  # a launcher sends SIGTERM to the ranks that are left when one has died, too
                # Written past Python's buffers, which the code that was interrupted may be in the middle of.
                name = signal.Signals(number).name
                with contextlib.suppress(OSError):
                    os.write(2, f"selftrain: {name}: the block or step in hand is finished first\n".encode())
        self._signal = number

    def _connection(self) -> Ranks:
        assert self._ranks is not None, "several ranks decide together only inside World.connected"
        return self._ranks


def imposed_single_thread(device: str = "auto") -> str | None:
    """A warning for the user if a launcher has left a CPU run with one thread per process; None otherwise.

    `device` is `model.device`. torchrun and `accelerate launch` set OMP_NUM_THREADS=1 where it is not set.
    """
    on_cpu = device == "cpu" or (device == "auto" and not any(Path(one).exists() for one in GPU_DEVICES))
    cores = cores_of_process()
    if not on_cpu or not _launched() or os.environ.get("OMP_NUM_THREADS") != "1" or cores <= 1:
        return None
    return (
        f"OMP_NUM_THREADS=1, which launchers set, leaves each process one of its {cores} CPU cores: that costs about "
        f"half the speed; put OMP_NUM_THREADS={cores} before the command"
    )


def cores_of_process() -> int:
    """Processor cores for this process: those that it may use, shared with the ranks on this machine; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, _of_environment("LOCAL_WORLD_SIZE", 1)))


def _launched() -> bool:
    return any(name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID") or name.startswith("ACCELERATE_") for name in os.environ)


def _of_environment(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    if value and not value.isdecimal():
        raise ConfigError(f"the environment variable {name} is {value!r}, not a number; unset it, or use a launcher")
    return int(value or default)


def _for_the_others(error: Exception, what: str) -> SelftrainError:
    """The error of the first rank as the others raise it: of a type that each of them can import."""
    if isinstance(error, SelftrainError):
        kind: type[SelftrainError] = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        return kind(str(error))
    return PhaseError(f"rank 0 failed at {what}: {type(error).__name__}: {error}; see its own message")
