"""User functions as scorers, seen from the trainer: never imported here, run in a worker process that can be killed.

The worker is a fresh process in a group of its own, never a fork of the trainer (which holds threads, an accelerator
and open files). A group's candidates are sent together and answered one by one, so the time-out is each candidate's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selftrain import errors
from selftrain.errors import DataError, SelftrainError
from selftrain.records import Candidate, Group, Prompt
from selftrain.scoring import Verdict
from selftrain.scoring.worker import HEADER, frame

# Not `-m`: that puts the working directory first on the path, where a user's json.py would be imported for ours.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from selftrain.scoring.worker import main; main()"
LOAD_SECONDS = 300.0
_CHUNK = 1 << 16


class _TimedOut(Exception):  # noqa: N818
    pass


class _Died(Exception):  # noqa: N818
    pass


class _Worker:
    """One process and its pipes. After _TimedOut or _Died it must be stopped."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._requests.fileno(), False)
        os.set_blocking(self._answers.fileno(), False)
        self._unread = bytearray()

    def send(self, value: Any, seconds: float) -> None:
        """Write a frame. Bounded in time, as a worker may be too wedged to read."""
        rest, deadline = memoryview(frame(value)), time.monotonic() + seconds
        while rest:
            self._wait(self._requests.fileno(), select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._requests.fileno(), rest[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _Died from error

    def receive(self, seconds: float) -> Any:
        """The next frame, at most `seconds` from now."""
        deadline = time.monotonic() + seconds
        while True:
            end = HEADER.size + HEADER.unpack_from(self._unread)[0] if len(self._unread) >= HEADER.size else None
            if end is not None and len(self._unread) >= end:
                body = bytes(self._unread[HEADER.size : end])
                del self._unread[:end]
                return json.loads(body)
            self._wait(self._answers.fileno(), select.POLLIN, deadline)
            chunk = os.read(self._answers.fileno(), _CHUNK)
            if not chunk:
                raise _Died
            self._unread += chunk

    @staticmethod
    def _wait(descriptor: int, event: int, deadline: float) -> None:
        # Asked once more at the deadline: what came while this process was held up is not late.
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(1000 * max(0.0, remaining := deadline - time.monotonic())):
            if remaining <= 0:
                raise _TimedOut

    def stop(self, *, grace_seconds: float = 0.0) -> int:
        """Kill the process and all it started; the exit code it ended with."""
        self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._answers.close()
        return code


class FunctionJudge:
    """A function in a worker. Construction loads it; raises ConfigError or DataError where that fails."""

    def __init__(self, reference: str, *, base: Path, params: Mapping[str, Any], timeout_seconds: float) -> None:
        self._task = {"reference": reference, "base": str(base.resolve()), "params": dict(params)}
        self._timeout = timeout_seconds
        self._takes: frozenset[str] = frozenset()
        self._worker: _Worker | None = None
        self._start()

    def judge(self, group: Group) -> list[Verdict]:
        """One Verdict per candidate, in order."""
        calls = [self._call(group.prompt, candidate) for candidate in group.candidates]
        verdicts: list[Verdict] = []
        died_before = False
        while len(verdicts) < len(calls):
            worker = self._worker or self._start()
            try:
                worker.send(calls[len(verdicts) :], self._timeout)
                while len(verdicts) < len(calls):
                    verdicts.append(Verdict(**worker.receive(self._timeout)))
                    died_before = False
            except _TimedOut:
                self._stop()
                verdicts.append(Verdict(None, error=f"timed out after {self._timeout:g} s"))
                died_before = False
            except (_Died, ValueError):
                # Once more in a fresh worker: the kernel, short of memory, may have killed it for no fault of its own.
                code = self._stop(grace_seconds=1.0)
                if died_before:
                    verdicts.append(Verdict(None, error=f"the worker died twice ({_ending(code)})"))
                died_before = not died_before
        return verdicts

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """A user function decides itself what a missing reference means."""

    def close(self) -> None:
        """End the worker."""
        self._stop()

    def _call(self, prompt: Prompt, candidate: Candidate) -> dict[str, Any]:
        asked = prompt.text if prompt.messages is None else [asdict(message) for message in prompt.messages]
        offered = {
            "text": candidate.text,
            "reference": prompt.reference,
            "prompt": asked,
            "metadata": dict(prompt.metadata),
            "finish_reason": candidate.finish_reason,
            "num_tokens": len(candidate.completion_token_ids),
        }
        return {name: value for name, value in offered.items() if name in self._takes}

    def _start(self) -> _Worker:
        worker = _Worker()
        self._worker = worker
        try:
            worker.send(self._task, LOAD_SECONDS)
            answer = worker.receive(LOAD_SECONDS)
        except _TimedOut:
            self._stop()
            raise DataError(f"{self._task['reference']}: importing it took over {LOAD_SECONDS:g} s") from None
        except _Died:
            ending = _ending(self._stop(grace_seconds=1.0))
            raise DataError(f"{self._task['reference']}: its process ended while it was imported ({ending})") from None
        except BaseException:
            self._stop()
            raise
        if "error" in answer:
            self._stop()
            kind = {"ConfigError": errors.ConfigError, "DataError": DataError}.get(answer["error"], SelftrainError)
            raise kind(answer["message"])
        self._takes = frozenset(answer["takes"])
        return worker

    def _stop(self, *, grace_seconds: float = 0.0) -> int:
        worker, self._worker = self._worker, None
        return worker.stop(grace_seconds=grace_seconds) if worker else 0


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
