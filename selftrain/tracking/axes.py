"""Under which key, and on which axis, a row of the ledger is shown by a tracker.

    row                    where it is shown                        axis
    a phase                sample/tokens, train/loss, ...           round
    an optimizer step      train_step/loss, ...                     global_step
    the summary            the run's summary, not a chart           none
    an alarm               an alert, not a chart                    none

So no key is ever on two axes, and a tracker's own step (W&B would refuse a row that comes late) is never used. Each arm
is a run of its own there, with the same keys, so that arms lie over each other in every chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.tracking.ledger import ALARM_PHASE, NAMES_OF_A_ROW, NON_FINITE, Row

MAIN_ARM = "main"
SUMMARY_PHASE = "summary"


def axis_of(row: Row) -> str:
    """`global_step` for a row of one optimizer step, else `round`."""
    return "global_step" if row.get("global_step") is not None else "round"


def chart_points(row: Row) -> dict[str, float]:
    """The row's numbers under their dashboard keys, with the value of their axis. Text and nulls have no point."""
    if row["phase"] in (SUMMARY_PHASE, ALARM_PHASE):
        return {}
    axis = axis_of(row)
    numbers = {key: value for key, value in _metrics(row).items() if isinstance(value, int | float)}
    points: dict[str, float] = {_key_of(row, key): value for key, value in numbers.items()}
    return {**points, axis: row[axis]} if points else {}


def patterns(row: Row) -> list[str]:
    """The key patterns of this row's points (`sample/*`, `train_step/*`), all on the row's axis."""
    return sorted({f"{key.split('/')[0]}/*" for key in chart_points(row) if key != axis_of(row)})


def summary_values(row: Row) -> dict[str, Any]:
    """What a summary row sets in the run's summary: `summary/best_round` becomes `best_round`."""
    metrics = _metrics(row).items()
    return {key.removeprefix(f"{SUMMARY_PHASE}/"): value for key, value in metrics if value is not None}


def alarm_of(row: Row) -> tuple[str, str]:
    """Title and text of the alert for an alarm's row."""
    return f"{row['arm']} · round {row['round']}: {row['alarm']}", str(row["words"])


def run_name(name: str, arm: str) -> str:
    """What an arm's run is called in a tracker: the run's name for main, `name.arm` for another."""
    return name if arm == MAIN_ARM else f"{name}.{arm}"


def run_id(main_id: str, arm: str) -> str:
    """The id of an arm's run in a tracker."""
    return main_id if arm == MAIN_ARM else f"{main_id}-{arm}"


def shown_config(config: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """The config of one arm's run: what is shown of main's, with the arm's own knobs in place of those shown there.

    Where `config["arms"]` maps an arm to its knobs by dotted key, those of this arm apply; a knob that main does not
    show is not shown here either.
    """
    shown: dict[str, Any] = {**config, "arm": arm}
    arms = config.get("arms")
    if isinstance(arms, Mapping):
        shown["arms"] = list(arms)
        for path, value in (arms.get(arm) or {}).items():
            shown = _with(shown, path.split("."), value)
    return shown


def _with(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    if first not in values or (rest and not isinstance(values[first], Mapping)):
        return dict(values)
    return {**values, first: _with(values[first], rest, value) if rest else value}


def _metrics(row: Row) -> Mapping[str, Any]:
    return {key: value for key, value in row.items() if key not in NAMES_OF_A_ROW and key != NON_FINITE}


def _key_of(row: Row, key: str) -> str:
    section, slash, name = key.partition("/")
    if not slash:
        section, name = row["phase"], key
    step = "_step" if axis_of(row) == "global_step" else ""
    return f"{section}{step}/{name}"
