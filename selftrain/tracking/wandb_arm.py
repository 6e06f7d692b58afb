"""One arm's W&B run: what goes into it, and what is known of it after a kill.

What is safe: everything in a fragment that W&B closed cleanly. Of an online run that was not, the server itself says
how much it has when the run is opened again (the step it goes on from), and the journal says what those steps were. An
offline fragment that was not closed is put aside, as the next one holds all of it again. So every row is there once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from selftrain.tracking.axes import run_id
from selftrain.tracking.following import Mirrored, leave, words_of
from selftrain.tracking.mirrors import CANNOT_START
from selftrain.tracking.wandb_journal import Journal
from selftrain.tracking.wandb_mirror import FOLDER

SUPERSEDED = "superseded"
SUMMARY = "summary "
"""Begins the names of what belongs to the summary at hand; an earlier summary's are forgotten."""
ALERT_TITLE_LENGTH = 63
# The server drops an alert whose title it had so recently: one that is sent again after a kill reaches nobody twice.
ALERT_PAUSE = timedelta(days=1)

Open = Callable[[dict[str, Any], str], Any]
"""Of the order and an arm: the arm's W&B run."""


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
            self._mirrored.safe -= {one for one in self._mirrored.safe if one.startswith(SUMMARY)}
            self._given.add(name)

    def finish(self) -> None:
        """Wait for W&B to have it all. Raises what wandb raises."""
        self.run.summary.update(self.summary)
        self.run.finish()

    def settle(self) -> None:
        """Note that W&B has it all."""
        self._mirrored.safe |= self._given
        self._mirrored.open.discard(self._fragment)
        self._mirrored.write()

    def _put_aside(self) -> None:
        """Take what earlier attempts left open out of the way: all of it that is not safe is logged again."""
        for name in sorted(self._mirrored.open):
            kind, _, rest = name.partition("run-")
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
