"""From receipts to rows of metrics: what the ledger holds is made from what is committed, and from nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from selftrain.records import Receipt
from selftrain.store import RunDirectory, read_jsonl
from selftrain.tracking import Row

STEPS_FILE = ".steps.jsonl"
ALARMS_FILE = "alarms.jsonl"


class History:
    """Turns receipts into rows, in the order given; optimizer steps count on over the rounds of an arm."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._steps_before: dict[str, int] = defaultdict(int)

    def rows(self, receipts: Iterable[Receipt]) -> Iterator[Row]:
        """One row per receipt, after a row per optimizer step and before a row per alarm where there are any."""
        for receipt in receipts:
            names: dict[str, Any] = {
                "arm": receipt.arm,
                "round": receipt.round,
                "phase": receipt.phase,
                "key": receipt.key,
            }
            steps = self._rows_of(receipt, STEPS_FILE)
            for number, step in enumerate(steps, 1):
                yield {**names, "global_step": self._steps_before[receipt.arm] + number, "round_step": number, **step}
            self._steps_before[receipt.arm] += len(steps)
            yield {**names, **receipt.metrics}
            for alarm in self._rows_of(receipt, ALARMS_FILE):
                yield {**names, "phase": "alarm", "alarm": alarm["name"], "words": alarm["words"]}

    def _rows_of(self, receipt: Receipt, ending: str) -> list[dict[str, Any]]:
        files = [name for name in receipt.files if name.endswith(ending)]
        return [row for name in files for row in read_jsonl(self._run.path / name)]
