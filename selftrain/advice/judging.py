"""Notes on how candidates are drawn, judged and selected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from selftrain.advice.note import Note, are_equal, asked_at_first, rounds_of, starts_of, where
from selftrain.advice.rewards import is_bounded
from selftrain.config import Config, ScoreConfig
from selftrain.prompts import PromptSets

# Reasoning of released thinking models takes hundreds of tokens also on easy questions.
SHORTEST_REASONING = 256
FEW_VOTERS = 5
# What rules give lies between 0 and 1; a scorer of the user's may give any number.
BUILT_IN = frozenset(
    {
        "exact",
        "normalised",
        "numeric",
        "regex",
        "choice",
        "math",
        "json_schema",
        "reasoning_gym",
        "code",
        "majority",
        "llm_judge",
    }
)


def greedy_copies(config: Config, prompts: PromptSets) -> Note | None:
    """Several greedy candidates of a prompt."""
    rounds = rounds_of(config, lambda sample, _: sample["temperature"] == 0 and sample["num_candidates"] > 1)
    if not rounds:
        return None
    return Note(
        f"sample.temperature is 0{where(config, rounds)}: greedy candidates of a prompt are all the same one; raise "
        "the temperature, or set sample.num_candidates to 1"
    )


def one_block(config: Config, prompts: PromptSets) -> Note | None:
    """A block size, set on purpose, that holds all prompts."""
    if "block_size" not in config.sample.model_fields_set:
        return None
    asked = asked_at_first(config, prompts)
    rounds = rounds_of(config, lambda sample, _: sample["block_size"] > asked)
    if not rounds:
        return None
    return Note(
        f"sample.block_size is larger than the {asked:,} prompts of a round{where(config, rounds)}: all are one block, "
        "so that a kill loses all of it and several processes have nothing to share"
    )


def short_reasoning(config: Config, prompts: PromptSets) -> Note | None:
    """A thinking model that is cut off before it can answer."""
    if config.model.thinking is None:
        return None
    rounds = rounds_of(config, lambda sample, _: sample["max_new_tokens"] < SHORTEST_REASONING)
    if not rounds:
        return None
    return Note(
        f"sample.max_new_tokens is under {SHORTEST_REASONING}{where(config, rounds)}, and model.thinking reasons "
        "first: most candidates would be cut before they answer; raise it"
    )


def above_mean_of_equals(config: Config, prompts: PromptSets) -> Note | None:
    """The mean of equal values, above which is nothing."""
    rounds = rounds_of(config, lambda sample, select: select["rule"] == "above_mean" and are_equal(sample))
    if not rounds:
        return None
    return Note(
        f"select.rule above_mean keeps nothing{where(config, rounds)}: a prompt's candidates are one, or all the same, "
        "and none is above their mean; sample several, at a temperature above 0",
        cannot_work=len(rounds) == config.rounds,
    )


def best_of_one(config: Config, prompts: PromptSets) -> Note | None:
    """The best of a single candidate."""
    rounds = rounds_of(config, lambda sample, select: select["rule"] == "best_of_n" and are_equal(sample))
    if not rounds:
        return None
    return Note(
        f"select.rule best_of_n chooses among equals{where(config, rounds)}: whatever a prompt's only answer is worth, "
        "it is kept; sample several, at a temperature above 0"
    )


def top_of_fewer(config: Config, prompts: PromptSets) -> Note | None:
    """As many best as there are candidates."""
    rounds = rounds_of(
        config, lambda sample, select: select["rule"] == "top_k" and select["top_k"] >= sample["num_candidates"]
    )
    if not rounds:
        return None
    return Note(
        f"select.top_k is no less than sample.num_candidates{where(config, rounds)}: every candidate is among the "
        "best, right or wrong; lower top_k, or use rule threshold"
    )


def idle_cap(config: Config, prompts: PromptSets) -> Note | None:
    """A cap that nothing reaches."""

    def test(sample: dict[str, Any], select: dict[str, Any]) -> bool:
        return select["max_per_prompt"] is not None and select["max_per_prompt"] >= sample["num_candidates"]

    rounds = rounds_of(config, test)
    if not rounds:
        return None
    return Note(
        f"select.max_per_prompt is no less than sample.num_candidates{where(config, rounds)}, so it never cuts "
        "anything off; lower it, or leave it out"
    )


def threshold_out_of_reach(config: Config, prompts: PromptSets) -> Note | None:
    """A threshold above every value there can be."""
    bounds = _bounds_of_rules(config)
    if bounds is None:
        return None
    rounds = rounds_of(config, lambda _, select: select["rule"] == "threshold" and select["threshold"] > bounds[1])
    if not rounds:
        return None
    return Note(
        f"select.threshold is never reached{where(config, rounds)}: {_givers(config)} at most {bounds[1]:g}; lower it",
        cannot_work=len(rounds) == config.rounds,
    )


def threshold_of_all(config: Config, prompts: PromptSets) -> Note | None:
    """A threshold that the lowest value reaches."""
    bounds = _bounds_of_rules(config)
    if bounds is None:
        return None
    rounds = rounds_of(config, lambda _, select: select["rule"] == "threshold" and select["threshold"] <= bounds[0])
    if not rounds:
        return None
    return Note(
        f"select.threshold is always reached{where(config, rounds)}: {_givers(config)} no less than "
        f"{bounds[0]:g}, so that wrong candidates are kept too; raise it, or say so with rule all"
    )


def never_correct(config: Config, prompts: PromptSets) -> Note | None:
    """A bar for correctness above every value there can be."""
    said = [
        f"{one.knob} is {one.at:g}, and {one.scorers} give at most {one.bounds[1]:g}: no {one.answer} would ever count "
        "as correct; lower it"
        for one in _bars(config, prompts)
        if one.at > one.bounds[1]
    ]
    return Note(". ".join(said)) if said else None


def always_correct(config: Config, prompts: PromptSets) -> Note | None:
    """A bar for correctness that the lowest value reaches."""
    said = [
        f"{one.knob} is {one.at:g}, and {one.scorers} give no less than {one.bounds[0]:g}: every {one.answer} would "
        "count as correct, wrong ones too; raise it"
        for one in _bars(config, prompts)
        if one.at <= one.bounds[0]
    ]
    return Note(". ".join(said)) if said else None


class _Bar(NamedTuple):
    """From when on an answer is right, the knobs that say so and who judges, and the bounds of what they give."""

    knob: str
    at: float
    scorers: str
    bounds: tuple[float, float]
    answer: str


def _bars(config: Config, prompts: PromptSets) -> Iterator[_Bar]:
    """Those of candidates, and of held-out and retention answers where these are judged otherwise; none of scorers
    whose values nobody knows."""
    evaluate, held_out, retention = config.evaluate, config.judging_held_out, config.judging_retention
    if (bounds := _bounds(config.score)) is not None:
        yield _Bar("score.correct_at", config.score.correct_at, "these scorers", bounds, "answer")
    is_own = evaluate.correct_at is not None or evaluate.scorers
    if is_own and prompts.held_out() and (bounds := _bounds(held_out)) is not None:
        who = "evaluate.scorers" if evaluate.scorers else "score.scorers"
        yield _Bar("evaluate.correct_at", held_out.correct_at, who, bounds, "held-out answer")
    is_asked = prompts.retention is not None and prompts.retention.prompts is not None
    if evaluate.retention_scorers and is_asked and (bounds := _bounds(retention)) is not None:
        who = "evaluate.retention_scorers"
        yield _Bar("evaluate.correct_at", retention.correct_at, who, bounds, "retention answer")


def only_cut(config: Config, prompts: PromptSets) -> Note | None:
    """Survivors that never came to their end."""
    if config.select.finish_reasons != ("length",):
        return None
    return Note(
        "select.finish_reasons names length alone: only candidates that were cut survive, and those that came to their "
        "end leave; add stop_token"
    )


def lengths_apart(config: Config, prompts: PromptSets) -> Note | None:
    """Limits on the length of survivors beyond the length of candidates."""
    shortest, longest = config.select.min_completion_tokens, config.select.max_completion_tokens
    rounds = rounds_of(config, lambda sample, _: shortest > sample["max_new_tokens"])
    if rounds:
        return Note(
            f"select.min_completion_tokens is {shortest}, over sample.max_new_tokens{where(config, rounds)}: nothing "
            "is long enough to survive; lower it",
            cannot_work=len(rounds) == config.rounds,
        )
    idle = rounds_of(config, lambda sample, _: longest is not None and longest >= sample["max_new_tokens"])
    if len(idle) < config.rounds:
        return None
    return Note(f"select.max_completion_tokens is {longest}, which no candidate is longer than; leave it out")


def stopped_and_dropped(config: Config, prompts: PromptSets) -> Note | None:
    """Stop strings whose candidates may not survive."""
    if not config.sample.stop_strings or "stop_string" in config.select.finish_reasons:
        return None
    return Note(
        "sample.stop_strings end candidates, and select.finish_reasons lets none of those survive; add stop_string"
    )


def drawn_duplicates(config: Config, prompts: PromptSets) -> Note | None:
    """Random survivors with their duplicates."""
    if config.select.rule != "random" or config.select.dedup != "none":
        return None
    return Note(
        "select.rule random with dedup none draws an answer as often as it was sampled, so that training repeats what "
        "the policy does most; set dedup: exact for distinct answers"
    )


def drawn_all(config: Config, prompts: PromptSets) -> Note | None:
    """As many random survivors as there are candidates."""
    asked = asked_at_first(config, prompts)

    def test(sample: dict[str, Any], select: dict[str, Any]) -> bool:
        return bool(select["rule"] == "random" and select["count"] >= asked * sample["num_candidates"])

    rounds = rounds_of(config, test)
    if not rounds:
        return None
    return Note(f"select.count is no less than the candidates of a round{where(config, rounds)}: all of them are drawn")


def old_data_on_old_weights(config: Config, prompts: PromptSets) -> Note | None:
    """Earlier rounds' survivors, from weights that were trained on them."""
    if config.select.buffer == "replace" or config.rounds == 1:
        return None
    if "previous" not in starts_of(config):
        return None
    return Note(
        f"select.buffer {config.select.buffer} with train.init_from previous trains again on what the weights were "
        "trained on in earlier rounds. Usual are append with base (Havrilla et al. 2024, arXiv 2403.04642; V-STaR) and "
        "replace with previous (RAFT, arXiv 2304.06767)"
    )


def vote_of_few(config: Config, prompts: PromptSets) -> Note | None:
    """A vote among too few candidates to be won."""
    votes = [one.params.get("min_votes", 2) for one in config.score.scorers if one.name == "majority"]
    if not votes:
        return None
    never = rounds_of(config, lambda sample, _: sample["num_candidates"] < max(votes))
    if never:
        return Note(
            f"score.scorers: no answer can have the {max(votes)} votes that majority asks for (min_votes)"
            f"{where(config, never)}; raise sample.num_candidates",
            cannot_work=len(never) == config.rounds,
        )
    few = rounds_of(config, lambda sample, _: sample["num_candidates"] < FEW_VOTERS)
    if not few:
        return None
    return Note(
        f"score.scorers: majority counts the votes of fewer than {FEW_VOTERS} candidates{where(config, few)}, which "
        "often agree or tie by chance (LMSI takes 32, TTRL 64); raise sample.num_candidates"
    )


def vote_on_held_out(config: Config, prompts: PromptSets) -> Note | None:
    """A vote as the measure of single greedy answers, which have nobody to agree with."""
    asked = config.judging_held_out.scorers if prompts.held_out() else ()
    if prompts.retention is not None and prompts.retention.prompts is not None:
        asked = (*asked, *config.judging_retention.scorers)
    if all(one.name != "majority" for one in asked):
        return None
    return Note(
        "evaluate.scorers: majority compares the candidates of a prompt with each other, and a held-out prompt has one "
        "greedy answer; name a scorer that reads references there, such as exact",
        cannot_work=True,
    )


def lone_gate(config: Config, prompts: PromptSets) -> Note | None:
    """A gate with nothing behind it."""
    if len(config.score.scorers) > 1 or not config.score.scorers[0].gate:
        return None
    return Note(
        f"score.scorers: {config.score.scorers[0].name} is a gate and the only scorer: there is none that it could "
        "spare, and values under 1 become 0; leave gate out"
    )


def _givers(config: Config) -> str:
    name = config.select.normalise
    return "these scorers give" if name == "none" else f"select.normalise: {name} gives"


def _bounds_of_rules(config: Config) -> tuple[float, float] | None:
    """The least and greatest value that rules may see; None where that cannot be told."""
    betas = config.select.kl_beta if isinstance(config.select.kl_beta, tuple) else (config.select.kl_beta,)
    if config.select.normalise == "zscore" or (any(betas) and config.select.normalise == "none"):
        return None
    return _bounds(config.score) if config.select.normalise == "none" else (0.0, 1.0)


def _bounds(score: ScoreConfig) -> tuple[float, float] | None:
    """The lowest and the highest value that an answer can get; None where a scorer of the user's decides."""
    deciding = [one for one in score.scorers if one.weight or one.gate]
    return (0.0, 1.0) if all(one.name in BUILT_IN or is_bounded(one) for one in deciding) else None
