"""Groups made by hand: a prompt, its candidates and, where given, their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.records import Candidate, FinishReason, Group, Prompt, Score


def make_prompt(name: str = "p", reference: str | None = "57", metadata: Mapping[str, Any] | None = None) -> Prompt:
    return Prompt(
        id=name, identity=name, messages=None, text=f"ask {name}", reference=reference, metadata=metadata or {}
    )


def make_candidate(
    prompt_id: str, index: int, text: str, *, finish_reason: FinishReason = "stop_token", num_tokens: int = 3
) -> Candidate:
    return Candidate(
        id=f"{prompt_id}/{index}",
        prompt_id=prompt_id,
        index=index,
        wave=0,
        text=text,
        prompt_token_ids=(1, 2),
        completion_token_ids=tuple(range(10, 10 + num_tokens)),
        finish_reason=finish_reason,
        seed=index,
        policy_digest="policy",
        logprobs=(-1.0,) * num_tokens,
    )


def make_group(texts: Sequence[str], *, name: str = "p", reference: str | None = "57", **metadata: Any) -> Group:
    return Group(
        prompt=make_prompt(name, reference, metadata),
        candidates=tuple(make_candidate(name, index, text) for index, text in enumerate(texts)),
    )


def make_scored(prompt_id: str, rows: Sequence[tuple[Candidate, float | None]], *, reference: str = "57") -> Group:
    scores = tuple(
        Score(candidate.id, value, None if value is None else value >= 1.0, error="broken" if value is None else None)
        for candidate, value in rows
    )
    return Group(make_prompt(prompt_id, reference), tuple(candidate for candidate, _ in rows), scores)
