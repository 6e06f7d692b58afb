"""The program of a worker process: loads one function, then judges the candidates it is sent, one by one, or a group
at a time where the function has TRL's signature.

Frames of JSON, each after its length in four bytes, go over the pipes that were standard input and output. The
function sees neither: what it prints goes to standard error, and its standard input is empty. This keeps prints and
crashes of a user's function away from the trainer; it is no sandbox for code written by a model.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from selftrain.errors import ConfigError, SelftrainError
from selftrain.plugins import load_function
from selftrain.scoring import Verdict, reward_functions
from selftrain.scoring.results import error_of, verdict_of
from selftrain.scoring.reward_functions import awaited, is_grouped, judge_group

OFFERED = (
    "text",
    "reference",
    "prompt",
    "metadata",
    "finish_reason",
    "num_tokens",
    "full_text",
    "reasoning",
    "task",
)
HEADER = struct.Struct(">I")
RULE_BYTES = 4 << 30
_PR_SET_PDEATHSIG = 1
# Rules only read and compute. Some libraries evaluate the answers they read, so nothing else is let through.
_FORBIDDEN = frozenset(
    f"os.{name}"
    for name in (
        *("system", "exec", "fork", "forkpty", "posix_spawn", "kill", "killpg", "remove", "rename", "rmdir", "mkdir"),
        *("link", "symlink", "truncate", "chmod"),
    )
) | {"subprocess.Popen", "socket.connect"}


def frame(value: Any) -> bytes:
    """A value as it travels. ASCII, so that lone surrogates in a candidate's text survive."""
    body = json.dumps(value).encode("ascii")
    return HEADER.pack(len(body)) + body


def _read(stream: BinaryIO) -> Any:
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    return json.loads(stream.read(HEADER.unpack(header)[0]))


def main() -> None:
    """Serve until standard input ends."""
    requests, answers = _private_pipes()
    _die_with_parent()
    try:
        task = _read(requests)
        try:
            loaded = _load(task)
        except SelftrainError as error:
            answers.write(frame({"error": type(error).__name__, "message": str(error)}))
            return
        answers.write(frame(loaded.described()))
        while True:
            for call in _read(requests):
                answers.write(frame(loaded.answer(call)))
    except (EOFError, BrokenPipeError):
        return


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _die_with_parent() -> None:
    """An idle worker sees its input end. A busy one, perhaps in C code, can only be ended by the kernel. Linux sends
    the signal when the *thread* that spawned the worker ends: the parent then just starts another."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A function, and what it can be given. `accepts` are the parameters of one that is asked about groups (None:
    any), `columns` those that only the prompts' rows can fill."""

    function: Callable[..., Any]
    check: Callable[..., Any] | None
    params: Mapping[str, Any]
    takes: tuple[str, ...]
    checks: tuple[str, ...] = ()
    grouped: bool = False
    accepts: frozenset[str] | None = None
    columns: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """What the trainer has to know of it."""
        return {"takes": self.takes, "checks": self.checks, "grouped": self.grouped, "columns": self.columns}

    def answer(self, call: Mapping[str, Any]) -> Any:
        """The verdict as plain data; of a group, a list of them. Whatever the function raises, exits included, is an
        error of this call alone. Where a built-in rule raises, and has no trouble with the reference, the text is what
        it stumbles over: that is wrong, or a policy could have its failures left out."""
        process = os.getpid()
        try:
            answer = self._answer(call)
            _end_if_forked(process)
        except BaseException as error:
            _end_if_forked(process)
            said = error_of(self.function, error)
            if call["of"] == "text" and self._takes_reference(call["given"]):
                return asdict(Verdict(0.0, explanation=f"the rule cannot read it: {said}"))
            return asdict(Verdict(None, error=said))
        return answer

    def _takes_reference(self, given: Mapping[str, Any]) -> bool:
        """Whether a built-in rule can use what it is given of the prompt; False for others, which nobody can ask."""
        if self.check is None:
            return False
        try:
            self.check(**{name: given[name] for name in self.checks}, **self.params)
        except BaseException:
            return False
        return True

    def _answer(self, call: Mapping[str, Any]) -> Any:
        if call["of"] == "group":
            found = judge_group(self.function, call, self.params, self.accepts)
            return [asdict(one) for one in found]
        if call["of"] == "check":
            assert self.check is not None
            try:
                self.check(**call["given"], **self.params)
            except ValueError as error:
                return asdict(Verdict(0.0, error=str(error)))
            return asdict(Verdict(1.0))
        return asdict(verdict_of(awaited(self.function(**call["given"], **self.params))))


def _end_if_forked(process: int) -> None:
    """End a child that the function forked and let return: it would answer a second time, for the next candidate."""
    if os.getpid() != process:
        os._exit(0)


def _load(task: Mapping[str, Any]) -> _Loaded:
    """Raises ConfigError where the function cannot be called with what is offered."""
    base, params = Path(task["base"]), task["params"]
    if task["prepare"] is not None:
        _silence()
        load_function(task["prepare"], base)()
        _forbid()
        _bound_memory()
    function = load_function(task["reference"], base)
    named, takes_any = _parameters(function, task["reference"])
    if is_grouped(named):
        return _grouped(function, task["reference"], named, takes_any, params)
    _require_fillable(task["reference"], named, takes_any, params, OFFERED)
    takes = tuple(name for name in OFFERED if takes_any or name in named)
    if not takes:
        raise ConfigError(f"{task['reference']}: it takes nothing of a candidate; name some of {', '.join(OFFERED)}")
    check = None if task["check"] is None else load_function(task["check"], base)
    checks = () if check is None else tuple(name for name in OFFERED if name in inspect.signature(check).parameters)
    return _Loaded(function, check, params, takes, checks)


def _grouped(
    function: Callable[..., Any],
    reference: str,
    named: Mapping[str, inspect.Parameter],
    takes_any: bool,
    params: Mapping[str, Any],
) -> _Loaded:
    offered = (*reward_functions.OFFERED, *reward_functions.OFFERED_COLUMNS)
    _require_known(reference, named, takes_any, params, reward_functions.OFFERED)
    columns = tuple(name for name in _unfilled(named, params) if name not in offered)
    accepts = None if takes_any else frozenset(named)
    return _Loaded(function, None, params, (), grouped=True, accepts=accepts, columns=columns)


def _parameters(function: Callable[..., Any], reference: str) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that can be given by keyword, and whether it takes any others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{reference}: its signature cannot be read: {error}") from None
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigError(f"{reference}: {parameter.name!r} is positional-only; scorers are called by keyword")
    named = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return named, any(one.kind is one.VAR_KEYWORD for one in parameters)


def _require_known(
    reference: str, named: Collection[str], takes_any: bool, params: Mapping[str, Any], offered: Collection[str]
) -> None:
    own = [name for name in named if name not in offered]
    for name in params:
        if name in offered or (name not in named and not takes_any):
            raise ConfigError(f"{reference}: there is no parameter {name!r}; known: {', '.join(own) or 'none'}")


def _require_fillable(
    reference: str,
    named: Mapping[str, inspect.Parameter],
    takes_any: bool,
    params: Mapping[str, Any],
    offered: Collection[str],
) -> None:
    _require_known(reference, named, takes_any, params, offered)
    for name in _unfilled(named, params):
        if name not in offered:
            raise ConfigError(
                f"{reference}: nothing is known for its argument {name!r}; "
                f"a scorer is given {', '.join(offered)}, and what its params name"
            )


def _unfilled(named: Mapping[str, inspect.Parameter], params: Mapping[str, Any]) -> list[str]:
    return [name for name, one in named.items() if one.default is inspect.Parameter.empty and name not in params]


def _silence() -> None:
    """What a library of a built-in rule prints is nothing to read."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def _forbid() -> None:
    """Refuse other programs, connections and changes of files to a built-in rule, for good."""
    sys.dont_write_bytecode = True

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _FORBIDDEN or (writes and arguments[0] != os.devnull):
            raise PermissionError(f"{event} is nothing that a rule does")

    sys.addaudithook(refuse)


def _bound_memory() -> None:
    """Give a built-in rule so much more address space than it has taken by then, for good: what an answer would fill
    memory with fails in this process and nowhere else."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + RULE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
