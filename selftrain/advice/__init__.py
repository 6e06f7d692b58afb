"""Combinations of knobs that make no sense, one small function each, and what to say of them.

    note     what a note is; the rounds it is about
    idle     on knobs that matter only in the company of others
    judging  on sampling, scoring and selection
    rewards  on values of reward models
    generator on who writes the candidates
    judges   on language models as judges
    whole    on prompts, rounds and the rest

A note explains; one that `cannot_work` refuses the recipe. Notes are about knobs and prompts alone: nothing here reads
a file or knows the model.
"""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.advice import generator, idle, judges, judging, rewards, whole
from selftrain.advice.note import Advice, Note
from selftrain.config import Config, config_of_arm
from selftrain.errors import ConfigError
from selftrain.prompts import PromptSets

TABLE: tuple[Advice, ...] = (
    generator.same_again,
    generator.unheeded_knobs,
    judging.greedy_copies,
    judging.one_block,
    judging.short_reasoning,
    judging.above_mean_of_equals,
    judging.best_of_one,
    judging.top_of_fewer,
    judging.idle_cap,
    judging.threshold_out_of_reach,
    judging.threshold_of_all,
    judging.never_correct,
    judging.always_correct,
    judging.only_cut,
    judging.lengths_apart,
    judging.stopped_and_dropped,
    judging.drawn_duplicates,
    judging.drawn_all,
    judging.old_data_on_old_weights,
    judging.lone_gate,
    judges.no_canaries,
    judges.judge_of_itself,
    judging.vote_of_few,
    judging.vote_on_held_out,
    rewards.rewards_by_threshold,
    rewards.rewards_called_correct,
    rewards.pairs_of_one,
    idle.idle_knobs,
    whole.chat_model_in_text,
    whole.idle_template_variables,
    whole.idle_seed_data,
    whole.idle_pairs,
    whole.idle_retention_scorers,
    whole.more_than_there_is,
    whole.long_schedules,
    whole.rounds_out_of_reach,
    whole.best_of_nothing,
    whole.idle_patience,
    whole.unasked_verifier,
    whole.nothing_to_delete,
)


def notes(config: Config, prompts: PromptSets) -> Iterator[Note]:
    """Every note on the recipe; on arms of their own, what is not said of main already."""
    said = set()
    for advice in TABLE:
        note = advice(config, prompts)
        if note is not None:
            said.add(note.words)
            yield note
    for arm in config.arms:
        if not arm.overrides:
            continue
        own = config_of_arm(config, arm).model_copy(update={"arms": config.arms})  # which may use what it does not
        for advice in TABLE:
            note = advice(own, prompts)
            if note is not None and note.words not in said:
                yield Note(f"arm {arm.name}: {note.words}", note.cannot_work)


def refuse(config: Config, prompts: PromptSets) -> None:
    """Raise ConfigError for a recipe that cannot work."""
    if wrong := [note.words for note in notes(config, prompts) if note.cannot_work]:
        raise ConfigError("\n".join(wrong))
