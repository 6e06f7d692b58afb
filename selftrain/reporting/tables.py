"""Tables as aligned lines of text: the same on a terminal and in a log file. The widest fits 80 columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.reporting.figures import count, duration, interval, percent
from selftrain.reporting.inert import inert

Share = tuple[float, float | None, float | None]
"""A share with the bounds of its interval, if it has any."""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One line of the table of rounds. Round 0 is the baseline; what a round did not measure is None."""

    arm: str
    round: int
    validate: Share | None = None
    test: Share | None = None
    acceptance: float | None = None
    kept: int | None = None
    steps: int | None = None
    seconds: float | None = None
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and how it stands out: `head`, `best` or `plain`."""

    text: str
    look: str = "plain"


LEGEND = "greedy pass@1 [interval]; accept: correct among the candidates"
ROUND_COLUMNS = ("round", "validate", "test", "accept", "kept", "steps", "time")


def round_lines(title: str, rows: Sequence[tuple[str, str, str]]) -> list[Line]:
    """The table of one round. A row is (phase, what, value); a phase is named on its first row only."""
    cells, before = [], None
    for phase, what, value in rows:
        cells.append((inert(phase) if phase != before else "", inert(what), inert(value)))
        before = phase
    return [Line(inert(title), "head"), *(Line(f"  {text}") for text in aligned(cells, right=()))]


def rounds_lines(rows: Sequence[RoundRow]) -> list[Line]:
    """The table of all rounds: pass@1 with its interval on each set, then what the round did. `*` marks the best.

    Arms follow each other under their names; the name is left out while there is only one, and so are columns in which
    no row has anything.
    """
    columns = zip(ROUND_COLUMNS, *map(_cells, rows), strict=True)
    cells = list(zip(*[column for column in columns if any(column[1:])], strict=True)) or [()]
    head, *lines = aligned(cells, right=range(len(ROUND_COLUMNS)))
    shown = [Line(head, "head")]
    arms = list(dict.fromkeys(row.arm for row in rows))
    for arm in arms:
        if len(arms) > 1:
            shown.append(Line(inert(arm), "head"))
        pairs = zip(rows, lines, strict=True)
        shown += [Line(line, "best" if row.is_best else "plain") for row, line in pairs if row.arm == arm]
    best = "* best round; " if any(row.is_best for row in rows) else ""
    return [*shown, Line(f"{best}{LEGEND}")]


def _cells(row: RoundRow) -> tuple[str, ...]:
    return (
        f"{'* ' if row.is_best else ''}{row.round}",
        interval(*row.validate) if row.validate else "",
        interval(*row.test) if row.test else "",
        percent(row.acceptance) if row.acceptance is not None else "",
        count(row.kept) if row.kept is not None else "",
        count(row.steps) if row.steps is not None else "",
        duration(row.seconds) if row.seconds is not None else "",
    )


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    """Rows of cells with columns two spaces apart; the columns in `right` are flush right."""
    widths = [max(map(_width, column), default=0) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            " " * (width - _width(cell)) + cell if number in right else cell + " " * (width - _width(cell))
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)
