"""User functions as scorers, seen from the trainer: never imported here, run in a worker process that can be killed.

A worker is a fresh process in a group of its own, never a fork of the trainer (which holds threads, an accelerator
and open files). A group's candidates are sent together and answered one by one, so the time-out is each candidate's;
a function with TRL's signature gets them all at once, and their time-outs together. Threads that ask at the same time
each have a worker of their own, as far as there are enough, and wait for theirs in poll().
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selftrain.errors import ConfigError, DataError, DependencyError, SelftrainError
from selftrain.records import Prompt
from selftrain.scoring import Asked, Verdict
from selftrain.scoring.results import dead, ending, late
from selftrain.scoring.worker import HEADER, frame

# Not `-m`: that puts the working directory first on the path, where a user's json.py would be imported for ours.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from selftrain.scoring.worker import main; main()"
LOAD_SECONDS = 300.0
_CHUNK = 1 << 16
_CHECKED_AT_ONCE = 256
_KINDS = {one.__name__: one for one in (ConfigError, DataError, DependencyError)}
_TRLS_OWN = frozenset({"prompt", "prompts", "completion", "completions", "completion_ids"})


class _TimedOut(Exception):  # noqa: N818
    pass


class _Died(Exception):  # noqa: N818
    pass


class _Closed(Exception):  # noqa: N818
    """The judge was closed while it judged: its verdict is wanted no more."""


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

    def busy_seconds(self) -> float:
        """The processor time it has taken; without /proc, the time there is, which is never less."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kill the process and all it started. Another thread may be waiting for it, and sees it die: the pipes stay
        open, or their numbers could be another file's by the time it looks."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self, *, grace_seconds: float = 0.0) -> int:
        """Kill the process and all it started; the exit code it ended with."""
        self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        self.kill()
        code = self._process.wait()
        self._answers.close()
        return code


class FunctionJudge:
    """A function in a worker, or a built-in rule that must be stoppable. Construction loads it; raises ConfigError,
    DataError or DependencyError where that fails. `columns` are the data's names of the prompt and the reference.

    At most `workers` processes, the first one at once and the others when that many threads ask at the same time.

    A user's function that takes too long, or ends its process, leaves its candidate unscored. A built-in rule
    (`is_rule`) does so because of what the candidate wrote, which is wrong then, or a policy could have its failures
    left out; unscored where the machine may be at fault: little time on a processor, or the process was killed.
    """

    def __init__(
        self,
        reference: str,
        *,
        base: Path,
        params: Mapping[str, Any],
        timeout_seconds: float,
        check: str | None = None,
        prepare: str | None = None,
        columns: Mapping[str, str] = MappingProxyType({}),
        workers: int = 1,
        is_rule: bool = False,
    ) -> None:
        self._reference = reference
        self._columns = {name: what for name, what in columns.items() if name not in _TRLS_OWN}
        self._task = {
            "reference": reference,
            "base": str(base.resolve()),
            "params": dict(params),
            "check": check,
            "prepare": prepare,
        }
        self._timeout, self._is_rule = timeout_seconds, is_rule
        self._loaded: dict[str, Any] = {}
        self._room = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._is_closed = False
        self._idle.append(self._start())

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> list[Verdict]:
        """One Verdict per candidate, in order. A function with TRL's signature is asked once, about all of them, and
        may take as long as for each of them in turn."""
        if not asked:
            return []
        if self._loaded["grouped"]:
            (answer,) = self._ask([_group_call(prompt, asked, self._columns)], len(asked) * self._timeout)
            answers = answer if isinstance(answer, list) else [answer] * len(asked)
        else:
            answers = self._ask([self._call(prompt, one) for one in asked], self._timeout)
        return [Verdict(**answer) for answer in answers]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """A user function decides itself what a missing reference means. Raises DataError where a function with TRL's
        signature asks for a column that a prompt's row does not have."""
        for prompt in prompts:
            missing = [name for name in self._loaded["columns"] if name not in {*prompt.metadata, *self._columns}]
            if missing:
                raise DataError(
                    f"{self._reference} asks for {missing[0]!r}, and prompt {prompt.id} has no such column; it has: "
                    f"{', '.join([*prompt.metadata, *self._columns]) or 'none'}. Rename the argument or the column, or "
                    "give it a default; "
                    "the reference is given as reference, answer and solution"
                )

    def unusable(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, str]]:
        """The prompts that the built-in rule cannot judge, and why not."""
        for start in range(0, len(prompts), _CHECKED_AT_ONCE):
            some = prompts[start : start + _CHECKED_AT_ONCE]
            calls = [{"of": "check", "given": _given(prompt, None, self._loaded["checks"])} for prompt in some]
            for prompt, answer in zip(some, self._ask(calls, self._timeout), strict=True):
                if answer["value"] != 1.0:
                    yield prompt, str(answer["error"] or answer["explanation"])

    def close(self) -> None:
        """End the workers, also those that another thread waits for: that thread's call ends by an error."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for worker in self._workers.difference(idle):
                worker.kill()
        for worker in idle:
            self._stop(worker)

    def _ask(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """What a worker answers to each call within so many seconds, or else a verdict with the error."""
        with self._room:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            answers: list[Any] = []
            died_before = late_before = False
            while len(answers) < len(calls):
                worker = worker or self._start()
                busy_before = worker.busy_seconds()
                # What was late before is asked alone, and may take twice as long: the machine may be busy.
                rest = calls[len(answers) :][: 1 if late_before else None]
                limit = 2 * seconds if late_before else seconds
                try:
                    worker.send(rest, limit)
                    for _ in rest:
                        answers.append(worker.receive(limit))
                        died_before = late_before = False
                except _TimedOut:
                    busy = worker.busy_seconds() - busy_before
                    self._stop(worker)
                    worker = None
                    late_before = self._is_rule and not late_before
                    if not late_before:
                        answers.append(asdict(late(seconds, is_to_blame=self._is_rule and busy >= seconds / 4)))
                    died_before = False
                except (_Died, ValueError):
                    # Once more in a fresh worker: the kernel, short of memory, may have killed it without its fault.
                    code = self._stop(worker, grace_seconds=1.0)
                    worker = None
                    if self._is_closed:
                        raise _Closed from None
                    if died_before:
                        answers.append(asdict(dead(code, is_to_blame=self._is_rule and code != -signal.SIGKILL)))
                    died_before = not died_before
                except BaseException:
                    self._stop(worker)  # it may be in the middle of an answer
                    raise
            self._put_back(worker)
            return answers

    def _put_back(self, worker: _Worker | None) -> None:
        with self._lock:
            if worker is not None and not self._is_closed:
                self._idle.append(worker)
                return
        if worker is not None:
            self._stop(worker)

    def _call(self, prompt: Prompt, asked: Asked) -> dict[str, Any]:
        return {"of": "text", "given": _given(prompt, asked, self._loaded["takes"])}

    def _start(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise _Closed
            worker = _Worker()
            self._workers.add(worker)
        try:
            worker.send(self._task, LOAD_SECONDS)
            answer = worker.receive(LOAD_SECONDS)
        except _TimedOut:
            self._stop(worker)
            raise DataError(f"{self._task['reference']}: importing it took over {LOAD_SECONDS:g} s") from None
        except _Died:
            code = self._stop(worker, grace_seconds=1.0)
            ended = f"its process ended while it was imported ({ending(code)})"
            raise DataError(f"{self._task['reference']}: {ended}") from None
        except BaseException:
            self._stop(worker)
            raise
        if "error" in answer:
            self._stop(worker)
            raise _KINDS.get(answer["error"], SelftrainError)(answer["message"])
        self._loaded = answer
        return worker

    def _stop(self, worker: _Worker, *, grace_seconds: float = 0.0) -> int:
        with self._lock:
            self._workers.discard(worker)
        return worker.stop(grace_seconds=grace_seconds)


def _given(prompt: Prompt, asked: Asked | None, names: Collection[str]) -> dict[str, Any]:
    """The arguments among `names`; without a candidate, those that are the prompt's."""
    offered = {
        "reference": prompt.reference,
        "prompt": _as_asked(prompt),
        "metadata": dict(prompt.metadata),
        "task": prompt.task,
    }
    if asked is not None:
        offered |= {
            "text": asked.text,
            "full_text": asked.candidate.text,
            "reasoning": asked.candidate.reasoning,
            "finish_reason": asked.candidate.finish_reason,
            "num_tokens": len(asked.candidate.completion_token_ids),
        }
    return {name: value for name, value in offered.items() if name in names}


def _group_call(prompt: Prompt, asked: Sequence[Asked], names: Mapping[str, str]) -> dict[str, Any]:
    """Candidates as TRL gives them: text after a text, a list of one message after a conversation. A column that the
    row keeps comes before what `names` would give by its name."""
    columns = {name: value for name, value in prompt.metadata.items() if name not in _TRLS_OWN}
    columns |= {"reference": prompt.reference}
    known = {"prompt": _as_asked(prompt), "reference": prompt.reference}
    offered = {"answer": prompt.reference, "solution": prompt.reference, "task": prompt.task}
    columns = {**offered, **{name: known[what] for name, what in names.items()}, **columns}
    completions: list[Any] = [one.text for one in asked]
    if prompt.messages is not None:
        completions = [[_message(one)] for one in asked]
    return {
        "of": "group",
        "prompt": _as_asked(prompt),
        "columns": columns,
        "completions": completions,
        "completion_ids": [list(one.candidate.completion_token_ids) for one in asked],
    }


def _message(asked: Asked) -> dict[str, str]:
    reasoning = asked.candidate.reasoning
    said = {"role": "assistant", "content": asked.text}
    return said if reasoning is None else {**said, "reasoning_content": reasoning}


def _as_asked(prompt: Prompt) -> Any:
    return prompt.text if prompt.messages is None else [asdict(message) for message in prompt.messages]
