from __future__ import annotations

import json
import math
import time
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.scoring.code.driver import MAX_DEPTH, MAX_NODES, Refused, decode, encode
from selftrain.scoring.code.literals import holds_nan, is_tree, is_true, same, shown

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
)
HASHABLE = st.recursive(
    SCALARS, lambda inside: st.tuples(inside, inside) | st.frozensets(inside, max_size=3), max_leaves=5
)
VALUES = st.recursive(
    HASHABLE,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.tuples(inside)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inside, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_comes_back_as_it_was_and_equals_itself(value: Any) -> None:
    tree = json.loads(json.dumps(encode(value)))
    assert is_tree(tree)
    assert decode(tree) == value
    assert type(decode(tree)) is type(value)
    assert same(tree, json.loads(json.dumps(encode(value))), 0.0)
    assert is_true(tree) is bool(value)
    assert shown(tree).isprintable()


@given(VALUES, VALUES)
def test_what_python_finds_different_is_never_the_same(one: Any, other: Any) -> None:
    if one != other:
        assert not same(encode(one), encode(other), 0.0)


class Word(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Pair(NamedTuple):
    one: int
    two: Any


class Colour(IntEnum):
    RED = 3


class Shade(StrEnum):
    DARK = "dark"


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (1, True),
        (1, 1.0),
        (True, 1),
        (0, False),
        (0, None),
        ("1", 1),
        ([1], (1,)),
        ((1,), [1]),
        ([1, 2], [1]),
        ([1], [True]),
        ({1}, frozenset({1})),
        ({1}, {1.0}),
        ({1: 2}, {1.0: 2}),
        ({1: 2}, {True: 2}),
        ({1: 2}, {1: 2, 3: 4}),
        ({1: 2, 3: 4}, {1: 2}),
        ("a", b"a"),
        (1.0, True),
        (1.0, "1.0"),
        (1e20, 10**20 + 1),
        (10**20, 1e20),
        (2.0, 2 + 0j),
        (1.0, math.inf),
        (math.inf, 1e308),
        (math.inf, -math.inf),
        (0.1, math.nan),
        (1, []),
        ([], 1),
        ([], {}),
        ((), []),
        (10**30, 10**30 + 1),
        (1234567.0, 1234568.0),
        (-1e9, -1e9 - 1),
        ({(1, 2.0)}, {(1, 2)}),
    ],
)
def test_types_and_values_are_exact(expected: Any, answer: Any) -> None:
    assert not same(encode(expected), encode(answer), 1e-6)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (0.3, 0.1 + 0.2),
        (0.0, 1e-7),
        (0.0, -0.0),
        (1e20, 10**20),
        (2.0, 2),
        ([0.3, {"a": 1e9 + 0.5}], [0.1 + 0.2, {"a": 1e9 + 1}]),
        (math.inf, math.inf),
        ({1, 2, 3}, {3, 2, 1}),
        ({"a": 1, "b": (2,)}, {"b": (2,), "a": 1}),
        ({frozenset({1, 2})}, {frozenset({2, 1})}),
        ({0.0}, {-0.0}),
        (1 + 0j, 1 + 1e-9j),
    ],
)
def test_a_float_expected_has_a_tolerance_and_order_counts_only_where_there_is_one(expected: Any, answer: Any) -> None:
    assert same(encode(expected), encode(answer), 1e-6)


def test_nan_equals_nothing() -> None:
    assert not same(encode(math.nan), encode(math.nan), 1e-6)
    assert holds_nan(encode({"a": [(math.nan,)]}))
    assert not holds_nan(encode({"a": ["nan", 1.0]}))


@pytest.mark.parametrize(
    "value",
    [object(), Word("a"), range(3), iter([]), len, {"a": object()}, 1 << 50_000, [Word("a")], bytearray(b"a")],
    ids=lambda value: type(value).__name__,
)
def test_nothing_but_plain_data_travels(value: Any) -> None:
    with pytest.raises(Refused):
        encode(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Pair(1, Pair(2, 3)), (1, (2, 3))),
        (Colour.RED, 3),
        ({"a": [Colour.RED]}, {"a": [3]}),
        (Shade.DARK, "dark"),
        (numpy.int64(5), 5),
        (numpy.float64(0.5), 0.5),
        (numpy.bool_(True), True),
        ([numpy.float32(0.5)], [0.5]),
    ],
    ids=str,
)
def test_what_python_compares_as_plain_data_travels_as_it(value: Any, plain: Any) -> None:
    assert value == plain
    assert encode(value) == encode(plain)
    assert type(decode(encode(value))) is type(plain)


def test_arrays_of_numpy_are_no_lists() -> None:
    with pytest.raises(Refused, match="ndarray"):
        encode(numpy.ones(2))


@pytest.mark.parametrize("tag", ["t", "z"])
def test_values_forged_to_be_deep_are_compared_in_no_time(tag: str) -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH - 2):
        deep = {tag: [deep, '"']}
    assert is_tree({"s": [deep]})
    begun = time.process_time()
    assert not same({"s": [1]}, {"s": [deep]}, 1e-6)
    assert not same({"d": [[1, 1]]}, {"d": [[deep, 1]]}, 1e-6)
    assert time.process_time() - begun < 1.0


def test_a_forged_value_is_read_no_further_than_an_honest_one_can_go() -> None:
    assert is_tree([1] * (MAX_NODES - 1))
    assert not is_tree([1] * MAX_NODES)


def test_what_is_too_deep_too_wide_or_within_itself_is_refused() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert is_tree(encode(deep))
    itself: list[Any] = []
    itself.append(itself)
    doubling: Any = [1]
    for _ in range(50):
        doubling = [doubling, doubling]
    for value in ([deep], itself, doubling, [0] * 300_000):
        with pytest.raises(Refused):
            encode(value)


@pytest.mark.parametrize(
    "tree",
    [
        1.5,
        1 << 60,
        {},
        {"f": "1", "i": "0x1"},
        {"f": "1"},
        {"f": "1_0.0"},
        {"f": "9" * 10**6},
        {"f": 1.0},
        {"i": "12"},
        {"i": "0x0"},
        {"i": "0x" + "f" * 20_000},
        {"i": " 0xffffffffffffffffff"},
        {"b": "0"},
        {"c": ["1.0"]},
        {"c": "1.0"},
        {"t": {}},
        {"d": [[1]]},
        {"d": {"a": 1}},
        {"eval": "1"},
        [{"t": [{"s": [1.5]}]}],
    ],
    ids=lambda tree: json.dumps(tree)[:30],
)
def test_a_forged_tree_is_none(tree: Any) -> None:
    assert not is_tree(tree)


def test_a_forged_tree_deeper_than_any_is_none_and_takes_no_stack() -> None:
    tree: Any = 1
    for _ in range(100_000):
        tree = [tree]
    assert not is_tree(tree)
    while isinstance(tree, list):  # or else the interpreter takes it apart by recursion
        tree = tree[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: (2,), "a": [b"x", None]}, "{1: (2,), 'a': [b'x', None]}"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (10**30, str(10**30)),
        ("\x1b[31m\u202e\ud800", "'\\x1b[31m\\u202e\\ud800'"),
    ],
)
def test_a_value_is_shown_as_python_writes_it_and_harmless(value: Any, text: str) -> None:
    assert shown(encode(value)) == text


def test_what_is_shown_is_cut() -> None:
    for value in ("x" * 10**6, [1] * 10**5, 1 << 30_000, b"x" * 10**6, {"a": ["y" * 10**5] * 9}):
        assert len(shown(encode(value))) <= 81
