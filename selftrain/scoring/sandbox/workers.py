"""A worker as the trainer sees it: a fork server's process and the socket to it. Every wait has an end.

What comes over the socket is the server's own word: a candidate's process never holds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from selftrain.scoring.sandbox import Limits, Tier, scratch, tiers, watching
from selftrain.scoring.sandbox.interpreter import Interpreter

_READY_SECONDS = 120.0
"""To start, or to remove the files of one process."""
_ENDS = ("said", "heard", "out", "err")


class WorkerLost(Exception):  # noqa: N818 - reads as a fact
    """The worker died, or does not keep to the protocol: the sandbox's own failure, never the candidate's."""


class Spawner:
    """Starts processes from one thread that lives as long as they may: the kernel ends a worker together with the
    thread that started it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-spawner")

    def start(self, tier: Tier, interpreter: Interpreter, driver: Path, limits: Limits) -> tiers.Started:
        """As tiers.start. Raises WorkerLost."""
        try:
            return self._thread.submit(tiers.start, tier, interpreter, driver, limits).result()
        except OSError as error:
            raise WorkerLost(f"the {tier} worker could not be started: {error}") from error

    def close(self) -> None:
        """End the thread, and with it what is left of its processes."""
        self._thread.shutdown()


class Worker:
    """Ready once constructed. Raises WorkerLost everywhere."""

    def __init__(self, started: tiers.Started) -> None:
        self._process, self._control, self._scratch = started.process, started.control, started.scratch
        self._serial = 0
        self._is_ready = False
        try:
            self._wait_until_ready()
        except WorkerLost as lost:
            said = self._complaint()
            self.close()
            raise WorkerLost(f"{lost}{': ' + said if said else ''}") from None
        assert self._process.stderr is not None
        self._process.stderr.close()
        started_here = [*watching.tree(self._process.pid)]
        self._server = started_here[-1]
        _offer_to_the_oom_killer(started_here)

    @property
    def executions(self) -> int:
        """How many candidates' processes it has been asked for."""
        return self._serial

    @property
    def pid(self) -> int:
        """Of the process that was started: bwrap itself, or the server."""
        return self._process.pid

    def candidate(self) -> int | None:
        """The number of the candidate's process, outside; None where there is none, or it cannot be seen."""
        return next(iter(watching.children(self._server)), None)

    def descriptor(self) -> int:
        """To wait for a report with poll."""
        return self._control.fileno()

    def begin(self, limits: Limits) -> dict[str, int]:
        """Start a candidate's process, once the folder of the one before is wiped. The trainer's ends of its pipes,
        not blocking: `said` (to it), `heard`, `out` and `err` (from it)."""
        self._wait_until_ready()
        self._is_ready = False
        self._serial += 1
        ours: dict[str, int] = {}
        theirs: list[int] = []
        asked = {
            "run": self._serial,
            "cpu": limits.cpu_seconds,
            "wall": limits.wall_seconds,
            "memory": limits.memory_bytes,
            "scratch": limits.scratch_bytes,
        }
        try:
            for name in _ENDS:
                reading, writing = os.pipe()
                mine, other = (writing, reading) if name == "said" else (reading, writing)
                ours[name] = mine
                theirs.append(other)
                os.set_blocking(mine, False)
            out = [theirs[2], theirs[3], theirs[0], theirs[1]]  # descriptors 1 to 4 of the candidate's process
            socket.send_fds(self._control, [json.dumps(asked).encode()], out)
        except OSError as error:
            for one in ours.values():
                os.close(one)
            raise WorkerLost(f"the worker takes no work: {error}") from error
        finally:
            for one in theirs:
                os.close(one)
        return ours

    def _wait_until_ready(self) -> None:
        if not self._is_ready and self.report(time.monotonic() + _READY_SECONDS) != {"ready": True}:
            raise WorkerLost("the worker speaks out of turn")
        self._is_ready = True

    def kill(self) -> None:
        """Have the candidate's process killed; the report follows."""
        with contextlib.suppress(OSError):  # gone: the report will not come, and that is noticed
            self._control.send(json.dumps({"kill": self._serial}).encode())

    def report(self, deadline: float) -> Mapping[str, Any]:
        """The server's next message, by that time of the monotonic clock."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            try:
                data = self._control.recv(1 << 16)
                if not data:
                    raise WorkerLost(f"the worker died{self._died_how()}")
                said = json.loads(data)
                if not isinstance(said, dict) or said.get("ended", self._serial) != self._serial:
                    raise WorkerLost("the worker speaks out of turn")
                return said
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WorkerLost("the worker does not answer") from None
                poll.poll(left * 1000)
            except (OSError, ValueError) as error:
                raise WorkerLost(f"the worker died ({error})") from error

    def abandon(self) -> None:
        """Hang up, while another thread still waits for it: that one finds it dead, and closes it."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and all that it started, at once."""
        self._control.close()
        if self._scratch is not None:  # hung up on, it kills its candidate and removes its folder before it ends
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self._scratch is not None:
            with contextlib.suppress(OSError):
                scratch.wipe(self._scratch)
                os.rmdir(self._scratch)

    def _died_how(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f" (exit status {self._process.wait(1)})"
        return ""

    def _complaint(self) -> str:
        """The last lines of what it said on its standard error."""
        pipe = self._process.stderr
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(OSError):
            said = os.read(pipe.fileno(), 1 << 16).decode(errors="replace").strip().splitlines()
            return " / ".join(said[-3:])
        return ""


def _offer_to_the_oom_killer(pids: Sequence[int]) -> None:
    """When the machine is out of memory, the kernel ends candidates before the trainer. Where it is refused, the
    kernel decides by size alone."""
    for one in pids:
        with contextlib.suppress(OSError), open(f"/proc/{one}/oom_score_adj", "w") as score:
            score.write("900")
