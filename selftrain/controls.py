"""What a control does otherwise than main: the same rounds, with as many examples and updates, from other data.

random_selection         its own candidates; survivors drawn at random, whatever their score
random_selection_shared  main's candidates and main's start in one round: a diagnostic of that round's filter
no_filter                its own candidates, every finished one
seed_only, gold          demonstrations: prompts.seed_data, or the references of the round's prompts

What a control leaves out is what is put to the test: the rule, `select.quality`, and `select.filters`, which may look
at values and answers or work out themselves what is right. What cannot know that applies to main and to a control that
draws alike: the reason why a candidate ended, its length, equal and nearly equal texts (of which the first stays), and
the cap per prompt. `no_filter` has none of these but the first two. Candidates that overlap with an evaluation set
leave in every arm: what is measured must be no easier for one of them. A filter on its own is tested by an arm:
`unfiltered: {select.filters: []}`.

Buffers reach over rounds in a control as they do in main, over its own survivors. None of them looks at values there:
`best_per_prompt` draws instead in an arm that draws, and is `append` for `no_filter`, which keeps all. A buffer that
goes by prompt may come out larger or smaller than main's; an arm that draws then takes as many examples as main has
(`selection.buffers.as_many`), and says so where it cannot. `select.mix_seed_data` mixes in the same share where there
are candidates, and what trains on demonstrations alone has as many of its own.
"""

from __future__ import annotations

from selftrain.arms import Arm
from selftrain.config import SelectConfig, TrainConfig
from selftrain.fingerprints import DEMONSTRATED
from selftrain.records import Receipt


def of_main(arm: Arm, round_number: int, name: str) -> Receipt | None:
    """Main's receipt of the same phase, for a control; None for an arm that follows its own knobs."""
    return arm.main.at(round_number, name) if arm.main is not None and arm.control is not None else None


def samples(arm: Arm) -> bool:
    """Whether the arm draws candidates of its own at all."""
    return arm.source is arm and arm.control not in DEMONSTRATED


def select_knobs(arm: Arm, knobs: SelectConfig, main: Receipt | None) -> SelectConfig:
    """How the arm selects in a round whose knobs these are; `main` is main's selection. None: by its own knobs."""
    if main is None:
        return knobs
    if arm.control == "no_filter":
        return unfiltered(knobs)
    count = int(main.metrics["select/kept"])
    drawn = {"rule": "random", "count": count, "quality": None, "filters": (), "min_survivors": 0}
    return knobs.model_copy(update=drawn)


def unfiltered(knobs: SelectConfig) -> SelectConfig:
    """How `no_filter` selects where main selects by these knobs."""
    buffer = "append" if knobs.buffer == "best_per_prompt" else knobs.buffer
    everything = {
        "rule": "all",
        "dedup": "none",
        "near_duplicates": None,
        "max_per_prompt": None,
        "buffer": buffer,
        "kl_beta": 0.0,
        "normalise": "none",
    }
    return knobs.model_copy(update={**everything, "quality": None, "filters": (), "min_survivors": 0})


def train_knobs(arm: Arm, knobs: TrainConfig, main: Receipt | None) -> TrainConfig:
    """How the arm trains in a round whose knobs these are: a control in as many optimizer steps as main did."""
    if main is None:
        return knobs
    return knobs.model_copy(update={"steps": int(main.metrics["train/steps"])})
