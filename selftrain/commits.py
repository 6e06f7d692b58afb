"""Doing a phase once: the committed receipt if there is one, or the work, its files, its receipt and its metrics.

Every rank comes through here; the first one alone reads and writes receipts, and tells the others.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from selftrain.alterations import refusal
from selftrain.arms import Arm
from selftrain.compose import differences, versions
from selftrain.fingerprints import Fingerprints
from selftrain.history import History
from selftrain.records import Policy, Receipt, digest
from selftrain.reporting.terminal import Phase, Terminal
from selftrain.store import TEMPORARY, RunDirectory, is_pruned, output_digest
from selftrain.tracking import Tracker
from selftrain.world import World


@dataclass(frozen=True, slots=True)
class Made:
    """What a phase made, before its receipt: files by path relative to the run, rows, metrics, the output digest."""

    files: Mapping[str, str]
    rows: int
    metrics: Mapping[str, float]
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A phase to be done: its place, what it is made from, and the words for its progress. `name` names its receipt.

    `everywhere`: every rank takes part in the work; otherwise the first rank does it alone. `policies`: those whose
    adapters the work reads.
    """

    arm: Arm
    round_number: int
    phase: str
    name: str
    inputs: Mapping[str, str]
    total: int = 0
    unit: str = "candidates"
    everywhere: bool = False
    policies: tuple[Policy, ...] = ()

    @property
    def key(self) -> str:
        """Of the receipt."""
        return self.arm.key(self.round_number, self.name)


@dataclass(frozen=True, slots=True)
class Commits:
    """Where phases are committed: the run directory, and everyone who is told."""

    run: RunDirectory
    fingerprints: Fingerprints
    world: World
    terminal: Terminal
    tracker: Tracker
    history: History
    remakes: dict[str, Callable[[], None]] = field(default_factory=dict)
    """By the folder of an adapter: what trains it again, on every rank."""
    made: set[str] = field(default_factory=set)
    """The keys of what this attempt committed: asked for again, it is no news."""

    def once(self, task: Task, make: Callable[[str, Phase], Made | None]) -> Receipt:
        """The task's receipt: the committed one, or that of doing the work now, told to the terminal.

        `make(fingerprint, display)` does the work; what it gives on the first rank is committed. Raises ConfigError if
        what is committed had other ingredients.
        """
        receipt = self.known(task)
        if receipt is not None:
            if receipt.key == task.key and task.key not in self.made:
                self.terminal.kept(task.phase, arm=task.arm.name, round=task.round_number)
            return receipt
        self.world.check()
        for policy in task.policies:
            self.bring_back(policy)
        started = time.monotonic() - self._begin(task)
        fingerprint = digest(self._ingredients(task))
        made = None
        if task.everywhere or self.world.is_first:
            with self.terminal.phase(
                task.phase, task.total or None, task.unit, arm=task.arm.name, round=task.round_number
            ) as display:
                made = make(fingerprint, display)
        return self.commit(task, made, seconds=time.monotonic() - started)

    def _begin(self, task: Task) -> float:
        """Note that it is begun; return the seconds that earlier attempts spent on it, on the first rank. A kill leaves
        no word, so an attempt's end is taken to be when it last wrote a file of the round."""
        if not self.world.is_first:
            return 0.0
        self.run.note("begin", task=task.key)
        events = [one for one in self.run.journal() if one.get("event") in ("attempt", "begin")]
        cut_short = [(one["time"], end["time"]) for one, end in pairwise(events) if one.get("task") == task.key]
        if not cut_short:  # nearly always: no file need be looked at
            return 0.0
        files = (self.run.path / task.arm.folder(task.round_number)).rglob("*")
        written = [path.stat().st_mtime for path in files if path.is_file()]
        spent = 0.0
        for start, end in cut_short:
            spent += max((one for one in written if start <= one <= end), default=start) - start
        return spent

    def known(self, task: Task) -> Receipt | None:
        """The receipt if the phase is committed, or if main has committed the same with the same ingredients.

        Raises ConfigError if it was made from other ingredients.
        """

        def find() -> Receipt | None:
            ingredients = self._ingredients(task)
            fingerprint = digest(ingredients)
            receipt = self.run.receipt(task.key)
            if receipt is None:
                main = task.arm.main
                of_main = main.receipts.get(main.key(task.round_number, task.name)) if main is not None else None
                return of_main if of_main is not None and of_main.fingerprint == fingerprint else None
            if receipt.fingerprint != fingerprint:
                raise refusal(task.key, differences(receipt.ingredients, ingredients), self.run.path)
            return receipt

        receipt = self.world.from_first(find, f"looking for {task.key}")
        if receipt is not None:
            task.arm.receipts[task.key] = receipt
        return receipt

    def commit(self, task: Task, made: Made | None, *, seconds: float) -> Receipt:
        """Write the receipt of what was made, and tell the tracker."""

        def write() -> Receipt:
            assert made is not None
            ingredients = self._ingredients(task)
            return self.run.commit(
                Receipt(
                    key=task.key,
                    phase=task.phase,
                    arm=task.arm.name,
                    round=task.round_number,
                    fingerprint=digest(ingredients),
                    ingredients=ingredients,
                    output=made.output or output_digest(made.files),
                    rows=made.rows,
                    files=dict(made.files),
                    metrics={**made.metrics, **_costs(task.phase, seconds)},
                    seconds=seconds,
                    versions=versions(),
                )
            )

        receipt = self.world.from_first(write, f"committing {task.key}")
        task.arm.receipts[task.key] = receipt
        self.made.add(task.key)
        self.tracker.log(self.history.rows([receipt]))
        return receipt

    def bring_back(self, policy: Policy) -> None:
        """Have the policy's adapter on disk: one that was removed on purpose is trained again."""
        make = self.remakes.get(policy.adapter or "")
        if make is not None:
            folder = Path(str(policy.adapter))
            if self.world.from_first(lambda: is_pruned(folder), f"whether {folder} is there"):
                make()

    def fingerprint_of_answers(self, task: Task) -> str:
        """Of an evaluation's answers, which do not depend on what scores them."""
        part = self.fingerprints.drawing(task.phase, task.round_number)
        return digest({"config": part, "inputs": dict(task.inputs)})

    def _ingredients(self, task: Task) -> dict[str, Any]:
        part = self.fingerprints.part(task.phase, task.round_number, task.arm.name)
        return {"config": part, "inputs": dict(task.inputs)}

    def is_committed(self, arm: Arm, round_number: int) -> bool:
        """Whether anything of that round is committed."""
        return self.run.receipt(arm.key(round_number, "sample-wave-00")) is not None

    def seconds_spent(self, round_number: int) -> float:
        """Seconds that main's phases took up to that round, over all attempts."""
        return sum(one.seconds for one in self._of_main(round_number) if one.phase != "round")

    def tokens_sampled(self, round_number: int) -> float:
        """Tokens that main sampled for training up to that round, over all attempts."""
        return sum(one.metrics["sample/tokens"] for one in self._of_main(round_number) if one.phase == "sample")

    def hidden(self, out: Path) -> Path:
        """An empty folder beside `out`, there for every rank, to be filled and then published as that."""
        temporary = out.parent / f"{TEMPORARY}{out.name}"
        if self.world.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.world.barrier(f"the folder for {out}")
        return temporary

    def drop(self, work: Path) -> None:
        """Remove the checkpoints of a training, which are of no use once its adapter is committed."""
        if self.world.is_first:
            shutil.rmtree(work, ignore_errors=True)

    def _of_main(self, last: int) -> list[Receipt]:
        return [one for one in self.run.receipts() if one.arm == "main" and one.round <= last]


def _costs(phase: str, seconds: float) -> dict[str, float]:
    prefixes = {
        "evaluate-sampled": "evaluate/sampled",
        "evaluate-verifier": "evaluate/sampled/verifier",
        "evaluate-retention": "evaluate/retention",
        "round": "overhead",
    }
    prefix = prefixes.get(phase, phase)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return {f"{prefix}/phase_seconds": seconds, f"{prefix}/peak_memory_bytes": peak}
