"""Notes on values that reward models give."""

from __future__ import annotations

from selftrain.advice.note import Note, rounds_of, where
from selftrain.config import Config, ScorerConfig
from selftrain.prompts import PromptSets


def is_bounded(scorer: ScorerConfig) -> bool:
    """Whether it is a reward model whose values lie between 0 and 1."""
    if scorer.name == "process_reward_model":
        return True
    if scorer.name != "reward_model" or scorer.params.get("models"):
        return False
    return bool(scorer.params.get("pairwise")) or scorer.params.get("output") == "probability"


def rewards_by_threshold(config: Config, prompts: PromptSets) -> Note | None:
    """Rewards of no known scale against a threshold that nobody chose."""
    if not _is_graded(config.score.scorers) or config.select.normalise != "none":
        return None
    if "threshold" in config.select.model_fields_set:
        return None
    rounds = rounds_of(config, lambda _, select: select["rule"] == "threshold")
    if not rounds:
        return None
    return Note(
        f"select.rule threshold keeps rewards from {config.select.threshold} up{where(config, rounds)}, and a reward "
        "model has a scale of its own: take best_of_n, top_k, top_fraction or above_mean, or set select.threshold or "
        "select.normalise"
    )


def rewards_called_correct(config: Config, prompts: PromptSets) -> Note | None:
    """Rewards of no known scale against a bar for correctness that nobody chose."""
    evaluate, is_chosen = config.evaluate, "correct_at" in config.score.model_fields_set
    if _is_graded(config.score.scorers) and not is_chosen:
        knob, bar, answer = "score.correct_at", config.score.correct_at, "a candidate"
    elif _is_graded(evaluate.scorers) and evaluate.correct_at is None and prompts.held_out():
        knob, bar, answer = "evaluate.correct_at", config.judging_held_out.correct_at, "a held-out answer"
    else:
        return None
    return Note(
        f"{knob} is {bar:g}: {answer} counts as correct from that reward up, and a reward model has a scale of its "
        "own; set it to what a good answer gets, or go by mean values alone (evaluate.decide_by: value)"
    )


def pairs_of_one(config: Config, prompts: PromptSets) -> Note | None:
    """Greedy answers judged against each other, where there is one."""
    judging = config.judging_held_out.scorers
    if not any(one.name == "reward_model" and one.params.get("pairwise") and one.weight for one in judging):
        return None
    if not prompts.held_out():
        return None
    return Note(
        "a pairwise reward model judges greedy answers, of which a prompt has one, so that each gets 0.5: give "
        "evaluate.scorers something that judges an answer by itself"
    )


def _is_graded(scorers: tuple[ScorerConfig, ...]) -> bool:
    return any(one.name == "reward_model" and one.weight and not is_bounded(one) for one in scorers)
