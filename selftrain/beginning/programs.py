"""Tests of programs in rows: which columns hold them, and what belongs to them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.prompts.rows import find
from selftrain.scoring.code.suites import Plan, Streams, read
from selftrain.scoring.code.suites import Row as Tested

TESTS = ("tests", "test_list", "test", "input_output", "test_cases", "unit_tests", "test_code", "public_tests")
ENTRY_POINTS = ("entry_point", "function_name", "func_name", "fn_name")
SETUPS = ("setup", "test_setup_code", "setup_code")
SOLUTIONS = (
    *("solution", "canonical_solution", "reference_solution", "code", "reference", "solutions", "ground_truth"),
    *("answer", "target", "response", "output", "completion"),
)
_LOOKED_AT = 50
ByName = Callable[[Sequence[str]], Iterator[str]]
"""The columns of these names, in their order."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The columns of the scorer `code`, as its params name them. `why` says what was seen; `reads_input` that the tests
    are of whole programs, fed on standard input; `shows` what a prompt must say so that the function has the right
    name: lines of a template."""

    tests: str
    entry_point: str | None
    setup: str | None
    prepend: str | None
    reads_input: bool
    shows: tuple[str, ...]
    why: str

    @property
    def asks(self) -> str:
        """The form of the answer."""
        if self.reads_input:
            return "Answer with a Python program in one fenced block, which reads standard input and prints its output."
        what = "Python code" if self.prepend is None else "the whole function"
        return f"Answer with {what} in one fenced block."

    @property
    def params(self) -> dict[str, str]:
        """Of the scorer: those columns whose names are not the ones that it looks for anyway."""
        named = {"tests": self.tests, "entry_point": self.entry_point, "setup": self.setup, "prepend": self.prepend}
        return {name: column for name, column in named.items() if column not in (None, name)}


def programs_of(
    rows: Sequence[Mapping[str, Any]], by_name: ByName, prompt: str | None, reference: str | None
) -> Programs | None:
    """The tests in the first column of a known name whose values can be read as tests; None where there is none.

    A data set may have rows that are broken: half of the first ones must be readable.
    """
    some = rows[:_LOOKED_AT]
    entry_point = next((name for name in by_name(ENTRY_POINTS) if _is_text(some, name)), None)
    setup = next((name for name in by_name(SETUPS) if _is_text(some, name)), None)
    for tests in by_name(TESTS):
        plans = [plan for row in some if (plan := _plan(row, tests, entry_point, setup)) is not None]
        if not plans or 2 * len(plans) < len(some):
            continue
        reads_input = all(isinstance(plan, Streams) for plan in plans)
        # Every row: the template looks into each.
        asserts = not reads_input and all(
            isinstance(of_row := find(row, tests), list) and of_row and isinstance(of_row[0], str) for row in rows
        )
        return Programs(
            tests=tests,
            entry_point=entry_point,
            setup=setup,
            prepend=_prepended(some, prompt, reference),
            reads_input=reads_input,
            shows=_shows(some, prompt, tests if asserts else None, entry_point),
            why=f"{tests} holds {'inputs and outputs of programs' if reads_input else 'tests of programs'}",
        )
    return None


def solutions_of(rows: Sequence[Mapping[str, Any]], by_name: ByName, tests: str) -> str | None:
    """The column, or the place inside it (the first of several), that holds programs in most rows."""
    some = rows[:_LOOKED_AT]
    for name in by_name(SOLUTIONS):
        for place in (name, f"{name}.0"):
            values = [find(row, place) for row in some]
            if name != tests and all(one is None or isinstance(one, str) for one in values):
                are_programs = [isinstance(one, str) and _is_program(one) for one in values]
                if 2 * sum(are_programs) > len(some):
                    return place
    return None


def _plan(row: Mapping[str, Any], tests: str, entry_point: str | None, setup: str | None) -> Plan | None:
    named = find(row, entry_point) if entry_point is not None else None
    before = find(row, setup) if setup is not None else None
    try:
        return read(Tested(find(row, tests), named or None, before or ""))
    except ValueError:
        return None


def _is_text(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(row.get(name) is None or isinstance(row[name], str) for row in rows)


def _is_program(text: str) -> bool:
    """Whether a text of a data set is Python that defines or does something, or the body of a function."""
    body = "def f():\n" + text
    return "```" in text or any(tree is not None and _acts(tree) for tree in (_parsed(text), _parsed(body)))


def _acts(tree: ast.Module) -> bool:
    """Not only a constant or a name, which any word or number is."""
    body = tree.body[0].body if isinstance(tree.body[0], ast.FunctionDef) and len(tree.body) == 1 else tree.body
    plain = ast.Constant | ast.Name | ast.List | ast.Dict | ast.Tuple | ast.BinOp | ast.UnaryOp
    return any(not (isinstance(one, ast.Expr) and isinstance(one.value, plain)) for one in body)


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if tree.body else None


def _prepended(rows: Sequence[Mapping[str, Any]], prompt: str | None, reference: str | None) -> str | None:
    """The prompt's column where solutions go on behind it, as HumanEval's do."""
    if prompt is None or reference is None:
        return None
    pairs = [(find(row, prompt), find(row, reference)) for row in rows]
    texts = [pair for pair in pairs if all(isinstance(one, str) for one in pair)]
    together = [_parsed(asked + solution) is not None and _parsed(asked) is not None for asked, solution in texts]
    alone = [_parsed(solution) is not None for _, solution in texts]
    return prompt if texts and sum(together) > len(rows) / 2 and sum(alone) < sum(together) else None


def _shows(
    rows: Sequence[Mapping[str, Any]], prompt: str | None, asserts: str | None, entry_point: str | None
) -> tuple[str, ...]:
    """What tells the name of the function, where most prompts do not: its column, or else the first test."""
    if entry_point is not None and all(find(row, entry_point) for row in rows):
        says = [prompt is not None and str(find(row, entry_point)) in str(find(row, prompt)) for row in rows]
        return () if 2 * sum(says) > len(rows) else (f"The function is called `{{{entry_point}}}`.",)
    return () if asserts is None else ("It must pass tests such as this one:", f"{{{asserts}[0]}}")
