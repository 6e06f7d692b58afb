"""The options of multiple choice in rows: one column with all of them, or a column for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from selftrain.prompts.rows import find
from selftrain.scoring.choice import labels_of, right

NAMES = ("choices", "options", "alternatives", "candidates", "endings")
# A column for each: `A`, `option_a`, `choice1`.
_ONE = re.compile(r"(options?|choices?|opt|op|alternatives?|answers?|ans|)[ _-]?([a-z]|[0-9])", re.IGNORECASE)
_FEWEST_LETTERS = 3
"""Columns `A` and `B` alone may be anything."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The options: `named` as the scorer `choice` names them in its params, `lines` as a template shows them, `count`
    how many every row has (None: it varies)."""

    named: str | tuple[str, ...]
    count: int | None
    lines: tuple[str, ...]

    @property
    def words(self) -> str:
        """Where they are."""
        return self.named if isinstance(self.named, str) else ", ".join(self.named)

    @property
    def params(self) -> dict[str, Any]:
        """Of the scorer."""
        return {"choices": self.named if isinstance(self.named, str) else list(self.named)}


def choices_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], by_name: Iterator[str]) -> Choices | None:
    """The options in one of the columns `by_name`, or in a column each of `columns`; None where there are none."""
    for name in by_name:
        if (found := _in_one(rows, name)) is not None:
            return found
    return _in_a_column_each(rows, columns)


def fits(rows: Sequence[Mapping[str, Any]], choices: Choices, reference: str) -> bool:
    """Whether every reference says which option is right."""
    try:
        for row in rows:
            right(str(find(row, reference)), row, choices.params["choices"])
    except ValueError:
        return False
    return True


def _in_one(rows: Sequence[Mapping[str, Any]], name: str) -> Choices | None:
    labelled = [find(row, name) for row in rows]
    if all(isinstance(one, list) and len(one) > 1 and all(map(_has_label, one)) for one in labelled):
        return _listed(name, labelled, f"{name}[{{n}}][text]", f"{name}[{{n}}][label]", f"{{{name}}}")
    for path, inside in ((name, name), (f"{name}[text]", f"{name}.text")):
        lists = [find(row, inside) for row in rows]
        if all(isinstance(one, list) and len(one) > 1 and all(map(_is_option, one)) for one in lists):
            has_labels = path != name and all(isinstance(find(row, f"{name}.label"), list) for row in rows)
            called = f", called {{{name}[label]}}" if has_labels else ""
            label = f"{name}[label][{{n}}]" if has_labels else None
            return _listed(name, lists, f"{path}[{{n}}]", label, f"{{{path}}}{called}")
    return None


def _listed(name: str, lists: Sequence[Any], text: str, label: str | None, whole: str) -> Choices:
    counts = {len(one) for one in lists}
    if len(counts) > 1:
        return Choices(name, None, (f"Options: {whole}",))
    count = counts.pop()
    called = [
        letter if label is None else f"{{{label.format(n=n)}}}"
        for n, letter in zip(range(count), ascii_uppercase, strict=False)
    ]
    return Choices(name, count, tuple(f"{one}. {{{text.format(n=n)}}}" for n, one in enumerate(called)))


def _in_a_column_each(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Choices | None:
    families: dict[tuple[str, bool], dict[str, str]] = {}
    for name in columns:
        match = _ONE.fullmatch(name.strip())
        if match is not None and all(_is_option(row.get(name)) for row in rows):
            head, label = match[1].lower(), match[2].lower()
            families.setdefault((head, label.isdigit()), {})[label] = name
    for (head, is_number), family in families.items():
        if is_number and head in ("", "answer", "answers", "ans"):
            continue  # several right answers, or anything
        first = next((one for one in ("a", "0", "1") if one in family), None)
        if first is None:
            continue
        following = (chr(ord(first) + n) for n in range(len(family)))
        named = []
        for label in following:
            if label not in family:
                break
            named.append(family[label])
        if len(named) >= (2 if head else _FEWEST_LETTERS):
            lines = (f"{label}. {{{name}}}" for label, name in zip(labels_of(named), named, strict=True))
            return Choices(tuple(named), len(named), tuple(lines))
    return None


def _has_label(value: Any) -> bool:
    return isinstance(value, Mapping) and {"text", "label"} <= value.keys() and _is_option(value["text"])


def _is_option(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and bool(value))
