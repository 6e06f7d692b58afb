"""Asking a judge many questions at once, and reading its answers; what both took goes with the candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from selftrain.records import Prompt, seed_from
from selftrain.scoring import CANARIES, METRIC_PREFIX, SUM_PREFIX, UNREADABLE, Verdict
from selftrain.scoring.llm_judge.asking import Questionnaire
from selftrain.scoring.llm_judge.neutral import bare, says_nothing
from selftrain.scoring.llm_judge.verdicts import Unreadable, read_score, read_winner
from selftrain.scoring.llm_judge.voices import COUNTS, Question, Reply, Voice

NAME = "llm_judge"
REFUSED = Verdict(0.0, explanation="empty or only punctuation: refused before the judge reads it")
_SHOWN = 240


@dataclass(slots=True)
class Case:
    """An answer to a prompt, or a pair of them, that the judge is asked about, and what it says: `value` in [0, 1] (of
    a pair, that of the first), or why there is none. `counts` is what asking took."""

    prompt: Prompt
    answers: tuple[str, ...]
    value: float | None = None
    error: str | None = None
    said: str = ""
    counts: Counter[str] = field(default_factory=Counter)


class Hearing:
    """A judge, how it is asked, and how often."""

    def __init__(self, voice: Voice, questionnaire: Questionnaire, *, second_attempt: bool) -> None:
        self.voice, self.pairwise = voice, questionnaire.pairwise
        self._asked_by = questionnaire
        self._second_attempt = second_attempt and voice.can_try_again

    @cached_property
    def questionnaire(self) -> Questionnaire:
        """How the judge is asked. Knowing the control tokens of its tokenizer may load that."""
        return replace(self._asked_by, special=tuple(self.voice.special_tokens()))

    def refuses(self, text: str) -> bool:
        """Whether an answer is worth nothing without the judge: control tokens aside, it is empty or punctuation."""
        return says_nothing(bare(text, self.questionnaire.special))

    def hear(self, cases: Sequence[Case]) -> None:
        """Ask about all of them at once; those whose answer cannot be read a second time, if that may help."""
        self._ask(cases, second=False)
        if self._second_attempt and (unread := [one for one in cases if one.counts["parse_failures"]]):
            for one in unread:
                one.counts["second_attempts"] += 1
            self._ask(unread, second=True)

    def _ask(self, cases: Sequence[Case], *, second: bool) -> None:
        if not cases:
            return
        questions = [
            Question(
                self.questionnaire.about(one.prompt, *one.answers),
                seed_from(NAME, one.prompt.id, *one.answers, int(second)) % 2**31,
            )
            for one in cases
        ]
        for case, reply in zip(cases, self.voice.ask(questions, second=second), strict=True):
            self._read(case, reply)

    def _read(self, case: Case, reply: Reply) -> None:
        case.counts.update(reply.counts)
        if reply.text is None:
            case.error = reply.error
            return
        case.said = reply.text
        try:
            if not reply.is_whole:
                raise Unreadable("it is cut at params.max_new_tokens")
            case.value, case.error = self._value(reply.text), None
        except Unreadable as error:
            case.counts["parse_failures"] += 1
            case.error = f"{UNREADABLE}: {error}; it said: {excerpt(reply.text)}"

    def _value(self, text: str) -> float:
        one = self.questionnaire
        return read_winner(text) if one.pairwise else read_score(text, one.low, one.high)


def excerpt(text: str) -> str:
    """The end of what a judge said, on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else f"…{line[-_SHOWN:]}")


def extras_of(cases: Iterable[Case]) -> dict[str, Any]:
    """What asking took, as sums that become metrics."""
    total: Counter[str] = Counter()
    for one in cases:
        total.update(one.counts)
    names = dict.fromkeys((*COUNTS, "parse_failures", "second_attempts", *sorted(total)))
    return {f"{SUM_PREFIX}{NAME}/{name}": [total[name]] for name in names}


def canary_extras(results: Sequence[tuple[str, float | None]], limit: float) -> dict[str, Any]:
    """What came of the canaries at a prompt: those without a value count neither way."""
    heard = [(name, value >= limit) for name, value in results if value is not None]
    return {
        CANARIES: [[name, fooled] for name, fooled in heard],
        f"{SUM_PREFIX}{NAME}/canaries": [len(heard)],
        f"{METRIC_PREFIX}{NAME}/canary_false_positive_rate": [float(fooled) for _, fooled in heard],
    }


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Extras of one candidate: lists of the same name are joined."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, values in part.items():
            found[name] = [*found.get(name, []), *values]
    return found
