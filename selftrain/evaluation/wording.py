"""Words and numbers of verdicts: shares in percent, their differences in points, values as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selftrain.evaluation.figures import CORRECT, PART
from selftrain.evaluation.statistics import Interval

ONE_ROUND = "random_selection_shared"
IS_OF_ONE_ROUND = (
    "it starts where main started in that round and draws from main's own candidates, so it does not control for "
    "earlier rounds"
)
AT_MAINS_ROUND = (
    "arms are measured at main's round, which validation chose among main's rounds and not among the arms' own"
)


def named(figure: str) -> str:
    """A figure in a sentence: `pass@1`, `value`, `part exact`."""
    return figure.replace(PART, "part ", 1) if figure.startswith(PART) else figure


def level(figure: str, value: float) -> str:
    """A level of a figure: `78.5%`, or `0.312` for a value or a part."""
    return f"{value:.1%}" if figure == CORRECT else f"{value:.3f}"


def level_bounds(figure: str, interval: Interval) -> str:
    """The bounds of a level: `[72.1, 84.0]` in percent, or `[0.205, 0.411]`."""
    if figure == CORRECT:
        return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def change(figure: str, difference: float) -> str:
    """A difference of two levels with its sign: `+43.5` points, or `+0.312`."""
    return points(difference) if figure == CORRECT else f"{round(difference, 3) + 0.0:+.3f}"


def change_bounds(figure: str, interval: Interval) -> str:
    """The bounds of a difference: `[+36.0, +51.0]`, or `[+0.205, +0.411]`."""
    return f"[{change(figure, interval.low)}, {change(figure, interval.high)}]"


def unit(figure: str) -> str:
    """What follows a difference of two levels: ` points` of shares, nothing of values."""
    return " points" if figure == CORRECT else ""


def in_words(overrides: Mapping[str, Any]) -> str:
    """Knobs with their values: `sample.temperature 1.2, select.top_k 4`."""
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def points(share: float) -> str:
    """A difference of shares in points with its sign: 0.435 -> `+43.5`."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def bounds(interval: Interval) -> str:
    """The bounds of a difference of shares in points: `[+36.0, +51.0]`."""
    return f"[{points(interval.low)}, {points(interval.high)}]"
