"""Candidates of a prompt judged against each other, each pair in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selftrain.records import Prompt
from selftrain.scoring import METRIC_PREFIX, Asked, Verdict
from selftrain.scoring.llm_judge.canaries import Canary
from selftrain.scoring.llm_judge.comparisons import of_both_orders, pairs_of, win_rates
from selftrain.scoring.llm_judge.hearing import NAME, REFUSED, Case, Hearing, canary_extras, extras_of, merged


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two answers in both orders; the value is the first one's."""

    as_a: Case
    as_b: Case

    @classmethod
    def of(cls, prompt: Prompt, one: str, other: str) -> _Pair:
        return cls(Case(prompt, (one, other)), Case(prompt, (other, one)))

    @property
    def cases(self) -> tuple[Case, Case]:
        return self.as_a, self.as_b

    @property
    def value(self) -> float | None:
        """What the first one won; None unless both orders were answered."""
        if self.as_a.value is None or self.as_b.value is None:
            return None
        return of_both_orders(self.as_a.value, 1.0 - self.as_b.value)


@dataclass(slots=True)
class _Field:
    """The candidates of a prompt: by text the id that stands for it, and the pairs."""

    prompt: Prompt
    asked: Sequence[Asked]
    standing: dict[str, str]
    pairs: dict[tuple[str, str], _Pair]
    canaries: list[tuple[str, _Pair]]

    @property
    def cases(self) -> list[Case]:
        return [case for pair in (*self.pairs.values(), *(pair for _, pair in self.canaries)) for case in pair.cases]


def judge_pairs(
    block: Sequence[tuple[Prompt, Sequence[Asked]]],
    canaries: Mapping[int, Sequence[Canary]],
    hearing: Hearing,
    opponents: int | None,
    canary_value: float,
) -> list[list[Verdict]]:
    """One Verdict per candidate of each prompt. Equal texts are one; what asking took goes with the prompt's first
    candidate."""
    fields = [
        _field(prompt, asked, canaries.get(index, ()), hearing, opponents)
        for index, (prompt, asked) in enumerate(block)
    ]
    hearing.hear([case for one in fields for case in one.cases])
    return [_verdicts(one, canary_value) for one in fields]


def _field(
    prompt: Prompt, asked: Sequence[Asked], canaries: Sequence[Canary], hearing: Hearing, opponents: int | None
) -> _Field:
    standing: dict[str, str] = {}
    for one in asked:
        if not hearing.refuses(one.text):
            standing.setdefault(one.text, one.candidate.id)
    text_of = {name: text for text, name in standing.items()}
    pairs = {
        (one, other): _Pair.of(prompt, text_of[one], text_of[other])
        for one, other in pairs_of(list(text_of), opponents)
    }
    # Against a real answer: a judge that goes for a text without content prefers it to one.
    real = text_of[min(text_of)] if text_of else None
    met = [(one.name, _Pair.of(prompt, one.text, real)) for one in canaries if real is not None]
    return _Field(prompt, asked, standing, pairs, met)


def _verdicts(field: _Field, canary_value: float) -> list[Verdict]:
    rates = win_rates({names: pair.value for names, pair in field.pairs.items()})
    has_refused = any(one.text not in field.standing for one in field.asked)
    verdicts = [_verdict(field, one.text, rates, has_refused=has_refused) for one in field.asked]
    if verdicts:
        verdicts[0] = replace(verdicts[0], extras=_extras(field, canary_value))
    return verdicts


def _verdict(field: _Field, text: str, rates: Mapping[str, tuple[float, int, int]], *, has_refused: bool) -> Verdict:
    name = field.standing.get(text)
    if name is None:
        return REFUSED
    if len(field.standing) == 1:
        why = "the prompt's others were refused" if has_refused else "the prompt has no other, distinct candidate"
        return Verdict(1.0 if has_refused else 0.5, explanation=f"nothing to compare with: {why}")
    if name in rates:
        value, decided, met = rates[name]
        some = "" if decided == met else f" ({met - decided} more could not be decided)"
        return Verdict(value, explanation=f"won {value:.0%} of {decided} comparisons, each in both orders{some}")
    errors = (case.error for names, pair in field.pairs.items() if name in names for case in pair.cases if case.error)
    return Verdict(None, error=next(errors, "no comparison could be decided"))


def _extras(field: _Field, canary_value: float) -> dict[str, Any]:
    extras = extras_of(field.cases)
    both = [pair for pair in field.pairs.values() if pair.value is not None]
    if both:
        changed = [float(pair.as_a.value != 1.0 - (pair.as_b.value or 0.0)) for pair in both]
        extras[f"{METRIC_PREFIX}{NAME}/order_changes_rate"] = changed
    if field.canaries:
        results = [(name, pair.value) for name, pair in field.canaries]
        extras = merged(extras, canary_extras(results, canary_value))
    return extras
