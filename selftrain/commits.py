"""Doing a phase once: the committed receipt if there is one, or the work, its files, its receipt and its metrics."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selftrain.arms import Arm
from selftrain.compose import differences, versions
from selftrain.fingerprints import Fingerprints, refusal
from selftrain.history import History
from selftrain.records import Receipt, digest
from selftrain.reporting.terminal import Phase, Terminal
from selftrain.store import RunDirectory, output_digest
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
class Commits:
    """Where phases are committed: the run directory, and everyone who is told."""

    run: RunDirectory
    fingerprints: Fingerprints
    world: World
    terminal: Terminal
    tracker: Tracker
    history: History

    def once(
        self,
        arm: Arm,
        round_number: int,
        phase: str,
        name: str,
        inputs: Mapping[str, str],
        make: Callable[[str, Phase], Made],
        total: int,
        unit: str,
    ) -> Receipt:
        """The phase's receipt: the committed one, or that of doing the work now, told to the terminal.

        `make(fingerprint, display)` does the work. Raises ConfigError if what is committed had other ingredients.
        """
        receipt = self.known(arm, round_number, phase, name, inputs)
        if receipt is not None:
            self.terminal.kept(phase, arm=arm.name, round=round_number)
            return receipt
        self.world.check()
        started = time.monotonic()
        fingerprint = digest(self._ingredients(round_number, phase, inputs))
        with self.terminal.phase(phase, total or None, unit, arm=arm.name, round=round_number) as display:
            made = make(fingerprint, display)
        return self.commit(arm, round_number, phase, name, inputs, made, seconds=time.monotonic() - started)

    def known(self, arm: Arm, round_number: int, phase: str, name: str, inputs: Mapping[str, str]) -> Receipt | None:
        """The receipt if the phase is committed. Raises ConfigError if it was made from other ingredients."""
        key = arm.key(round_number, name)
        receipt = self.run.receipt(key)
        if receipt is not None:
            ingredients = self._ingredients(round_number, phase, inputs)
            if receipt.fingerprint != digest(ingredients):
                raise refusal(key, differences(receipt.ingredients, ingredients), self.run.path)
            arm.receipts[key] = receipt
        return receipt

    def commit(
        self,
        arm: Arm,
        round_number: int,
        phase: str,
        name: str,
        inputs: Mapping[str, str],
        made: Made,
        *,
        seconds: float,
    ) -> Receipt:
        """Write the receipt of what was made, and tell the tracker."""
        key = arm.key(round_number, name)
        ingredients = self._ingredients(round_number, phase, inputs)
        receipt = self.run.commit(
            Receipt(
                key=key,
                phase=phase,
                arm=arm.name,
                round=round_number,
                fingerprint=digest(ingredients),
                ingredients=ingredients,
                output=made.output or output_digest(made.files),
                rows=made.rows,
                files=dict(made.files),
                metrics={**made.metrics, **_costs(phase, seconds)},
                seconds=seconds,
                versions=versions(),
            )
        )
        arm.receipts[key] = receipt
        self.tracker.log(self.history.rows([receipt]))
        return receipt

    def fingerprint_of_answers(self, round_number: int, phase: str, inputs: Mapping[str, str]) -> str:
        """Of an evaluation's answers, which do not depend on what scores them."""
        return digest({"config": self.fingerprints.drawing(phase, round_number), "inputs": dict(inputs)})

    def _ingredients(self, round_number: int, phase: str, inputs: Mapping[str, str]) -> dict[str, Any]:
        return {"config": self.fingerprints.part(phase, round_number), "inputs": dict(inputs)}

    def is_committed(self, arm: Arm, round_number: int) -> bool:
        """Whether anything of that round is committed."""
        return self.run.receipt(arm.key(round_number, "sample-wave-00")) is not None

    def seconds_spent(self) -> float:
        """Seconds that all committed phases took, over all attempts."""
        return sum(one.seconds for one in self.run.receipts() if one.phase != "round")

    def tokens_sampled(self) -> float:
        """Tokens sampled for training so far, over all arms and attempts."""
        return sum(one.metrics["sample/tokens"] for one in self.run.receipts() if one.phase == "sample")


def _costs(phase: str, seconds: float) -> dict[str, float]:
    prefix = {"evaluate-sampled": "evaluate/sampled", "round": "overhead"}.get(phase, phase)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return {f"{prefix}/phase_seconds": seconds, f"{prefix}/peak_memory_bytes": peak}
