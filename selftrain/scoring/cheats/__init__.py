"""Answers that a verifier must refuse, made for a prompt at hand: what a policy finds when it is paid by one.

    forms        the texts in which a right answer is expected, by the recipe's scorers
    differing    references of other prompts that are surely wrong here
    answers      hedges, lists, lookalikes, hidden references, words at a judge
    programs     the same for code
    degenerate   empty, huge, broken and meaningless texts

None of them is right: each says in a sentence why it must be refused. Where a text would be right by accident (the
question that ends with its own answer), it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Cheat:
    """A text that must be refused. `reasoning` is what a thinking model would have written before it."""

    name: str
    text: str
    why: str
    reasoning: str | None = None
    slow: bool = False
    """Whether it is made to cost much: asked of few prompts."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What cheats are made from: the question as it is asked, the right answer and wrong ones near it, both without
    the form around them; `rule` is the scorer's name; `metadata` has the prompt's columns."""

    question: str
    answer: str | None
    wrong: tuple[str, ...]
    rule: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    thinks: bool = False
