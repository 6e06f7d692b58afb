"""Selection: which candidates become training examples, and at which step the others left.

    steps           the steps, each a pure function: who leaves a prompt, and why
    rules           the rules of `select.rule`: who leaves, who stays, and why
    filters         functions of the recipe as steps
    survivors       from kept candidates to training examples
    buffers         which of the survivors of all rounds a round trains on
    demonstrations  the data's own completions as training examples, for the arms that ask for them and to mix in

The steps, in order: sampled, scored, finished, answered (with `train_on` answer), length, filter/NAME of each filter,
dedup, rule, max_per_prompt. With rule `random` the cap comes before the draw, so that exactly `count` survive where so
many are left. Only `demonstrations` makes tokens of a prompt's reference: otherwise sampled tokens alone become
training examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selftrain.records import FINISH_REASONS, Candidate, Funnel, Group, Score

if TYPE_CHECKING:
    from selftrain.config import SelectConfig
    from selftrain.selection.filters import Filter
    from selftrain.selection.rules import Rule
    from selftrain.selection.steps import Row, Step


class Selector(Protocol):
    """Chooses the candidates of a round that are trained on."""

    def select(self, groups: Sequence[Group]) -> Selection:
        """The kept candidates, the funnel, and a reason for every candidate that left."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A candidate that survived, its score, and why."""

    candidate: Candidate
    score: Score
    why: str


@dataclass(frozen=True, slots=True)
class Selection:
    """`kept` in the order of the prompts given, then of wave and index. `reasons` has every other candidate once."""

    kept: tuple[Kept, ...]
    funnel: Funnel
    reasons: Mapping[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        """Flat: `select/candidates`, `select/kept`, `select/kept_rate`, `select/prompts_with_survivor`, and how many
        were left after each step."""
        candidates = self.funnel.steps[0][1]
        return {
            "select/candidates": float(candidates),
            "select/kept": float(len(self.kept)),
            "select/kept_rate": len(self.kept) / candidates if candidates else 0.0,
            "select/prompts_with_survivor": float(len({one.candidate.prompt_id for one in self.kept})),
            **{f"select/{name}": float(left) for name, left in self.funnel.steps[1:]},
        }


def select(groups: Sequence[Group], config: SelectConfig, *, seed: int, filters: Sequence[Filter] = ()) -> Selection:
    """Apply the steps that the config asks for. One group per prompt, scored; `config` resolved for one round.

    `filters` are the loaded ones of `config.filters`; what they raise is passed on. Who is kept does not depend on the
    order of groups or candidates; `seed` matters to rule `random`, and to the ties of `top_fraction`.
    """
    from selftrain.selection import rules

    left = {group.prompt.id: _rows(group) for group in groups}
    if len(left) < len(groups):
        raise ValueError("two groups have the same prompt; put all candidates of a prompt into one group")
    counts = [("sampled", _count(left))]
    reasons: dict[str, str] = {}
    why: dict[str, str] = {}
    rule = _told(rules.rule(config, groups, seed=seed), why)
    for name, step in _planned(groups, config, rule, filters, seed=seed):
        of_the_round = step is rule and config.rule in rules.OF_THE_ROUND
        for part in [[row for rows in left.values() for row in rows]] if of_the_round else left.values():
            reasons.update(step(part))
        left = {prompt: [row for row in rows if row[0].id not in reasons] for prompt, rows in left.items()}
        if name != "rule" or config.rule != "all":  # which is no step
            counts.append((name, _count(left)))
    kept = tuple(Kept(candidate, score, why[candidate.id]) for rows in left.values() for candidate, score in rows)
    return Selection(kept, Funnel(tuple(counts)), reasons)


def _told(rule: Rule, why: dict[str, str]) -> Step:
    """The rule as a step that notes why the others stay."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        ruling = rule(rows)
        why.update(ruling.stay)
        return ruling.leave

    return step


def _planned(
    groups: Sequence[Group], config: SelectConfig, rule: Step, filters: Sequence[Filter], *, seed: int
) -> Iterator[tuple[str, Step]]:
    """The steps that apply, by the names they have in the funnel."""
    from selftrain.selection import steps
    from selftrain.selection.filters import step as filtering

    yield "scored", steps.unscored
    if set(config.finish_reasons) != set(FINISH_REASONS):
        yield "finished", steps.unfinished(config)
    if config.train_on == "answer":
        yield "answered", steps.unanswered
    if config.min_completion_tokens > 0 or config.max_completion_tokens is not None:
        yield "length", steps.wrong_length(config)
    prompts = {group.prompt.id: group.prompt for group in groups}
    for one in filters:
        yield one.name, filtering(one, prompts)
    if config.dedup != "none":
        yield "dedup", steps.duplicates(config)
    last = [("rule", rule)]
    if config.max_per_prompt is not None:
        last.insert(0 if config.rule == "random" else 1, ("max_per_prompt", steps.over_cap(config, seed=seed)))
    yield from last


def _rows(group: Group) -> list[Row]:
    if [candidate.id for candidate in group.candidates] != [score.candidate_id for score in group.scores]:
        raise ValueError(f"prompt {group.prompt.id}: the scores are not those of its candidates, one each, in order")
    rows = zip(group.candidates, group.scores, strict=True)
    return sorted(rows, key=lambda row: (row[0].wave, row[0].index, row[0].id))


def _count(left: Mapping[str, Sequence[Row]]) -> int:
    return sum(len(rows) for rows in left.values())
