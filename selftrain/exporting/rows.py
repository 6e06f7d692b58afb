"""What is exported of an answer, and its rows.

The columns that TRL reads are those of its documented formats; the others are its readers' to ignore, and bear names
that none of its trainers gives a meaning to (`margin`, `chosen_ids`, `tools`, `images` and the like are taken).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selftrain.config import ThinkingConfig
from selftrain.records import Candidate, Group, Prompt

Format = Literal["prompt_completion", "messages", "text", "preference"]


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with its scored candidates. `kept` says of each survivor, by candidate id, why it was kept."""

    group: Group
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """A survivor, or a demonstration that was mixed in (which has no value): `completion` is what a model is to write
    after the prompt. `generator` wrote it."""

    prompt: Prompt
    completion: str
    candidate_id: str
    value: float | None
    why: str
    generator: str | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Own columns of a candidate file, as the data set has them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the same prompt, the first one better."""

    chosen: Example
    rejected: Example


@dataclass(frozen=True, slots=True)
class Speech:
    """How candidates become completions: the tags of reasoning, and whether it is left out."""

    thinking: ThinkingConfig | None = None
    answer_alone: bool = False

    def completion(self, candidate: Candidate) -> str:
        """The candidate's text, with its reasoning before it where that is trained on too."""
        if candidate.reasoning is None or self.thinking is None or self.answer_alone:
            return candidate.text
        return f"{self.thinking.open}{candidate.reasoning}{self.thinking.close}{candidate.text}"


def is_chat(prompt: Prompt) -> bool:
    """Whether the prompt is a conversation."""
    return prompt.messages is not None


def prompt_completion(example: Example) -> dict[str, Any]:
    """TRL's prompt-completion format: conversational where the prompt is, else two strings."""
    return {
        "prompt": _asked(example.prompt),
        "completion": _said(example),
        **_beside(example),
    }


def messages(example: Example) -> dict[str, Any]:
    """TRL's conversational language-modelling format."""
    return {"messages": [*_turns(example.prompt), _turn("assistant", example.completion)], **_beside(example)}


def text(example: Example) -> dict[str, Any]:
    """TRL's standard language-modelling format: prompt and completion as one text."""
    return {"text": (example.prompt.text or "") + example.completion, **_beside(example)}


def preference(pair: Pair) -> dict[str, Any]:
    """TRL's preference format with an explicit prompt."""
    chosen, rejected = pair.chosen, pair.rejected
    return {
        "prompt": _asked(chosen.prompt),
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "prompt_id": chosen.prompt.id,
        "task": chosen.prompt.task,
        **{f"chosen_{name}": value for name, value in _of_candidate(chosen).items()},
        **{f"rejected_{name}": value for name, value in _of_candidate(rejected).items()},
    }


def _asked(prompt: Prompt) -> str | list[dict[str, str]]:
    return _turns(prompt) if is_chat(prompt) else prompt.text or ""


def _said(example: Example) -> str | list[dict[str, str]]:
    return [_turn("assistant", example.completion)] if is_chat(example.prompt) else example.completion


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [_turn(one.role, one.content) for one in prompt.messages or ()]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _beside(example: Example) -> dict[str, Any]:
    own = {"prompt_id": example.prompt.id, "task": example.prompt.task}
    return {**own, **_of_candidate(example), "why": example.why}


def _of_candidate(example: Example) -> dict[str, Any]:
    own = {"candidate_id": example.candidate_id, "value": example.value, "generator": example.generator}
    return {**own, **example.columns}
