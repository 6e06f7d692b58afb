"""What several seeds say together, as a table: each figure by seed, then its mean with an interval of each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.reporting.inert import inert
from selftrain.reporting.tables import Line, aligned

LEGEND = (
    "greedy pass@1 in percent, gains in points; sd: between seeds; intervals: over seeds (these prompts given), over "
    "prompts (these seeds given), over both"
)
CORRECT = "pass@1"


def seeds_lines(data: Mapping[str, Any]) -> list[Line]:
    """The table of `seeds`: a mapping with `seeds`, `levels` and `gains` as evaluation gives them."""
    figures = [*data["levels"], *data["gains"], *data["values"]]
    heads = ["", *(f"seed {seed}" for seed in data["seeds"]), "mean", "sd"]
    values = [
        [inert(_name(one)), *_by_seed(one, data["seeds"]), _figure(one["mean"], one), _deviation(one)]
        for one in figures
    ]
    bounds = [
        [inert(_name(one)), *(_bounds(one[level], one) for level in ("over_seeds", "over_prompts", "over_both"))]
        for one in figures
    ]
    first = _table([heads, *values])
    second = _table([["", "over seeds", "over prompts", "over both"], *bounds])
    return [*first, Line(""), *second, Line(LEGEND)]


def _table(rows: Sequence[Sequence[str]]) -> list[Line]:
    head, *lines = aligned(rows, right=range(1, len(rows[0])))
    return [Line(head, "head"), *map(Line, lines)]


def _name(one: Mapping[str, Any]) -> str:
    name = f"gain over {one['what']}" if one["is_gain"] else str(one["what"])
    return name if one["figure"] == CORRECT else f"{one['figure'].replace('/', ' ')}: {name}"


def _by_seed(one: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """The figure of each seed; an arm may be missing in one."""
    known = dict(zip(one["seeds"], one["per_seed"], strict=True))
    return [_figure(known[seed], one) if seed in known else "-" for seed in seeds]


def _figure(value: float, one: Mapping[str, Any]) -> str:
    sign = "+" if one["is_gain"] else ""
    if one["figure"] != CORRECT:
        return f"{round(value, 3) + 0.0:{sign}.3f}"
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def _deviation(one: Mapping[str, Any]) -> str:
    if one["deviation"] is None:
        return ""
    return f"{100 * one['deviation']:.1f}" if one["figure"] == CORRECT else f"{one['deviation']:.3f}"


def _bounds(interval: Mapping[str, Any] | None, one: Mapping[str, Any]) -> str:
    if interval is None:
        return "-"
    return f"[{_figure(interval['low'], one)}, {_figure(interval['high'], one)}]"
