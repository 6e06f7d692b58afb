"""The W&B runs of all arms, held open beside each other by the mirror's process.

What is safe: everything in a fragment that W&B closed cleanly. Of an online run that was not, the server itself says
how much it has when the run is opened again (the step it goes on from), and the journal says what those steps were. An
offline fragment that was not closed is put aside, as the next one holds all of it again. So every row is there once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from selftrain.store import RunDirectory
from selftrain.tracking.axes import (
    MAIN_ARM,
    SUMMARY_PHASE,
    alarm_of,
    axis_of,
    chart_points,
    patterns,
    run_id,
    summary_values,
)
from selftrain.tracking.following import PATIENCE_SECONDS, Mirrored, bound, leave, name_of, say, words_of
from selftrain.tracking.ledger import ALARM_PHASE, Row
from selftrain.tracking.mirrors import CANNOT_FINISH, CANNOT_START
from selftrain.tracking.wandb_artifacts import Payload, Upload, best_of, payload_of
from selftrain.tracking.wandb_journal import Ears, Journal, answers
from selftrain.tracking.wandb_mirror import FOLDER
from selftrain.tracking.wandb_tables import COLUMNS, candidate_tables

SUPERSEDED = "superseded"
ALERT_TITLE_LENGTH = 63
# The server drops an alert whose title it had so recently: one that is sent again after a kill reaches nobody twice.
ALERT_PAUSE = timedelta(days=1)
_SUMMARY = "summary "

Open = Callable[[dict[str, Any], str], Any]
Job = Callable[[], bool]
"""A piece of work; returns whether it is finished, and raises when it cannot be done."""


class ArmRun:
    """One arm's W&B run, which is opened for the first thing that is not safe already.

    `summary` is what the run's summary shall say in the end, whichever attempt logged it.
    """

    def __init__(self, arm: str, order: dict[str, Any], mirrored: Mirrored, open_run: Open) -> None:
        self.arm = arm
        self.run: Any = None
        self.summary: dict[str, Any] = {}
        self._order = order
        self._mirrored = mirrored
        self._open_run = open_run
        self._folder = Path(order["run_dir"]) / FOLDER
        self._id = run_id(order["run"]["id"], arm)
        self._fragment = ""
        self._given: set[str] = set()
        self._defined: set[str] = set()
        self._journal: Journal | None = None
        self._step = 0

    def open(self) -> Any:
        """The W&B run; exits with CANNOT_START when W&B will not have it."""
        if self.run is not None:
            return self.run
        self._put_aside()
        self._wait_for_a_free_name()
        try:
            self.run = self._open_run(self._order, self.arm)
        except Exception as error:  # the whole of wandb is behind this call
            leave(CANNOT_START, words_of(error))
        if self._order["mode"] == "online":
            self._journal = Journal(self._folder / f"steps-{self._id}.txt")
            self._step = self.run.starting_step
            self._mirrored.safe |= self._journal.begin(self._step)
        self._fragment = Path(self.run.dir).parent.name
        self._mirrored.open.add(self._fragment)
        self._mirrored.write()
        self.run.define_metric("round", hidden=True)
        self.run.define_metric("global_step", hidden=True)
        return self.run

    def is_safe(self, name: str) -> bool:
        """Whether that was given to W&B before."""
        return name in self._given or name in self._mirrored.safe

    def log(self, name: str, points: Mapping[str, Any], over: Iterable[str], axis: str) -> None:
        """Log the points, whose keys the patterns `over` cover, unless that was done before."""
        if not points or self.is_safe(name):
            return
        run = self.open()
        if self.is_safe(name):  # the server said so when it was asked
            return
        for pattern in set(over) - self._defined:
            run.define_metric(pattern, step_metric=axis)
            self._defined.add(pattern)
        if self._journal is not None:
            self._journal.add(self._step, name)
        run.log(dict(points))
        self._step += 1
        self._given.add(name)

    def alert(self, name: str, title: str, text: str) -> None:
        """Raise the alert, unless that was done before."""
        if not self.is_safe(name):
            run = self.open()
            run.alert(title[:ALERT_TITLE_LENGTH], text, level="WARN", wait_duration=ALERT_PAUSE)
            self._given.add(name)

    def summarise(self, name: str) -> None:
        """Have the run open for a summary that is not there yet; `summary` itself is set at the end."""
        if not self.is_safe(name):
            self.open()
            self._mirrored.safe -= {one for one in self._mirrored.safe if one.startswith(_SUMMARY)}
            self._given.add(name)

    def finish(self, ears: Ears) -> None:
        """Wait for W&B to have it all, and note that it does. Raises when it does not get it in time."""
        if self.run is None:
            return
        self.run.summary.update(self.summary)
        self.run.finish()
        if ears.heard and self._journal is not None:
            raise ConnectionError(ears.heard)
        self._mirrored.safe |= self._given
        self._mirrored.open.discard(self._fragment)
        self._mirrored.write()

    def _put_aside(self) -> None:
        """Take what earlier attempts left open out of the way: all of it that is not safe is logged again."""
        for name in sorted(self._mirrored.open):
            kind, _, rest = name.rpartition("run-")
            if rest.partition("-")[2] != self._id:
                continue
            self._mirrored.open.discard(name)
            fragment = self._folder / name
            if kind == "offline-" and fragment.is_dir() and not list(fragment.glob("*.synced")):
                (self._folder / SUPERSEDED).mkdir(exist_ok=True)
                fragment.rename(self._folder / SUPERSEDED / name)

    def _wait_for_a_free_name(self) -> None:
        # W&B names fragments by the second of their start: a second one in that second would overwrite the first.
        while any(self._folder.glob(f"*run-{time.strftime('%Y%m%d_%H%M%S')}-{self._id}")):
            time.sleep(0.1)


class Runs:
    """Rows on their way into one W&B run per arm, then the tables and artifacts of their phases."""

    def __init__(self, wandb: ModuleType, order: dict[str, Any], mirrored: Mirrored, open_run: Open) -> None:
        self._wandb = wandb
        self._order = order
        self._mirrored = mirrored
        self._open_run = open_run
        self._directory = RunDirectory(Path(order["run_dir"]))
        self._wanted: tuple[str, ...] = tuple(order["artifacts"])
        self._arms: dict[str, ArmRun] = {}
        self._jobs: deque[tuple[str, Job]] = deque()
        self._failed: list[tuple[str, Job]] = []
        self._begun = False
        self._ears = Ears.open()
        if not mirrored.safe:
            self._arm(MAIN_ARM).open()  # a first attempt shows up at once, not when its first phase is done

    def add(self, row: Row) -> None:
        """Log the row unless it is safe, and plan what belongs to its phase."""
        arm, name, points = self._arm(row["arm"]), name_of(row), chart_points(row)
        if row["phase"] == SUMMARY_PHASE:
            arm.summary |= summary_values(row)
            arm.summarise(_SUMMARY + name)
            self._plan_best(arm, row)
        elif row["phase"] == ALARM_PHASE:
            arm.alert(name, *alarm_of(row))
        else:
            arm.summary |= points
            arm.log(name, points, patterns(row), axis_of(row))
            if axis_of(row) == "round":
                self._plan(arm, row)

    def work(self) -> None:
        """Advance the first job by one step; one that fails is tried once more at the end."""
        if not self._jobs:
            return
        what, job = self._jobs[0]
        try:
            if not self._begun:
                self._require_server()  # each of wandb's own calls would wait for it much longer
            self._begun = True
            if not job():
                return
        except Exception as error:  # files of the run, and the whole of wandb, are behind this call
            say(f"{what} failed: {words_of(error)}")
            self._failed.append((what, job))
        self._begun = False
        self._jobs.popleft()

    def close(self) -> None:
        """Do what is left and end all runs; exits with CANNOT_FINISH when W&B does not get everything."""
        try:
            self._require_server()
        except ConnectionError as error:
            leave(CANNOT_FINISH, words_of(error))
        self._jobs.extend(self._failed)
        while self._jobs:
            bound(PATIENCE_SECONDS)
            self.work()
        for arm in self._arms.values():
            bound(PATIENCE_SECONDS)
            try:
                arm.finish(self._ears)
            except Exception as error:  # as above
                leave(CANNOT_FINISH, words_of(error))
        self._mirrored.write()

    def _require_server(self) -> None:
        """Raise ConnectionError if this is online and nobody answers."""
        opened = [arm.run for arm in self._arms.values() if arm.run is not None]
        if opened and self._order["mode"] == "online" and not answers(opened[0].settings.base_url):
            raise ConnectionError(f"{opened[0].settings.base_url} does not answer")

    def _arm(self, name: str) -> ArmRun:
        if name not in self._arms:
            self._arms[name] = ArmRun(name, self._order, self._mirrored, self._open_run)
        return self._arms[name]

    def _plan(self, arm: ArmRun, row: Row) -> None:
        key, limit = row["key"], self._order["table_rows"]
        name = f"tables {key}"
        if row["phase"] == "select" and limit and not arm.is_safe(name):
            self._jobs.append((name, lambda: self._log_tables(arm, name, key, limit)))
        try:
            payload = payload_of(self._directory, key, self._order["name"], self._wanted)
        except Exception as error:  # a receipt that cannot be read is the run's affair
            say(f"no artifact of {key}: {words_of(error)}")
            return
        if payload is not None:
            arm.summary[payload.place] = payload.hash
            self._plan_upload(arm, payload, f"artifact {key}")

    def _plan_best(self, arm: ArmRun, row: Row) -> None:
        best = int(summary_values(row).get("best_round") or 0)
        for payload in best_of(self._directory, best, self._order["name"], self._wanted):
            arm.summary[f"artifacts/{payload.kind}/best"] = payload.hash
            self._plan_upload(arm, payload, f"{_SUMMARY}best {payload.key}")

    def _plan_upload(self, arm: ArmRun, payload: Payload, name: str) -> None:
        if self._order["mode"] != "online" or arm.is_safe(name):
            return
        upload = Upload(self._wandb, payload, arm.open)

        def job() -> bool:
            if not upload.advance():
                return False
            self._mirrored.safe.add(name)
            self._mirrored.write()
            return True

        self._jobs.append((name, job))

    def _log_tables(self, arm: ArmRun, name: str, key: str, limit: int) -> bool:
        try:
            found = candidate_tables(self._directory, key, limit)
        except Exception as error:  # whatever is wrong with the files, the run itself will say
            say(f"no {name}: {words_of(error)}")
            return True
        tables = {
            f"tables/{kind}": self._wandb.Table(columns=list(COLUMNS), data=rows, allow_mixed_types=True)
            for kind, rows in found.items()
            if rows
        }
        if tables:
            number = self._directory.receipt(key).round  # type: ignore[union-attr]
            arm.log(name, {**tables, "round": number}, ["tables/*"], "round")
        return True
