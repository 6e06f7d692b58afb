"""Filters: functions of the recipe, `file.py:function`, that say of each candidate whether it may survive.

A filter takes any of `OFFERED` by name and returns True (it stays), or False or a reason in words (it leaves). It runs
in this process, so it must be quick and must not run what a model wrote.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selftrain import plugins
from selftrain.config import SelectConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.records import Candidate, Prompt, Score
from selftrain.selection.steps import Row, Step

OFFERED = (
    "text",
    "reasoning",
    "prompt",
    "reference",
    "metadata",
    "task",
    "value",
    "correct",
    "answer",
    "parts",
    "num_tokens",
    "finish_reason",
    "entropy",
    "logprob",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A loaded filter: `reference` as the recipe names it, `takes` the names of `OFFERED` that it is called with."""

    reference: str
    function: Callable[..., object]
    takes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its step in the funnel: `filter/` and the function's name."""
        return step_name(self.reference)


def step_name(reference: str) -> str:
    """The name of a filter's step in the funnel."""
    return f"filter/{plugins.split(reference)[1]}"


def check(config: SelectConfig, base: Path) -> None:
    """Raise ConfigError for a filter that is not there, or that cannot be told from another, without running any."""
    steps: dict[str, str] = {}
    for reference in config.filters:
        plugins.require_function(reference, base)
        name = step_name(reference)
        if name in steps:
            raise ConfigError(
                f"select.filters: {steps[name]} and {reference} would be one step of the funnel; name each function "
                "once, and differently"
            )
        steps[name] = reference


def load(config: SelectConfig, base: Path) -> tuple[Filter, ...]:
    """The filters of a config in order; `base` is the recipe's folder.

    Raises ConfigError where a function is not there or asks for what no filter is given, DataError where its file
    cannot be imported.
    """
    return tuple(_loaded(reference, base) for reference in config.filters)


def step(one: Filter, prompts: Mapping[str, Prompt]) -> Step:
    """The filter as a step of selection. `prompts` has the candidates' prompts by id.

    It raises PhaseError where the function fails, and DataError where it returns neither True, False nor a reason; both
    name the function and the candidate.
    """

    def leaving(rows: Sequence[Row]) -> Mapping[str, str]:
        reasons = {}
        for candidate, score in rows:
            said = _asked(one, prompts[candidate.prompt_id], candidate, score)
            if said is not True:
                name = plugins.split(one.reference)[1]
                reasons[candidate.id] = f"{name}: {said}" if said else f"{name} says no"
        return reasons

    return leaving


def _loaded(reference: str, base: Path) -> Filter:
    function = plugins.load_function(reference, base)
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"select.filters: {reference} is async; a filter is a plain function")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"select.filters: the signature of {reference} cannot be read: {error}") from None
    known = f"a filter is given {', '.join(OFFERED)}, by name"
    for one in parameters:
        by_name = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if one.kind is one.POSITIONAL_ONLY or (by_name and one.name not in OFFERED and one.default is one.empty):
            raise ConfigError(f"select.filters: nothing is known for the argument {one.name!r} of {reference}; {known}")
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    named = {one.name for one in parameters}
    takes = tuple(name for name in OFFERED if takes_any or name in named)
    if not takes:
        raise ConfigError(f"select.filters: {reference} takes nothing of a candidate; {known}")
    return Filter(reference, function, takes)


def _asked(one: Filter, prompt: Prompt, candidate: Candidate, score: Score) -> bool | str:
    offered = _offered(prompt, candidate, score)
    try:
        said = one.function(**{name: offered[name] for name in one.takes})
    except (Exception, SystemExit) as error:
        raise PhaseError(
            f"select.filters: {one.reference} failed on candidate {candidate.id} with {type(error).__name__}: {error}"
            f"{_line(one.function, error)}. Mend it and run the same command again: candidates and scores are kept. If "
            "it has filtered an earlier round, mending it makes another experiment: name=NEW or --fork NEW"
        ) from error
    if isinstance(said, bool | str):
        return said
    raise DataError(
        f"select.filters: {one.reference} returned {repr(said)[:200]} ({type(said).__name__}) for candidate "
        f"{candidate.id}; return True to keep it, False or a reason in words to let it go"
    )


def _offered(prompt: Prompt, candidate: Candidate, score: Score) -> dict[str, Any]:
    return {
        "text": candidate.text,
        "reasoning": candidate.reasoning,
        "prompt": prompt.text if prompt.messages is None else [asdict(message) for message in prompt.messages],
        "reference": prompt.reference,
        "metadata": dict(prompt.metadata),
        "task": prompt.task,
        "value": score.value,
        "correct": score.correct,
        "answer": score.answer,
        "parts": dict(score.parts),
        "num_tokens": len(candidate.completion_token_ids),
        "finish_reason": candidate.finish_reason,
        "entropy": candidate.entropy,
        "logprob": fmean(candidate.logprobs) if candidate.logprobs else None,
    }


def _line(function: Callable[..., object], error: BaseException) -> str:
    """The innermost line of the function's own file."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = code.co_filename if code is not None else None
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
