"""Notes on language models as judges."""

from __future__ import annotations

from selftrain.advice.note import Note
from selftrain.config import Config
from selftrain.prompts import PromptSets
from selftrain.scoring.llm_judge.canaries import SHARE, is_chosen


def no_canaries(config: Config, prompts: PromptSets) -> Note | None:
    """A judge that no prompt tests."""
    for one in config.score.scorers:
        share = one.params.get("canaries", SHARE)
        if one.name != "llm_judge" or not share:
            continue
        of_task = [prompt for prompt in prompts.train.prompts if not one.tasks or prompt.task in one.tasks]
        if of_task and not any(is_chosen(prompt.id, share) for prompt in of_task):
            return Note(
                f"llm_judge asks about canaries at {share:g} of the prompts, which is none of the {len(of_task):,} "
                "training prompts: nothing would show that the judge is fooled; raise params.canaries"
            )
    return None


def judge_of_itself(config: Config, prompts: PromptSets) -> Note | None:
    """Progress measured by the judge that is trained on."""
    deciding = [one for one in config.judging_held_out.scorers if one.weight]
    if config.evaluate.scorers or not prompts.held_out() or any(one.name != "llm_judge" for one in deciding):
        return None
    return Note(
        "the judge that selects is also what held-out answers are measured by: what it falls for would look like "
        "progress; give evaluate.scorers another judge, or a rule"
    )
