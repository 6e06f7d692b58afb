"""JSON read strictly: what two readers could take differently is no JSON. RFC 8259, with names unique in an object."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

_IN_PROSE = re.compile(r'[\[\]{}"\\]')
_OPENS = {"]": "[", "}": "{"}


def strict(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what is none: a name given twice in an object, NaN, Infinity, a
    number beyond a double, or nesting deeper than Python reads."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.40} is beyond the range of a double")
    return number


def outermost(text: str) -> Iterator[str]:
    """The outermost `{...}` and `[...]` of a text, whether JSON or not, in order. Brackets inside of double quotes
    count only outside of all brackets, and from one that is never closed on nothing is found. Linear in the text."""
    opened: list[str] = []
    start, quoted, skip_to = 0, False, 0
    for mark in _IN_PROSE.finditer(text):
        sign = mark[0]
        if mark.start() < skip_to or (quoted and sign not in '"\\'):
            continue
        if sign == "\\":
            skip_to = mark.end() + 1 if quoted else skip_to
        elif sign == '"':
            quoted = bool(opened) and not quoted
        elif sign in "[{":
            start = start if opened else mark.start()
            opened.append(sign)
        elif opened:
            if opened.pop() != _OPENS[sign]:
                opened.clear()  # crossed, as in `{]`
            elif not opened:
                yield text[start : mark.end()]


def same(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal: numbers by value (1 and 1.0), but 1 is not true, and lists are in order."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second
    return type(first) is type(second) and bool(first == second)


def contains(whole: Any, part: Any) -> bool:
    """Whether `whole` has every key of the objects in `part`, at every depth, with equal values; lists are compared
    element by element and must be equally long."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and contains(whole[name], part[name]) for name in part)
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return same(whole, part)
