"""Selection: which candidates become training examples, and at which step the others left.

    sifting         all steps over a stream of groups, in memory that is bounded
    steps           the steps, each a pure function: who leaves a prompt, and why
    rules           the rules of `select.rule`: who leaves, who stays, and why
    shaping         the values that rules see, where they are not the raw ones
    filters         functions of the recipe as steps
    quality         bounds on what a text is like
    contamination   overlaps with texts of evaluation sets
    near_duplicates of texts that are nearly the same one stays: by `minhash`, edits or `embeddings`
    words           words of a text and their n-grams, for both
    survivors       from kept candidates to training examples
    buffers         which of the survivors of all rounds a round trains on
    demonstrations  the data's own completions as training examples, for the arms that ask for them and to mix in

The steps, in order: sampled, scored, finished, answered (with `train_on` answer), length, quality, filter/NAME of each
filter, decontaminate, dedup, near_duplicates, rule, max_per_prompt. With rule `random` the cap comes before the draw,
so that exactly `count` survive where so many are left. Only `demonstrations` makes tokens of a prompt's reference:
otherwise sampled tokens alone become training examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selftrain.records import Candidate, Funnel, Group, Score

if TYPE_CHECKING:
    from selftrain.config import SelectConfig
    from selftrain.selection.filters import Filter
    from selftrain.selection.sifting import Given


@dataclass(frozen=True, slots=True)
class Entry:
    """What a step over the whole round sees of a candidate that is left. `value` is the one that rules see; with rule
    `random`, which looks at no values, it is 0 for all. `text` is all that was written, the reasoning before the answer
    included, `prompt_text` the prompt in words.
    """

    candidate_id: str
    prompt_id: str
    text: str
    value: float
    prompt_text: str


class RoundStep(Protocol):
    """A step that compares candidates of different prompts, of which a round may have a million."""

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """The number of each entry that leaves (0: the first of `entries`), ascending, and why; the others stay.

        `entries` has the candidates left by the steps before, in a fixed order: prompts in the order given, then wave
        and index. It can be read once, and is made while it is read, so hold on to small things only. One whose verdict
        needs no other candidate may be given before the next one is read. Deterministic: equal entries, equal answer.
        """


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
        """As `metrics_of`."""
        return metrics_of(self.funnel, len({one.candidate.prompt_id for one in self.kept}))


def metrics_of(funnel: Funnel, prompts_with_survivor: int) -> dict[str, float]:
    """Flat: `select/candidates`, `select/kept`, `select/kept_rate`, `select/prompts_with_survivor`, and how many were
    left after each step."""
    candidates = funnel.steps[0][1]
    return {
        "select/candidates": float(candidates),
        "select/kept": float(funnel.kept),
        "select/kept_rate": funnel.kept / candidates if candidates else 0.0,
        "select/prompts_with_survivor": float(prompts_with_survivor),
        **{f"select/{name}": float(left) for name, left in funnel.steps[1:]},
    }


def select(
    groups: Sequence[Group],
    config: SelectConfig,
    *,
    seed: int,
    filters: Sequence[Filter] = (),
    given: Given | None = None,
) -> Selection:
    """What `sifting.Sifting` makes of groups in memory. One group per prompt, scored; `config` resolved for one round.

    `filters` are the loaded ones of `config.filters`; what they raise is passed on. Who is kept does not depend on the
    order of groups or candidates; `seed` matters to rule `random`, and to the ties of `top_fraction`.
    """
    from selftrain.selection.sifting import Sifting

    reasons: dict[str, str] = {}
    sifting = Sifting(lambda: groups, config, seed=seed, reject=reasons.__setitem__, loaded=filters, given=given)
    kept = tuple(sifting.kept())
    return Selection(kept, sifting.funnel, reasons)
