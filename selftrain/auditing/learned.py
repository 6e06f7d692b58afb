"""Scorers that an audit leaves out: models, and those that ask one, whose reward is no right or wrong, so that there is
nothing that a cheat must not get past; and values that candidates bring, which say nothing of the texts of an audit."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.config import Config, ScorerConfig
from selftrain.errors import ConfigError
from selftrain.opening import as_judged
from selftrain.prompts import PromptSet
from selftrain.scoring import SCORERS

SHOWN = "; `selftrain verify` shows what it says of an answer"
UNSHOWN = "; an audit tries scorers that look at texts"


def is_learned(scorer: ScorerConfig) -> bool:
    """Whether a model, or what somebody wrote down, says what an answer is worth."""
    return scorer.name in SCORERS and SCORERS[scorer.name].learned


def without_learned(config: Config) -> Config:
    """The recipe with the scorers that an audit is about."""
    score, evaluate = (
        one.model_copy(update={"scorers": tuple(each for each in one.scorers if not is_learned(each))})
        for one in (config.score, config.evaluate)
    )
    if config.evaluate.scorers and not evaluate.scorers:
        evaluate = config.evaluate  # none at all would mean those of `score`
    return config.model_copy(update={"score": score, "evaluate": evaluate})


def left_out(config: Config, set_name: str) -> list[str]:
    """The names of the scorers of the set that are not audited."""
    return list(dict.fromkeys(one.name for one in as_judged(config, set_name).score.scorers if is_learned(one)))


def why(names: Sequence[str]) -> str:
    """Why these scorers are left out, in words."""
    said = ["the values that candidates bring belong to no other texts"] if "given" in names else []
    said += ["what a model likes is no right or wrong"] if set(names) - {"given"} else []
    return ", and ".join(said)


def require_audited(config: Config, sets: Sequence[PromptSet]) -> None:
    """ConfigError where nothing but learned scorers has a weight for a set, or for one of its tasks."""
    for one in sets:
        scorers = [each for each in as_judged(config, one.name).score.scorers if each.weight]
        for task in one.tasks or (None,):
            asked = [each for each in scorers if not each.tasks or task in each.tasks]
            if asked and all(map(is_learned, asked)):
                of_task = "" if task is None else f", task {task}"
                names = list(dict.fromkeys(each.name for each in asked))
                raise ConfigError(
                    f"--set {one.name}{of_task}: only {' and '.join(names)} has a weight there, and {why(names)}, so "
                    f"there is nothing to audit{SHOWN if set(names) - {'given'} else UNSHOWN}"
                )
