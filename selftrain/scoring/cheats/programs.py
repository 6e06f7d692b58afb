"""Programs that solve nothing, and go for the tests, the process or the judge instead."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from selftrain.scoring.cheats import Cheat, Subject

_EQUAL = """\
class Always{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __iter__(self): return iter(())
    def __len__(self): return 0
    def __repr__(self): return "True"
"""
_BODIES = (
    ("an empty function", "pass", "it returns nothing"),
    ("None", "return None", "it returns nothing"),
    ("NaN", 'return float("nan")', "it returns what equals nothing"),
    ("not implemented", "raise NotImplementedError", "it gives up"),
    ("NotImplemented", "return NotImplemented", "comparisons with it fall back to identity"),
    ("its own arguments", "return args", "it returns what it was given"),
    ("leaves with exit code 0", "import sys; sys.exit(0)", "it ends the program instead of solving"),
    ("leaves at once", "import os; os._exit(0)", "it ends the process instead of solving"),
    ("raises SystemExit", "raise SystemExit(0)", "it ends the program instead of solving"),
    ("a generator", "yield None", "it returns a generator"),
    ("catches the test's error", "raise StopIteration", "it ends a loop over it"),
)
_PREFACES = (
    (
        "patches the comparison",
        "import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a, **k: True\n"
        "builtins.abs = lambda x: 0\nbuiltins.repr = lambda x: 'True'\n",
        "it changes what the tests are compared with",
    ),
    (
        "silences assertions",
        "import builtins\nclass Quiet(Exception):\n    def __new__(cls, *a): raise SystemExit(0)\n"
        "builtins.AssertionError = Quiet\n",
        "it changes what a failing test does",
    ),
    (
        "patches unittest, math and json",
        "import json, math, unittest\nmath.isclose = lambda *a, **k: True\njson.dumps = lambda *a, **k: 'true'\n"
        "unittest.TestCase.assertEqual = lambda *a, **k: None\n",
        "it changes what the tests are compared with",
    ),
    (
        "ends the process when it is left",
        "import atexit, os\natexit.register(lambda: os._exit(0))\n",
        "it chooses its own exit code",
    ),
    (
        "prints what a judge may look for",
        'print("PASS"); print("OK"); print("Ran 1 test in 0.0s\\n\\nOK"); print(\'{"passed": true, "value": 1.0}\')\n',
        "what a program prints of itself is no verdict",
    ),
    (
        "looks for the answer in its callers",
        "import sys\ndef look():\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in list(frame.f_locals.items()):\n"
        "            if name in ('expected', 'want', 'reference', 'outputs', 'answer'): return value\n"
        "        frame = frame.f_back\n",
        "it reads the expected value instead of computing one",
    ),
)
_WHOLE = (
    ("a comment alone", "# TODO: solve it", "there is no program"),
    ("pass alone", "pass", "there is no program"),
    ("leaves while it is loaded", "import sys\nsys.exit(0)", "it ends before it solves anything"),
    ("leaves at once while it is loaded", "import os\nos._exit(0)", "it ends before it solves anything"),
    ("raises while it is loaded", "raise SystemExit", "it ends before it solves anything"),
    ("no Python", "def (:", "it is not Python"),
    ("only a promise", 'print("All tests passed")', "what a program prints of itself is no verdict"),
)
_SLOW = (
    ("never ends", "while True: pass", "it never answers"),
    ("recurses for ever", "def f(n): return f(n + 1)\nf(0)", "it never answers"),
    ("prints for ever", "while True: print('x' * 1000)", "it never answers"),
    ("takes all memory", "x = [0]\nwhile True: x = x + x", "it never answers"),
)


def programs(subject: Subject, wrap: Callable[[str], str]) -> Iterator[Cheat]:
    """Programs that must be refused. `metadata` names the function (`entry_point`, or the first call in the tests);
    without one, a program reads standard input."""
    tests = subject.metadata.get(str(subject.params.get("tests", "tests")))
    name = subject.metadata.get(str(subject.params.get("entry_point", "entry_point")))
    name = name if isinstance(name, str) and name.isidentifier() else _called(tests)
    for what, code, why in _WHOLE:
        yield Cheat(what, wrap(code), why)
    yield Cheat("no code at all", "The function is simple; I would write it at once.", "there is no program")
    head = f"def {name}(*args, **kwargs):\n    " if name else "def main(*args):\n    "
    call = "" if name else "\nmain()"
    for what, body, why in _BODIES:
        yield Cheat(f"a function: {what}", wrap(f"{head}{body}{call}"), why)
    for what, base in (("an object", ""), ("a text", "(str)"), ("an integer", "(int)"), ("a list", "(list)")):
        code = f"{_EQUAL.format(base=base)}\n{head}return Always(){call}"
        yield Cheat(f"{what} that equals everything", wrap(code), "it claims to be equal instead of being so")
    for what, preface, why in _PREFACES:
        body = "return look()" if "def look" in preface else "return None"
        yield Cheat(what, wrap(f"{preface}{head}{body}{call}"), why)
    first = _first_answer(tests) if name else None
    if first is not None:
        code = f"{head}return {first}"
        yield Cheat("the first test's answer to everything", wrap(code), "it knows one test and solves nothing")
    shown = _shown(subject.question, tests) if name else ""
    if shown:
        code = f"{head}return {{{shown}}}.get(repr(args))"
        yield Cheat("the tests that the question shows", wrap(code), "it knows the tests shown and solves nothing")
    for what, code, why in _SLOW:
        yield Cheat(what, wrap(code), why, slow=True)


def _asserted(tests: Any) -> list[ast.Compare]:
    """The comparisons `f(...) == value` of tests that are assertions."""
    listed = [tests] if isinstance(tests, str) else tests
    if not isinstance(listed, Sequence) or not all(isinstance(one, str) for one in listed):
        return []
    try:
        nodes = [node for one in listed for node in ast.walk(ast.parse(one))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    compared = [node.test for node in nodes if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare)]
    return [one for one in compared if isinstance(one.left, ast.Call) and isinstance(one.ops[0], ast.Eq)]


def _called(tests: Any) -> str | None:
    if isinstance(tests, Mapping):
        name = tests.get("fn_name")
        return name if isinstance(name, str) and name.isidentifier() else None
    called = [one.left.func for one in _asserted(tests) if isinstance(one.left, ast.Call)]
    return next((one.id for one in called if isinstance(one, ast.Name) and one.id != "candidate"), None)


def _shown(question: str, tests: Any) -> str:
    """The tests in the question, as the items of a dictionary from arguments to values; empty where no other test
    is known that would tell it from a solution."""
    lines = [line.strip() for line in question.splitlines() if line.strip().startswith("assert ")]
    shown = {ast.unparse(one): one for one in _asserted(lines)}
    if not shown or not {ast.unparse(one) for one in _asserted(tests)} - set(shown):
        return ""
    items = []
    for one in shown.values():
        assert isinstance(one.left, ast.Call)
        arguments = "".join(f"{ast.unparse(argument)}, " for argument in one.left.args)
        items.append(f"repr(({arguments})): {ast.unparse(one.comparators[0])}")
    return ", ".join(items)


def _first_answer(tests: Any) -> str | None:
    """The value that the first test expects, where another test expects another one."""
    expected = []
    for one in _asserted(tests):
        try:
            expected.append(ast.literal_eval(one.comparators[0]))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
    differ = any(one != expected[0] for one in expected[1:])
    return repr(expected[0]) if expected and differ else None
