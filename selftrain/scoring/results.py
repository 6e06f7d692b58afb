"""What a function returned, raised or logged, as plain data that fits a pipe and a table."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain.scoring import Verdict

MAX_CHARACTERS = 2000
LARGEST = 1e100
"""The greatest value, with or without a sign: greater ones overflow where they are squared and summed."""
KEYS = ("value", "answer", "explanation")


def verdict_of(result: Any) -> Verdict:
    """A bool, a number, None or {"value": ..., "answer": ..., "explanation": ...} as a Verdict; TypeError for others,
    and for a key that is none of these. A rule's Verdict stays as it is."""
    if isinstance(result, Verdict):
        return result
    answer = explanation = None
    if isinstance(result, Mapping):
        if "value" not in result:
            raise TypeError(f"the function returned a dict without 'value': {cut(repr(result), 200)}")
        if unknown := [str(key) for key in result if key not in KEYS]:
            near = difflib.get_close_matches(unknown[0], KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"the function returned a dict with the key {cut(unknown[0], 60)!r}, which says nothing here; known: "
                f"{', '.join(KEYS)}{hint}"
            )
        answer, explanation = result.get("answer"), result.get("explanation")
        result = result["value"]
    if result is None:
        return Verdict(None, error="the function returned None")
    if isinstance(result, str | bytes) or not (isinstance(result, int) or callable(getattr(result, "__float__", None))):
        raise TypeError(f"the function returned {cut(repr(result), 200)}; return a bool, a number, None or a dict")
    value = float(result)
    if not math.isfinite(value):
        return Verdict(None, error=f"the function returned {value}, which is no value")
    if abs(value) > LARGEST:
        return Verdict(None, error=f"the function returned {value:g}, and values over {LARGEST:g} cannot be averaged")
    return Verdict(
        value,
        None if answer is None else cut(str(answer)),
        cut(f"the function gave {value:g}" if explanation is None else str(explanation)),
    )


def error_of(function: Callable[..., Any], error: BaseException) -> str:
    """What was raised, with the innermost line of the function's own file."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    described = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return cut(f"{described}{_place(function, error)}")


def _place(function: Callable[..., Any], error: BaseException) -> str:
    own = inspect.unwrap(getattr(function, "func", function))  # of a functools.partial, what it wraps
    own = own if inspect.isfunction(own) else vars(type(own)).get("__call__")
    file = own.__code__.co_filename if inspect.isfunction(own) else None
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return f" ({Path(str(file)).name}:{lines[-1]})" if lines else ""


def plain(value: Any) -> Any:
    """The value if JSON can say it (numbers of numpy and torch as Python's); else how it shows itself."""
    if not isinstance(value, str | bool | int | float | list | tuple | dict | None) and hasattr(value, "item"):
        try:
            value = value.item()
        except Exception:
            return cut(repr(value))
    if isinstance(value, str):
        return cut(value)
    try:
        written = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return cut(repr(value))
    return value if len(written) <= MAX_CHARACTERS else cut(written)


def cut(text: str, limit: int = MAX_CHARACTERS) -> str:
    """At most so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def late(seconds: float, *, is_to_blame: bool) -> Verdict:
    """What is said of a candidate that took over its time; `is_to_blame`: it is wrong, else it is unscored."""
    if is_to_blame:
        return Verdict(0.0, explanation=f"judging it took over the time limit of {seconds:g} s, twice")
    return Verdict(None, error=f"timed out after {seconds:g} s")


def dead(code: int, *, is_to_blame: bool) -> Verdict:
    """The same of one with which the worker process ended, by that exit code, twice."""
    if is_to_blame:
        return Verdict(0.0, explanation=f"judging it ended the process that does so, twice ({ending(code)})")
    return Verdict(None, error=f"the worker died twice ({ending(code)})")


def ending(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
