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
    majority           pseudo-labels: what most candidates of a prompt answer
    gym                the scorers that come with reasoning_gym's tasks
    code               programs, by the tests of their row
    sandbox            where those run
    llm_judge          a language model as judge
    reward_models      models that were trained to say how good an answer is, or each of its steps
    checking           mistakes in the config, found without running anything of the user's
    functions          user functions, seen from the trainer: a worker process, time-outs, respawning
    worker             the program of that process
    reward_functions   in that process: functions with TRL's signature, called once per group
    judges             one scorer of the list: extraction, then a rule
    combined           the scorer of a whole config: gates, costs, tasks, the weighted mean
    remedies           what to do where too many candidates could not be scored

A name with a colon in `score.scorers` is a user function, `path/to/file.py:function` or `package.module:function`.
The row of a candidate is never dropped or shifted: what could not be judged has value None, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from selftrain.records import Candidate

if TYPE_CHECKING:
    from selftrain.config import ScoreConfig, ScorerConfig
    from selftrain.records import Group, Message, Prompt, Score
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
    compares: bool = False
    """Whether it judges the candidates of a prompt against each other. `rule` then gives what they are compared by;
    the answers in their texts are taken out for all of them first."""
    sandboxed: bool = False
    """Whether it runs code that a model wrote. `rule` then makes its Judge: given the knobs of the sandbox, the number
    of workers, `columns` as `build` has them, and the sandbox chosen."""
    learned: bool = False
    """Whether `rule` makes its Judge from the recipe's folder and the `Means` of the run, and its keyword-only
    parameters. It is called when the scorer is built, and loads nothing before it judges; `check`, if there is one, is
    then called with the recipe's folder and the params before any work, and raises ConfigError or DependencyError."""


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
    "majority": _built_in("majority", "majority", compares=True),
    "given": _built_in("given", "given", learned=True),
    "llm_judge": _built_in("llm_judge.judge", "llm_judge", "check", learned=True),
    "reward_model": _built_in("reward_models.scorers", "reward_model", "check_reward_model", learned=True),
    "process_reward_model": _built_in(
        "reward_models.scorers", "process_reward_model", "check_process_reward_model", learned=True
    ),
}


@dataclass(frozen=True, slots=True)
class Means:
    """What a run lends its learned scorers: `device` and `dtype` as `model` has them; `generate`: greedy answers of a
    local model (None outside a run). `one_at_a_time`: as `score.one_model_at_a_time`."""

    device: str | None = None
    dtype: str | None = None
    generate: Generate | None = None
    one_at_a_time: bool = False


class Generate(Protocol):
    """Greedy answers of a local model, by the run's own sampling engine."""

    def __call__(
        self,
        model: str,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> Sequence[Answered]:
        """One answer per conversation, in order. The same conversations give the same answers. Raises Interrupted
        where `should_stop()`, which is asked before each batch, says so."""

    def special_tokens(self, model: str) -> Sequence[str]:
        """The control tokens of the model's tokenizer, longest first. The weights are not loaded."""

    def release(self) -> None:
        """Free the memory of the models; they are loaded again when asked."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model said, whether it came to an end of its own, and what that took. `context`: how many tokens it reads,
    where that, and not the limit on its answer, left no room for an end."""

    text: str
    is_whole: bool
    prompt_tokens: int
    completion_tokens: int
    context: int | None = None


NO_MEANS = Means()


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


@runtime_checkable
class BlockJudge(Judge, Protocol):
    """One scorer of the list that judges the candidates of a whole block at once: its batches are then the same
    whenever the block is judged, alone or in a run that was killed, and so are the last bits of its values."""

    def judge_block(self, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> Sequence[Sequence[Verdict]]:
        """One Verdict per candidate of each prompt, in order. `judge` is this for a single prompt."""


@runtime_checkable
class HoldsModel(Protocol):
    """A judge that keeps a model in memory."""

    def release(self) -> None:
        """Free that memory, also the accelerator's; the model is loaded again when it judges next."""


def check(config: ScoreConfig, base: Path | None = None) -> None:
    """Raise ConfigError for an unknown scorer or parameter, DependencyError for a missing package; user code is not
    run. `base` is the recipe's folder: without it, files that params name are looked at by `build` alone."""
    check_scorers(config.scorers, base)


def check_scorers(scorers: Iterable[ScorerConfig], base: Path | None = None) -> None:
    """As `check`, of scorers listed elsewhere (`evaluate.retention_scorers`)."""
    from selftrain.scoring.checking import check_scorer, check_together

    scorers = tuple(scorers)
    for scorer in scorers:
        check_scorer(scorer, base)
    check_together(scorers)


def part_names(scorers: Iterable[ScorerConfig]) -> list[str]:
    """The name that each scorer of a list has in `Score.parts`: its own, or `name#2` where it comes again."""
    named = [one.name for one in scorers]
    earlier = [named[:place].count(name) for place, name in enumerate(named)]
    return [f"{name}#{times + 1}" if times else name for name, times in zip(named, earlier, strict=True)]


def truth_of(config: ScoreConfig) -> tuple[str | None, str | None]:
    """The part that is only looked at (weight 0, no gate), by which the others can be measured: the first of the list;
    and the one that labels by a vote (`majority`). None where there is none."""
    named = list(zip(part_names(config.scorers), config.scorers, strict=True))
    truth = next((name for name, one in named if not one.weight and not one.gate), None)
    labels = next(
        (name for name, one in named if one.weight and one.name in SCORERS and SCORERS[one.name].compares), None
    )
    return truth, labels


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
    config: ScoreConfig,
    base: Path,
    columns: Mapping[str, str] | None = None,
    sandbox: Chosen | None = None,
    means: Means = NO_MEANS,
) -> CombinedScorer:
    """The scorer of a config; `base` is the recipe's folder. Use it in a `with`: it may hold worker processes.

    `columns` names columns of the data that a prompt does not keep as metadata, with what it keeps them as: `prompt` or
    `reference`. Reward functions are given them by these names too. Raises ConfigError or DataError at once where a
    user function cannot be loaded or called. `sandbox` is for scorers that run code that a model wrote; without it
    they choose one themselves, or raise SandboxRefused. `means` is for learned scorers.
    """
    from selftrain.scoring.combined import build_combined

    check(config, base)
    return build_combined(config, base, columns or {}, sandbox, means)


METRIC_PREFIX = "score/"
SUM_PREFIX = f"sum:{METRIC_PREFIX}"
"""As METRIC_PREFIX, of columns of `Score.extras` whose values are summed, where those of the other are averaged."""
CANARIES = "judge:canaries"
"""Column of `Score.extras`: what a judge was asked about beside the candidates of a prompt, as [name, whether it was
fooled]. It stands with one of the prompt's candidates."""
MAX_CANARY_RATE = 0.2
UNANSWERED = "the endpoint gave no answer"
"""What the error of a candidate has in it that a server was asked about in vain."""
UNREADABLE = "the judge's answer cannot be read"
"""The same of one whose judge answered, and did not end as it was asked to."""
NO_ROOM = "the judge's question has"
"""The same of one that does not fit a local judge's context."""
NO_NUMBER = "holds no number"
NO_COLUMN = "the candidate brought no column"
"""The same of one that brought no number of its own, or nothing where it should stand."""
INFRA_ERROR = "infra_error"
"""What the error of a candidate begins with that could not be judged because the sandbox failed."""


def logged_metrics(groups: Iterable[Group]) -> dict[str, float]:
    """What reward functions gave `log_metric`, as `score/<name>`: the mean over its calls for the groups' candidates;
    and the sums of what judges took and counted (`SUM_PREFIX`).

    `Score.extras` keeps the values of all calls about a group with the first candidate that was asked about.
    """
    called: dict[str, list[float]] = {}
    sums: dict[str, float] = {}
    for group in groups:
        for score in group.scores:
            for name, values in score.extras.items():
                if name.startswith(METRIC_PREFIX):
                    called.setdefault(name, []).extend(values)
                elif name.startswith(SUM_PREFIX):
                    metric = name.removeprefix(SUM_PREFIX)
                    sums[metric] = sums.get(metric, 0.0) + sum(values)
    means = {name: sum(values) / len(values) for name, values in sorted(called.items()) if values}
    return means | {f"{METRIC_PREFIX}{name}": total for name, total in sorted(sums.items())}
