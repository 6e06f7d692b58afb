"""The scorer of a whole config: the weighted mean of the scorers it lists."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from selftrain.config import ScoreConfig, ScorerConfig
from selftrain.errors import ConfigError, DataError
from selftrain.plugins import is_reference, load_function
from selftrain.records import Candidate, Group, Prompt, Score
from selftrain.scoring import IN_WORKER, SCORERS, Judge, Verdict
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.rules import check_reference

Rule = Callable[..., Verdict]


def check_scorer(scorer: ScorerConfig) -> None:
    """Raise ConfigError for an unknown name, or a parameter that the rule does not have or cannot use."""
    if scorer.name not in SCORERS:
        if is_reference(scorer.name):
            return
        near = difflib.get_close_matches(scorer.name, SCORERS, n=1)
        hint = f"did you mean {near[0]}?" if near else "use file.py:function for a function of your own"
        raise ConfigError(f"score.scorers: unknown scorer {scorer.name!r}; known: {', '.join(SCORERS)}; {hint}")
    rule = _rule(scorer.name)
    hints = get_type_hints(rule, include_extras=True)
    parameters = [one for one in inspect.signature(rule).parameters.values() if one.kind is one.KEYWORD_ONLY]
    known = {one.name for one in parameters}
    for name, value in scorer.params.items():
        where = f"score.scorers: {scorer.name}: params.{name}"
        if name not in known:
            raise ConfigError(f"{where}: there is no such parameter; known: {', '.join(sorted(known))}")
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(
                f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')} (got {value!r})"
            ) from None
    for one in parameters:
        if one.default is one.empty and one.name not in scorer.params:
            raise ConfigError(f"score.scorers: {scorer.name}: params.{one.name} is missing and has no default")


def _rule(name: str) -> Rule:
    return load_function(SCORERS[name], Path())


class RuleJudge:
    """A built-in rule. Judged here, or by `worker` where the rule must be stoppable."""

    def __init__(self, rule: Rule, params: Mapping[str, Any], worker: FunctionJudge | None = None) -> None:
        self._rule, self._params, self._worker = rule, dict(params), worker

    def judge(self, group: Group) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        if group.prompt.reference is None:
            return [Verdict(None, error="the prompt has no reference")] * len(group.candidates)
        if self._worker is not None:
            return self._worker.judge(group)
        return [self._verdict(candidate.text, group.prompt.reference) for candidate in group.candidates]

    def _verdict(self, text: str, reference: str) -> Verdict:
        try:
            return self._rule(text, reference, **self._params)
        except Exception as error:
            # A text that a rule stumbles over is unscored and counted; it must not end the run.
            return Verdict(None, error=f"{type(error).__name__}: {error}")

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError unless every prompt's reference is correct by its own rule."""
        wrong = []
        for prompt in prompts:
            try:
                if prompt.reference is None:
                    raise ValueError("there is no reference")
                check_reference(self._rule, prompt.reference, self._params)
            except ValueError as error:
                wrong.append(f"  prompt {prompt.id}: {error}")
        if wrong:
            more = [f"  and {len(wrong) - 5} more"] if len(wrong) > 5 else []
            name = self._rule.__name__
            raise DataError(
                "\n".join([f"scorer {name} cannot use the references of {len(wrong)} prompts:", *wrong[:5], *more])
                + "\ncorrect them, name another column in prompts.<set>.columns.reference, or use another scorer"
            )

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.close()


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    weight: float
    judge: Judge


class CombinedScorer:
    """A Scorer: value = weighted mean of its parts, correct = value >= `correct_at`. A candidate that one part could
    not judge is unscored. Close it, or use it in a `with`."""

    def __init__(self, parts: Sequence[_Part], correct_at: float) -> None:
        self._parts, self._correct_at = tuple(parts), correct_at

    def score(self, group: Group) -> tuple[Score, ...]:
        """One Score per candidate, in order."""
        columns = [part.judge.judge(group) for part in self._parts]
        rows = zip(group.candidates, zip(*columns, strict=True), strict=True)
        return tuple(self._combine(candidate, verdicts) for candidate, verdicts in rows)

    def _combine(self, candidate: Candidate, verdicts: Sequence[Verdict]) -> Score:
        named = list(zip(self._parts, verdicts, strict=True))
        values = [verdict.value for verdict in verdicts if verdict.value is not None]
        value = self._mean(values) if len(values) == len(verdicts) else None
        errors = [(part.name, verdict.error or "gave no value") for part, verdict in named if verdict.value is None]
        explanations = [(part.name, verdict.explanation) for part, verdict in named if verdict.explanation]
        return Score(
            candidate_id=candidate.id,
            value=value,
            correct=None if value is None else value >= self._correct_at,
            answer=next((verdict.answer for verdict in verdicts if verdict.answer is not None), None),
            explanation=self._joined(explanations),
            parts={part.name: verdict.value for part, verdict in named},
            error=self._joined(errors),
        )

    def _mean(self, values: Sequence[float]) -> float:
        weights = [part.weight for part in self._parts]
        mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
        # A mean of equal values is that value, not one rounding below `correct_at`.
        return min(max(mean, min(values)), max(values))

    def _joined(self, lines: Sequence[tuple[str, str]]) -> str | None:
        if len(self._parts) == 1:
            return lines[0][1] if lines else None
        return "; ".join(f"{name}: {line}" for name, line in lines) or None

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where a prompt's reference is missing or useless to a rule that needs it."""
        prompts = tuple(prompts)
        for part in self._parts:
            part.judge.check_references(prompts)

    def close(self) -> None:
        """End the worker processes."""
        for part in self._parts:
            part.judge.close()

    def __enter__(self) -> CombinedScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build_combined(config: ScoreConfig, base: Path) -> CombinedScorer:
    """Start every scorer of the list; if one fails, those before it are ended."""
    parts: list[_Part] = []
    try:
        for scorer in config.scorers:
            earlier = sum(1 for one in config.scorers[: len(parts)] if one.name == scorer.name)
            name = f"{scorer.name}#{earlier + 1}" if earlier else scorer.name
            parts.append(_Part(name, scorer.weight, _judge(scorer, base, config.timeout_seconds)))
    except BaseException:
        for part in parts:
            part.judge.close()
        raise
    return CombinedScorer(parts, config.correct_at)


def _judge(scorer: ScorerConfig, base: Path, timeout_seconds: float) -> Judge:
    reference = SCORERS.get(scorer.name, scorer.name)
    worker = None
    if scorer.name not in SCORERS or scorer.name in IN_WORKER:
        worker = FunctionJudge(reference, base=base, params=scorer.params, timeout_seconds=timeout_seconds)
    if scorer.name not in SCORERS:
        assert worker is not None
        return worker
    return RuleJudge(_rule(scorer.name), scorer.params, worker)
