"""Scoring: what a candidate's answer is worth, by rules, or by functions that run in a process of their own.

    extraction         where in a candidate's text its answer stands
    json_text          JSON read strictly
    numerals           reading a number out of text, strictly
    rules              verifiers of text: exact, normalised, numeric, regex
    choice             multiple choice
    units              words after a number
    expressions        reading a mathematical answer, strictly
    mathematics        mathematical equality, by math-verify
    perturbing         wrong answers near a reference, to see that a rule refuses them
    structured         JSON against a schema and a reference
    gym                the scorers that come with reasoning_gym's tasks
    code               programs, by the tests of their row
    sandbox            where those run
    checking           mistakes in the config, found without running anything of the user's
    functions          user functions, seen from the trainer: a worker process, time-outs, respawning
    worker             the program of that process
    reward_functions   in that process: functions with TRL's signature, called once per group
    judges             one scorer of the list: extraction, then a rule
    combined           the scorer of a whole config: gates, costs, tasks, the weighted mean

A name with a colon in `score.scorers` is a user function, `path/to/file.py:function` or `package.module:function`.
The row of a candidate is never dropped or shifted: what could not be judged has value None, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from selftrain.records import Candidate

if TYPE_CHECKING:
    from selftrain.config import ScoreConfig, ScorerConfig
    from selftrain.records import Group, Prompt, Score
    from selftrain.scoring.combined import CombinedScorer
    from selftrain.scoring.sandbox import Chosen


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A rule that comes with selftrain, by the names of its functions.

    `rule` is given the text and, where its signature names them, `reference`, `metadata` and the rest of
    `worker.OFFERED`; keyword-only parameters are the recipe's `params`. `check` is given the same but the text, and
    raises ValueError where the rule cannot judge that prompt's answers; without one, the reference itself, given as
    the answer, must be right. `prepare` does the slow imports, before any clock runs.
    """

    rule: str
    check: str | None = None
    prepare: str | None = None
    in_worker: bool = False
    """Whether it may take for ever on what a model wrote: only a process of its own can be stopped."""
    sandboxed: bool = False
    """Whether it runs code that a model wrote. `rule` then makes its Judge: given the knobs of the sandbox, the number
    of workers, `columns` as `build` has them, and the sandbox chosen."""


def _built_in(module: str, rule: str, check: str | None = None, prepare: str | None = None, **others: bool) -> BuiltIn:
    named = [None if name is None else f"selftrain.scoring.{module}:{name}" for name in (rule, check, prepare)]
    return BuiltIn(str(named[0]), named[1], named[2], **others)


SCORERS: dict[str, BuiltIn] = {
    "exact": _built_in("rules", "exact"),
    "normalised": _built_in("rules", "normalised"),
    "numeric": _built_in("rules", "numeric"),
    "regex": _built_in("rules", "regex", "check_regex", in_worker=True),
    "choice": _built_in("choice", "choice", "check"),
    "math": _built_in("mathematics", "math", "check", "prepare", in_worker=True),
    "json_schema": _built_in("structured", "json_schema", "check", "prepare", in_worker=True),
    "reasoning_gym": _built_in("gym", "reasoning_gym", "check", "prepare", in_worker=True),
    "code": _built_in("code.judge", "code", sandboxed=True),
}


class Scorer(Protocol):
    """Judges the candidates of a prompt: one Score each, in their order, whatever happens."""

    def score(self, group: Group) -> tuple[Score, ...]:
        """One Score per candidate of the group, in order."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one scorer of the list says of a candidate. `value=None`: it could not be judged, `error` says why.
    `extras` is what a function logged of the candidate: plain JSON data by name. `applies` is False where a reward
    function gave None: it has nothing to say of that candidate, and the others' mean is taken without it."""

    value: float | None
    answer: str | None = None
    explanation: str | None = None
    error: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    applies: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """A candidate as one scorer is asked about it: `text` is what was taken out of the candidate's own."""

    candidate: Candidate
    text: str


class Judge(Protocol):
    """One scorer of the list."""

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate of that prompt, in order."""

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where a prompt lacks a reference that this scorer needs and can use."""

    def close(self) -> None:
        """End what runs."""


def check(config: ScoreConfig, base: Path | None = None) -> None:
    """Raise ConfigError for an unknown scorer or parameter, DependencyError for a missing package; user code is not
    run. `base` is the recipe's folder: without it, files that params name are looked at by `build` alone."""
    check_scorers(config.scorers, base)


def check_scorers(scorers: Iterable[ScorerConfig], base: Path | None = None) -> None:
    """As `check`, of scorers listed elsewhere (`evaluate.retention_scorers`)."""
    from selftrain.scoring.checking import check_scorer

    for scorer in scorers:
        check_scorer(scorer, base)


def needs_sandbox(config: ScoreConfig) -> bool:
    """Whether any of its scorers runs code that a model wrote."""
    return any(one.name in SCORERS and SCORERS[one.name].sandboxed for one in config.scorers)


def check_columns(scorers: Iterable[ScorerConfig], prompts: Sequence[Prompt], columns: Mapping[str, str]) -> None:
    """DataError where a parameter of a scorer names a column that no row has, of the prompts that it judges."""
    from selftrain.scoring.code import rows

    for one, asked in _of_code(scorers, prompts):
        rows.check_columns(one.params, asked, columns)


def check_rows(scorers: Iterable[ScorerConfig], prompts: Sequence[Prompt], columns: Mapping[str, str]) -> None:
    """As `check_columns`; and UnusablePrompts where a row's tests are missing or cannot be read. Runs nothing."""
    from selftrain.scoring.code import rows

    for one, asked in _of_code(scorers, prompts):
        rows.check_rows(one.params, asked, columns)


def _of_code(
    scorers: Iterable[ScorerConfig], prompts: Sequence[Prompt]
) -> Iterator[tuple[ScorerConfig, Sequence[Prompt]]]:
    """Scorers that run code, each with the prompts that it judges."""
    for one in scorers:
        if one.name in SCORERS and SCORERS[one.name].sandboxed:
            yield one, [prompt for prompt in prompts if not one.tasks or prompt.task in one.tasks]


def build(
    config: ScoreConfig, base: Path, columns: Mapping[str, str] | None = None, sandbox: Chosen | None = None
) -> CombinedScorer:
    """The scorer of a config; `base` is the recipe's folder. Use it in a `with`: it may hold worker processes.

    `columns` names columns of the data that a prompt does not keep as metadata, with what it keeps them as: `prompt` or
    `reference`. Reward functions are given them by these names too. Raises ConfigError or DataError at once where a
    user function cannot be loaded or called. `sandbox` is for scorers that run code that a model wrote; without it
    they choose one themselves, or raise SandboxRefused.
    """
    from selftrain.scoring.combined import build_combined

    check(config, base)
    return build_combined(config, base, columns or {}, sandbox)


METRIC_PREFIX = "score/"
INFRA_ERROR = "infra_error"
"""What the error of a candidate begins with that could not be judged because the sandbox failed."""


def logged_metrics(groups: Iterable[Group]) -> dict[str, float]:
    """What reward functions gave `log_metric`, as `score/<name>`: the mean over its calls for the groups' candidates.

    `Score.extras` keeps the values of all calls about a group with the first candidate that was asked about.
    """
    called: dict[str, list[float]] = {}
    for group in groups:
        for score in group.scores:
            for name, values in score.extras.items():
                if name.startswith(METRIC_PREFIX):
                    called.setdefault(name, []).extend(values)
    return {name: sum(values) / len(values) for name, values in sorted(called.items()) if values}
