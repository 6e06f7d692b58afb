"""One answer at a time, asked of the scorer, with the time that it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from selftrain.auditing.results import Speed
from selftrain.records import Prompt, Score
from selftrain.scoring.combined import CombinedScorer


@dataclass(slots=True)
class Asking:
    """Asks the scorer about one answer at a time, as `explain` does, and keeps the time."""

    scorer: CombinedScorer
    answers: int = 0
    unscored: int = 0
    timed_out: int = 0
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")

    def ask(self, prompt: Prompt, text: str, kind: str, reasoning: str | None = None) -> Score:
        """The score of an answer."""
        started = time.perf_counter()
        score = self.scorer.explain(prompt, text, reasoning=reasoning)
        seconds = time.perf_counter() - started
        self.answers += 1
        self.seconds += seconds
        self.slowest = max(self.slowest, (seconds, f"{kind}, prompt {prompt.id}"))
        self.unscored += score.value is None
        self.timed_out += "timed out" in (score.error or "") or any(score.extras.get("score/code/timeout_rate", ()))
        return score

    def speed(self) -> Speed:
        """What it took so far."""
        return Speed(
            answers=self.answers,
            seconds=round(self.seconds, 3),
            per_second=round(self.answers / max(self.seconds, 1e-9), 1),
            unscored_rate=self.unscored / max(self.answers, 1),
            timed_out=self.timed_out,
            slowest_seconds=round(self.slowest[0], 4),
            slowest=self.slowest[1],
        )


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer that must be refused. `mutant` is the code in it, where it is the reference with one thing changed."""

    prompt: Prompt
    form: str
    text: str
    kind: str
    why: str
    reasoning: str | None = None
    mutant: str | None = None
