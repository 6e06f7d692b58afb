"""What a prompt's row has for the scorer `code`: its columns, and the plan of its tests. Runs nothing."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from selftrain.errors import DataError, UnusablePrompts
from selftrain.records import Prompt, canonical_json
from selftrain.scoring.code.reading import code_of, solution
from selftrain.scoring.code.suites import Plan, Row, names_asked, read

DEFAULTS: Mapping[str, str | None] = {
    "tests": "tests",
    "entry_point": "entry_point",
    "setup": "setup",
    "prepend": None,
}
"""The parameters of `code` that name columns. A column named otherwise than here must be there."""
_MISSING = object()
_SHOWN = 60
# What rows may begin with alike: a template.
_ALIKE = 30


class Rows:
    """Reads prompts' rows. `named` maps parameters to columns, as DEFAULTS; `columns` is as `scoring.build` has it."""

    def __init__(self, named: Mapping[str, Any], columns: Mapping[str, str], *, weak: bool = False) -> None:
        self._named = {what: named.get(what, default) for what, default in DEFAULTS.items()}
        self._columns, self._weak = dict(columns), weak

    @property
    def prepends(self) -> bool:
        """Whether anything may stand before the code."""
        return self._named["prepend"] is not None

    def _value(self, prompt: Prompt, name: str) -> Any:
        """What the row has in that column. The prompt's own is the text as the row has it; where `few_shot` is plain
        text, with what stands before it."""
        if name in prompt.metadata:
            return prompt.metadata[name]
        kept_as = self._columns.get(name)
        if kept_as == "reference":
            return prompt.reference
        if kept_as == "prompt":
            return prompt.question
        return _MISSING

    def text(self, prompt: Prompt, what: str) -> str:
        """The text in the column of that parameter; empty where there is none. Raises ValueError."""
        name = self._named[what]
        value = None if name is None else self._value(prompt, name)
        if value is None or value is _MISSING:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"the column {name!r} is of type {type(value).__name__}; {what} is a text")
        return value

    def plan(self, prompt: Prompt) -> Plan:
        """The plan of the prompt's tests. Raises ValueError, in words, where they cannot be read or check nothing."""
        name = self._named["tests"]
        tests = self._value(prompt, str(name))
        if tests is _MISSING:
            raise ValueError(f"there is no column {name!r} with its tests (params.tests names another one)")
        if tests is None:
            raise ValueError(f"the column {name!r} is null; it holds asserts, code, or inputs with outputs")
        entry_point, setup, before = (self.text(prompt, one) for one in ("entry_point", "setup", "prepend"))
        reference = "" if prompt.reference is None else code_of(prompt.reference)
        return _read(canonical_json(tests), entry_point, setup, before, reference, self._weak)

    def entry_point(self, prompt: Prompt) -> str | None:
        """The one function that the tests are of, by what the row says or else by what they call; None where they are
        of several, of a program, or cannot be read."""
        try:
            called = names_asked(self.plan(prompt)) - {"Solution"}
            given = self.text(prompt, "entry_point").removeprefix("Solution().")
        except ValueError:
            return None
        return given or (next(iter(called)) if len(called) == 1 else None)

    def known(self, prompt: Prompt) -> dict[str, Any]:
        """The columns of the row with those that the prompt keeps elsewhere, and the entry point that its tests show,
        under the names that the parameters have."""
        found = dict(prompt.metadata)
        if self._named["prepend"] is not None:
            found[self._named["prepend"]] = self.text(prompt, "prepend")
        if (name := self.entry_point(prompt)) is not None:
            found[str(self._named["entry_point"])] = name
        return found

    def require_columns(self, prompts: Sequence[Prompt], of: Iterable[str] = tuple(DEFAULTS)) -> None:
        """DataError where no row has the column of the tests, or one that a parameter names otherwise than by default;
        it lists the columns there are."""
        for what in of:
            name = self._named[what]
            if name is None or (what != "tests" and name == DEFAULTS[what]):
                continue
            if not prompts or any(self._value(one, name) is not _MISSING for one in prompts):
                continue
            there = [*dict.fromkeys(key for one in prompts for key in one.metadata)]
            there += [key for key, kept in self._columns.items() if key not in there and _is_kept(prompts, kept)]
            close = difflib.get_close_matches(name, there, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"scorer code: there is no column {name!r} (params.{what} names it); rows have: "
                f"{', '.join(there) or 'nothing'}{meant}"
            )

    def why_unreadable(self, prompt: Prompt) -> str | None:
        """Why the row's tests cannot be used, as far as that shows without running them."""
        try:
            self.plan(prompt)
        except ValueError as error:
            return str(error)
        return None


def _is_kept(prompts: Sequence[Prompt], kept_as: str) -> bool:
    return kept_as == "prompt" or any(one.reference is not None for one in prompts)


@lru_cache(maxsize=1024)
def _read(tests: str, entry_point: str, setup: str, prepend: str, reference: str, weak: bool) -> Plan:
    """`suites.read`, once per row: a prompt is asked about in every round."""
    whole = solution(prepend, reference, {entry_point}) if reference else ""
    return read(Row(json.loads(tests), entry_point or None, setup, prepend, whole), weak=weak)


_OF_OBJECTS = "no plain data"


def unusable(wrong: Sequence[tuple[Prompt, str]]) -> UnusablePrompts:
    """The error for prompts whose tests cannot be used, each with the reason."""
    advice = "correct or remove them"
    if any(_OF_OBJECTS in why for _, why in wrong):
        advice += (
            ". Plain data alone passes between a candidate and its tests, types exact: tests that need more (objects, "
            "arguments changed in place) run only with params.weak: true, where a candidate can make them pass"
        )
    count = f"{len(wrong)} prompt{'s' if len(wrong) != 1 else ''}"
    return UnusablePrompts.of(
        f"scorer code cannot use the tests of {count}:",
        {prompt.id: why for prompt, why in wrong},
        advice,
        _found_by([prompt for prompt, _ in wrong]),
    )


def _found_by(prompts: Sequence[Prompt]) -> dict[str, str]:
    """By what a person finds each row: its identity, where a column says that, or else the beginning of what is asked,
    without what all of them begin with."""
    texts = {one.id: " ".join(one.question.split()) for one in prompts}
    first, last = min(texts.values()), max(texts.values())
    alike = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), 0)
    found = {}
    for one in prompts:
        text = texts[one.id]
        if one.identity != one.id:
            text = one.identity.strip('"')  # it is written as JSON
        elif alike >= _ALIKE:
            text = f"...{text[alike:]}"
        found[one.id] = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return found


def check_columns(params: Mapping[str, Any], prompts: Sequence[Prompt], columns: Mapping[str, str]) -> None:
    """`Rows.require_columns` of a scorer with these parameters."""
    Rows(params, columns).require_columns(prompts)


def check_rows(params: Mapping[str, Any], prompts: Sequence[Prompt], columns: Mapping[str, str]) -> None:
    """As `check_columns`; and UnusablePrompts where tests are missing or cannot be read."""
    rows = Rows(params, columns, weak=bool(params.get("weak")))
    rows.require_columns(prompts)
    wrong = [(one, why) for one in prompts if (why := rows.why_unreadable(one)) is not None]
    if wrong:
        raise unusable(wrong)
