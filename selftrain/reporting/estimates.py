"""The estimate of `selftrain plan`: the table of the work, then what it takes, each with what the figure rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from selftrain.reporting.inert import inert
from selftrain.reporting.tables import aligned

WIDTH = 118


def render(work: Sequence[Sequence[str]], rows: Sequence[tuple[str, str, str]], too_little: Sequence[str]) -> str:
    """`work` is a table with its head, of (arm, round, numbers ...); `rows` are (what, how much, what it rests on);
    `too_little` are sentences about what does not fit."""
    cells, before = [], None
    for arm, *rest in work:
        cells.append((inert(arm) if arm != before else "", *map(inert, rest)))
        before = arm
    # A column in which nothing stands below the head is left out.
    columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
    table = aligned(list(zip(*columns, strict=True)), right=range(2, len(columns)))
    width = max((len(what) for what, _, _ in rows), default=0)
    lines = ["estimate, if no stop rule ends the run before:", *(f"  {line}" for line in table), ""]
    indent = " " * (width + 4)
    for what, value, rests_on in rows:
        text = f"{inert(what):<{width}}  {inert(value)}" + (f" ({inert(rests_on)})" if rests_on else "")
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join([*lines, *(f"does not fit: {inert(sentence)}" for sentence in too_little)])
