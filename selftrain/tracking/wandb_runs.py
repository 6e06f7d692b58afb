"""All that goes to W&B, in the mirror's process: rows into one run per arm, then the tables and artifacts of phases.

Rows are quick. Tables and uploads, which ask the server, are jobs: one after the other, between the rows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Thread
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
    summary_values,
)
from selftrain.tracking.following import PATIENCE_SECONDS, Mirrored, bound, leave, name_of, say, words_of
from selftrain.tracking.ledger import ALARM_PHASE, Row
from selftrain.tracking.mirrors import CANNOT_FINISH
from selftrain.tracking.wandb_arm import SUMMARY, ArmRun, Open
from selftrain.tracking.wandb_artifacts import Payload, Upload, best_of, payload_of
from selftrain.tracking.wandb_journal import Ears, answers
from selftrain.tracking.wandb_tables import COLUMNS, candidate_tables

GRACE_SECONDS = 5.0
RETRY_SECONDS = 15.0

Job = Callable[[], bool]
"""A piece of work; returns whether it is finished, and raises when it cannot be done."""


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
        self._waiting: list[Row] = []
        self._retry_at = 0.0
        self._ears = Ears.open()
        if not mirrored.safe:
            self._arm(MAIN_ARM).open()  # a first attempt shows up at once, not when its first phase is done

    def add(self, row: Row) -> None:
        """Log the row unless it is safe, and plan what belongs to its phase."""
        arm, name = self._arm(row["arm"]), name_of(row)
        name = SUMMARY + name if row["phase"] == SUMMARY_PHASE else name
        if self._must_wait(arm, name):
            self._waiting.append(row)
            return
        if row["phase"] == SUMMARY_PHASE:
            arm.summary |= summary_values(row)
            arm.summarise(name)
            self._plan_best(arm, row)
        elif row["phase"] == ALARM_PHASE:
            arm.alert(name, *alarm_of(row))
        else:
            points = chart_points(row)
            arm.summary |= points
            arm.log(name, points, patterns(row), axis_of(row))
            if axis_of(row) == "round":
                self._plan(arm, row)

    def work(self) -> None:
        """Advance the first job by one step; one that fails is tried once more at the end."""
        if self._waiting and time.monotonic() > self._retry_at:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._add_waiting()
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

    def excuse(self) -> str | None:
        """That nobody answers, if so."""
        try:
            self._require_server()
        except ConnectionError as error:
            return words_of(error)
        return None

    def close(self) -> None:
        """Do what is left and end all runs; exits with CANNOT_FINISH when W&B does not get everything."""
        if self.excuse() is None:
            self._add_waiting()
            self._jobs.extend(self._failed)
        else:
            self._jobs.clear()
        while self._jobs:
            bound(PATIENCE_SECONDS)
            self.work()
        bound(PATIENCE_SECONDS)
        failures = self._finish()
        if self._waiting:
            failures.append(f"{len(self._waiting)} rows of {self._waiting[0]['arm']} found nobody who answers")
        if failures:
            leave(CANNOT_FINISH, failures[0])
        self._mirrored.write()

    def _finish(self) -> list[str]:
        """End all runs at the same time, and return why some could not.

        Without a server too: it makes wandb write to disk what can be uploaded later. A thread each, as `finish` waits
        for ever, its time-out notwithstanding, while an alert cannot be sent.
        """
        opened = [arm for arm in self._arms.values() if arm.run is not None]
        outcomes: dict[str, Exception | None] = {}

        def finish(arm: ArmRun) -> None:
            try:
                arm.finish()
                outcomes[arm.arm] = None
            except Exception as error:  # as in `work`
                outcomes[arm.arm] = error

        threads = [Thread(target=finish, args=(arm,), daemon=True) for arm in opened]
        deadline = time.monotonic() + self._order["start_seconds"] + GRACE_SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        failures = []
        for arm in opened:
            error = outcomes.get(arm.arm, TimeoutError("the server did not get everything in time"))
            if error is None and self._ears.heard and self._order["mode"] == "online":
                error = ConnectionError(self._ears.heard)
            if error is None:
                arm.settle()
            else:
                failures.append(words_of(error))
        return failures

    def _must_wait(self, arm: ArmRun, name: str) -> bool:
        """Whether the row's run is yet to be opened beside others, and nobody answers: W&B tries that only once.

        Rows wait in order, all of an arm behind its first.
        """
        if any(row["arm"] == arm.arm for row in self._waiting):
            return True
        return arm.run is None and not arm.is_safe(name) and self.excuse() is not None

    def _add_waiting(self) -> None:
        if self._waiting and self.excuse() is None:
            rows, self._waiting = self._waiting, []
            for row in rows:
                bound(PATIENCE_SECONDS)
                self.add(row)

    def _require_server(self) -> None:
        """Raise ConnectionError if this is online and nobody answers."""
        opened = [arm.run for arm in list(self._arms.values()) if arm.run is not None]
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
            self._plan_upload(arm, payload, f"{SUMMARY}best {payload.key}")

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
