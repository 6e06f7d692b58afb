"""The scorer `majority`: what most candidates of a prompt answer is taken for right (self-consistency as a label).

LMSI (Huang et al. 2022, arXiv 2210.11610) trains on the reasoning paths that reach the majority's answer; TTRL (Zuo et
al. 2025, arXiv 2504.16084) rewards them with 1 and others with 0. A reference is never read: the prompt that reaches
the vote has none.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from selftrain.records import Candidate, Prompt
from selftrain.scoring import METRIC_PREFIX, Asked, Judge, Verdict
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.mathematics import math
from selftrain.scoring.numerals import numerals
from selftrain.scoring.results import cut
from selftrain.scoring.rules import normal_form

Normalise: TypeAlias = Literal["text", "number", "math"]
COVERAGE = f"{METRIC_PREFIX}label_coverage"
SHARE = f"{METRIC_PREFIX}majority_share"
_SHOWN = 60


def majority(
    *,
    normalise: Normalise = "text",
    min_votes: Annotated[int, Field(ge=1)] = 2,
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.0,
    min_agreement_of_all: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Rules:
    """1 for the candidates that give the answer that most of their prompt's candidates give, 0 for the others.

    normalise: when two answers are the same: `text` (equal but for letter case and white space), `number` (each the
        same single plain number), `math` (each right by the scorer `math`, were the other the reference).
    min_votes: the majority's answer must have so many votes; a single one is no majority.
    min_agreement: it must have this share of all votes.
    min_agreement_of_all: it must have this share of the candidates, also of those without a vote.

    A candidate that was cut off, or whose text has no answer (`extract`), has no vote and gets 0. Of tied answers none
    wins; without a winner all get 0. `score/label_coverage` is the share of prompts with a winner,
    `score/majority_share` the most frequent answer's share of the votes, a mean over prompts with any vote. Where the
    machine failed at one answer of a prompt (a worker that died, a time-out), its votes are unscored.
    """
    return Rules(normalise, min_votes, min_agreement, min_agreement_of_all)


@dataclass(frozen=True, slots=True)
class Rules:
    """The parameters of `majority`."""

    normalise: Normalise
    min_votes: int
    min_agreement: float
    min_agreement_of_all: float


@dataclass(frozen=True, slots=True)
class Majority:
    """What a vote came to. `winner` is the kind of answer that won, None where none did, for the reason `why`; `share`
    is the share of votes of the most frequent answer, None where there is no vote."""

    winner: int | None
    share: float | None
    why: str


def vote(kinds: Sequence[int | None], rules: Rules, shown: Callable[[int], str] = str) -> Majority:
    """Count the votes of a prompt's candidates: `kinds` has the kind of answer of each, None for one without a vote.
    `shown` names a kind."""
    counts = Counter(one for one in kinds if one is not None)
    if not counts:
        return Majority(None, None, "no majority: no candidate has an answer")
    (winner, most), *others = counts.most_common()
    votes = counts.total()
    share = most / votes
    said = f"{shown(winner)} has {most} of {votes} votes ({len(kinds)} candidates)"
    if others and others[0][1] == most:
        tied = ", ".join(shown(kind) for kind, number in counts.items() if number == most)
        return Majority(None, share, f"no majority: a tie of {tied} with {most} of {votes} votes each")
    if most < rules.min_votes:
        return Majority(None, share, f"no majority: {said}, fewer than min_votes {rules.min_votes}")
    if share < rules.min_agreement:
        return Majority(None, share, f"no majority: {said}, under min_agreement {rules.min_agreement:g}")
    if most / len(kinds) < rules.min_agreement_of_all:
        return Majority(None, share, f"no majority: {said}, under min_agreement_of_all {rules.min_agreement_of_all:g}")
    return Majority(winner, share, f"the majority: {said}")


UNCOUNTED = Majority(None, None, "the votes on its prompt cannot be counted")
_Kind: TypeAlias = tuple[int | None, str]


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why an answer could not be compared with others, through no fault of its own."""

    error: str


class MajorityJudge:
    """A Judge. `answers` takes the answer out of each text: it gives a Verdict whose `answer` that is, or None."""

    def __init__(self, rules: Rules, answers: Judge, *, base: Path, timeout_seconds: float, workers: int = 1) -> None:
        self._rules, self._answers = rules, answers
        self._comparing: FunctionJudge | None = None
        if rules.normalise == "math":
            self._comparing = FunctionJudge(
                "selftrain.scoring.majority:same_expression",
                base=base,
                params={},
                timeout_seconds=timeout_seconds,
                prepare="selftrain.scoring.mathematics:prepare",
                workers=workers,
                is_rule=True,
            )

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        if not asked:
            return []
        asked_of = replace(prompt, reference=None, completion=None, metadata={})
        found = list(self._answers.judge(asked_of, asked))
        voters = [
            index
            for index, (one, taken) in enumerate(zip(asked, found, strict=True))
            if one.candidate.finish_reason != "length" and taken.answer is not None
        ]
        kinds: list[int | None] = [None] * len(asked)
        answers = [one.answer for one in found]
        of_voters = self._kinds(asked_of, [str(answers[index]) for index in voters])
        for index, one in zip(voters, of_voters, strict=True):
            if isinstance(one, _Failed):
                found[index] = Verdict(None, error=f"its answer could not be compared: {one.error}")
            else:
                kinds[index], answers[index] = one
        could_vote = [taken for one, taken in zip(asked, found, strict=True) if one.candidate.finish_reason != "length"]
        if unread := next((one.error for one in could_vote if one.error is not None), None):
            # One vote more might give the others another label, so nobody has one.
            without = Verdict(None, error=f"{UNCOUNTED.why}: of another answer, {unread}")
            return [
                _verdict(one, taken, None, UNCOUNTED, {}) if kind is None else without
                for one, taken, kind in zip(asked, found, kinds, strict=True)
            ]
        names = _names(kinds, answers)
        result = vote(kinds, self._rules, lambda kind: repr(cut(names[kind], _SHOWN)))
        verdicts = [
            _verdict(one, taken, kind, result, names) for one, taken, kind in zip(asked, found, kinds, strict=True)
        ]
        verdicts[0] = replace(verdicts[0], extras={**verdicts[0].extras, **_counted(result)})
        return verdicts

    def _kinds(self, prompt: Prompt, texts: Sequence[str]) -> list[_Kind | _Failed]:
        """The kind of each answer, equal ones having the same (None: it cannot be read), and how it is written."""
        if self._rules.normalise == "math":
            return self._kinds_of_expressions(prompt, texts)
        key_of = _number_of if self._rules.normalise == "number" else _text_of
        keys = [key_of(text) for text in texts]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(key for key in keys if key is not None))}
        return [(None if key is None else numbers[key], text) for key, text in zip(keys, texts, strict=True)]

    def _kinds_of_expressions(self, prompt: Prompt, texts: Sequence[str]) -> list[_Kind | _Failed]:
        """Each distinct text is compared with the first text of each kind so far, the earliest kinds first. Where the
        machine failed, nobody knows which kind it is."""
        assert self._comparing is not None
        kind_of: dict[str, _Kind | _Failed] = {}
        left = list(dict.fromkeys(texts))
        number = 0
        while left:
            first = left[0]
            asked = [Asked(Candidate.unsampled(text, id="compared", prompt_id=""), text) for text in left]
            likeness = self._comparing.judge(replace(prompt, reference=first), asked)
            failed = {
                text: _Failed(one.error or "no value")
                for text, one in zip(left, likeness, strict=True)
                if one.value is None
            }
            kind_of |= failed
            if first in failed:  # the others are compared with the next
                left = [text for text in left if text not in failed]
                continue
            if likeness[0].value != 1.0:  # not even itself: it cannot be read
                kind_of[first] = None, first
                left = [text for text in left[1:] if text not in failed]
                continue
            alike = {text for text, one in zip(left, likeness, strict=True) if one.value == 1.0}
            kind_of |= dict.fromkeys(alike, (number, likeness[0].answer or first))
            left, number = [text for text in left if text not in alike and text not in failed], number + 1
        return [kind_of[text] for text in texts]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """None is needed."""

    def close(self) -> None:
        """End what runs."""
        self._answers.close()
        if self._comparing is not None:
            self._comparing.close()


class WholeAnswers:
    """A Judge of no opinion: a text is its own answer. With `extract` around it, that is what was taken out."""

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order; a blank text has no answer."""
        return [Verdict(0.0, one.text.strip() or None) for one in asked]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """None is needed."""

    def close(self) -> None:
        """Nothing runs."""


def same_expression(text: str, reference: str) -> Verdict:
    """Whether two answers are the same by the scorer `math`, each in the place of the reference: `2+3`, which is right
    where the reference has that form, is not the same as 5."""
    try:
        verdict = math(text, reference)
        return verdict if verdict.value != 1.0 or text == reference else math(reference, text)
    except Exception as error:  # of what a candidate wrote, on either side
        return Verdict(0.0, explanation=f"one of the two cannot be read: {type(error).__name__}: {error}")


def _text_of(text: str) -> str | None:
    return normal_form(text) or None


def _number_of(text: str) -> str | None:
    found = list(numerals(text))
    if len(found) != 1 or found[0].number is None:
        return None
    number = found[0].number
    plain = "0" if not number else str(number.normalize())
    return plain + ("%" if found[0].percent else "")


def _names(kinds: Sequence[int | None], answers: Sequence[str | None]) -> dict[int, str]:
    """What each kind is called: as it is written most often, of equals the first."""
    written: dict[int, Counter[str]] = {}
    for kind, answer in zip(kinds, answers, strict=True):
        if kind is not None and answer is not None:
            written.setdefault(kind, Counter())[unicodedata.normalize("NFC", answer)] += 1
    return {kind: counts.most_common(1)[0][0] for kind, counts in written.items()}


def _verdict(one: Asked, taken: Verdict, kind: int | None, result: Majority, names: dict[int, str]) -> Verdict:
    if taken.error is not None:
        return taken
    where = f"{taken.explanation}; " if taken.explanation else ""
    if kind is None:
        why = "no vote: " + ("it was cut off" if one.candidate.finish_reason == "length" else "it has no answer")
        return Verdict(0.0, None, f"{where}{why}; {result.why}")
    value = float(kind == result.winner)
    return Verdict(value, names[kind], f"{where}{cut(names[kind], _SHOWN)!r} gets {value:g}; {result.why}")


def _counted(result: Majority) -> dict[str, list[float]]:
    """Of a prompt, as the metrics of the round count it."""
    counted = {COVERAGE: [float(result.winner is not None)]}
    return counted | ({} if result.share is None else {SHARE: [result.share]})
