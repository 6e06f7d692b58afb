"""Functions with TRL's signature, in the worker process: called once with all candidates of a prompt.

They are called as TRL 1.16's GRPOTrainer calls its `reward_funcs`: `prompts`, `completions` and `completion_ids`, every
column of the prompt's row repeated once per candidate, `trainer_state` (None here), `log_extra` and `log_metric`. What
a function does not name is left out unless it has `**kwargs`. The reference is given by the name of its column in the
data, and as `reference`, `answer` and `solution` where the row has no such columns of its own. A value of None says
that the function does not apply to that candidate, which is then judged by the other scorers alone. It may be async,
an object that can be called, or a `functools.partial`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selftrain.scoring import METRIC_PREFIX, Verdict
from selftrain.scoring.results import error_of, plain, verdict_of

OFFERED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
# The reference, under each of the names that data sets and reward functions know it by, and the task in a mix.
OFFERED_COLUMNS = ("reference", "answer", "solution", "task")


def is_grouped(names: Collection[str]) -> bool:
    """Whether a function with these parameters is asked once per group."""
    return "completions" in names or "completion_ids" in names


class Log:
    """What a function logs in one call about `size` candidates."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._columns: dict[str, list[Any]] = {}
        self._metrics: dict[str, list[float]] = {}

    def extra(self, column: str, values: Sequence[Any]) -> None:
        """TRL's log_extra: one value per candidate."""
        values = list(values)
        if len(values) != self._size:
            raise ValueError(f"log_extra({column!r}) was given {len(values)} values for {self._size} candidates")
        self._columns[str(column)] = [plain(value) for value in values]

    def metric(self, name: str, value: Any) -> None:
        """TRL's log_metric: a number, averaged over calls. One that is not finite is left out."""
        number = float(value)
        if number - number == 0:
            self._metrics.setdefault(f"{METRIC_PREFIX}{name}", []).append(number)

    def of(self, index: int) -> dict[str, Any]:
        """What belongs to that candidate; the metrics of the call belong to the first."""
        columns = {name: values[index] for name, values in self._columns.items()}
        return {**columns, **self._metrics} if index == 0 else columns


def judge_group(
    function: Callable[..., Any], call: Mapping[str, Any], params: Mapping[str, Any], accepts: Collection[str] | None
) -> list[Verdict]:
    """One Verdict per candidate. What the function raises, or a wrong number of values, is every candidate's error.
    `accepts` are the names of its parameters; None: any."""
    size = len(call["completions"])
    log = Log(size)
    repeated = {name: [value] * size for name, value in {**call["columns"], "prompts": call["prompt"]}.items()}
    offered = {
        **repeated,
        "completions": call["completions"],
        "completion_ids": call["completion_ids"],
        "trainer_state": None,
        "log_extra": log.extra,
        "log_metric": log.metric,
        **params,
    }
    given = {name: value for name, value in offered.items() if accepts is None or name in accepts}
    result = awaited(function(**given))
    try:
        values = list(result)
    except TypeError:
        raise TypeError(f"the function returned {result!r:.100}; return a list with one value per completion") from None
    if len(values) != size:
        raise ValueError(f"the function returned {len(values)} values for {size} completions")
    return [_with_extras(function, value, log.of(index)) for index, value in enumerate(values)]


def _with_extras(function: Callable[..., Any], value: Any, extras: Mapping[str, Any]) -> Verdict:
    try:
        found = verdict_of(value)
    except (TypeError, ValueError, OverflowError) as error:
        found = Verdict(None, error=error_of(function, error))
    applies = (value.get("value", 0) if isinstance(value, Mapping) else value) is not None
    return replace(found, extras=extras, applies=applies)


def awaited(result: Any) -> Any:
    """The result itself, or what it gives once awaited. All of a process are awaited in one event loop, so that clients
    a function keeps stay usable."""
    if not inspect.isawaitable(result):
        return result
    import asyncio

    global _runner
    if _runner is None:
        _runner = asyncio.Runner()

    async def wait() -> Any:
        return await result

    return _runner.run(wait())


_runner: Any = None
