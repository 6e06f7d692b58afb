"""What rows hold: which column is asked, which is the answer, and what kind of answer it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from selftrain.beginning.options import NAMES as CHOICE_NAMES
from selftrain.beginning.options import Choices, choices_of, fits
from selftrain.beginning.programs import Programs, programs_of, solutions_of
from selftrain.prompts.conversations import as_messages, is_conversation
from selftrain.prompts.rows import MISSING, find
from selftrain.records import canonical_json

Row: TypeAlias = Mapping[str, Any]
ReferenceKind: TypeAlias = Literal["none", "number", "marked", "math", "json", "choice", "short", "text"]

# By name, the likeliest first; a name with other case, or with `_` for `-` or a space, is the same.
PROMPT_NAMES = (
    *("question", "problem", "prompt", "query", "instruction", "stem", "question_stem", "question_text", "task"),
    *("puzzle", "goal", "input", "text"),
)
REFERENCE_NAMES = (
    *(
        "reference",
        "answer",
        "final_answer",
        "expected_answer",
        "correct_answer",
        "ground_truth",
        "answerkey",
        "answer_key",
        "correct_option",
        "correct_choice",
        "gold_answer",
        "expected_output",
        "answers",
    ),
    *("expected", "gold", "target", "targets", "label", "labels", "correct", "cop", "solution", "output", "response"),
    *("result", "completion", "json"),
)
# Shown before the question where both are there.
CONTEXT_NAMES = ("context", "passage", "article", "document", "premise", "input")
MESSAGE_NAMES = ("messages", "prompt", "conversation", "conversations", "question")
MARK = "####"
SHORT_CHARACTERS = 60
_NUMBER = re.compile(r"\s*[+-]?\$?\d[\d,]*(\.\d+)?\s*%?\s*", re.ASCII)
_MATH = re.compile(r"\\(?:frac|sqrt|boxed|pi|cdot|left|begin|times|text)|\$|\^|[a-z]\s*=\s*")


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
    answered: bool = False
    """There is no column of references: every conversation ends with the assistant's turn, which is the reference."""
    programs: Programs | None = None
    """The tests of programs."""


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
    programs = programs_of(rows, lambda names: _by_name(columns, names), prompt, reference)
    if reference is None and programs is not None:
        reference = solutions_of(rows, lambda names: _by_name(columns, names), programs.tests)
        why["reference"] = f"{reference} holds programs"
        programs = programs_of(rows, lambda names: _by_name(columns, names), prompt, reference)
    elif reference is None:
        taken = (prompt, messages)
        named = (_answer_in(rows, one) for one in _by_name(columns, REFERENCE_NAMES) if one not in taken)
        reference = next((one for one in named if one is not None), None)
        why["reference"] = f"{reference} is by its name the answer"
    context = None
    if messages is None and prompt is not None:
        others = (prompt, reference)
        context = _named(columns, CONTEXT_NAMES, lambda name: name not in others and _all(rows, name, is_string))
    left = [one for one in columns if one not in (prompt, reference)]
    choices = choices_of(rows, left, _by_name(columns, CHOICE_NAMES))
    # Columns that are merely called A, B and C are options where the references say so.
    if choices is not None and not isinstance(choices.named, str):
        choices = choices if reference is not None and fits(rows, choices, reference) else None
    answered = reference is None and messages is not None and all(_is_answered(row[messages]) for row in rows)
    if answered:
        why["reference"] = f"the assistant's last turn in {messages}, which is not part of what is asked"
    return Seen(columns, prompt, messages, reference, context, choices, why, answered, programs)


def kind_of_references(rows: Sequence[Row], seen: Seen) -> tuple[ReferenceKind, str]:
    """What kind of answers the references are, and why that is thought."""
    if seen.reference is None and not seen.answered:
        return "none", "there is no column of references"
    texts = references(rows, seen)
    if not texts:
        return "none", f"{seen.reference} is empty in every row"
    if seen.choices is not None:
        return "choice", f"{seen.choices.words} {'lists' if isinstance(seen.choices.named, str) else 'are'} options"
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
    """The references that there are, as text; of objects and lists their JSON."""
    if seen.answered and seen.messages is not None:
        return [as_messages(row[seen.messages], seen.messages, "a row")[-1].content for row in rows]
    values = [find(row, seen.reference) for row in rows] if seen.reference is not None else []
    there = [one for one in values if one is not None and one is not MISSING]
    return [canonical_json(one) if isinstance(one, dict | list) else str(one) for one in there]


def is_string(value: Any) -> bool:
    """Text, also empty."""
    return isinstance(value, str)


def is_text(value: Any) -> bool:
    """Text with something in it."""
    return isinstance(value, str) and bool(value.strip())


def ends_with_answer(rows: Sequence[Row], column: str) -> bool:
    """Whether any conversation ends with the assistant's turn."""
    return any(_is_answered(row[column]) for row in rows)


def _is_answered(turns: Sequence[Mapping[str, Any]]) -> bool:
    return turns[-1].get("role", turns[-1].get("from")) in ("assistant", "gpt")


def is_json(text: str) -> bool:
    """An object or a list, as JSON."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _all(rows: Sequence[Row], name: str, holds: Callable[[Any], bool]) -> bool:
    return all(holds(row.get(name)) for row in rows)


def _answer_in(rows: Sequence[Row], name: str) -> str | None:
    """The column, or the place inside it (the first of several right answers), that holds text or numbers; else the
    column, if it holds objects or lists."""
    for place in (name, f"{name}.0", f"{name}.text.0", f"{name}.text"):
        values = [find(row, place) for row in rows]
        if all(one is None or isinstance(one, str | int | float) for one in values) and any(
            one is not None for one in values
        ):
            return place
    values = [row.get(name) for row in rows]
    there = [one for one in values if one is not None]
    is_json = bool(there) and all(isinstance(one, dict | list) and not is_conversation(one) for one in there)
    return name if is_json else None


def _named(columns: Sequence[str], names: Sequence[str], fits: Callable[[str], bool]) -> str | None:
    return next((one for one in _by_name(columns, names) if fits(one)), None)


def _by_name(columns: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    plain = {re.sub(r"[\s-]+", "_", one.strip()).lower(): one for one in reversed(columns)}
    for name in names:
        if name in plain:
            yield plain[name]
