"""What an audit found, as data: `selftrain audit --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from selftrain.records import Prompt, Score

Verdict = Literal["passed", "failed", "noted", "unproven", "skipped", "incomplete"]
CASES_KEPT = 20
CASES_OF_A_KIND = 2
TEXT_KEPT = 2_000
MAX_SLOW = 5
# Such an unscored answer has cost a whole time-out, or a new process.
SLOW_ERRORS = ("timed out", "the worker died", "infra_error")


@dataclass(frozen=True, slots=True)
class Case:
    """An answer that was not judged as it must be. `answer` is cut after TEXT_KEPT of its `length` characters; `form`
    is the text in which it was given."""

    prompt_id: str
    question: str
    reference: str | None
    kind: str
    form: str
    answer: str
    length: int
    reasoning: str | None
    why: str
    value: float | None
    explanation: str | None
    error: str | None
    changed: tuple[str, ...] = ()
    """Of a mutant: the lines that differ from the reference, with `-` and `+`."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: so many answers about so many prompts of a task (None: there are no tasks), which must all
    be `wanted`. `words` says what else is to be known; `kinds` counts the answers that were not judged as they must be,
    by kind, and `cases` has the first of them."""

    task: str | None
    name: str
    wanted: Literal["accepted", "refused"]
    prompts: int
    asked: int
    accepted: int
    refused: int
    unscored: int
    verdict: Verdict
    words: str = ""
    kinds: dict[str, int] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast answers were judged, one at a time, in seconds of wall time; the slowest one is named."""

    answers: int
    seconds: float
    per_second: float
    unscored_rate: float
    timed_out: int
    slowest_seconds: float
    slowest: str


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit of a recipe's scorers over one of its sets: `prompts` were asked about, of `available`."""

    recipe: str
    set: str
    scorers: tuple[str, ...]
    correct_at: float
    prompts: int
    available: int
    seed: int
    checks: tuple[Check, ...]
    speed: Speed
    passed: bool
    notes: tuple[str, ...] = ()
    complete: bool = True
    """False: it was stopped, and has not passed."""


class Tally:
    """Counts a check's answers while they are judged."""

    def __init__(
        self,
        task: str | None,
        name: str,
        wanted: Literal["accepted", "refused"],
        *,
        kept: int = CASES_KEPT,
        of_a_kind: int = CASES_OF_A_KIND,
    ) -> None:
        self.task, self.name, self.wanted = task, name, wanted
        self._kept, self._of_a_kind = kept, of_a_kind
        self.accepted = self.refused = self.unscored = 0
        self.words: list[str] = []
        self._slow = 0
        self._prompts: set[str] = set()
        self._kinds: Counter[str] = Counter()
        self._cases: list[Case] = []

    @property
    def is_over(self) -> bool:
        """Whether so many answers timed out or ended the scorer's process that no more are asked."""
        return self._slow >= MAX_SLOW

    def add(
        self,
        prompt: Prompt,
        score: Score,
        *,
        kind: str,
        form: str,
        text: str,
        why: str,
        reasoning: str | None = None,
        changed: Sequence[str] = (),
    ) -> None:
        """Count one answer, and keep it as a case unless it was judged as it must be."""
        self._prompts.add(prompt.id)
        self.accepted += score.correct is True
        self.refused += score.correct is False
        self.unscored += score.correct is None
        self._slow += score.correct is None and any(words in (score.error or "") for words in SLOW_ERRORS)
        if score.correct is (self.wanted == "accepted"):
            return
        self._kinds[kind] += 1
        if self._kinds[kind] > self._of_a_kind or len(self._cases) >= self._kept:
            return
        self._cases.append(
            Case(
                prompt_id=prompt.id,
                question=prompt.question,
                reference=prompt.reference,
                kind=kind,
                form=form,
                answer=text[:TEXT_KEPT],
                length=len(text),
                reasoning=reasoning,
                why=why,
                value=score.value,
                explanation=None if score.explanation is None else score.explanation[:TEXT_KEPT],
                error=score.error,
                changed=tuple(changed),
            )
        )

    def check(
        self, *, unproven: bool = False, is_sure: bool = True, skipped: str = "", is_stopped: bool = False
    ) -> Check:
        """The line of the table. `unproven`: nothing right was accepted, so that refusals show nothing. `is_sure`:
        whether the answers are surely right, or wrong, as they were given. `skipped` says why nothing was asked.
        `is_stopped`: more should have been asked."""
        asked = self.accepted + self.refused + self.unscored
        if self.is_over:
            self.words.append(f"stopped after {self._slow} answers that timed out or ended the scorer's process")
        words = list(dict.fromkeys(self.words))
        verdict = self._verdict(asked, unproven=unproven, is_sure=is_sure)
        if is_stopped and verdict in ("passed", "skipped"):
            verdict = "incomplete"
        return Check(
            task=self.task,
            name=self.name,
            wanted=self.wanted,
            prompts=len(self._prompts),
            asked=asked,
            accepted=self.accepted,
            refused=self.refused,
            unscored=self.unscored,
            verdict=verdict,
            words="; ".join(words) if asked else skipped or "; ".join(words),
            kinds=dict(self._kinds.most_common()),
            cases=tuple(self._cases),
        )

    def _verdict(self, asked: int, *, unproven: bool, is_sure: bool) -> Verdict:
        if not asked:
            return "skipped"
        if self.unscored:
            return "failed"
        if unproven:
            return "unproven"
        against = self.refused if self.wanted == "accepted" else self.accepted
        return ("failed" if is_sure else "noted") if against else "passed"


def is_passed(checks: Sequence[Check]) -> bool:
    """Whether nothing failed, is unproven or incomplete. What was skipped has not passed, and does not fail either."""
    return not any(one.verdict in ("failed", "unproven", "incomplete") for one in checks)
