"""The scorers that come with reasoning_gym's tasks. The problem is made again from what the prompt's metadata says of
it, and its own task judges the answer."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from selftrain.errors import DependencyError
from selftrain.records import canonical_json
from selftrain.scoring import Verdict

# Tasks that run an answer as Python code: where a list of values is meant, only literals are read.
_READ_BY_EVAL = (
    "algorithmic.string_insertion",
    "algorithmic.spiral_matrix",
    "algorithmic.binary_matrix",
    "games.n_queens",
)
# ... and where an expression is meant, by sympy's parse_expr, which evaluates what it reads.
_READ_BY_SYMPY = ("games.countdown", "games.puzzle24")
_UNSAFE = re.compile(r"""__|["'`\[\]{}:;=\\@]|[A-Za-z_)]\s*\.\s*[A-Za-z_]|\blambda\b""")
_NUMBER = re.compile(r"[0-9]{1,9}")
_BUILTINS = frozenset(dir(builtins)) - {"abs", "pow", "round", "min", "max", "sum"}


def require_installed() -> None:
    """Raise DependencyError where reasoning_gym is not there."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise DependencyError(
            "score.scorers: reasoning_gym needs the package reasoning-gym: pip install 'selftrain[reasoning-gym]'"
        )


def prepare() -> None:
    """Import reasoning_gym, silently, and keep its tasks from running answers as code."""
    require_installed()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    sympy = importlib.import_module("sympy")
    for name in _READ_BY_EVAL:
        importlib.import_module(f"reasoning_gym.{name}").__dict__["eval"] = ast.literal_eval
    parse = _guarded(sympy.parse_expr)
    sympy.__dict__["parse_expr"] = parse
    for name in _READ_BY_SYMPY:
        importlib.import_module(f"reasoning_gym.{name}").__dict__["parse_expr"] = parse


def _guarded(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse what is more than an expression of symbols and functions."""

    def parsed(text: str, *others: Any, **named: Any) -> Any:
        if _UNSAFE.search(text) or _BUILTINS & set(re.findall(r"[A-Za-z_]\w*", text)):
            raise ValueError("the answer is no plain expression")
        return parse(text, *others, **named)

    return parsed


def reasoning_gym(text: str, metadata: Mapping[str, Any], *, full_marks: bool = True) -> Verdict:
    """What the task of `metadata["reasoning_gym"]` (task, seed, params) gives the answer. `full_marks` counts only 1.0;
    without it, the task's partial credit is the value: many tasks give some for an answer with other words around."""
    named = _named(metadata)
    dataset, entry = _entry(named)
    answer = text.strip()
    # That task takes any four numbers that make 24, so that one expression would solve every puzzle.
    if named["task"] == "puzzle24" and sorted(map(int, _NUMBER.findall(answer))) != sorted(
        entry["metadata"]["numbers"]
    ):
        return Verdict(0.0, answer, "it does not use the puzzle's numbers, each once")
    try:
        marks = float(dataset.score_answer(answer, entry))
    except Exception as error:
        # The task's own answer was judged before any work, so this is the candidate's.
        return Verdict(0.0, answer, f"the task could not read the answer: {type(error).__name__}: {error!s:.100}")
    if full_marks and marks < 1.0:
        return Verdict(0.0, answer, f"the task gives it {marks:g}, and only 1 counts (full_marks)")
    return Verdict(min(max(marks, 0.0), 1.0), answer, f"the task gives it {marks:g}")


def check(metadata: Mapping[str, Any], *, full_marks: bool = True) -> None:
    """Raise ValueError where the problem cannot be made, or its task gives full marks to any words, or none to its own
    answer. Tasks that keep no answer (rubiks_cube and others) are not asked about that."""
    named = _named(metadata)
    task = named["task"]
    try:
        dataset, entry = _entry(named)
    except Exception as error:
        raise ValueError(f"reasoning_gym cannot make task {task!r}: {type(error).__name__}: {error}") from None
    if reasoning_gym("no answer", metadata).value == 1.0:
        raise ValueError(f"task {task!r} gives full marks to any words; judge its answers by normalised or exact")
    answer = entry.get("answer")
    if answer is None or task in NO_ANSWER:
        return
    marks = float(dataset.score_answer(answer, entry))
    if marks != 1.0:
        raise ValueError(f"task {task!r} gives its own answer {answer!r:.60} only {marks:g}")


NO_ANSWER = frozenset({"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"})
"""Tasks that keep no answer which they find right themselves."""


def _named(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    named = metadata.get("reasoning_gym")
    if not isinstance(named, Mapping) or not isinstance(named.get("task"), str) or "seed" not in named:
        raise ValueError(
            "the row says no reasoning_gym: {task, seed, params}; take prompts from path: reasoning_gym:TASK"
        )
    return named


def _entry(named: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    return _made(named["task"], int(named["seed"]), canonical_json(dict(named.get("params") or {})))


@lru_cache(maxsize=256)
def _made(task: str, seed: int, params: str) -> tuple[Any, Mapping[str, Any]]:
    from reasoning_gym import create_dataset

    dataset = create_dataset(task, seed=seed, size=1, **json.loads(params))
    return dataset, dataset[0]
