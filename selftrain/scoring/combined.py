"""The scorer of a whole config: its scorers by cost, gates, and the weighted mean of what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from selftrain.config import ScoreConfig, ScorerConfig
from selftrain.errors import DataError, Interrupted
from selftrain.records import Candidate, Group, Prompt, Score
from selftrain.scoring import (
    INFRA_ERROR,
    METRIC_PREFIX,
    NO_MEANS,
    SCORERS,
    SUM_PREFIX,
    Asked,
    BlockJudge,
    HoldsModel,
    Judge,
    Means,
    Verdict,
    part_names,
)
from selftrain.scoring.judges import built, runs_apart, workers_of
from selftrain.scoring.sandbox import Chosen
from selftrain.scoring.threads import JudgingThreads

ADDED_UP = (METRIC_PREFIX, SUM_PREFIX)
COST_OF_RULE = 1.0
COST_OF_PROCESS = 10.0
COST_OF_MODEL = 100.0


@dataclass(frozen=True, slots=True)
class Part:
    """One scorer of the list, by the name that its values have in `Score.parts`."""

    name: str
    config: ScorerConfig
    judge: Judge

    @property
    def order(self) -> tuple[float, bool]:
        """Cheaper ones first, and of those gates first."""
        cost = self.config.cost
        built_in = SCORERS.get(self.config.name)
        if cost is None and built_in is not None and built_in.learned:
            cost = COST_OF_MODEL
        elif cost is None:
            cost = COST_OF_PROCESS if runs_apart(self.config) else COST_OF_RULE
        return cost, not self.config.gate

    def judges(self, prompt: Prompt) -> bool:
        """Whether it is asked about the prompt's task at all."""
        return not self.config.tasks or prompt.task in self.config.tasks


class CombinedScorer:
    """A Scorer. The parts that judge a prompt's task are asked in the order of their costs; `value` is the mean of
    their values weighted by `weight`, `correct` is value >= `correct_at`.

    A candidate that a gate does not find right (value under 1) has value 0, and no later part is asked about it. One
    that a gate, or a part with a weight, could not judge is unscored, unless a gate decided. Where a reward function
    gives None it does not apply: it is left out, of the mean and as a gate, as in TRL's weighted sum; a candidate to
    which no part with a weight applies is unscored. A part of weight 0 that is no gate is only looked at. Close it, or
    use it in a `with`.

    `score` may be called from several threads at once: best from those of `threads`, which live as long as the scorer.
    """

    def __init__(self, parts: Sequence[Part], correct_at: float, *, threads: int = 1) -> None:
        self._parts, self._correct_at = tuple(parts), correct_at
        self.threads = JudgingThreads(threads)

    @property
    def by_block(self) -> bool:
        """Whether any part judges the candidates of a whole block at once: then `score_block` is to be given blocks,
        or the last bits of its values may differ."""
        return any(isinstance(part.judge, BlockJudge) for part in self._parts)

    def score(self, group: Group) -> tuple[Score, ...]:
        """One Score per candidate, in order."""
        return self.score_block([group])[0]

    def score_block(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        """One Score per candidate of each group, in order. Parts that judge blocks are given all candidates that no
        gate has closed, the others those of a group at a time."""
        hands = [_InHand(group, tuple(part for part in self._parts if part.judges(group.prompt))) for group in groups]
        for part in sorted(self._parts, key=lambda one: one.order):
            asked = [(hand, hand.asked()) for hand in hands if part in hand.parts and hand.open_still]
            given = [(hand.group.prompt, of_hand) for hand, of_hand in asked]
            if self.threads.is_closed:
                raise Interrupted("the scorer is closed")
            if isinstance(part.judge, BlockJudge):
                verdicts = part.judge.judge_block(given) if given else []
            else:
                verdicts = [part.judge.judge(prompt, of_prompt) for prompt, of_prompt in given]
            for (hand, _), of_part in zip(asked, verdicts, strict=True):
                hand.take(part, of_part)
        return [
            tuple(
                self._combined(hand.group.prompt, candidate, hand.parts, of_candidate)
                for candidate, of_candidate in zip(hand.group.candidates, hand.verdicts, strict=True)
            )
            for hand in hands
        ]

    def release(self) -> None:
        """Free the memory of models that parts have loaded; they are loaded again when they judge next."""
        for part in self._parts:
            if isinstance(part.judge, HoldsModel):
                part.judge.release()

    def explain(self, prompt: Prompt, text: str, *, reasoning: str | None = None) -> Score:
        """What the scorers say of one answer to that prompt, for a person to read: `answer` is what was taken out of
        the text, `explanation` says where and how it was compared, `parts` what each scorer gave. The text is judged as
        a candidate that ended by itself, without token ids."""
        candidate = Candidate.unsampled(text, id="explained", prompt_id=prompt.id, reasoning=reasoning)
        return self.score(Group(prompt, (candidate,)))[0]

    def _combined(
        self, prompt: Prompt, candidate: Candidate, asked: Sequence[Part], verdicts: Mapping[str, Verdict]
    ) -> Score:
        value = self._value(asked, verdicts)
        errors = [
            (name, verdict.error or "gave no value") for name, verdict in verdicts.items() if verdict.value is None
        ]
        infra = {part.name for part in asked if part.config.weight or part.config.gate}
        infra &= {name for name, error in errors if error.startswith(INFRA_ERROR)}
        if not any(part.config.weight for part in asked):
            errors = [("", f"no scorer judges task {prompt.task!r}; name it in the tasks of one")]
        in_order = [(part.name, verdicts[part.name]) for part in asked if part.name in verdicts]
        return Score(
            candidate_id=candidate.id,
            value=value,
            correct=None if value is None else value >= self._correct_at,
            answer=next((verdict.answer for _, verdict in in_order if verdict.answer is not None), None),
            explanation=_joined(asked, _explanations(asked, verdicts)),
            parts={part.name: _value_of(verdicts.get(part.name)) for part in asked},
            error=_error(asked, errors, is_infra=bool(infra)) if value is None else None,
            extras=_extras(in_order),
        )

    def _value(self, asked: Sequence[Part], verdicts: Mapping[str, Verdict]) -> float | None:
        values = {part.name: _value_of(verdicts.get(part.name)) for part in asked}
        asked = [part for part in asked if part.name not in verdicts or verdicts[part.name].applies]
        of_gates = [values[part.name] for part in asked if part.config.gate and part.name in verdicts]
        if any(value is not None and value < 1.0 for value in of_gates):
            return 0.0
        weighted = [(part.config.weight, values[part.name]) for part in asked if part.config.weight]
        if None in of_gates or not weighted:
            return None
        known = [(weight, value) for weight, value in weighted if value is not None]
        return _mean(known) if len(known) == len(weighted) else None

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where no scorer judges a prompt's task, or a prompt's reference is missing or useless to a
        rule that needs it."""
        prompts = tuple(prompts)
        for prompt in prompts:
            if not any(part.config.weight for part in self._parts if part.judges(prompt)):
                raise DataError(
                    f"no scorer with a weight judges prompt {prompt.id} of task {prompt.task!r}; score.scorers names "
                    f"the tasks {', '.join(sorted({name for part in self._parts for name in part.config.tasks}))}"
                )
        for part in self._parts:
            part.judge.check_references([prompt for prompt in prompts if part.judges(prompt)])

    def close(self) -> None:
        """End the worker processes and the threads. What a thread is judging is left without a verdict."""
        self.threads.stop()
        with ExitStack() as closing:  # each is closed, whatever another one raises
            closing.callback(self.threads.join)
            for part in reversed(self._parts):
                closing.callback(part.judge.close)

    def __enter__(self) -> CombinedScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _InHand:
    """A group while it is judged: the parts that judge it, what they said so far, and the indices of its candidates
    that no gate has closed."""

    def __init__(self, group: Group, parts: Sequence[Part]) -> None:
        self.group, self.parts = group, tuple(parts)
        self.verdicts: list[dict[str, Verdict]] = [{} for _ in group.candidates]
        self.open_still = list(range(len(group.candidates)))

    def asked(self) -> list[Asked]:
        return [_as_asked(self.group.candidates[index]) for index in self.open_still]

    def take(self, part: Part, verdicts: Sequence[Verdict]) -> None:
        for index, verdict in zip(self.open_still, verdicts, strict=True):
            self.verdicts[index][part.name] = verdict
        if part.config.gate:
            self.open_still = [index for index in self.open_still if _passed(self.verdicts[index][part.name])]


def _as_asked(candidate: Candidate) -> Asked:
    return Asked(candidate, candidate.text)


def _passed(verdict: Verdict) -> bool:
    return not verdict.applies or (verdict.value is not None and verdict.value >= 1.0)


def _value_of(verdict: Verdict | None) -> float | None:
    return None if verdict is None else verdict.value


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = math.fsum(weight for weight, _ in weighted)
    mean = math.fsum(weight * value for weight, value in weighted) / total
    values = [value for _, value in weighted]
    # A mean of equal values is that value, not one rounding below `correct_at`.
    return min(max(mean, min(values)), max(values))


def _explanations(asked: Sequence[Part], verdicts: Mapping[str, Verdict]) -> list[tuple[str, str]]:
    """What each part said, in the order of the list; of parts that were not asked, which gate decided."""
    lines = []
    gates = [part.name for part in asked if part.config.gate and part.name in verdicts]
    decided = next((name for name in gates if not _passed(verdicts[name])), None)
    for part in asked:
        verdict = verdicts.get(part.name)
        if verdict is None:
            lines.append((part.name, f"not asked, as {decided} did not find it right"))
        elif not verdict.applies:
            lines.append((part.name, "does not apply, as it gave None"))
        elif verdict.value is None:
            lines.append((part.name, f"could not judge it: {verdict.error or 'gave no value'}"))
        elif verdict.explanation:
            lines.append((part.name, verdict.explanation))
    return lines


def _joined(parts: Sequence[Part], lines: Sequence[tuple[str, str]]) -> str | None:
    if len(parts) <= 1:
        return lines[0][1] if lines else None
    return "; ".join(f"{name}: {line}" if name else line for name, line in lines) or None


def _error(parts: Sequence[Part], errors: Sequence[tuple[str, str]], *, is_infra: bool) -> str | None:
    """Why there is no value. Where the sandbox failed, the text begins with that, so that it can be counted."""
    text = _joined(parts, errors)
    return f"{INFRA_ERROR}: {text}" if is_infra and text and not text.startswith(INFRA_ERROR) else text


def _extras(verdicts: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    """What all parts logged. A column that two of them name alike is the first's, and `<part>: <column>` the other's;
    calls of log_metric with one name are counted together."""
    found: dict[str, Any] = {}
    for name, verdict in verdicts:
        for column, value in verdict.extras.items():
            if column not in found:
                found[column] = value
            elif column.startswith(ADDED_UP) and isinstance(value, list) and isinstance(found[column], list):
                found[column] = [*found[column], *value]
            else:
                found[f"{name}: {column}"] = value
    return found


def build_combined(
    config: ScoreConfig,
    base: Path,
    columns: Mapping[str, str],
    sandbox: Chosen | None = None,
    means: Means = NO_MEANS,
) -> CombinedScorer:
    """Start every scorer of the list; if one fails, those before it are ended."""
    parts: list[Part] = []
    try:
        for name, scorer in zip(part_names(config.scorers), config.scorers, strict=True):
            judge = built(scorer, base, config.timeout_seconds, columns, config.workers, config.sandbox, sandbox, means)
            parts.append(Part(name, scorer, judge))
    except BaseException:
        for part in parts:
            part.judge.close()
        raise
    threads = max(workers_of(scorer, config.workers) for scorer in config.scorers)
    return CombinedScorer(parts, config.correct_at, threads=threads)
