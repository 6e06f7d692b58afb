"""Under which Weights & Biases key, and on which axis, a row of the ledger is shown.

    row                                    keys on the dashboard              axis
    a phase of the main arm                sample/tokens, train/loss, ...     round
    an optimizer step of the main arm      train_step/loss, ...               global_step
    a phase of another arm                 random_selection/train/loss, ...   round
    an optimizer step of another arm       random_selection/train_step/loss   global_step
    the summary                            the run's summary, not a chart     none

So no key is ever on two axes, arms lie over each other in one chart, and W&B's own step (which would refuse a row that
comes late) is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.tracking.ledger import NAMES_OF_A_ROW, NON_FINITE, Row

MAIN_ARM = "main"
SUMMARY_PHASE = "summary"


def axis_of(row: Row) -> str:
    """`global_step` for a row of one optimizer step, else `round`."""
    return "global_step" if row.get("global_step") is not None else "round"


def chart_points(row: Row) -> dict[str, float]:
    """The row's numbers under their dashboard keys, with the value of their axis. Text and nulls have no point."""
    axis = axis_of(row)
    numbers = {key: value for key, value in _metrics(row).items() if isinstance(value, int | float)}
    points: dict[str, float] = {_key_of(row, key): value for key, value in numbers.items()}
    return {**points, axis: row[axis]} if points else {}


def patterns(row: Row) -> list[str]:
    """The key patterns of this row's points (`sample/*`, `random_selection/train_step/*`), all on the row's axis."""
    sections = {key.removeprefix(_prefix(row)).split("/")[0] for key in chart_points(row) if key != axis_of(row)}
    return sorted(f"{_prefix(row)}{section}/*" for section in sections)


def summary_values(row: Row) -> dict[str, Any]:
    """What a summary row sets in the run's summary: `summary/best_round` becomes `best_round`."""
    metrics = _metrics(row).items()
    return {_prefix(row) + key.removeprefix(f"{SUMMARY_PHASE}/"): value for key, value in metrics if value is not None}


def _metrics(row: Row) -> Mapping[str, Any]:
    return {key: value for key, value in row.items() if key not in NAMES_OF_A_ROW and key != NON_FINITE}


def _prefix(row: Row) -> str:
    return "" if row["arm"] == MAIN_ARM else f"{row['arm']}/"


def _key_of(row: Row, key: str) -> str:
    section, slash, name = key.partition("/")
    if not slash:
        section, name = row["phase"], key
    step = "_step" if axis_of(row) == "global_step" else ""
    return f"{_prefix(row)}{section}{step}/{name}"
