"""A candidate's process while it runs, over four pipes: frames in both directions, and what it prints.

Whatever comes out of these pipes may be forged, cut short, endless or never come. Everything is read without blocking,
up to a limit, until a deadline, and the process is killed by its server for whatever goes beyond.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import time
from collections.abc import Mapping, Sequence, Set
from typing import Any

from selftrain.scoring.sandbox import Ended, Ending, Limits, Stopped, watching
from selftrain.scoring.sandbox.workers import Worker, WorkerLost

_HEADER = struct.Struct(">I")
_PIECE = 1 << 16
_GRACE_SECONDS = 15.0
"""For a server to kill a process, and to do away with its files."""
_DIGITS = 4300
_OUT_OF_MEMORY = 71
_TAIL = 2000
_TASKS = 512
_LOOK_SECONDS = 0.05
_BUSY_SHARE = 0.5
"""Of the processor time allowed: with less than that used up, the wall clock may have run out because the machine was
busy."""


def _short_integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("an integer of too many digits")
    return int(text)


class Running:
    """What `selftrain.scoring.sandbox.pool.Process` promises, and its end."""

    def __init__(self, worker: Worker, limits: Limits, payload: Any) -> None:
        self._worker, self._limits = worker, limits
        self._pipes = worker.begin(limits)
        self._pid: int | None = None
        self._asleep, self._waited = False, 0.0
        self._deadline = time.monotonic() + limits.wall_seconds
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._heard = bytearray()
        self._printed: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._report: Mapping[str, Any] | None = None
        self._broken: tuple[Ending, str] | None = None
        """Why the trainer had the process killed."""
        self.beside: Sequence[Running] = (self,)
        """All processes of the same attempt, looked at while any of them is waited for."""
        self._sending = memoryview(self._frame(payload))

    def send(self, value: Any) -> None:
        """Send a message. Raises Stopped where the process ends before it took all of it."""
        self._send(self._frame(value))

    def receive(self) -> Any:
        """The next message. Raises Stopped where none comes."""
        while True:
            if self._broken is not None:
                raise Stopped
            if (message := self._next_frame()) is not None:
                try:
                    return json.loads(message, parse_int=_short_integer)
                except (ValueError, RecursionError, MemoryError) as error:
                    raise self._break("crashed", f"it sent what is no message ({type(error).__name__})") from None
            if "heard" not in self._pipes:
                self._shut("said")  # the kernel closes the pipes of a process that ended in no certain order
                if self._heard:
                    raise self._break("crashed", "it ended in the middle of a message")
                raise Stopped
            self._pump()

    def finish(self) -> Ended:
        """Send no more and wait for the end, within the limits. Raises WorkerLost."""
        try:
            while self._report is None and self._broken is None:
                self._heard.clear()
                if not self._sending and time.monotonic() < self._deadline:
                    self._shut("said")
                try:
                    self._pump()
                except Stopped:
                    break
            if self._report is None:
                self._report = self._worker.report(time.monotonic() + _GRACE_SECONDS)
                self._drain()
            return self._ended(self._report)
        finally:
            self.close()

    def close(self) -> None:
        """Close the pipes."""
        for name in list(self._pipes):
            self._shut(name)

    def _frame(self, value: Any) -> bytes:
        data = json.dumps(value, separators=(",", ":")).encode()
        return _HEADER.pack(len(data)) + data

    def _send(self, frame: bytes) -> None:
        self._sending = memoryview(bytes(self._sending) + frame)
        while self._sending:
            if self._broken is not None or "said" not in self._pipes:
                raise Stopped
            self._pump()
        if "said" not in self._pipes:
            raise Stopped

    def _next_frame(self) -> bytes | None:
        if len(self._heard) < _HEADER.size:
            return None
        length: int = _HEADER.unpack_from(self._heard)[0]
        if length > self._limits.output_bytes:
            raise self._break("output_limit", f"a message of {length} bytes")
        if len(self._heard) < _HEADER.size + length:
            return None
        message = bytes(self._heard[_HEADER.size : _HEADER.size + length])
        del self._heard[: _HEADER.size + length]
        return message

    def _break(self, how: Ending, detail: str) -> Stopped:
        """Have it killed for that reason."""
        self._broken = (how, detail)
        self._worker.kill()
        return Stopped()

    def _look(self) -> None:
        """Count its threads. The limit of the kernel does not bind a superuser's, and counts more than these."""
        if self._report is None and self._broken is None:
            self._pid = self._pid or self._worker.candidate()
            if self._pid is not None and watching.threads(self._pid) > _TASKS:
                self._break("oom", "too many threads")

    def _look_around(self) -> None:
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            for one in self.beside:
                one._look()

    def _out_of_time(self, ready: Set[str]) -> Stopped:
        """Kill it for its wall time. It was not kept waiting, by the machine or by the trainer, where it sleeps, has
        said nothing that was not heard, and was waited for most of the time (or another of its attempt was)."""
        waited = sum(one._waited for one in self.beside)
        if not ready - {"said"} and waited >= self._limits.wall_seconds / 2:
            pid = self._pid or self._worker.candidate()
            self._asleep = pid is not None and watching.is_asleep(pid)
        return self._break("timeout", f"{self._limits.wall_seconds:g} seconds of wall time")

    def _pump(self) -> None:
        """Wait for something to happen, at most to the deadline, and take what came. Raises Stopped, WorkerLost."""
        self._look_around()
        if self._broken is not None:
            raise Stopped
        poll = select.poll()
        names = {self._worker.descriptor(): "control"}
        for name, descriptor in self._pipes.items():
            if name == "said" and not self._sending:
                continue
            if name == "heard" and len(self._heard) > self._limits.output_bytes + _HEADER.size:
                continue  # it waits until what it said is heard
            names[descriptor] = name
            poll.register(descriptor, select.POLLOUT if name == "said" else select.POLLIN)
        if self._report is None:
            poll.register(self._worker.descriptor(), select.POLLIN)
        begun = time.monotonic()
        left = self._deadline - begun
        ready = {names[descriptor] for descriptor, _ in poll.poll(max(0.0, min(left, _LOOK_SECONDS)) * 1000)}
        self._waited += time.monotonic() - begun
        if "control" in ready:
            self._report = self._worker.report(self._deadline + _GRACE_SECONDS)
            self._drain()
            return
        if left <= 0:
            raise self._out_of_time(ready)
        for name in ready:
            if name == "said":
                self._write()
            else:
                self._read(name)

    def _write(self) -> None:
        try:
            self._sending = self._sending[os.write(self._pipes["said"], self._sending[:_PIECE]) :]
        except BlockingIOError:
            pass
        except OSError:  # it closed its end
            self._sending = memoryview(b"")
            self._shut("said")

    def _read(self, name: str) -> bool:
        """Take a piece; whether there was one."""
        try:
            piece = os.read(self._pipes[name], _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._shut(name)
            return False
        if name == "heard":
            self._heard += piece
            return True
        room = self._limits.output_bytes - sum(map(len, self._printed.values()))
        self._printed[name] += piece[:room]
        if len(piece) > room and self._broken is None:
            raise self._break("output_limit", f"it printed more than {self._limits.output_bytes} bytes")
        return len(piece) <= room

    def _drain(self) -> None:
        """Take what is left in the pipes of a process that is dead."""
        for name in ("heard", "out", "err"):
            try:
                while name in self._pipes and self._read(name):
                    if name == "heard" and len(self._heard) > 2 * self._limits.output_bytes + (1 << 20):
                        break
            except Stopped:
                pass
            self._shut(name)
        self._shut("said")

    def _shut(self, name: str) -> None:
        if name in self._pipes:
            os.close(self._pipes.pop(name))

    def _ended(self, report: Mapping[str, Any]) -> Ended:
        try:
            status, cpu, peak = int(report["status"]), float(report["cpu"]), int(report["peak"])
            why, wall = str(report["why"]), float(report["wall"])
        except (KeyError, TypeError, ValueError):
            raise WorkerLost("the worker's report cannot be read") from None
        if "fault" in report:
            raise WorkerLost(f"a process could not be confined: {report['fault']}")
        how, detail = self._broken or self._how(why, os.waitstatus_to_exitcode(status), cpu, peak)
        if how in ("finished", "crashed") and self._printed["err"] and not detail:
            detail = self._printed["err"][-_TAIL:].decode(errors="replace")
        code = os.waitstatus_to_exitcode(status)
        output = bytes(self._printed["out"])
        kept_waiting = how == "timeout" and cpu < _BUSY_SHARE * self._limits.cpu_seconds and not self._asleep
        starved = kept_waiting or detail == KILLED
        return Ended(how, detail, cpu, wall, peak, code if code >= 0 else None, output, starved)

    def _how(self, why: str, code: int, cpu: float, peak: int) -> tuple[Ending, str]:
        limits = self._limits
        if why == "cpu" or (code in (-signal.SIGKILL, -signal.SIGXCPU) and cpu >= limits.cpu_seconds):
            return "timeout", f"{limits.cpu_seconds:g} seconds of processor time"
        if why == "wall":
            return "timeout", f"{limits.wall_seconds:g} seconds of wall time"
        if why == "scratch":
            return "output_limit", f"more than {limits.scratch_bytes} bytes of files"
        if code == -signal.SIGKILL:
            return "oom", KILLED
        if code == _OUT_OF_MEMORY:
            return "oom", f"more than {limits.memory_bytes} bytes of memory"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS) and peak > limits.memory_bytes // 2:
                return "oom", f"{name} with {peak} bytes of memory in use"
            return "crashed", name
        return "finished", ""


KILLED = "killed by the kernel, which ends processes where a machine is out of memory"
