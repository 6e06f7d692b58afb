from __future__ import annotations

import json
from typing import Any

import pytest

from selftrain.scoring.code.converting import Expected
from selftrain.scoring.code.driver import encode
from selftrain.scoring.code.suites import Calls, Row, Streams, Suite, Weak, output_matches, read


def plan(tests: Any, **others: Any) -> Any:
    return read(Row(tests, **others))


@pytest.mark.parametrize(
    ("test", "args", "right", "wrong"),
    [
        ("assert f(1, 2) == 3", [1, 2], [3], [3.0, True, "3", 4]),
        ("assert 3 == f(-1), 'why'", [-1], [3], [4]),
        ("assert f([1, (2, 'a')], {'k': {1}}) == [1.5, -2]", [[1, (2, "a")], {"k": {1}}], [[1.5, -2]], [(1.5, -2)]),
        ("assert f(2**10 - 1, 'a' * 3, [0] * 2 + [1])", [1023, "aaa", [0, 0, 1]], [1, "x", [0]], [0, "", [], None]),
        ("assert not f(set(), frozenset([1]), float('inf'))", [set(), frozenset([1]), float("inf")], [0, None], [1]),
        ("assert f(()) is True", [()], [True], [1]),
        ("assert f(b'a') is None", [b"a"], [None], [False]),
        ("assert f(1) == set([1, 2])", [1], [{2, 1}], [[1, 2]]),
        ("assert abs(f(1) - 0.25) < 1e-3", [1], [0.25, 0.2505], [0.26, 0.251, float("nan"), True, "0.25"]),
        ("assert abs(5 - f(1)) <= 1", [1], [4, 6.0], [7, 3.5]),
        ("import math\nassert math.isclose(f(1), 100.0, rel_tol=0.01)", [1], [100.5, 101], [102]),
        ("assert (f(1) == (1,))", [1], [(1,)], [[1]]),
    ],
)
def test_an_assertion_becomes_a_call_with_what_is_expected(
    test: str, args: list[Any], right: list[Any], wrong: list[Any]
) -> None:
    found = plan([test], entry_point="f")
    assert isinstance(found, Calls)
    (call,) = found.calls
    assert (call.name, list(call.args)) == ("f", [encode(one) for one in args])
    assert [one for one in right if not call.expected.accepts(encode(one), 1e-6)] == []
    assert [one for one in wrong if call.expected.accepts(encode(one), 1e-6)] == []


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) != 2",
        "assert f(1) > 2",
        "assert set(f(1)) == {2}",
        "assert f(f(1)) == 2",
        "assert f(x) == 2",
        "assert f(1) == g(1)",
        "assert f(1) in (1, 2)",
        "assert f(*[1]) == 1",
        "assert f(1) == 1 == 1",
        "for n in range(3):\n    assert f(n) == n",
        "x = 1\nassert f(1) == 1",
        "assert f(1) == '%1000000000d' % 1",
        "assert f(1) == 10 ** 10 ** 10",
        "assert f(1) == bytes(10 ** 9)",
        "assert f(1) == eval('1')",
        "assert f(1).x == 1",
    ],
)
def test_what_says_more_than_a_call_stays_code(test: str) -> None:
    assert isinstance(plan([test], entry_point="f"), Suite)


def test_several_assertions_and_keywords_of_one_test_are_all_kept() -> None:
    found = plan("assert f(1) == 1 and f(a=2) == 2\nassert f(3) == 3\nassert True", entry_point="f")
    assert [(list(call.args), dict(call.kwargs)) for call in found.calls] == [([1], {}), ([], {"a": 2}), ([3], {})]


def test_the_check_of_human_eval_becomes_calls() -> None:
    check = "def check(candidate):\n    'doc'\n    assert candidate(1) == 2, 'one'\n    assert True\n"
    tests = "METADATA = {'author': 'x'}\n" + check
    (call,) = plan(tests, entry_point="f").calls
    assert (call.name, call.expected) == ("f", Expected("equal", 2))


def test_without_an_entry_point_the_one_function_that_is_called_is_it() -> None:
    assert plan(["assert g(1) == 2", "assert g(2) == 3"]).calls[1].name == "g"
    two = plan(["assert g(h(1)) == 1"], reference="def g(x): return x\ndef h(x): return x\n")
    assert isinstance(two, Suite)
    assert dict(two.proxies) == {"g": "g", "h": "h"}


def test_an_entry_point_may_be_a_method_of_solution() -> None:
    tests = "def check(candidate):\n    assert candidate(1) == 2\n"
    assert plan(tests, entry_point="Solution().solve").calls[0].name == "solve"


def test_a_helper_that_the_data_set_defines_is_not_asked_of_the_candidate() -> None:
    tests = "def check(candidate):\n    for n in range(3):\n        assert poly(candidate(n)) < 1\n"
    prepend = "import math\ndef poly(x):\n    return math.sqrt(x)\ndef f(n):\n    '''Say.'''\n"
    asked = plan(tests, entry_point="f")
    assert dict(asked.proxies) == {"candidate": "f", "poly": "poly"}
    told = plan(tests, entry_point="f", prepend=prepend)
    assert dict(told.proxies) == {"candidate": "f"}
    assert "def poly" in told.before[0]
    assert "def f" not in told.before[0]
    assert dict(plan(tests, entry_point="f", reference=prepend + "    return 0").proxies) == {"candidate": "f"}


def test_tests_that_compare_the_candidate_with_itself_compare_it_with_the_reference() -> None:
    tests = "def check(candidate):\n    assert tuple(candidate([1])) == tuple(f([1]))\n"
    assert dict(plan(tests, entry_point="f").proxies) == {"candidate": "f", "f": "f"}
    told = plan(tests, entry_point="f", reference="def f(x):\n    return x\n")
    assert dict(told.proxies) == {"candidate": "f"}
    assert "def f" in told.before[0]


def test_the_candidate_is_given_what_of_the_setup_the_tests_do_not_use() -> None:
    setup = (
        "import math\nEXPECTED = [1, 2]\nLIMIT = 5\n"
        "def oracle(n):\n    return _oracle(n)\ndef _oracle(n):\n    return n\n"
        "class Node:\n    pass\ndef own(n):\n    assert n == 3\n"
    )
    found = plan(["assert f(1) == EXPECTED[0]", "assert f(2) == oracle(2)"], entry_point="f", setup=setup)
    assert found.setup == "import math\nLIMIT = 5\nclass Node:\n    pass"
    assert found.before == (setup,)


def test_nothing_expected_is_in_what_a_candidate_is_given() -> None:
    found = plan(["assert f(11) == 987654321", "assert f(12) == 987654322"], setup="import math\nX = 987654321\n")
    assert "98765432" in found.setup  # not used by the tests, so nothing tells that it is expected
    used = plan(["assert f(11) == X", "assert f(12) == X + 1"], setup="import math\nX = 987654321\n")
    assert "98765432" not in used.setup


@pytest.mark.parametrize("kind", ["object", "text"])
def test_inputs_and_outputs_are_programs_or_calls(kind: str) -> None:
    def given(tests: Any) -> Any:
        return plan(json.dumps(tests) if kind == "text" else tests)

    assert given({"inputs": ["1\n", ["2", "3"]], "outputs": ["1", "5\n"]}) == Streams((("1\n", "1"), ("2\n3", "5\n")))
    assert given([{"input": "1", "output": "2", "testtype": "stdin"}]) == Streams((("1", "2"),))
    (one, two) = given({"inputs": [[1, [2]], [3, []]], "outputs": [[[1, 2]], [[3]]], "fn_name": "f"}).calls
    assert (list(one.args), one.expected.accepts(encode((1, 2)), 0)) == ([1, [2]], True)
    assert two.expected.accepts(encode([3]), 0)
    assert not two.expected.accepts(encode([[3]]), 0)
    (lines,) = given({"inputs": ['[1, 2]\n"a"'], "outputs": [3], "fn_name": "f"}).calls
    assert list(lines.args) == [[1, 2], "a"]
    assert given({"inputs": ["1"], "outputs": ["[2]"], "fn_name": "f"}).calls[0].expected.accepts(encode([2]), 0)


def test_functional_cases_are_calls_of_the_entry_point() -> None:
    cases = [{"input": "[1]\n2", "output": "[3]", "testtype": "functional"}]
    found = plan(cases, entry_point="Solution().f", setup="BASE = 3\nprint(BASE)")
    (call,) = found.calls
    assert (call.name, list(call.args)) == ("f", [[1], 2])
    assert call.expected.accepts(encode([3]), 0)
    assert "from typing import *" in found.setup
    assert found.setup.endswith("BASE = 3")
    with pytest.raises(ValueError, match="entry_point"):
        plan(cases)


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ([], "empty"),
        ("", "empty"),
        (None, "missing"),
        (3, "type int"),
        (["x = 1"], "nothing to check"),
        (["assert True"], "nothing to check"),
        (["assert f( == 1"], "cannot be read as Python"),
        (["assert " + "(" * 5000 + "f(1)" + ")" * 5000], "cannot be read as Python"),
        (["assert f(1) == float('nan')"], "NaN"),
        (["assert 1 == 1 + 0 * len('')"], "no function"),
        ("def check(candidate):\n    assert candidate(1)", "entry_point"),
        (["assert f(1)", {"input": "1"}], "mixes"),
        ([{"input": "1"}], "input and output"),
        ([{"input": 1, "output": "1"}], "type int"),
        ({"inputs": ["1"], "outputs": []}, "same length"),
        ({"inputs": [], "outputs": []}, "something in them"),
        ({"inputs": ["1", "2"], "outputs": ["", "\n"]}, "nothing to check"),
        ([{"input": "1", "output": ""}], "nothing to check"),
        ({"inputs": ["1"], "outputs": ["x"], "fn_name": "f"}, "no JSON"),
        ({"inputs": [1], "outputs": [1], "fn_name": "f"}, "list of its arguments"),
    ],
)
def test_tests_that_cannot_be_read_or_check_nothing_are_a_mistake(tests: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(tests)


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("1 2\n3\n", "1 2  \n3", True),
        ("1\n", "1\n\n\n", True),
        ("1\n\n2", "1\n\n2\n", True),
        ("1\n2", "1\n\n2", False),
        ("1 2", "1  2", False),
        ("1", " 1", False),
        ("YES", "yes", False),
        ("0.5", "0.50000001", True),
        ("0.5", "0.51", False),
        ("2.0", "2", True),
        ("2", "2.0", False),
        ("1.0", "nan", False),
        ("1.0", "１.0", False),
        ("x 0.5", "x 5e-1", True),
        ("", "", True),
        ("", "1", False),
        ("1", "", False),
    ],
)
def test_what_a_program_printed_is_compared_line_by_line(expected: str, printed: str, matches: bool) -> None:
    assert output_matches(expected, printed, 1e-6) is matches


def test_weak_tests_run_after_the_candidate() -> None:
    found = read(Row("def check(candidate):\n    assert candidate(1) == 1", "f", "import math"), weak=True)
    assert isinstance(found, Weak)
    assert found.after.endswith("check(candidate)")
