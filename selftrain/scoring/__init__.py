"""Scoring: what a candidate's answer is worth, by rules, or by functions that run in a process of their own.

    numerals   reading a number out of text, strictly
    rules      the built-in verifiers: exact, normalised, numeric, regex
    functions  user functions, seen from the trainer: a worker process, time-outs, respawning
    worker     the program of that process
    combined   the scorer of a whole config: the weighted mean of its scorers

A name with a colon in `score.scorers` is a user function, `path/to/file.py:function` or `package.module:function`.
The row of a candidate is never dropped or shifted: what could not be judged has value None, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from selftrain.config import ScoreConfig
    from selftrain.records import Group, Prompt, Score
    from selftrain.scoring.combined import CombinedScorer

SCORERS: dict[str, str] = {
    "exact": "selftrain.scoring.rules:exact",
    "normalised": "selftrain.scoring.rules:normalised",
    "numeric": "selftrain.scoring.rules:numeric",
    "regex": "selftrain.scoring.rules:regex",
}
# A pattern can backtrack for ever on a text that a model wrote; only a process of its own can be stopped.
IN_WORKER = frozenset({"regex"})


class Scorer(Protocol):
    """Judges the candidates of a prompt: one Score each, in their order, whatever happens."""

    def score(self, group: Group) -> tuple[Score, ...]:
        """One Score per candidate of the group, in order."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one scorer of the list says of a candidate. `value=None`: it could not be judged, `error` says why."""

    value: float | None
    answer: str | None = None
    explanation: str | None = None
    error: str | None = None


class Judge(Protocol):
    """One scorer of the list."""

    def judge(self, group: Group) -> Sequence[Verdict]:
        """One Verdict per candidate of the group, in order."""

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where a prompt lacks a reference that this scorer needs and can use."""

    def close(self) -> None:
        """End what runs."""


def check(config: ScoreConfig) -> None:
    """Raise ConfigError for an unknown scorer or parameter, without running user code."""
    from selftrain.scoring.combined import check_scorer

    for scorer in config.scorers:
        check_scorer(scorer)


def build(config: ScoreConfig, base: Path) -> CombinedScorer:
    """The scorer of a config; `base` is the recipe's folder. Use it in a `with`: it may hold worker processes.

    Raises ConfigError or DataError at once where a user function cannot be loaded or called.
    """
    from selftrain.scoring.combined import build_combined

    check(config)
    return build_combined(config, base)
