"""The program of a worker process: loads one function, then judges the candidates it is sent, one by one.

Frames of JSON, each after its length in four bytes, go over the pipes that were standard input and output. The
function sees neither: what it prints goes to standard error, and its standard input is empty. This keeps prints and
crashes of a user's function away from the trainer; it is no sandbox for code written by a model.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import math
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from selftrain.errors import ConfigError, SelftrainError
from selftrain.plugins import load_function
from selftrain.scoring import Verdict

OFFERED = ("text", "reference", "prompt", "metadata", "finish_reason", "num_tokens")
HEADER = struct.Struct(">I")
MAX_CHARACTERS = 2000
_PR_SET_PDEATHSIG = 1


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
            function, takes = _load(task["reference"], Path(task["base"]), task["params"])
        except SelftrainError as error:
            answers.write(frame({"error": type(error).__name__, "message": str(error)}))
            return
        answers.write(frame({"takes": takes}))
        while True:
            for call in _read(requests):
                answers.write(frame(_judge(function, {**call, **task["params"]})))
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


def _load(reference: str, base: Path, params: Mapping[str, Any]) -> tuple[Callable[..., Any], list[str]]:
    """The function, and which of OFFERED it takes. Raises ConfigError where it cannot be called with those."""
    function = load_function(reference, base)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{reference}: its signature cannot be read: {error}") from None
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigError(f"{reference}: {parameter.name!r} is positional-only; scorers are called by keyword")
    named = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    own = [name for name in named if name not in OFFERED]
    for name in params:
        if name in OFFERED or (name not in named and not takes_any):
            raise ConfigError(f"{reference}: there is no parameter {name!r}; known: {', '.join(own) or 'none'}")
    for name in own:
        if named[name].default is inspect.Parameter.empty and name not in params:
            raise ConfigError(
                f"{reference}: nothing is known for its argument {name!r}; "
                f"a scorer is given {', '.join(OFFERED)}, and what its params name"
            )
    takes = [name for name in OFFERED if takes_any or name in named]
    if not takes:
        raise ConfigError(f"{reference}: it takes nothing of a candidate; name some of {', '.join(OFFERED)}")
    return function, takes


def _judge(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The verdict as plain data. Whatever the function raises, exits included, is an error of this candidate alone."""
    process = os.getpid()
    try:
        verdict = _verdict(function(**arguments))
        _end_if_forked(process)
    except BaseException as error:
        _end_if_forked(process)
        return {"value": None, "error": _cut(f"{_described(error)}{_place(function, error)}")}
    return {
        "value": verdict.value,
        "answer": None if verdict.answer is None else _cut(verdict.answer),
        "explanation": None if verdict.explanation is None else _cut(verdict.explanation),
        "error": verdict.error,
    }


def _end_if_forked(process: int) -> None:
    """End a child that the function forked and let return: it would answer a second time, for the next candidate."""
    if os.getpid() != process:
        os._exit(0)


def _verdict(result: Any) -> Verdict:
    if isinstance(result, Verdict):
        return result
    answer = explanation = None
    if isinstance(result, Mapping):
        if "value" not in result:
            raise TypeError(f"the function returned a dict without 'value': {_cut(repr(result), 200)}")
        answer, explanation = result.get("answer"), result.get("explanation")
        result = result["value"]
    if result is None:
        return Verdict(None, error="the function returned None")
    if isinstance(result, str | bytes) or not (isinstance(result, int) or callable(getattr(result, "__float__", None))):
        raise TypeError(f"the function returned {_cut(repr(result), 200)}; return a bool, a number, None or a dict")
    value = float(result)
    if not math.isfinite(value):
        return Verdict(None, error=f"the function returned {value}, which is no value")
    return Verdict(
        value,
        None if answer is None else str(answer),
        f"the function gave {value:g}" if explanation is None else str(explanation),
    )


def _described(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _place(function: Callable[..., Any], error: BaseException) -> str:
    """The innermost line of the function's own file."""
    file = inspect.unwrap(function).__code__.co_filename if inspect.isfunction(inspect.unwrap(function)) else None
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return f" ({Path(str(file)).name}:{lines[-1]})" if lines else ""


def _cut(text: str, limit: int = MAX_CHARACTERS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


if __name__ == "__main__":
    main()
