"""Wrong variants of a solution, to see whether tests tell them from the right one.

The first two are wrong for every argument: they return something else, and a constant. The others change one operator
or number, the mistakes that programs have; a few of those may be as right as the original (Jia and Harman 2011, "An
analysis and survey of the development of mutation testing", IEEE TSE 37(5), section 3: equivalent mutants).
"""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Iterator
from itertools import chain

from selftrain.scoring.code.names import parsed
from selftrain.scoring.code.reading import code_of, solution

MOST = 12

_ALTERED = """
def _altered(value):
    if value is None or isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, complex)):
        return value + 1
    if isinstance(value, (str, bytes)):
        return value[1:] if value else value + type(value)(b"?" if isinstance(value, bytes) else "?")
    if isinstance(value, (list, tuple)):
        return value[1:] if value else type(value)([None])
    if isinstance(value, (set, frozenset)):
        return value | {"?"} if "?" not in value else value - {"?"}
    return {**value, "?": None} if isinstance(value, dict) else None
"""
_CONSTANT = "'no such answer'"

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(source: str, entry_point: str | None, *, prepend: str = "") -> tuple[str, ...]:
    """Wrong variants of a solution (its last fenced block, or all of it), each valid Python in full, at most MOST,
    always the same ones.

    `entry_point` is the function that the tests are of; without one, or where the source does not define it, all of the
    source is changed, and what it prints. `prepend` is put before the source, as the scorer's parameter of that name.
    Raises ValueError where that is no Python.
    """
    tree = _tree(source, entry_point, prepend)
    found: dict[str, None] = {}
    original = ast.unparse(tree)
    for one in chain(_of_results(tree, entry_point), _of_operators(tree, entry_point), _of_numbers(tree, entry_point)):
        text = ast.unparse(ast.fix_missing_locations(one))
        if text != original:
            found.setdefault(text)
        if len(found) == MOST:
            break
    return tuple(found)


def _tree(source: str, entry_point: str | None, prepend: str) -> ast.Module:
    return parsed(solution(prepend, code_of(source), {entry_point or ""}), "the solution")


def changed_lines(source: str, mutant: str, entry_point: str | None, *, prepend: str = "") -> tuple[str, ...]:
    """What a mutant of the source changes: its lines with `-`, and with `+` those instead of them. Both sources are
    written as Python writes its own trees; the function that alters results is left out."""
    before = ast.unparse(_tree(source, entry_point, prepend)).splitlines()
    after = mutant.replace(ast.unparse(ast.parse(_ALTERED)), "").splitlines()
    found = difflib.unified_diff(before, [one for one in after if one.strip()], n=0, lineterm="")
    lines = [one for one in list(found)[2:] if not one.startswith("@@")]
    return tuple(one for one in lines if one[1:].strip())


def _function(tree: ast.Module, entry_point: str | None) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last definition of that name, in the module or in a class."""
    named = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == entry_point
    ]
    return named[-1] if named else None


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What is within a function but in no other one inside of it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _of_results(tree: ast.Module, entry_point: str | None) -> Iterator[ast.Module]:
    """What comes out is another value, and then a constant."""
    altered = ast.parse(_ALTERED).body
    changed = copy.deepcopy(tree)
    function = _function(changed, entry_point)
    if function is None:
        yield from _of_prints(tree)
        return
    for node in _own_nodes(function):
        if isinstance(node, ast.Return | ast.Yield):
            node.value = _call("_altered", node.value or ast.Constant(None))
    function.body.append(ast.Return(_call("_altered", ast.Constant(None))))
    future = [one for one in changed.body if isinstance(one, ast.ImportFrom) and one.module == "__future__"]
    changed.body = [*future, *altered, *(one for one in changed.body if one not in future)]
    yield changed
    constant = copy.deepcopy(tree)
    function = _function(constant, entry_point)
    if function is not None:
        function.body = [ast.Return(ast.parse(_CONSTANT, mode="eval").body)]
        yield constant


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])


def _of_prints(tree: ast.Module) -> Iterator[ast.Module]:
    """A program that prints something more, and one that prints a constant instead."""
    if not tree.body:
        return
    more = copy.deepcopy(tree)
    more.body += ast.parse("print('?')").body
    yield more
    constant = ast.parse(f"print({_CONSTANT})")
    yield constant


def _places(tree: ast.Module, entry_point: str | None) -> list[ast.AST]:
    """Where something may be changed: in the function, or in all of the module."""
    return list(ast.walk(_function(tree, entry_point) or tree))


def _of_operators(tree: ast.Module, entry_point: str | None) -> Iterator[ast.Module]:
    """One operator is another one."""
    for index, place in enumerate(_places(tree, entry_point)):
        if not isinstance(place, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.Compare):
            continue
        changed = copy.deepcopy(tree)
        node = _places(changed, entry_point)[index]
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
            node.ops[0] = _OPERATORS[type(node.ops[0])]()  # type: ignore[call-overload]
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in _OPERATORS:
            node.op = _OPERATORS[type(node.op)]()  # type: ignore[assignment]
        else:
            continue
        yield changed


def _of_numbers(tree: ast.Module, entry_point: str | None) -> Iterator[ast.Module]:
    """One number is off by one."""
    for index, place in enumerate(_places(tree, entry_point)):
        if isinstance(place, ast.Constant) and type(place.value) is int:
            changed = copy.deepcopy(tree)
            node = _places(changed, entry_point)[index]
            if isinstance(node, ast.Constant) and type(node.value) is int:
                node.value += 1
                yield changed
