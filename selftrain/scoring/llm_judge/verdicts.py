"""The judge's answer, read strictly: one verdict, in one place, or none."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

KEYS = ("score", "winner")
WINNERS = {"A": 1.0, "B": 0.0, "tie": 0.5}
_FENCE = re.compile(r"^[ \t]*```[a-zA-Z]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_OPEN, _CLOSE = "<think>", "</think>"


class Unreadable(ValueError):  # noqa: N818 - reads as a fact
    """The answer holds no verdict, or more than one; the message says which."""


@dataclass(frozen=True, slots=True)
class Found:
    """A JSON object in a text: the names and values at its top, duplicates included, and its place."""

    pairs: tuple[tuple[str, Any], ...]
    start: int
    end: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The names at its top."""
        return tuple(name for name, _ in self.pairs)


class _Pairs(tuple):  # type: ignore[type-arg]
    """The pairs of an object, told from a list."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs)


def objects_in(text: str) -> list[Found]:
    """The JSON objects in a text, from left to right; of nested ones the outermost."""
    found, at = [], text.find("{")
    while at >= 0:
        try:
            pairs, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
            continue
        found.append(Found(tuple(pairs), at, end))
        at = text.find("{", end)
    return found


def read_score(text: str, low: float, high: float) -> float:
    """The value in [0, 1] of `{"score": n}`, n from low to high. Raises Unreadable."""
    score = _only(text, "score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise Unreadable(f"the score is {score!r:.60}, not a number")
    if not low <= score <= high:
        raise Unreadable(f"the score {score} is outside of {low:g} to {high:g}")
    return float((score - low) / (high - low))


def read_winner(text: str) -> float:
    """1 where `{"winner": "A"}`, 0 where B, 0.5 where `tie`. Raises Unreadable."""
    winner = _only(text, "winner")
    if not isinstance(winner, str) or winner not in WINNERS:
        raise Unreadable(f"the winner is {winner!r:.60}, not one of A, B, tie")
    return WINNERS[winner]


def _only(text: str, key: str) -> Any:
    """What the one verdict says: a JSON object that ends the text, on lines of its own or in a fence. The same verdict
    elsewhere too is no harm; another one is."""
    text = _without_reasoning(text).strip()
    verdicts = [one for one in objects_in(text) if key in one.keys]
    if not verdicts:
        raise Unreadable(f"there is no {{{json.dumps(key)}: ...}} in it")
    values = [value for one in verdicts for name, value in one.pairs if name == key]
    if len({repr(value) for value in values}) > 1:
        raise Unreadable(f"it gives several verdicts: {', '.join(f'{value!r:.30}' for value in values[:4])}")
    fences = [(found.start(1), found.end(1)) for found in _FENCE.finditer(text)]
    last = verdicts[-1]
    ends_text = last.end == len(text) and not text[: last.start].rpartition("\n")[2].strip()
    fenced = any(_fills(text, last, start, end) for start, end in fences[-1:])
    if not ends_text and not fenced:
        raise Unreadable("its verdict stands neither on the last line nor alone in the last fenced block")
    return values[0]


def _fills(text: str, one: Found, start: int, end: int) -> bool:
    inside = text[start : one.start] + text[one.end : end]
    return start <= one.start and one.end <= end and not inside.strip()


def _without_reasoning(text: str) -> str:
    """What follows the reasoning of a thinking model, where its server leaves that in."""
    _, close, after = text.rpartition(_CLOSE)
    if close:
        return after
    if text.lstrip().startswith(_OPEN):
        raise Unreadable("its reasoning never ends, so there is no verdict")
    return text
