"""`assert f(1) == 2` as a call and what is expected of it, so that the trainer compares and no test code runs.

A test is converted only where that says all that the assertion says. The expressions are the data set's: they are
evaluated here with bounds, and never executed.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selftrain.scoring.code.driver import Refused, encode
from selftrain.scoring.code.literals import Tree, as_number, holds_nan, is_true, same, shown

MAX_SIZE = 1_000_000
"""Of what a constant expression may grow to: characters, items, bits."""


class Unconvertible(Exception):  # noqa: N818 - reads as a fact
    """An expression is not of the few kinds that are converted."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call must return. `equal`: the value `tree`; `json`: the same, tuples counting as the lists that JSON
    has; `true`, `false`: anything that `if` takes so; `near`: a number at most max(`relative` times the larger of the
    two, `absolute`) away from that of `tree`, as `math.isclose` has it."""

    kind: Literal["equal", "json", "true", "false", "near"]
    tree: Tree = None
    relative: float = 0.0
    absolute: float = 0.0

    def accepts(self, answer: Tree, tolerance: float, *, by_value: bool = False) -> bool:
        """Whether that answer is right; `tolerance` and `by_value` as `literals.same` has them."""
        if self.kind in ("true", "false"):
            return is_true(answer) is (self.kind == "true")
        if self.kind != "near":
            given = _with_lists(answer) if self.kind == "json" else answer
            return same(self.tree, given, tolerance, by_value=by_value)
        number, wanted = as_number(answer), as_number(self.tree)
        if number is None or wanted is None:
            return False
        try:
            return math.isclose(number, wanted, rel_tol=self.relative, abs_tol=self.absolute)
        except OverflowError:  # an int too large for a float
            return False

    def __str__(self) -> str:
        if self.kind in ("true", "false"):
            return f"something {self.kind}"
        return shown(self.tree) if self.kind != "near" else f"about {shown(self.tree)}"


def _with_lists(tree: Tree) -> Tree:
    if type(tree) is list:
        return [_with_lists(one) for one in tree]
    if type(tree) is not dict:
        return tree
    ((tag, inside),) = tree.items()
    if tag == "t":
        return _with_lists(inside)
    return {"d": [[key, _with_lists(value)] for key, value in inside]} if tag == "d" else tree


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a candidate's function, with arguments as trees, and what it must return."""

    name: str
    args: tuple[Tree, ...]
    kwargs: Mapping[str, Tree]
    expected: Expected


def converted(test: ast.expr, callee: Callable[[str], str | None]) -> list[Call]:
    """What an assertion asserts, as calls. `callee(name)` is the candidate's function that a name in the tests stands
    for, None where it stands for something else.

    Raises Unconvertible, and ValueError where the assertion could never hold.
    """
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [call for one in test.values for call in converted(one, callee)]
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return [_call(test.operand, callee, Expected("false"))]
    if isinstance(test, ast.Call) and _name_of(test.func) in ("math.isclose", "isclose"):
        return [_isclose(test, callee)]
    if not isinstance(test, ast.Compare):
        return [_call(test, callee, Expected("true"))]
    if len(test.ops) != 1:
        raise Unconvertible
    left, right = test.left, test.comparators[0]
    if isinstance(test.ops[0], ast.Lt | ast.LtE):
        return [_distance(left, right, callee, strictly=isinstance(test.ops[0], ast.Lt))]
    if isinstance(test.ops[0], ast.Is):
        if not (isinstance(right, ast.Constant) and (right.value is None or isinstance(right.value, bool))):
            raise Unconvertible
    elif not isinstance(test.ops[0], ast.Eq):
        raise Unconvertible
    if not _is_call(left, callee):
        left, right = right, left
    expected = _tree(right)
    if holds_nan(expected):
        raise ValueError(f"`{ast.unparse(test)}` expects NaN, which equals nothing, itself included")
    return [_call(left, callee, Expected("equal", expected))]


def _is_call(node: ast.expr, callee: Callable[[str], str | None]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callee(node.func.id) is not None


def _call(node: ast.expr, callee: Callable[[str], str | None], expected: Expected) -> Call:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise Unconvertible
    name = callee(node.func.id)
    if name is None or any(one.arg is None for one in node.keywords):
        raise Unconvertible
    return Call(
        name,
        tuple(_tree(one) for one in node.args),
        {str(one.arg): _tree(one.value) for one in node.keywords},
        expected,
    )


def _isclose(test: ast.Call, callee: Callable[[str], str | None]) -> Call:
    """`math.isclose(f(x), 0.5, rel_tol=..., abs_tol=...)`."""
    named = {str(one.arg): _number(one.value) for one in test.keywords}
    if len(test.args) != 2 or not named.keys() <= {"rel_tol", "abs_tol"}:
        raise Unconvertible
    one, other = test.args if _is_call(test.args[0], callee) else reversed(test.args)
    _number(other)
    return _call(one, callee, Expected("near", _tree(other), named.get("rel_tol", 1e-9), named.get("abs_tol", 0.0)))


def _distance(left: ast.expr, right: ast.expr, callee: Callable[[str], str | None], *, strictly: bool) -> Call:
    """`abs(f(x) - 0.5) < 1e-6`."""
    is_abs = isinstance(left, ast.Call) and _name_of(left.func) in ("abs", "math.fabs", "fabs") and not left.keywords
    if not (is_abs and isinstance(left, ast.Call) and len(left.args) == 1):
        raise Unconvertible
    inside = left.args[0]
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Sub)):
        raise Unconvertible
    one, other = (inside.left, inside.right) if _is_call(inside.left, callee) else (inside.right, inside.left)
    _number(other)
    within = _number(right)
    return _call(one, callee, Expected("near", _tree(other), 0.0, math.nextafter(within, 0.0) if strictly else within))


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _number(node: ast.expr) -> float:
    value = constant(node)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Unconvertible
    return float(value)


def _tree(node: ast.expr) -> Tree:
    try:
        return encode(constant(node))
    except Refused:
        raise Unconvertible from None


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_MADE: dict[str, Callable[..., Any]] = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "float": float,
    "bytes": bytes,
    "complex": complex,
}


def constant(node: ast.expr) -> Any:
    """The value of a constant expression: literals, containers of them, arithmetic, `set(...)`, `float("inf")`.

    Raises Unconvertible for anything else, and where it would be larger than MAX_SIZE.
    """
    try:
        return _constant(node)
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise Unconvertible from None


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind([_constant(one) for one in node.elts])
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise Unconvertible
        return {_constant(key): _constant(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_constant(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _calculated(node.op, _constant(node.left), _constant(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MADE and not node.keywords:
        arguments = [_constant(one) for one in node.args]
        if node.func.id == "bytes" and not all(isinstance(one, list | bytes) for one in arguments):
            raise Unconvertible  # bytes(10**9)
        return _MADE[node.func.id](*arguments)
    if _name_of(node) in ("math.pi", "math.e", "math.inf"):
        return float(getattr(math, _name_of(node).removeprefix("math.")))
    raise Unconvertible


def _calculated(op: ast.operator, left: Any, right: Any) -> Any:
    numbers = type(left) in (int, float, complex, bool) and type(right) in (int, float, complex, bool)
    if isinstance(op, ast.Mod) and not numbers:
        raise Unconvertible  # formatting: "%1000000000d" % 1
    if isinstance(op, ast.Pow) and type(left) is int and type(right) is int:
        if left.bit_length() * abs(right) > MAX_SIZE:
            raise Unconvertible
    elif isinstance(op, ast.Mult):
        sizes = [one.bit_length() if type(one) is int else len(one) for one in (left, right) if hasattr(one, "__len__")]
        counts = [one for one in (left, right) if type(one) is int]
        if sizes and counts and sizes[0] * abs(counts[0]) > MAX_SIZE:
            raise Unconvertible
    return _BINARY[type(op)](left, right)
