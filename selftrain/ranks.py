"""Several ranks as one run: the process group, and what ranks tell each other through its store.

Everything but the collectives of training goes through torch.distributed's key-value store, over connections of its
own: long waits cost nothing and end when a rank is lost, which a wait in NCCL or gloo would not.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, cast

import torch
import torch.distributed

from selftrain.config import RanksConfig
from selftrain.errors import ConfigError, DependencyError, Interrupted, PhaseError, SelftrainError
from selftrain.heartbeat import GO_ON, Heartbeat, end_process

POLL_SECONDS = 0.25
# The store takes values of at most 8 MiB.
CHUNK_BYTES = 4 << 20

# torch.distributed exports its store's classes in a way that type checkers cannot follow.
dist: Any = torch.distributed
Store: TypeAlias = Any

T = TypeVar("T")


class Ranks:
    """This rank's connection to the others, in force inside `joined`."""

    def __init__(
        self,
        rank: int,
        size: int,
        local_rank: int,
        config: RanksConfig,
        own_signal: Callable[[], str | None],
    ) -> None:
        self._rank, self._size, self._local_rank = rank, size, local_rank
        self._wait_seconds = config.wait_seconds
        self._dead_after = config.dead_after_seconds
        self._own_signal = own_signal
        host = None if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 0
        self._heartbeat = Heartbeat(rank, size, host=host, dead_after=config.dead_after_seconds, own_signal=own_signal)
        self._line = Line()
        self._meeting: Meeting | None = None
        self._calls = 0
        self._written: list[tuple[int, list[str]]] = []

    @property
    def doing(self) -> str:
        """What this rank does, for the others' messages."""
        return self._heartbeat.doing

    @doing.setter
    def doing(self, what: str) -> None:
        self._heartbeat.doing = what

    @property
    def asked(self) -> str | None:
        """A request to stop that another rank received."""
        return self._heartbeat.asked

    def raise_if_lost(self) -> None:
        """Raise the error to leave by, if another rank died or failed."""
        if self._heartbeat.lost is not None:
            raise self._heartbeat.lost

    def look_around(self) -> None:
        """Read signs of the others that are newer than this call."""
        self._heartbeat.look_around()

    # Being together

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Connect, and leave: together if the block ends normally, at once if it ends by an error on any rank."""
        try:
            self._join()
            yield
            self._leave()
        except BaseException as error:
            cause = self._cause(error)
            self._depart(cause)
            if cause is not error:
                raise cause from error
            raise

    def _join(self) -> None:
        self._heartbeat.start(self._meet)
        while self._meeting is None or self._heartbeat.missing():
            self.raise_if_lost()
            if self._heartbeat.unreachable is not None:
                raise ConfigError(
                    f"WORLD_SIZE is {self._size}, but the processes cannot find each other: "
                    f"{self._heartbeat.unreachable}; start them with torchrun or accelerate launch"
                )
            if asked := self._own_signal():
                missing = " and ".join(map(str, self._heartbeat.missing()))
                raise Interrupted(
                    f"stopped by {asked} while waiting for rank {missing} to start; if you did not ask for that, see "
                    "what that process said"
                )
            time.sleep(0.02)
        self._line.open(self._meeting.line)
        cuda = torch.cuda.is_available()
        if cuda and self._local_rank < torch.cuda.device_count():
            torch.cuda.set_device(self._local_rank)
        try:
            dist.init_process_group(
                # Tensors on the CPU, as the flags that are agreed on at each step, never go through NCCL.
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore("group", self._meeting.group),
                rank=self._rank,
                world_size=self._size,
                timeout=timedelta(seconds=self._wait_seconds),
            )
        except (RuntimeError, ValueError) as error:
            if self._heartbeat.wait_for_loss(3.0):
                self.raise_if_lost()
            raise DependencyError(
                f"torch.distributed could not connect the {self._size} processes: {str(error).splitlines()[0]}; check "
                "that their machines reach each other, and name the network by GLOO_SOCKET_IFNAME and "
                "NCCL_SOCKET_IFNAME if they have several"
            ) from error

    def _meet(self) -> Store:
        """The connection for signs of life; the others are made beside it. May block until all ranks have come."""
        store, _, _ = next(iter(dist.rendezvous("env://", self._rank, self._size)))

        def another() -> Store:
            # One connection serves one caller at a time: each thread needs its own.
            made = dist.TCPStore(store.host, store.port, is_master=False, wait_for_workers=False)
            return dist.PrefixStore(prefix, made)

        prefix = f"selftrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        signs, self._meeting = another(), Meeting(host=store, line=another(), group=another())
        return signs

    def _leave(self) -> None:
        self.gather(None, "the end")
        if dist.is_initialized():
            dist.destroy_process_group()
        self._line.close()
        self._heartbeat.leave()

    def _cause(self, error: BaseException) -> BaseException:
        """The error to leave by: another rank's death or failure, if this error only follows from it."""
        heartbeat = self._heartbeat
        if isinstance(error, Interrupted):
            heartbeat.look_around()
        elif isinstance(error, RuntimeError):
            # A lost connection is noticed here at once, the loss of a rank on another machine by its silence.
            follows = isinstance(error, dist.DistError) or any(one in str(error) for one in ("gloo", "NCCL"))
            heartbeat.wait_for_loss(self._dead_after + 3.0 if follows else 3.0)
        else:
            return error
        return heartbeat.lost or error

    def _depart(self, error: BaseException) -> None:
        """Leave by an error: tell the others, and see to it that this process ends whatever its threads wait for."""
        code = _exit_code(error)
        _tell_launcher(error)
        self._heartbeat.fail(error, code)
        # A collective in progress holds a thread that the process group's destructor would wait for.
        atexit.register(end_process, code)

    # Calls that every rank makes in the same order

    def send_to_all(self, what: str, value: Any, error: Exception | None) -> None:
        """On the first rank: what `receive_from_first` gives on the others."""
        self._post("from_first", what, (value, error))
        self.doing = f"past {what}"

    def receive_from_first(self, what: str) -> tuple[Any, Exception | None]:
        """On the other ranks: the value, or the error, of the first."""
        self.doing = what
        self._calls += 1
        found = self._collect(0, "from_first", what)
        self.doing = f"past {what}"
        return cast(tuple[Any, Exception | None], found)

    def gather(self, value: T, what: str) -> list[T]:
        """The values of all ranks, in the order of ranks."""
        self.doing = what
        self._post("gather", what, value)
        found = [value if rank == self._rank else self._collect(rank, "gather", what) for rank in range(self._size)]
        # Every rank has come here, so what was written for earlier calls has been read.
        old = [name for number, names in self._written if number < self._calls for name in names]
        self._written = [one for one in self._written if one[0] == self._calls]
        self._line.ask(lambda store: [store.delete_key(name) for name in old])
        self.doing = f"past {what}"
        return found

    def claim(self, name: str) -> bool:
        """Whether this rank is the first to claim that name."""
        count = self._answer(self._line.ask(lambda store: int(store.add(f"claim/{name}", 1))), lambda: name)
        return count == 1

    def _post(self, call: str, what: str, value: Any) -> None:
        self._calls += 1
        head = f"call/{self._calls}/{self._rank}"
        data = pickle.dumps((call, what, value))
        chunks = [data[begin : begin + CHUNK_BYTES] for begin in range(0, len(data), CHUNK_BYTES)]
        names = [f"{head}/{index}" for index in range(len(chunks))]
        self._written.append((self._calls, [head, *names]))

        def write(store: Store) -> None:
            for name, chunk in zip(names, chunks, strict=True):
                store.set(name, chunk)
            store.set(head, str(len(chunks)))

        self._answer(self._line.ask(write), lambda: what)

    def _collect(self, rank: int, call: str, what: str) -> Any:
        head = f"call/{self._calls}/{rank}"
        if self._line.abandoned.is_set():
            raise self._heartbeat.lost or PhaseError(f"the processes have parted; {what!r} cannot be decided together")

        def read(store: Store) -> bytes:
            while not self._line.abandoned.is_set():
                try:
                    store.wait([head], timedelta(seconds=1))
                    return b"".join(store.get(f"{head}/{index}") for index in range(int(store.get(head))))
                except dist.DistNetworkError:
                    raise
                except dist.DistStoreError:
                    continue  # not there yet
            return b""

        its_call, its_what, value = pickle.loads(
            self._answer(self._line.ask(read), lambda: f"rank {rank}, which is at {self._heartbeat.doing_of(rank)!r},")
        )
        if (its_call, its_what) != (call, what):
            raise PhaseError(
                f"the processes have gone different ways: rank {self._rank} is at {what!r}, rank {rank} at "
                f"{its_what!r}; start all of them with the same command, and report it if they were"
            )
        return value

    def _answer(self, asked: Future[T], waited_for: Callable[[], str]) -> T:
        """The result, unless a rank is lost or the time is up before it comes."""
        until = time.monotonic() + self._wait_seconds
        while not wait([asked], timeout=POLL_SECONDS).done:
            if self._heartbeat.lost is not None and not wait([asked], timeout=1.0).done:
                # What a failing rank had written before may just be coming in; now it is not.
                self._line.abandoned.set()
                raise self._heartbeat.lost
            if time.monotonic() > until:
                self._line.abandoned.set()
                raise PhaseError(
                    f"{waited_for()} has not come to {self.doing!r} within {self._wait_seconds:g} s "
                    "(ranks.wait_seconds); raise it if that can take longer"
                )
        try:
            return asked.result()
        except dist.DistError as error:
            self._heartbeat.wait_for_loss(5.0)
            self.raise_if_lost()
            raise Interrupted(f"the connection to the other processes is lost ({error}); {GO_ON}") from error


class Meeting:
    """The connections to the store; the first keeps its server alive where this process runs it."""

    def __init__(self, *, host: Store, line: Store, group: Store) -> None:
        self.host, self.line, self.group = host, line, group


class Line:
    """A connection to the store used by a thread of its own: whoever asks is not held up when the store is."""

    def __init__(self) -> None:
        self.abandoned = threading.Event()
        self._asked: queue.SimpleQueue[tuple[Future[Any], Callable[[Store], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def open(self, store: Store) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._serve, args=(store,), name="selftrain_line", daemon=True)
        self._thread.start()

    def ask(self, operation: Callable[[Store], T]) -> Future[T]:
        """Have the operation done, after those asked for before."""
        future: Future[T] = Future()
        self._asked.put((future, operation))
        return future

    def close(self) -> None:
        """End, once everything asked for is done."""
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def _serve(self, store: Store) -> None:
        while (one := self._asked.get()) is not None:
            future, operation = one
            try:
                future.set_result(operation(store))
            except Exception as error:  # whoever asked gets it
                future.set_exception(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SelftrainError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else SelftrainError.exit_code


def _tell_launcher(error: BaseException) -> None:
    """torchrun's own report at the end quotes this file instead of saying that there is none."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": f"{type(error).__name__}: {error}", "extraInfo": {"timestamp": str(int(time.time()))}}
        try:
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"message": message}, file)
        except OSError:
            logging.getLogger(__name__).warning("the launcher's error file %s cannot be written", path)
