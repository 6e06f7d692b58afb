"""Rows made by reasoning_gym: questions of over a hundred tasks, each from a seed."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from selftrain.config import SourceConfig
from selftrain.errors import ConfigError, DataError, DependencyError
from selftrain.prompts.rows import GYM, Numbered
from selftrain.records import canonical_json

SEED_GAP = 10_000_000
DEFAULT_SIZE = 500

# Their questions come out differently in every process: they iterate over sets of text, whose order Python randomises,
# or draw from the process's own generator. No other process (a resumed run, another rank, a scorer) could repeat them.
UNREPEATABLE = ("isomorphic_strings", "list_functions", "polynomial_multiplication", "ransom_note")
# Only the answer they show does so, one of many right ones: their rows have none.
ANSWERS_VARY = ("knight_swap", "word_ladder")


def rows(source: SourceConfig, where: str) -> Numbered:
    """The questions after the first `skip`, as {question, answer, reasoning_gym: {task, seed, params}}.

    `params` of the source are `size` (500), `seed` (0) and the task's own. reasoning_gym makes item i of its seed s
    with Random(s + i), so that its seeds 1 and 2 share all items but one; ours are far apart: seed s begins at
    reasoning_gym's s * 10,000,000, and sets of different seeds share no item's seed. The `seed` in a row is that of
    the item: `create_dataset(task, seed=seed, size=1, **params)[0]` gives the entry again. The answer is None for tasks
    that show none.

    Raises ConfigError: an unknown task or parameter; DependencyError: reasoning_gym is not installed; DataError: it
    failed.
    """
    assert source.path is not None
    task = source.path.removeprefix(GYM)
    with _quiet():
        library = _library(source.path)
    _require_task(library, task, where)
    params, first, size = _params(source, where)
    whole = _made(library, task, where, params, seed=first, size=size)
    for index in range(source.skip, size):
        seed = first + index
        try:
            with _quiet():
                if index == source.skip:
                    is_separable = _is_separable(library, task, params, whole, first, source.skip)
                item = whole[index] if is_separable else _alone(library, task, params, seed)
        except Exception as error:
            raise DataError(
                f"{where}: reasoning_gym could not make item {index + 1} of {task} (its seed {seed}): "
                f"{type(error).__name__}: {error}; give other params"
            ) from error
        answer = None if task in ANSWERS_VARY else item["answer"]
        made_by = {"task": task, "seed": seed, "params": params}
        place = f"item {index + 1} of {source.path}"
        yield place, {"question": item["question"], "answer": answer, "reasoning_gym": copy.deepcopy(made_by)}


def _library(path: str) -> Any:
    try:
        import reasoning_gym
        import reasoning_gym.factory
    except ImportError as error:
        raise DependencyError(
            f"{path} needs reasoning_gym ({error}); run `pip install 'selftrain[reasoning-gym]'`"
        ) from error
    return reasoning_gym


def _require_task(library: Any, task: str, where: str) -> None:
    tasks = sorted(library.factory.DATASETS)
    if task == "composite":
        raise ConfigError(f"{where}: reasoning_gym:composite is a mix of tasks; name them in {where}.mix")
    if task in UNREPEATABLE:
        raise ConfigError(
            f"{where}: reasoning_gym:{task} gives other questions in every process, so no run could be resumed; "
            "take another task, or write its questions to a file"
        )
    if task not in tasks:
        close = difflib.get_close_matches(task, tasks, n=3)
        close = close or [name for name in tasks if task and (task in name or name in task)][:3]
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has: {', '.join(tasks)}"
        raise ConfigError(f"{where}: reasoning_gym has no task {task!r}; {hint}")


def _params(source: SourceConfig, where: str) -> tuple[dict[str, Any], int, int]:
    """The task's own parameters, the seed of the first item, the number of items."""
    params = dict(source.params)
    size, seed = params.pop("size", DEFAULT_SIZE), params.pop("seed", 0)
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{where}.params.{name} must be a whole number of at least {least}, not {value!r}")
    if size > SEED_GAP:
        raise ConfigError(f"{where}.params.size can be at most {SEED_GAP:,}, or seeds would share items; it is {size}")
    try:
        canonical_json(params)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}.params hold something that is not plain JSON: {error}") from None
    return params, seed * SEED_GAP, size


def _made(library: Any, task: str, where: str, params: dict[str, Any], *, seed: int, size: int) -> Any:
    try:
        with _quiet():
            return library.create_dataset(task, seed=seed, size=size, **copy.deepcopy(params))
    except Exception as error:
        known = [one.name for one in fields(library.factory.DATASETS[task][1]) if one.name not in ("seed", "size")]
        raise ConfigError(
            f"{where}.params do not fit reasoning_gym:{task}: {error}; its parameters: {', '.join(known) or 'none'}"
        ) from error


def _alone(library: Any, task: str, params: dict[str, Any], seed: int) -> Any:
    return library.create_dataset(task, seed=seed, size=1, **copy.deepcopy(params))[0]


def _is_separable(library: Any, task: str, params: dict[str, Any], whole: Any, first: int, skip: int) -> bool:
    """Whether items come out of the whole data set as each does alone, which a few tasks (gsm_symbolic, acre) do not
    keep: what they ask at a place also depends on the seed of the whole."""
    tried = [index for index in (skip, skip + 1, skip + 2) if index < len(whole)]
    return all(whole[index]["question"] == _alone(library, task, params, first + index)["question"] for index in tried)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Some tasks print, and some of what they import warns: neither is the user's concern."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
