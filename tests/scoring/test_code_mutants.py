from __future__ import annotations

import ast
from typing import Any

import pytest

from selftrain.scoring.code.mutants import MOST, mutants

CLAMP = """
from __future__ import annotations
def clamp(x, low=0, high=10):
    if x < low:
        return low
    return high if x > high and high else x
"""


def called(source: str, name: str, *args: Any) -> Any:
    namespace: dict[str, Any] = {}
    exec(compile(source, "mutant", "exec"), namespace)
    return namespace[name](*args)


def test_the_first_variants_are_wrong_for_every_argument() -> None:
    altered, constant = mutants(CLAMP, "clamp")[:2]
    for x in (-3, 0, 5, 10, 30):
        right = called(CLAMP, "clamp", x)
        assert called(altered, "clamp", x) != right
        assert called(constant, "clamp", x) != right


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 1.5, 2j, "", "a", b"", b"ab", [], [1], (), (1, 2), set(), {"?"}, frozenset({1}), {}, {"a": 1}],
)
def test_every_kind_of_value_is_altered(value: Any) -> None:
    source = f"def f():\n    return {value!r}\n"
    altered, constant = mutants(source, "f")[:2]
    assert called(altered, "f") != value
    assert called(constant, "f") != value


def test_the_others_change_one_thing() -> None:
    found = mutants(CLAMP, "clamp")
    bodies = [ast.unparse(ast.parse(one)) for one in found[2:]]
    assert any("x <= low" in one for one in bodies)
    assert any("x > high or high" in one for one in bodies)
    assert any("high=11" in one for one in bodies)
    assert len(set(found)) == len(found) <= MOST
    assert found == mutants(CLAMP, "clamp")


def test_functions_inside_and_beside_are_left_as_they_are() -> None:
    source = "def g(x):\n    return x\ndef f(x):\n    def inner(y):\n        return y + 0\n    return g(inner(x))\n"
    altered = mutants(source, "f")[0]
    assert "return y + 0" in altered
    assert called(altered, "g", 3) == 3
    assert called(altered, "f", 3) == 4


def test_a_function_that_returns_nothing_and_a_generator_are_changed_too() -> None:
    assert called(mutants("def f():\n    pass\n", "f")[0], "f") is True
    assert list(called(mutants("def f():\n    yield 1\n    yield 2\n", "f")[0], "f")) == [2, 3]


def test_a_program_prints_something_else() -> None:
    found = mutants("n = int(input())\nprint(n + 1)\n", None)
    assert len(found) >= 3
    assert found[0].endswith("print('?')")
    assert "n - 1" in found[2]


def test_a_solution_may_be_fenced_or_stand_after_a_stub() -> None:
    stub, body = "def f(x):\n    'Say.'\n", "    return x\n"
    found = mutants(body, "f", prepend=stub)
    assert called(found[0], "f", 3) == 4
    assert mutants(f"```python\n{stub}{body}```", "f") == found


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(ValueError, match="the solution cannot be read as Python"):
        mutants("def f(:", "f")
