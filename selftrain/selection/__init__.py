"""Selection: which candidates become training examples, and at which step the others left.

    steps           the steps, each a pure function: who leaves a prompt, and why
    survivors       from kept candidates to training examples; the buffer over rounds
    demonstrations  the data's own completions as training examples, for the arms that ask for them

The steps, in order: sampled, scored, finished, length, dedup, rule, max_per_prompt. With rule `random` the cap comes
before the draw, so that exactly `count` survive where so many are left. Only `demonstrations` reads a prompt's
reference: otherwise sampled tokens alone become training examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selftrain.records import FINISH_REASONS, Candidate, Funnel, Group, Score

if TYPE_CHECKING:
    from selftrain.config import SelectConfig
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


def select(groups: Sequence[Group], config: SelectConfig, *, seed: int) -> Selection:
    """Apply the steps that the config asks for. One group per prompt, scored; `config` resolved for one round.

    Who is kept does not depend on the order of groups or candidates; `seed` matters to rule `random` alone.
    """
    from selftrain.selection import steps

    left = {group.prompt.id: _rows(group) for group in groups}
    if len(left) < len(groups):
        raise ValueError("two groups have the same prompt; put all candidates of a prompt into one group")
    counts = [("sampled", _count(left))]
    reasons: dict[str, str] = {}
    for name, step in _planned(config, seed=seed):
        whole = name == "rule" and config.rule == "random"
        parts = [[row for rows in left.values() for row in rows]] if whole else list(left.values())
        for rows in parts:
            reasons.update(step(rows))
        left = {prompt: [row for row in rows if row[0].id not in reasons] for prompt, rows in left.items()}
        counts.append((name, _count(left)))
    kept = tuple(
        Kept(candidate, score, steps.why(config, score)) for rows in left.values() for candidate, score in rows
    )
    return Selection(kept, Funnel(tuple(counts)), reasons)


def _planned(config: SelectConfig, *, seed: int) -> Iterator[tuple[str, Step]]:
    """The steps that apply, by the names they have in the funnel."""
    from selftrain.selection import steps

    yield "scored", steps.unscored
    if set(config.finish_reasons) != set(FINISH_REASONS):
        yield "finished", steps.unfinished(config)
    if config.min_completion_tokens > 0 or config.max_completion_tokens is not None:
        yield "length", steps.wrong_length(config)
    if config.dedup != "none":
        yield "dedup", steps.duplicates(config)
    last = [("rule", steps.rule(config, seed=seed))] if config.rule != "all" else []
    if config.max_per_prompt is not None:
        last.insert(0 if config.rule == "random" else len(last), ("max_per_prompt", steps.over_cap(config, seed=seed)))
    yield from last


def _rows(group: Group) -> list[Row]:
    if [candidate.id for candidate in group.candidates] != [score.candidate_id for score in group.scores]:
        raise ValueError(f"prompt {group.prompt.id}: the scores are not those of its candidates, one each, in order")
    rows = zip(group.candidates, group.scores, strict=True)
    return sorted(rows, key=lambda row: (row[0].wave, row[0].index, row[0].id))


def _count(left: Mapping[str, Sequence[Row]]) -> int:
    return sum(len(rows) for rows in left.values())
