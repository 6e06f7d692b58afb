"""Values that candidates bring with them: a column of their own rows, for people who have scored them already."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from selftrain.records import Prompt
from selftrain.scoring import NO_COLUMN, NO_NUMBER, Asked, Means, Verdict
from selftrain.scoring.results import LARGEST


def given(
    base: Path,
    means: Means,
    *,
    column: str,
    minimum: float | None = None,
    scale: Annotated[float, Ge(0)] = 1.0,
) -> GivenJudge:
    """The number in the column of the candidate's row in `sample.policy.file`: a number, its digits as text, true (1)
    or false (0). `minimum`: lower numbers count as this one. It is then multiplied by `scale`. A candidate without a
    number there is unscored."""
    return GivenJudge(column, minimum, scale)


@dataclass(frozen=True, slots=True)
class GivenJudge:
    """Reads the value of each candidate from what it brought."""

    column: str
    minimum: float | None
    scale: float

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """The values, as they stand in the candidates' metadata."""
        return [self._of(one.candidate.metadata) for one in asked]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """No reference is looked at."""

    def close(self) -> None:
        """Nothing runs."""

    def _of(self, metadata: Any) -> Verdict:
        if self.column not in metadata:
            known = ", ".join(metadata) or "none"
            return Verdict(
                None,
                error=f"{NO_COLUMN} {self.column!r} (NaN counts as none); its columns: {known}",
            )
        number = as_number(metadata[self.column])
        if number is None:
            return Verdict(None, error=f"the column {self.column!r} {NO_NUMBER}: {metadata[self.column]!r:.80}")
        value = number if self.minimum is None else max(number, self.minimum)
        if abs(value * self.scale) > LARGEST:
            return Verdict(None, error=f"{self.column} is {number:g}, and values over {LARGEST:g} cannot be averaged")
        return Verdict(value * self.scale, explanation=f"{self.column} is {number:g}")


def as_number(value: Any) -> float | None:
    """The finite number that a value of a row is, or writes; None where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
