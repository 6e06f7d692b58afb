"""What rows hold: which column is asked, which is the answer, and what kind of answer it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from selftrain.prompts.rows import MISSING, find

Row: TypeAlias = Mapping[str, Any]
ReferenceKind: TypeAlias = Literal["none", "number", "marked", "math", "json", "choice", "short", "text"]

# By name, the likeliest first; a name with other case, or with `_` for `-` or a space, is the same.
PROMPT_NAMES = ("question", "problem", "prompt", "query", "instruction", "task", "puzzle", "goal", "input", "text")
REFERENCE_NAMES = (
    *(
        "reference",
        "answer",
        "final_answer",
        "expected_answer",
        "correct_answer",
        "ground_truth",
        "answerkey",
        "answers",
    ),
    *("expected", "gold", "target", "label", "solution", "output", "response", "result", "completion"),
)
# Shown before the question where both are there.
CONTEXT_NAMES = ("context", "passage", "article", "document", "premise", "input")
CHOICE_NAMES = ("choices", "options", "alternatives", "candidates", "endings")
MESSAGE_NAMES = ("messages", "prompt", "conversation", "conversations", "question")
MARK = "####"
SHORT_CHARACTERS = 60
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TURN = ({"role", "content"}, {"from", "value"})
_NUMBER = re.compile(r"\s*[+-]?\$?\d[\d,]*(\.\d+)?\s*%?\s*", re.ASCII)
_MATH = re.compile(r"\\(?:frac|sqrt|boxed|pi|cdot|left|begin|times|text)|\$|\^|[a-z]\s*=\s*")


@dataclass(frozen=True, slots=True)
class Choices:
    """A column of options: how its first ones are written in a template, and how many every row has (None: it varies).

    `path` is the list inside the row: `choices`, or `choices[text]` where the column holds texts; `labels` likewise,
    where it names each option (`1` or `A`): None, they are A, B, ...
    """

    column: str
    path: str
    count: int | None
    labels: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found in the rows. Columns are None where no name is known; `why` says how each was found."""

    columns: tuple[str, ...]
    prompt: str | None
    messages: str | None
    reference: str | None
    context: str | None
    choices: Choices | None
    why: Mapping[str, str]


def look(rows: Sequence[Row], *, prompt: str | None, reference: str | None) -> Seen:
    """Find the columns. Those that are given are taken as they are."""
    columns = tuple(dict.fromkeys(str(name) for row in rows for name in row))
    why: dict[str, str] = {}
    messages = None
    if prompt is None or _all(rows, prompt, is_conversation):
        messages = prompt or _named(columns, MESSAGE_NAMES, lambda name: _all(rows, name, is_conversation))
    if messages is not None:
        why["prompt"] = f"{messages} holds conversations"
    elif prompt is None:
        prompt = _named(columns, PROMPT_NAMES, lambda name: name != reference and _all(rows, name, is_text))
        why["prompt"] = f"{prompt} is text, and by its name what is asked"
    if reference is None:
        taken = (prompt, messages)
        named = (_answer_in(rows, one) for one in _by_name(columns, REFERENCE_NAMES) if one not in taken)
        reference = next((one for one in named if one is not None), None)
        why["reference"] = f"{reference} is by its name the answer"
    context = None
    if messages is None and prompt is not None:
        others = (prompt, reference)
        context = _named(columns, CONTEXT_NAMES, lambda name: name not in others and _all(rows, name, is_string))
    return Seen(columns, prompt, messages, reference, context, _choices(rows, columns), why)


def kind_of_references(rows: Sequence[Row], seen: Seen) -> tuple[ReferenceKind, str]:
    """What kind of answers the references are, and why that is thought."""
    if seen.reference is None:
        return "none", "there is no column of references"
    texts = references(rows, seen)
    if not texts:
        return "none", f"{seen.reference} is empty in every row"
    if seen.choices is not None:
        return "choice", f"{seen.choices.column} lists options"
    tests: list[tuple[ReferenceKind, Callable[[str], bool], str]] = [
        ("marked", lambda text: MARK in text, f"every one ends with {MARK} and the answer"),
        ("number", lambda text: _NUMBER.fullmatch(text) is not None, "every one is a number"),
        ("json", is_json, "every one is JSON"),
        ("short", lambda text: len(text) <= SHORT_CHARACTERS and "\n" not in text and not _MATH.search(text), "short"),
    ]
    for kind, holds, why in tests:
        if all(map(holds, texts)):
            return kind, why if kind != "short" else f"every one is short ({texts[0]!r})"
    is_math = sum(_MATH.search(text) is not None or _NUMBER.fullmatch(text) is not None for text in texts)
    if is_math >= 0.9 * len(texts) or all("\\boxed" in text for text in texts):
        return "math", f"they are written as mathematics ({texts[0][:40]!r})"
    return "text", f"they are longer texts ({texts[0][:40]!r}...)"


def references(rows: Sequence[Row], seen: Seen) -> list[str]:
    """The references that there are, as text."""
    values = [find(row, seen.reference) for row in rows] if seen.reference is not None else []
    return [str(one) for one in values if one is not None and one is not MISSING]


def is_conversation(value: Any) -> bool:
    """A list of {role, content}, or of {from, value}."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and any(keys <= turn.keys() for keys in _TURN) for turn in value)
    )


def is_string(value: Any) -> bool:
    """Text, also empty."""
    return isinstance(value, str)


def is_text(value: Any) -> bool:
    """Text with something in it."""
    return isinstance(value, str) and bool(value.strip())


def ends_with_answer(rows: Sequence[Row], column: str) -> bool:
    """Whether conversations end with the assistant's turn: then nothing is asked."""
    last = [row[column][-1] for row in rows]
    return any(turn.get("role", turn.get("from")) in ("assistant", "gpt") for turn in last)


def is_json(text: str) -> bool:
    """An object or a list, as JSON."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _choices(rows: Sequence[Row], columns: Sequence[str]) -> Choices | None:
    for name in _by_name(columns, CHOICE_NAMES):
        for path, inside in ((name, name), (f"{name}[text]", f"{name}.text")):
            lists = [find(row, inside) for row in rows]
            if all(isinstance(one, list) and len(one) > 1 and all(map(is_string, one)) for one in lists):
                counts = {len(one) for one in lists}
                named = [find(row, f"{name}.label") for row in rows]
                has_labels = path != name and all(isinstance(one, list) for one in named)
                labels = f"{name}[label]" if has_labels else None
                return Choices(name, path, counts.pop() if len(counts) == 1 else None, labels)
    return None


def _all(rows: Sequence[Row], name: str, holds: Callable[[Any], bool]) -> bool:
    return all(holds(row.get(name)) for row in rows)


def _answer_in(rows: Sequence[Row], name: str) -> str | None:
    """The column, or the place inside it (the first of several right answers), that holds text or numbers."""
    for place in (name, f"{name}.0", f"{name}.text.0", f"{name}.text"):
        values = [find(row, place) for row in rows]
        if all(one is None or isinstance(one, str | int | float) for one in values) and any(
            one is not None for one in values
        ):
            return place
    return None


def _named(columns: Sequence[str], names: Sequence[str], fits: Callable[[str], bool]) -> str | None:
    return next((one for one in _by_name(columns, names) if fits(one)), None)


def _by_name(columns: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    plain = {re.sub(r"[\s-]+", "_", one.strip()).lower(): one for one in reversed(columns)}
    for name in names:
        if name in plain:
            yield plain[name]
