"""The value of a whole answer, by one reward model or by several."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from selftrain.records import Prompt
from selftrain.scoring import METRIC_PREFIX, Asked, Verdict
from selftrain.scoring.reward_models.members import Member
from selftrain.scoring.reward_models.pairwise import win_rates

Combine = Literal["mean", "min", "uncertainty"]
DISAGREEMENT = f"{METRIC_PREFIX}reward_model/disagreement"


class RewardModels:
    """A BlockJudge. `value` combines the numbers of its models: their mean, the least of them, or the mean minus
    `penalty` times their standard deviation (of the population). An answer that one of them could not read, or gave no
    finite number, is unscored. With several, `Verdict.extras` has each one's number and their disagreement, that
    standard deviation, which is also the metric `score/reward_model/disagreement`.

    Ensembles against over-optimisation: Coste et al. 2023, arXiv 2310.02743, section 3.3, which subtracts the variance.
    """

    def __init__(
        self,
        members: Sequence[Member],
        combine: Combine,
        penalty: float,
        *,
        pairwise: bool = False,
        one_at_a_time: bool = False,
    ) -> None:
        self._members = tuple(members)
        self._names = _distinct([one.name for one in members])
        self._combine, self._penalty = combine, penalty
        self._pairwise = pairwise
        self._one_at_a_time = one_at_a_time

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """As `judge_block`, of one prompt."""
        return self.judge_block([(prompt, asked)])[0]

    def judge_block(self, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> Sequence[Sequence[Verdict]]:
        """One Verdict per candidate of each prompt, in order; each model reads all of them, one model after another."""
        of_members = [self._numbers(member, block) for member in self._members]
        verdicts = iter([self._verdict(numbers) for numbers in zip(*of_members, strict=True)])
        return [[next(verdicts) for _ in asked] for _, asked in block]

    def _numbers(self, member: Member, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> list[float | str]:
        if self._pairwise:
            found = win_rates(member, [(prompt, [one.text for one in asked]) for prompt, asked in block])
        else:
            found = member.of_answers([(prompt, one.text) for prompt, asked in block for one in asked])
        if self._one_at_a_time and len(self._members) > 1:
            member.release()
        return found

    def _verdict(self, numbers: Sequence[float | str]) -> Verdict:
        errors = [one for one in numbers if isinstance(one, str)]
        if errors:
            return Verdict(None, error="; ".join(errors))
        known = [one for one in numbers if isinstance(one, float)]
        value, spread = combined(known, self._combine, self._penalty)
        if not math.isfinite(value):
            return Verdict(None, error=f"the reward models' numbers combine to {value}")
        kind = "win rate" if self._pairwise else "reward"
        if len(known) == 1:
            return Verdict(value, explanation=f"{kind} {value:.4g}")
        named = dict(zip(self._names, known, strict=True))
        said = ", ".join(f"{name} {number:.4g}" for name, number in named.items())
        extras: dict[str, Any] = {"reward_models": named, DISAGREEMENT: [spread]}
        return Verdict(value, explanation=f"{kind} {value:.4g} ({self._combine} of {said})", extras=extras)

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Nothing: reward models read no references."""

    def release(self) -> None:
        """Free the memory that the models take."""
        for member in self._members:
            member.release()

    def close(self) -> None:
        """Read nothing more. What reads meanwhile raises Interrupted after the batch in hand."""
        for member in self._members:
            member.close()


def combined(numbers: Sequence[float], combine: Combine, penalty: float) -> tuple[float, float]:
    """The value of one answer by the numbers of several models, and their standard deviation."""
    mean = math.fsum(numbers) / len(numbers)
    spread = statistics.pstdev(numbers, mean) if len(numbers) > 1 else 0.0
    values = {"mean": mean, "min": min(numbers), "uncertainty": mean - penalty * spread}
    return values[combine], spread


def _distinct(names: Sequence[str]) -> list[str]:
    """Names by which to tell the models apart: a second one of the same name is `NAME#2`."""
    found = []
    for number, name in enumerate(names):
        earlier = list(names[:number]).count(name)
        found.append(f"{name}#{earlier + 1}" if earlier else name)
    return found
