"""The process that copies metrics.jsonl to another tracker: the only file that imports accelerate's trackers.

Their interface is `log(values, step)`: phases are logged with the round as their step, optimizer steps with the global
step, under keys that differ (`train/loss`, `train_step/loss`). Arms are runs of their own, one open at a time, as most
of these libraries know one run per process.
"""

from __future__ import annotations

import importlib
import re
import signal
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from selftrain.tracking.axes import (
    MAIN_ARM,
    SUMMARY_PHASE,
    alarm_of,
    axis_of,
    chart_points,
    run_name,
    shown_config,
    summary_values,
)
from selftrain.tracking.following import Mirrored, bound, follow, leave, name_of, words_of
from selftrain.tracking.ledger import ALARM_PHASE, Row
from selftrain.tracking.mirrors import CANNOT_FINISH, CANNOT_START

# What these have logged is on disk, or at their server, when `log` returns; of others that is known after `finish`.
DURABLE = {"tensorboard", "mlflow"}
TAKES_TEXT = {"tensorboard"}
# Where a run's id is found, and under which option it is given to go on with that run.
IDS = {
    "mlflow": ("info.run_id", "run_id"),
    "comet_ml": ("id", "experiment_key"),
    "aim": ("hash", "run_hash"),
    "clearml": ("id", "reuse_last_task_id"),
    "swanlab": ("id", "id"),
}


class AccelerateCopy:
    """Rows on their way into one tracker."""

    def __init__(self, order: dict[str, Any], mirrored: Mirrored) -> None:
        PartialState(cpu=True)  # accelerate's logger wants to know its rank
        self._order = order
        self._mirrored = mirrored
        self._name = order["tracker"]
        self._tracker: Any = None
        self._arm = MAIN_ARM
        self._given: set[str] = set()

    def add(self, row: Row) -> None:
        """Log the row unless it is safe."""
        name, values, step = name_of(row), *values_of(row, self._name)
        if not values or name in self._mirrored.safe or name in self._given:
            return
        if self._tracker is None or row["arm"] != self._arm:
            self._switch(row["arm"])
        self._tracker.log(values, step=step)
        self._given.add(name)

    def work(self) -> None:
        """Note what is safe, where that is known."""
        if self._name in DURABLE:
            self._note()

    def excuse(self) -> str | None:
        """None: what these libraries wait for is not known here."""
        return None

    def close(self) -> None:
        """End the run of the arm at hand; exits with CANNOT_FINISH when the tracker cannot."""
        if self._tracker is not None:
            try:
                self._tracker.finish()
            except Exception as error:  # a whole library is behind this call
                leave(CANNOT_FINISH, words_of(error))
            self._tracker = None
        self._note()

    def _switch(self, arm: str) -> None:
        """End the run of another arm, and open this one's; exits with CANNOT_START when the tracker will not."""
        self.close()
        seconds = self._order["start_seconds"]
        before = signal.signal(
            signal.SIGALRM, lambda *_: leave(CANNOT_START, f"{self._name} did not start within {seconds:.0f} s")
        )
        bound(seconds)
        known = f"arm {arm} "
        earlier = next((name for name in self._mirrored.safe if name.startswith(known)), None)
        try:
            self._tracker, run_id = start(self._order, arm, earlier.removeprefix(known) if earlier else None)
        except Exception as error:  # as above
            leave(CANNOT_START, words_of(error))
        finally:
            bound(0)
            signal.signal(signal.SIGALRM, before)
        self._arm = arm
        self._given.add(f"{known}{run_id}")

    def _note(self) -> None:
        if self._given:
            self._mirrored.safe |= self._given
            self._given.clear()
            self._mirrored.write()


def values_of(row: Row, tracker: str) -> tuple[dict[str, Any], int]:
    """What is logged of a row, and at which step."""
    values: dict[str, Any]
    if row["phase"] == ALARM_PHASE:
        values = {f"alarm/{row['alarm']}": alarm_of(row)[1]} if tracker in TAKES_TEXT else {}
    elif row["phase"] == SUMMARY_PHASE:
        numbers = summary_values(row).items()
        values = {f"{SUMMARY_PHASE}/{key}": value for key, value in numbers if isinstance(value, int | float)}
    else:
        values = {key: value for key, value in chart_points(row).items() if key != axis_of(row)}
    if tracker == "mlflow":  # it refuses a batch with any other character in a name
        values = {re.sub(r"[^\w/. -]", "_", key.replace("@", "_at_")): value for key, value in values.items()}
    return values, row[axis_of(row)]


def start(order: Mapping[str, Any], arm: str, earlier: str | None) -> tuple[Any, str]:
    """Accelerate's tracker for one arm, started, and its run's id; `earlier` is the id of the run to go on with."""
    tracker = order["tracker"]
    name = run_name(order["name"], arm)
    folder = Path(order["run_dir"]) / tracker
    project, options = OPTIONS[tracker](order, name, arm, earlier is None, folder)
    place, option = IDS.get(tracker, ("", ""))
    if place and earlier:
        options |= {option: earlier}
    one = LOGGER_TYPE_TO_CLASS[tracker](project, **options)
    one.start()
    if earlier is None:
        one.store_init_configuration(flat(shown_config(order["config"], arm)))
    return one, str(attrgetter(place)(one.tracker)) if place else name


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Knobs by dotted key; what is no number, text or bool as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return found


Options = Callable[[Mapping[str, Any], str, str, bool, Path], tuple[str, dict[str, Any]]]
"""Of the order, the arm's run name, the arm, is_new and the tracker's folder: Accelerate's first argument, the rest."""


def _comet(order: Mapping[str, Any], name: str, arm: str, is_new: bool, folder: Path) -> tuple[str, dict[str, Any]]:
    config = importlib.import_module("comet_ml").ExperimentConfig(
        name=name,
        log_code=False,
        log_graph=False,
        parse_args=False,
        log_git_metadata=False,
        log_git_patch=False,
        log_env_details=False,
        auto_output_logging=False,
        auto_param_logging=False,
        auto_metric_logging=False,
    )
    return order["project"], {"experiment_config": config}


OPTIONS: Mapping[str, Options] = {
    "tensorboard": lambda order, name, arm, is_new, folder: (arm, {"logging_dir": str(folder)}),
    "trackio": lambda order, name, arm, is_new, folder: (
        order["project"],
        {
            "name": name,
            "group": order["group"],
            "resume": "never" if is_new else "allow",
            "config": flat(shown_config(order["config"], arm)),  # it forgets the old one when a run is resumed
            "embed": False,
            "auto_log_gpu": False,
            "auto_log_cpu": False,
        },
    ),
    "mlflow": lambda order, name, arm, is_new, folder: (
        order["project"],
        # The last two would else name the user and the file that was started.
        {
            "run_name": name,
            "tags": {"group": order["group"], "arm": arm, "mlflow.user": "", "mlflow.source.name": "selftrain"},
        },
    ),
    "comet_ml": _comet,
    "aim": lambda order, name, arm, is_new, folder: (
        name,
        {
            "logging_dir": str(folder),
            "experiment": order["group"],
            "system_tracking_interval": None,
            "capture_terminal_logs": False,
        },
    ),
    "clearml": lambda order, name, arm, is_new, folder: (
        order["project"],
        {
            "task_name": name,
            "tags": [order["group"], arm],
            "auto_connect_arg_parser": False,
            "auto_connect_frameworks": False,
            "auto_resource_monitoring": False,
            "auto_connect_streams": False,
            "continue_last_task": False if is_new else 0,  # no offset: the steps are our own
        },
    ),
    "dvclive": lambda order, name, arm, is_new, folder: (
        name,
        {"dir": str(folder / arm), "resume": not is_new, "save_dvc_exp": False, "dvcyaml": None},
    ),
    "swanlab": lambda order, name, arm, is_new, folder: (
        order["project"],
        {"name": name, "group": order["group"], "job_type": arm, "log_dir": str(folder), "resume": "allow"},
    ),
}


def main() -> None:
    """Copy until the run is done or dead, then close and note what is safe."""
    follow(AccelerateCopy)


if __name__ == "__main__":
    main()
