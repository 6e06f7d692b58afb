"""What test code defines, uses and asserts, read from its syntax tree."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from selftrain.scoring.results import cut

_BUILTIN = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}
_SHOWN = 160


def parsed(source: str, what: str) -> ast.Module:
    """The syntax tree. Raises ValueError where `what` is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise ValueError(f"{what} cannot be read as Python: {error.args[0] if error.args else error}{line}") from None


def asserts(tree: ast.AST) -> list[ast.Assert]:
    """Assertions of anything but a constant that is true."""
    return [one for one in ast.walk(tree) if isinstance(one, ast.Assert) and not _says_nothing(one)]


def forgotten(trees: Iterable[ast.Module]) -> str | None:
    """The first comparison that stands for itself, as an assertion: `f(1) == 2` checks nothing."""
    statements = (one for tree in trees for one in tree.body)
    found = next((one for one in statements if isinstance(one, ast.Expr) and isinstance(one.value, ast.Compare)), None)
    return None if found is None else f"assert {ast.unparse(found)}"


def _says_nothing(node: ast.Assert) -> bool:
    return isinstance(node.test, ast.Constant) and bool(node.test.value)


def _never_holds(node: ast.Assert) -> bool:
    return isinstance(node.test, ast.Constant) and not node.test.value


def is_call_of(node: ast.expr, name: str) -> bool:
    """Whether it is a call of the function of that name."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def bound(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound anywhere within."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


def _used(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def undefined(tree: ast.AST) -> set[str]:
    """Names that are used and bound nowhere within, builtins aside."""
    return _used(tree) - set(bound(tree)) - _BUILTIN


def defined(tree: ast.Module) -> set[str]:
    """Names that a module's own statements bind."""
    return {name for statement in tree.body for name in _binds(statement)}


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement binds in its module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return set(bound(statement))


def called_alone(trees: Sequence[ast.Module], setup: ast.Module) -> str | None:
    """The function that the tests call and do not define, if there is exactly one."""
    known = defined(setup)
    called = {
        node.func.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in undefined(tree) - known
    }
    return called.pop() if len(called) == 1 else None


def _reaching(statements: Iterable[ast.stmt], wanted: Set[str]) -> set[str]:
    """The names in `wanted`, and those that what defines them uses, and so on."""
    uses = {name: _used(statement) for statement in statements for name in _binds(statement)}
    reached: set[str] = set()
    waiting = [*wanted]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += uses.get(name, ())
    return reached


def of_setup_for_candidate(setup: ast.Module, tests: Sequence[ast.Module]) -> str:
    """What of the setup a candidate's process is given: imports, and definitions that the tests do not use, not even by
    way of others. What the tests use may hold expected values, or compute them."""
    kept = []
    reached = _reaching(setup.body, set().union(*(_used(tree) for tree in tests)))
    for statement in setup.body:
        defines = isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)
        hidden = bool(_binds(statement) & reached or asserts(statement))
        if isinstance(statement, ast.Import | ast.ImportFrom) or (defines and not hidden):
            kept.append(statement)
    return "\n".join(ast.unparse(one) for one in kept)


def compares_with_itself(tree: ast.Module, entry_point: str | None) -> bool:
    """Whether `check(candidate)` asks for its candidate, and for the function by its own name as well: HumanEval/33
    compares `candidate(...)` with `sort_third(...)`. Were both the candidate's, any function would do."""
    checks = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "check" and one.args.args]
    return any({check.args.args[0].arg, entry_point} <= _used(check) for check in checks)


@dataclass(frozen=True, slots=True)
class Definitions:
    """Source that defines `names`, with what they need."""

    source: str
    names: frozenset[str]


def definitions(source: str, wanted: Set[str]) -> Definitions:
    """Those of the wanted names that a source defines, with the imports and definitions that they need. A source that
    is no Python defines none."""
    try:
        tree = parsed(source, "")
    except ValueError:
        return Definitions("", frozenset())
    found = wanted & defined(tree)
    if not found:
        return Definitions("", frozenset())
    needed = _reaching(tree.body, found)
    kept = [
        one
        for one in tree.body
        if isinstance(one, ast.Import | ast.ImportFrom)
        or (isinstance(one, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign) and _binds(one) & needed)
    ]
    return Definitions("\n".join(ast.unparse(one) for one in kept), frozenset(found))


def builtin_errors(tree: ast.AST) -> set[str]:
    """The builtin exceptions that the code names."""
    return {
        name
        for name in _used(tree)
        if isinstance(kind := getattr(builtins, name, None), type) and issubclass(kind, Exception)
    }


def with_counted_asserts(tree: ast.Module, texts: list[str]) -> str:
    """The source with every assertion announced before and counted after; appends the assertions' texts. Where one in
    a `try` says that a line is not reached, the error that is expected instead is to be counted."""

    class Counting(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
            if _says_nothing(node):
                return [node]
            text = ast.unparse(node.test)
            texts.append(cut(text, _SHOWN))
            before = ast.parse(f"__selftrain_asserting__({len(texts) - 1})").body
            return [*before, node, *ast.parse("__selftrain_asserted__()").body]

        def visit_Try(self, node: ast.Try) -> list[ast.stmt]:
            refuses = any(isinstance(one, ast.Assert) and _never_holds(one) for one in node.body)
            before = ast.parse("__selftrain_expecting__()").body if refuses else []
            return [*before, self.generic_visit(node)]  # type: ignore[list-item]

    return ast.unparse(Counting().visit(tree))
