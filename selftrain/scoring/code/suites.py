"""A row's tests, in the forms that data sets have, read into a plan.

Whatever can be a call with plain arguments and a plain value becomes one (`Calls`): then the trainer compares, types
exact, and the expected values never leave it. What cannot is test code (`Suite`): it runs in a process of its own,
where Python's own `==` decides, so that there 1, 1.0 and True are equal. Programs are fed and their output compared
(`Streams`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from selftrain.scoring.code import names
from selftrain.scoring.code.converting import Call, Expected, Unconvertible, converted
from selftrain.scoring.code.driver import Refused, encode
from selftrain.scoring.code.literals import close

_DECIMAL = re.compile(r"-?\d{1,30}\.\d{1,30}(?:[eE][+-]?\d{1,3})?")
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of the candidate's functions. `setup` is run before the candidate's source, in its process."""

    calls: tuple[Call, ...]
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """Test code. `before` is run first; then each of `tests`, in which assertion `i` is `assertions[i]`; `proxies` are
    the names that stand for functions of the candidate, `expected_errors` those builtin errors that the tests name.
    Without `allows_nan` an answer with a NaN is wrong: `not abs(f(x) - 1) > 0.1` would hold for it."""

    before: tuple[str, ...]
    tests: tuple[str, ...]
    assertions: tuple[str, ...]
    proxies: Mapping[str, str]
    expected_errors: tuple[str, ...] = ()
    setup: str = ""
    allows_nan: bool = False


@dataclass(frozen=True, slots=True)
class Streams:
    """What is given on standard input, and what must be printed."""

    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Weak:
    """Test code to be run in the candidate's own process, `before` and after its source."""

    before: str
    after: str


Plan: TypeAlias = Calls | Suite | Streams | Weak


@dataclass(frozen=True, slots=True)
class Row:
    """What a row says of its tests. `prepend`, what stands before a candidate's code, and `reference`, a solution in
    full, are the data set's own, and may define what the tests use."""

    tests: Any
    entry_point: str | None = None
    setup: str = ""
    prepend: str = ""
    reference: str = ""


def names_asked(plan: Plan) -> frozenset[str]:
    """Under which names a candidate may define what the plan calls; none where it is a program."""
    if isinstance(plan, Calls):
        return frozenset({"Solution", *(call.name for call in plan.calls)})
    return frozenset({"Solution", *plan.proxies.values()}) if isinstance(plan, Suite) else frozenset()


def read(row: Row, *, weak: bool = False) -> Plan:
    """The plan of a row. Raises ValueError, in words, where its tests cannot be read or would check nothing."""
    tests = _parsed(row.tests)
    if isinstance(tests, dict):
        return _of_inputs(tests, row)
    if not isinstance(tests, list | str) or not tests:
        raise ValueError(f"the tests are {shown_kind(row.tests)}; they are asserts, code, or inputs with outputs")
    if isinstance(tests, list) and all(isinstance(one, dict) for one in tests):
        return _of_cases(tests, row)
    sources = [tests] if isinstance(tests, str) else tests
    if not all(isinstance(one, str) for one in sources):
        raise ValueError("the tests are a list that mixes kinds; give strings of asserts, or objects {input, output}")
    return _of_code(row, sources, weak=weak)


def shown_kind(value: Any) -> str:
    """What a value is, for a message."""
    if value is None or value == "" or value == []:
        return "missing" if value is None else "empty"
    return f"of type {type(value).__name__}"


def _parsed(tests: Any) -> Any:
    """JSON in a text, as APPS and TACO have their tests; any other text is code."""
    if isinstance(tests, str) and tests.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(tests)
        except (ValueError, RecursionError):
            return tests
    return tests


def _of_inputs(tests: Mapping[str, Any], row: Row) -> Plan:
    """`{"inputs": [...], "outputs": [...], "fn_name": ...}`."""
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list)) or len(inputs) != len(outputs) or not inputs:
        raise ValueError("the tests need `inputs` and `outputs`, two lists of the same length with something in them")
    name = tests.get("fn_name")
    if name:
        return _of_functions(str(name), inputs, outputs, row)
    return _streams([(_text(one), _text(other)) for one, other in zip(inputs, outputs, strict=True)])


def _streams(cases: Sequence[tuple[str, str]]) -> Streams:
    if not any(wanted.strip() for _, wanted in cases):
        raise ValueError("the tests have nothing to check: no output is expected of any input")
    return Streams(tuple(cases))


def _of_functions(name: str, inputs: list[Any], outputs: list[Any], row: Row) -> Calls:
    """Calls with JSON arguments. Where every output is a list of one item, that item is the value: so APPS has it. As
    LiveCodeBench has it, an input is a text with one JSON value per line, and its output a text of JSON as well."""
    if all(isinstance(one, list) and len(one) == 1 for one in outputs):
        outputs = [one[0] for one in outputs]
    calls = []
    for given, wanted in zip(inputs, outputs, strict=True):
        if isinstance(given, str):
            given = [_json(line, "input") for line in given.splitlines() if line.strip()]
            wanted = _json(wanted, "output") if isinstance(wanted, str) else wanted
        if not isinstance(given, list):
            raise ValueError(f"an input of {name} is {shown_kind(given)}; it is a list of its arguments")
        try:
            trees = tuple(encode(one) for one in given)
            calls.append(Call(name, trees, {}, Expected("json", encode(wanted))))
        except Refused as error:
            raise ValueError(f"a test of {name} holds {error}") from None
    setup = names.of_setup_for_candidate(names.parsed(row.setup, "the setup"), ())
    return Calls(tuple(calls), f"{_OF_CONTESTS}\n{setup}")


_OF_CONTESTS = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from typing import *
from collections import *
from functools import *
from itertools import *
from bisect import *
from heapq import *"""
"""What solutions of LeetCode and its like find imported; their stubs write List[int]."""


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"the {what} {text[:60]!r} is no JSON value") from None


def _of_cases(tests: Sequence[Mapping[str, Any]], row: Row) -> Plan:
    """`[{"input": ..., "output": ...}, ...]`, calls where LiveCodeBench says that they are functional."""
    for one in tests:
        if not {"input", "output"} <= one.keys():
            raise ValueError(
                f"a test has the keys {', '.join(map(str, one)) or 'of nothing'}; it needs input and output"
            )
    if all(one.get("testtype") == "functional" for one in tests):
        if row.entry_point is None:
            raise ValueError("the tests are of a function, and no column says of which one (entry_point)")
        name = row.entry_point.removeprefix("Solution().")
        return _of_functions(name, [one["input"] for one in tests], [one["output"] for one in tests], row)
    return _streams([(_text(one["input"]), _text(one["output"])) for one in tests])


def _text(value: Any) -> str:
    """What a program reads or prints: a text, or a list of its lines."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"an input or output is {shown_kind(value)}; it is a text, or a list of lines")
    return value


def output_matches(expected: str, printed: str, tolerance: float) -> bool:
    """Whether a program printed what it should: line by line, white space at their ends and blank lines at the very
    end aside. A word that is expected with a decimal point may be any number at most `tolerance` away from it (see
    `literals.same`); every other word is exact."""
    wanted, lines = _lines(expected), _lines(printed)
    return len(wanted) == len(lines) and all(
        one == other or _words_match(one.split(" "), other.split(" "), tolerance)
        for one, other in zip(wanted, lines, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _words_match(expected: Sequence[str], printed: Sequence[str], tolerance: float) -> bool:
    return len(expected) == len(printed) and all(
        one == other
        or bool(
            _DECIMAL.fullmatch(one)
            and _NUMBER.fullmatch(other)
            and other.isascii()
            and close(float(one), float(other), tolerance)
        )
        for one, other in zip(expected, printed, strict=True)
    )


def _of_code(row: Row, sources: Sequence[str], *, weak: bool) -> Plan:
    """Asserts, or code with asserts."""
    trees = [names.parsed(source, "the tests") for source in sources]
    setup = names.parsed(row.setup, "the setup")
    if not any(names.asserts(tree) for tree in trees):
        why = "the tests have nothing to check: no assert of anything but a constant that is true"
        meant = names.forgotten(trees)
        raise ValueError(why if meant is None else f"{why}; did you mean `{meant}`?")
    # LeetCode's are `Solution().name`; the driver finds the method by its name.
    given = row.entry_point.removeprefix("Solution().") if row.entry_point else None
    entry_point = given or names.called_alone(trees, setup)
    for tree in trees:
        _add_call_of_check(tree, given)
    if weak:
        named = [f"candidate = {entry_point}"] if entry_point else []
        return Weak(row.setup, "\n".join([*named, *(ast.unparse(tree) for tree in trees)]))
    for_candidate = names.of_setup_for_candidate(setup, trees)
    try:
        return Calls(tuple(call for tree in trees for call in _calls_of(tree, entry_point)), for_candidate)
    except Unconvertible:
        return _suite(row, trees, setup, entry_point, for_candidate)


def _add_call_of_check(tree: ast.Module, entry_point: str | None) -> None:
    """HumanEval's tests define `check(candidate)`, which somebody must call."""
    if not any(isinstance(one, ast.FunctionDef) and one.name == "check" for one in tree.body):
        return
    if any(isinstance(one, ast.Expr) and names.is_call_of(one.value, "check") for one in tree.body):
        return
    if entry_point is None:
        raise ValueError("the tests define check(candidate), and no column says which function that is (entry_point)")
    if not entry_point.isidentifier():
        raise ValueError(f"the entry point {entry_point!r} is no name of a function")
    tree.body += ast.parse("check(candidate)").body


def _calls_of(tree: ast.Module, entry_point: str | None) -> list[Call]:
    """All assertions of a test as calls. Raises Unconvertible where there is anything else that counts."""
    calls: list[Call] = []
    checks = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "check"}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and names.is_call_of(statement.value, "check") and checks:
            calls += _calls_of_check(checks["check"], statement.value, entry_point)
        elif isinstance(statement, ast.Assert):
            calls += _calls_of_assert(statement, entry_point, entry_point)
        elif not (_says_nothing(statement) or statement is checks.get("check") or _is_metadata(statement)):
            raise Unconvertible
    return calls


def _calls_of_check(check: ast.FunctionDef, call: ast.expr, entry_point: str | None) -> list[Call]:
    arguments = check.args
    given = call.args[0] if isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords else None
    others = (*arguments.posonlyargs, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    if not isinstance(given, ast.Name) or len(arguments.args) != 1 or any(others) or check.decorator_list:
        raise Unconvertible
    if given.id not in (entry_point, "candidate"):
        raise Unconvertible
    calls: list[Call] = []
    for statement in check.body:
        if isinstance(statement, ast.Assert):
            calls += _calls_of_assert(statement, arguments.args[0].arg, entry_point)
        elif not _says_nothing(statement):
            raise Unconvertible
    return calls


def _calls_of_assert(statement: ast.Assert, name: str | None, entry_point: str | None) -> list[Call]:
    if isinstance(statement.test, ast.Constant):
        if not statement.test.value:
            raise Unconvertible
        return []  # `assert True` checks nothing

    def callee(found: str) -> str | None:
        return entry_point if found in (name, entry_point, "candidate") else None

    return converted(statement.test, callee)


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Import) or (
        isinstance(statement, ast.ImportFrom) and not any(one.name == "*" for one in statement.names)
    )


def _is_metadata(statement: ast.stmt) -> bool:
    """HumanEval's `METADATA = {...}`."""
    return isinstance(statement, ast.Assign) and [ast.unparse(one) for one in statement.targets] == ["METADATA"]


def _suite(
    row: Row, trees: Sequence[ast.Module], setup: ast.Module, entry_point: str | None, for_candidate: str
) -> Suite:
    """Test code with its assertions counted, and what it uses of the candidate's."""
    unknown = set().union(*(names.undefined(tree) for tree in trees)) - names.defined(setup)
    before = [row.setup] if row.setup.strip() else []
    # What the data set itself defines is not asked of the candidate, which could answer as it likes.
    own = {entry_point, "candidate"}
    if any(names.compares_with_itself(tree, entry_point) for tree in trees):
        own.discard(entry_point)
    # Of a reference, which defines everything: only where it is known which function is the candidate's.
    of_reference = unknown - own if entry_point is not None else set()
    for source, wanted in ((row.prepend, unknown - {entry_point, "candidate"}), (row.reference, of_reference)):
        found = names.definitions(source, wanted & unknown)
        if found.source:
            before.append(found.source)
            unknown -= found.names
    proxies = {name: name for name in sorted(unknown)}
    if entry_point is not None:
        proxies["candidate"] = entry_point
    if not proxies:
        raise ValueError("the tests use no function that a candidate could define; name it in entry_point")
    assertions: list[str] = []
    counted = tuple(names.with_counted_asserts(tree, assertions) for tree in trees)
    errors = tuple(sorted(set().union(*(names.builtin_errors(tree) for tree in trees))))
    speaks_of_nan = any("nan" in source.lower() for source in (*before, *counted))
    return Suite(tuple(before), counted, tuple(assertions), proxies, errors, for_candidate, speaks_of_nan)
