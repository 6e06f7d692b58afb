"""Notes on prompts, rounds and what else a run is made of."""

from __future__ import annotations

import re
from collections import Counter

from selftrain.advice.note import Note, distinct_rounds, starts_of
from selftrain.arms import names_round
from selftrain.config import Config, RoundNames, at_round, is_schedule
from selftrain.prompts import PromptSets, shares, weights_of

CHAT_MODEL = re.compile(r"(?<![a-z])(instruct|chat|it)(?![a-z])", re.IGNORECASE)


def chat_model_in_text(config: Config, prompts: PromptSets) -> Note | None:
    """A model that was tuned to chat, asked without its template."""
    name = config.model.path.rpartition("/")[2]
    if config.prompts.format != "text" or not CHAT_MODEL.search(name):
        return None
    return Note(
        f"prompts.format is text, and {name} looks like a model that was trained on its chat template: it is asked "
        "without it, as a base model would be; format: chat renders it"
    )


def idle_template_variables(config: Config, prompts: PromptSets) -> Note | None:
    """Variables for a template that is not used."""
    if config.prompts.format != "text" or not config.model.chat_template_kwargs:
        return None
    return Note("model.chat_template_kwargs have no effect with prompts.format: text, which renders no chat template")


def idle_seed_data(config: Config, prompts: PromptSets) -> Note | None:
    """Demonstrations that nothing trains on."""
    mixed = any(at_round(config.select, number)["mix_seed_data"] for number in distinct_rounds(config))
    if prompts.seed_data is None or mixed or any(arm.name == "seed_only" for arm in config.arms):
        return None
    own = [arm for arm in config.arms if "select.mix_seed_data" in arm.overrides]
    if own:
        return None
    return Note("prompts.seed_data is not used: neither select.mix_seed_data nor the arm seed_only asks for it")


def idle_pairs(config: Config, prompts: PromptSets) -> Note | None:
    """More pairs of a prompt than survivors, of which every pair has its own."""
    select = at_round(config.select, 1)
    of_rule = {"best_of_n": 1, "top_k": select["top_k"]}.get(select["rule"])
    most = min((one for one in (of_rule, select["max_per_prompt"]) if one is not None), default=None)
    if config.curate.pairs == "none" or most is None or config.curate.pairs_per_prompt <= most:
        return None
    return Note(
        f"curate.pairs_per_prompt is {config.curate.pairs_per_prompt}, and at most {most} of a prompt's candidates "
        "survive, each of which is chosen in one pair: raise select.max_per_prompt, or take a rule that keeps more"
    )


def idle_retention_scorers(config: Config, prompts: PromptSets) -> Note | None:
    """Scorers of texts, whose perplexity is measured."""
    is_asked = prompts.retention is not None and prompts.retention.prompts is not None
    if is_asked or not config.evaluate.retention_scorers:
        return None
    return Note("evaluate.retention_scorers have nothing to judge: prompts.retention holds no prompts")


def more_than_there_is(config: Config, prompts: PromptSets) -> Note | None:
    """More prompts a round than there are; in a mix, of a task, or none of it."""
    found = [at_round(config.prompts, number)["per_round"] for number in distinct_rounds(config)]
    wanted, there = max((one for one in found if one != "all"), default=0), len(prompts.train.prompts)
    weights = weights_of(config.prompts)
    if not wanted:
        return None
    if weights is None:
        words = f"prompts.per_round is {wanted}, and there are {there} training prompts: a round asks them all"
        return Note(words) if wanted > there else None
    of_task = Counter(one.task for one in prompts.train.prompts)
    shared = shares(weights, wanted)
    short = [f"{task} {share} of {of_task[task]}" for task, share in shared.items() if share > of_task[task]]
    said = [f"more than there is, so that a round asks all of it ({', '.join(short)})"] if short else []
    turns = [shares(weights, wanted, turn) for turn in range(min(config.rounds, len(weights)))]  # ties go around
    if none := [task for task in weights if not any(turn[task] for turn in turns)]:
        said.append(f"none at all of {', '.join(none)}")
    return Note(f"prompts.per_round {wanted}, shared out by weight, asks {' and '.join(said)}") if said else None


def long_schedules(config: Config, prompts: PromptSets) -> Note | None:
    """More values than rounds."""
    found = []
    for name in ("prompts", "sample", "select", "train"):
        section = getattr(config, name)
        for knob, values in section:
            if is_schedule(section, knob) and isinstance(values, tuple) and len(values) > config.rounds:
                found.append(f"{name}.{knob} has {len(values)} values for {config.rounds} rounds; the rest is not used")
    return Note("; ".join(found)) if found else None


def rounds_out_of_reach(config: Config, prompts: PromptSets) -> Note | None:
    """Measurements of rounds that are not done."""
    named: dict[str, RoundNames] = {
        "evaluate.sampled_rounds": config.evaluate.sampled_rounds,
        "evaluate.retention_rounds": config.evaluate.retention_rounds,
    }
    named |= {"verifier.rounds": config.verifier.rounds} if config.verifier is not None else {}
    named |= {f"arms.{arm.name}.evaluate_rounds": arm.evaluate_rounds for arm in config.arms}
    beyond = {
        name: [one for one in rounds if isinstance(one, int) and one > config.rounds]
        for name, rounds in named.items()
        if not isinstance(rounds, str)
    }
    found = [f"{name} names {', '.join(map(str, numbers))}" for name, numbers in beyond.items() if numbers]
    return Note(f"{'; '.join(found)}: there are {config.rounds} rounds") if found else None


def best_of_nothing(config: Config, prompts: PromptSets) -> Note | None:
    """A start from the best round, where there is only the first."""
    starts = starts_of(config)
    if "best" in starts or at_round(config.train, 1)["init_from"] != "best":
        return None
    return Note(
        "train.init_from best is that of the base model in round 1: before it there is no other round to be best"
    )


def idle_patience(config: Config, prompts: PromptSets) -> Note | None:
    """Patience that lasts longer than the run."""
    if config.stop.patience is None or config.stop.patience < config.rounds:
        return None
    return Note(f"stop.patience is {config.stop.patience}, and there are {config.rounds} rounds: it never ends the run")


def unasked_verifier(config: Config, prompts: PromptSets) -> Note | None:
    """A verifier that has no answers to choose among."""
    if config.verifier is None:
        return None
    numbers = range(1, config.rounds + 1)
    named, sampled = (
        {number for number in numbers if names_round(names, number, last=config.rounds)}
        for names in (config.verifier.rounds, config.evaluate.sampled_rounds if prompts.held_out() else "none")
    )
    alone = sorted(named - sampled)
    if not alone:
        return None
    return Note(
        f"verifier.rounds: no answers are sampled after round{'s' * (len(alone) > 1)} {', '.join(map(str, alone))}, so "
        "the verifier is trained and chooses among nothing; name them in evaluate.sampled_rounds, and give held-out "
        "prompts"
    )


def nothing_to_delete(config: Config, prompts: PromptSets) -> Note | None:
    """Few adapters, of which the best and the last are all."""
    if config.keep != "best_and_last" or config.rounds > 1:
        return None
    return Note("keep best_and_last has nothing to delete: there is one round")
