"""User functions as scorers, seen from the trainer: never imported here, run in a worker process that can be killed.

The worker is a fresh process in a group of its own, never a fork of the trainer (which holds threads, an accelerator
and open files). A group's candidates are sent together and answered one by one, so the time-out is each candidate's;
a function with TRL's signature gets them all at once, and their time-outs together.
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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selftrain.errors import ConfigError, DataError, DependencyError, SelftrainError
from selftrain.records import Prompt
from selftrain.scoring import Asked, Verdict
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
    """A function in a worker, or a built-in rule that must be stoppable. Construction loads it; raises ConfigError,
    DataError or DependencyError where that fails. `columns` are the data's names of the prompt and the reference."""

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
        self._timeout = timeout_seconds
        self._loaded: dict[str, Any] = {}
        self._worker: _Worker | None = None
        self._start()

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
                    yield prompt, str(answer["error"])

    def close(self) -> None:
        """End the worker."""
        self._stop()

    def _ask(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """What the worker answers to each call within so many seconds, or else a verdict with the error."""
        answers: list[Any] = []
        died_before = False
        while len(answers) < len(calls):
            worker = self._worker or self._start()
            try:
                worker.send(calls[len(answers) :], seconds)
                while len(answers) < len(calls):
                    answers.append(worker.receive(seconds))
                    died_before = False
            except _TimedOut:
                self._stop()
                answers.append(asdict(Verdict(None, error=f"timed out after {seconds:g} s")))
                died_before = False
            except (_Died, ValueError):
                # Once more in a fresh worker: the kernel, short of memory, may have killed it for no fault of its own.
                code = self._stop(grace_seconds=1.0)
                if died_before:
                    answers.append(asdict(Verdict(None, error=f"the worker died twice ({_ending(code)})")))
                died_before = not died_before
        return answers

    def _call(self, prompt: Prompt, asked: Asked) -> dict[str, Any]:
        return {"of": "text", "given": _given(prompt, asked, self._loaded["takes"])}

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
            raise _KINDS.get(answer["error"], SelftrainError)(answer["message"])
        self._loaded = answer
        return worker

    def _stop(self, *, grace_seconds: float = 0.0) -> int:
        worker, self._worker = self._worker, None
        return worker.stop(grace_seconds=grace_seconds) if worker else 0


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


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
