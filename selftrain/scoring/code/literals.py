"""Values that came out of a candidate's process, as trees (see `driver`), and when one is the value expected.

An answer is compared as a tree and never made a value again: building a set or dict of a candidate's choice would let
it choose colliding hashes, and so how long the trainer's own process takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from selftrain.scoring.code.driver import MAX_BITS, MAX_DEPTH, MAX_NODES, PLAIN_INT

Tree: TypeAlias = Any
_MAX_HEX = MAX_BITS // 4 + 4
_LISTS = frozenset("tsz")
_COUNTED = float(1 << 40)
"""Below that a whole number is never taken for its neighbour, however wide the tolerance: counts are exact."""
_BRACKETS = {"": "[]", "t": "()", "s": "{}", "z": ("frozenset({", "})"), "d": "{}"}


def is_tree(value: Any) -> bool:
    """Whether what a candidate's process sent is a tree as `driver.encode` makes them, and no larger."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    left = MAX_NODES
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        if left < 0:
            return False
        if node is None or type(node) in (bool, str):
            continue
        if type(node) is int:
            if not -PLAIN_INT < node < PLAIN_INT:
                return False
            continue
        inside = _children(node)
        if inside is None or (inside and depth >= MAX_DEPTH):
            return False
        waiting += [(one, depth + 1) for one in inside]
    return True


def _children(node: Any) -> list[Any] | None:
    """What a node holds, [] of a number or bytes; None where it is no node."""
    if type(node) is list:
        return node
    if type(node) is not dict or len(node) != 1:
        return None
    ((tag, inside),) = node.items()
    if tag in _LISTS and type(inside) is list:
        return inside
    if tag == "d" and type(inside) is list and all(type(pair) is list and len(pair) == 2 for pair in inside):
        return [one for pair in inside for one in pair]
    return [] if _is_scalar(tag, inside) else None


def _is_scalar(tag: str, inside: Any) -> bool:
    if tag == "c":
        return type(inside) is list and len(inside) == 2 and all(_is_scalar("f", one) for one in inside)
    if type(inside) is not str:
        return False
    try:
        if tag == "f":
            return len(inside) <= 40 and repr(float(inside)) == inside
        if tag == "i":
            return len(inside) <= _MAX_HEX and hex(number := int(inside, 16)) == inside and abs(number) >= PLAIN_INT
        return tag == "b" and bytes.fromhex(inside).hex() == inside
    except ValueError:
        return False


def same(expected: Tree, answer: Tree, tolerance: float, *, by_value: bool = False) -> bool:
    """Whether the answer is the value expected. Both are trees.

    Types are exact: 1, 1.0 and True differ, as do [1] and (1,), and "a" and b"a". Where a float is expected, a float
    at most `tolerance` away from it is the same, relative to the expected value, or absolutely where that is 0; an int
    there must equal it. The tolerance follows the expected value's type, never the answer's. NaN is nothing's equal.
    The order of a dict's or set's items counts for nothing; in sets and as keys floats are exact. `by_value`: numbers
    that are equal are the same whatever their types, True being 1, except in sets and as keys.
    """
    wanted, given = type(expected), type(answer)
    if by_value and _value_of(expected) is not None and _value_of(expected) == _value_of(answer):
        return True
    if wanted is not dict:
        if wanted is not list or given is not list:
            return wanted is given and bool(expected == answer)
        return len(expected) == len(answer) and all(
            same(one, other, tolerance, by_value=by_value) for one, other in zip(expected, answer, strict=True)
        )
    ((tag, inside),) = expected.items()
    if tag == "f":
        number = as_number(answer)
        return number is not None and close(float(inside), number, tolerance)
    if given is not dict or tag not in answer:
        return False
    other = answer[tag]
    if tag == "c":
        return all(close(float(one), float(its), tolerance) for one, its in zip(inside, other, strict=True))
    if tag == "d":
        return _same_items(inside, other, tolerance, by_value)
    if tag in ("s", "z"):
        return _set_of(inside) == _set_of(other)
    if tag == "t":
        return same(inside, other, tolerance, by_value=by_value)
    return bool(inside == other)


def _value_of(tree: Tree) -> int | float | None:
    return int(tree) if type(tree) is bool else as_number(tree)


def _same_items(expected: list[Any], answer: list[Any], tolerance: float, by_value: bool) -> bool:
    theirs = {_canonical(key): value for key, value in answer}
    ours = {_canonical(key): value for key, value in expected}
    return (
        len(answer) == len(theirs)
        and ours.keys() == theirs.keys()
        and all(same(value, theirs[key], tolerance, by_value=by_value) for key, value in ours.items())
    )


def _set_of(inside: list[Any]) -> frozenset[str]:
    # Of texts, whose hashes are salted: what a candidate sends cannot make them collide.
    return frozenset(_canonical(one) for one in inside)


def _canonical(tree: Tree) -> str:
    """A text that equal hashable values share."""
    return json.dumps(_ordered(tree))


def _ordered(tree: Tree) -> Tree:
    """The tree with the items of its sets in order. Of trees and not of texts within texts, which JSON would escape
    anew at every depth: the text of thirty tuples in one another would fill the memory."""
    if type(tree) is not dict:
        return tree
    ((tag, inside),) = tree.items()
    if tag in ("s", "z"):
        items = {json.dumps(one): one for one in map(_ordered, inside)}
        return {tag: [items[text] for text in sorted(items)]}
    if tag == "t":
        return {tag: [_ordered(one) for one in inside]}
    return {"f": "0.0"} if tag == "f" and inside == "-0.0" else tree


def as_number(tree: Tree) -> int | float | None:
    """The int or float that a tree is; None where it is anything else, True among them."""
    if type(tree) is int:
        return tree
    if type(tree) is dict and "f" in tree:
        return float(tree["f"])
    return int(tree["i"], 16) if type(tree) is dict and "i" in tree else None


def close(expected: float, answer: int | float, tolerance: float) -> bool:
    """Whether an answer is a float expected, as `same` says."""
    if expected == answer:  # of an int and a float, Python compares exactly
        return True
    if type(answer) is int or not math.isfinite(expected) or not math.isfinite(answer):
        return False
    within = tolerance * (abs(expected) or 1.0)
    if expected.is_integer() and abs(expected) < _COUNTED:
        within = min(within, 0.25)
    return abs(expected - answer) <= within


def is_true(tree: Tree) -> bool:
    """What `bool` says of the value."""
    if type(tree) is not dict:
        return bool(tree)
    ((tag, inside),) = tree.items()
    if tag == "c":
        return any(float(part) != 0.0 for part in inside)
    return float(inside) != 0.0 if tag == "f" else bool(inside)


def holds_nan(tree: Tree) -> bool:
    """Whether there is a NaN in it: such a value can never be found right."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if type(node) is dict and ("nan" in (node.get("f"), *(node.get("c") or ()))):
            return True
        waiting += _children(node) or () if type(node) in (list, dict) else ()
    return False


def shown(tree: Tree, limit: int = 80) -> str:
    """A value as Python writes it, on one line and in printable characters, cut after about `limit` of them."""
    parts: list[str] = []
    length = 0
    for part in _parts(tree, limit):
        parts.append(part)
        length += len(part)
        if length > limit:
            return "".join(parts)[:limit] + "…"
    return "".join(parts)


def _parts(tree: Tree, limit: int) -> Iterator[str]:
    if type(tree) is str:
        yield repr(tree[: limit + 1])
    elif type(tree) is list:
        yield from _listed("", tree, limit)
    elif type(tree) is not dict:
        yield repr(tree)
    else:
        ((tag, inside),) = tree.items()
        if tag == "f":
            yield inside
        elif tag == "i":
            # `str` of an int over 4300 digits is refused, and quadratic before
            yield str(int(inside, 16)) if len(inside) <= limit else inside[: limit + 1]
        elif tag == "c":
            yield repr(complex(float(inside[0]), float(inside[1])))
        elif tag == "b":
            yield repr(bytes.fromhex(inside[: 2 * limit + 2]))
        else:
            yield from _listed(tag, inside, limit)


def _listed(tag: str, inside: list[Any], limit: int) -> Iterator[str]:
    if tag in ("s", "z") and not inside:
        yield "set()" if tag == "s" else "frozenset()"
        return
    opening, closing = _BRACKETS[tag]
    yield opening
    for index, one in enumerate(inside):
        if index:
            yield ", "
        if tag == "d":
            yield from _parts(one[0], limit)
            yield ": "
            yield from _parts(one[1], limit)
        else:
            yield from _parts(one, limit)
    yield "," + closing if tag == "t" and len(inside) == 1 else closing


def printable(text: Any, limit: int = 160) -> str:
    """Text of a candidate's making on one line, without what a terminal would act upon, cut."""
    if not isinstance(text, str):
        return ""
    clean = "".join(one if one.isprintable() else " " for one in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def call_shown(name: str, args: Sequence[Tree], kwargs: Mapping[str, Tree], limit: int = 80) -> str:
    """A call as Python writes it, cut."""
    inside = [shown(one, limit) for one in args]
    inside += [f"{key}={shown(one, limit)}" for key, one in kwargs.items()]
    text = f"{name}({', '.join(inside)})"
    return text if len(text) <= limit else text[:limit] + "…"
