"""The steps of selection: each takes the candidates left of one prompt and names those that leave, with the reason.

A step is a pure function and knows one prompt alone. Candidates come in the order of wave and index, so that "the
first" is the same one whatever order they were read in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from selftrain.config import SelectConfig
from selftrain.records import Candidate, Score, seed_from

T = TypeVar("T")
Row = tuple[Candidate, Score]
Step = Callable[[Sequence[Row]], Mapping[str, str]]


def unscored(rows: Sequence[Row]) -> Mapping[str, str]:
    """Those without a value: neither right nor wrong, so never trained on."""
    return {
        candidate.id: f"not scored: {score.error}" if score.error else "not scored"
        for candidate, score in rows
        if score.value is None
    }


def unfinished(config: SelectConfig) -> Step:
    """Those that ended for a reason not in `finish_reasons`: truncated ones, by default."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        return {
            candidate.id: "truncated" if candidate.finish_reason == "length" else f"ended by {candidate.finish_reason}"
            for candidate, _ in rows
            if candidate.finish_reason not in config.finish_reasons
        }

    return step


def wrong_length(config: SelectConfig) -> Step:
    """Those with too few or too many completion tokens, the stop token included."""
    shortest, longest = config.min_completion_tokens, config.max_completion_tokens

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        reasons = {}
        for candidate, _ in rows:
            num_tokens = len(candidate.completion_token_ids)
            if num_tokens < shortest:
                reasons[candidate.id] = f"shorter than {shortest} tokens ({num_tokens})"
            elif longest is not None and num_tokens > longest:
                reasons[candidate.id] = f"longer than {longest} tokens ({num_tokens})"
        return reasons

    return step


def duplicates(config: SelectConfig) -> Step:
    """All but one of those with equal text: the best value stays, of equals the first. Rule `random` must not look
    at values, so there the first stays."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        ranked = list(rows) if config.rule == "random" else best_first(rows)
        stays: dict[str, str] = {}
        reasons = {}
        for candidate, _ in ranked:
            text = candidate.text if config.dedup == "exact" else " ".join(candidate.text.casefold().split())
            first = stays.setdefault(text, candidate.id)
            if first != candidate.id:
                reasons[candidate.id] = f"duplicate of {first}"
        return reasons

    return step


def rule(config: SelectConfig, *, seed: int) -> Step:
    """The step of `select.rule`, which must not be `all`: that is no step."""
    if config.rule == "threshold":
        return below_threshold(_single(config.threshold))
    if config.rule == "random":
        assert config.count is not None
        return undrawn(_single(config.count), seed=seed)
    return not_among_best(1 if config.rule == "best_of_n" else _single(config.top_k))


def why(config: SelectConfig, score: Score) -> str:
    """Why a candidate that is left was kept."""
    value = f"value {score.value}"
    if config.rule == "threshold":
        return f"{value} reaches threshold {config.threshold}"
    if config.rule == "random":
        return "drawn at random, whatever its value"
    if config.rule == "all":
        return f"{value}; all are kept"
    return (
        f"{value} is the best of the prompt"
        if config.rule == "best_of_n"
        else f"{value} is among the best {config.top_k}"
    )


def below_threshold(threshold: float) -> Step:
    """Those with a value under the threshold."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        return {
            candidate.id: f"value {score.value} under threshold {threshold}"
            for candidate, score in rows
            if value_of(score) < threshold
        }

    return step


def not_among_best(number: int) -> Step:
    """All but the `number` best of the prompt; ties go to the first."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        return {
            candidate.id: f"value {value_of(score)} not among the best {number} of the prompt"
            for candidate, score in best_first(rows)[number:]
        }

    return step


def over_cap(config: SelectConfig, *, seed: int) -> Step:
    """Those beyond `max_per_prompt`. The best values stay, of equals the first; with rule `random`, drawn ones."""
    assert config.max_per_prompt is not None
    cap = _single(config.max_per_prompt)

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        ranked = drawn_first(rows, seed=seed) if config.rule == "random" else best_first(rows)
        return {candidate.id: f"over max_per_prompt {cap}" for candidate, _ in ranked[cap:]}

    return step


def undrawn(count: int, *, seed: int) -> Step:
    """All but `count` of the candidates of all prompts together: this step is given all rows at once."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        return {candidate.id: f"not among the {count} drawn" for candidate, _ in drawn_first(rows, seed=seed)[count:]}

    return step


def best_first(rows: Sequence[Row]) -> list[Row]:
    """By value, highest first; equals stay in order."""
    return sorted(rows, key=lambda row: -value_of(row[1]))


def drawn_first(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """In random order. The order comes from (seed, candidate id) alone: neither values nor the order of input count."""
    return sorted(rows, key=lambda row: (seed_from(seed, "draw", row[0].id), row[0].id))


def value_of(score: Score) -> float:
    """The value of a candidate that was scored."""
    assert score.value is not None, "unscored candidates leave first"
    return score.value


def _single(value: T | tuple[T, ...]) -> T:
    assert not isinstance(value, tuple), "select needs a config that is resolved for one round"
    return value
