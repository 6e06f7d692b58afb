"""The steps of selection: each takes the candidates left of one prompt and names those that leave, with the reason.

A step is a pure function and knows one prompt alone. Candidates come in the order of wave and index, so that "the
first" is the same one whatever order they were read in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from selftrain.config import SelectConfig, one
from selftrain.records import Candidate, Score, seed_from

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


def unanswered(config: SelectConfig) -> Step:
    """Those whose answer is blank: whatever it is worth, it shows nobody anything. With `train_on` answer also those
    whose tokens are all reasoning, which never ended, so that nothing is left to train on.

    Of what has no tokens the text says it; one that cannot be written in tokens leaves at the step of lengths.
    """

    def is_unanswered(one: Candidate) -> bool:
        num_tokens = len(one.completion_token_ids)
        return one.reasoning_tokens >= num_tokens if num_tokens else one.reasoning is not None and not one.text

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        reasons = {candidate.id: "blank answer" for candidate, _ in rows if not candidate.text.strip()}
        if config.train_on == "answer":
            reasons |= {one.id: "no answer to train on" for one, _ in rows if is_unanswered(one)}
        return reasons

    return step


def wrong_length(config: SelectConfig) -> Step:
    """Those with too few or too many completion tokens, the stop token included; and those that cannot be written in
    the policy's tokens and context. Where no model is loaded nothing has tokens, and nobody leaves."""
    shortest, longest = config.min_completion_tokens, config.max_completion_tokens

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        reasons = {}
        for candidate, _ in rows:
            num_tokens = len(candidate.completion_token_ids)
            if not candidate.prompt_token_ids:
                continue
            if not num_tokens:
                reasons[candidate.id] = "cannot be written in the policy's tokens and context"
            elif num_tokens < shortest:
                reasons[candidate.id] = f"shorter than {shortest} tokens ({num_tokens})"
            elif longest is not None and num_tokens > longest:
                reasons[candidate.id] = f"longer than {longest} tokens ({num_tokens})"
        return reasons

    return step


def duplicates(config: SelectConfig) -> Step:
    """All but one of those with equal text, reasoning included: the best value stays, of equals the first. Rule
    `random` must not look at values, so there the first stays."""

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        ranked = list(rows) if config.rule == "random" else best_first(rows)
        stays: dict[tuple[str, str], str] = {}
        reasons = {}
        for candidate, _ in ranked:
            first = stays.setdefault(_text(candidate, config), candidate.id)
            if first != candidate.id:
                reasons[candidate.id] = f"duplicate of {first}"
        return reasons

    return step


def _text(candidate: Candidate, config: SelectConfig) -> tuple[str, str]:
    written = candidate.reasoning or "", candidate.text
    if config.dedup == "exact":
        return written
    reasoning, text = (" ".join(part.casefold().split()) for part in written)
    return reasoning, text


def over_cap(config: SelectConfig, *, seed: int) -> Step:
    """Those beyond `max_per_prompt`. The best values stay, of equals the first; with rule `random`, drawn ones."""
    assert config.max_per_prompt is not None
    cap = one(config.max_per_prompt)

    def step(rows: Sequence[Row]) -> Mapping[str, str]:
        ranked = drawn_first(rows, seed=seed) if config.rule == "random" else best_first(rows)
        return {candidate.id: f"over max_per_prompt {cap}" for candidate, _ in ranked[cap:]}

    return step


def best_first(rows: Sequence[Row]) -> list[Row]:
    """By value, highest first; equals stay in order."""
    return sorted(rows, key=lambda row: -value_of(row[1]))


def drawn_first(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """In random order. The order comes from (seed, candidate id) alone: neither values nor the order of input count."""
    return sorted(rows, key=lambda row: (draw_key(row[0].id, seed), row[0].id))


def draw_key(candidate_id: str, seed: int) -> int:
    """Where a candidate comes in a random order."""
    return seed_from(seed, "draw", candidate_id)


def written(candidate: Candidate) -> str:
    """All that a candidate wrote, the reasoning before the answer included."""
    return f"{candidate.reasoning}\n{candidate.text}" if candidate.reasoning else candidate.text


def value_of(score: Score) -> float:
    """The value of a candidate that was scored."""
    assert score.value is not None, "unscored candidates leave first"
    return score.value
