"""metrics.jsonl: every metric of every arm and round, one flat JSON object per line.

The ledger is a projection of the receipts, never a second source of truth: `rebuild` makes it again from what is
committed, so a line that a crash lost or tore comes back at the next start. Lines are valid JSON even when training
diverged: a number that is not finite is written as null and its key is named under `non_finite`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from selftrain.errors import DataError, DiskError

LEDGER_FILE = "metrics.jsonl"
Row = Mapping[str, Any]
"""One line: `arm`, `round`, `phase`, `key`, for single steps `global_step` and `round_step`, then metrics. An alarm's
line has the phase `alarm`, the alarm's name under `alarm` and a sentence under `words`, and no metrics."""

NAMES_OF_A_ROW = ("arm", "round", "phase", "key", "global_step", "round_step")
NON_FINITE = "non_finite"
ALARM_PHASE = "alarm"


def is_timing(key: str) -> bool:
    """Whether the metric differs between two equal runs: durations, rates per second, peak memory."""
    return key.endswith(("seconds", "_per_second", "_bytes"))


def without_timings(row: Row) -> dict[str, Any]:
    """What two equal runs agree on."""
    return {key: value for key, value in row.items() if not is_timing(key)}


def line_of(row: Row) -> str:
    """The one text of a row, with its newline: the names first, then metrics by key.

    Raises TypeError for a value that is no number, text, bool or null.
    """
    plain = {key: _plain(key, value) for key, value in row.items()}
    non_finite = sorted(key for key, value in plain.items() if isinstance(value, float) and not math.isfinite(value))
    if non_finite:
        plain.update(dict.fromkeys(non_finite), **{NON_FINITE: " ".join(non_finite)})
    ordered = {key: plain.pop(key) for key in NAMES_OF_A_ROW if key in plain}
    ordered.update(sorted(plain.items()))
    return json.dumps(ordered, allow_nan=False) + "\n"


def _plain(key: str, value: Any) -> Any:
    # numpy's scalars register as numbers but json refuses most of them
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"a row of metrics.jsonl holds numbers and text only; {key} is {value!r}")


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; a torn last line is dropped, a missing file holds none. Raises DataError for any other broken line."""
    if not path.exists():
        return []
    *whole, _torn = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(whole, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{path}:{number} is no JSON object: {line[:80]!r}; "
                "the file is made again from the receipts when the run is started again"
            )
        rows.append(row)
    return rows


class Ledger:
    """The writer of metrics.jsonl; one process has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rebuild(self, rows: Iterable[Row]) -> None:
        """Make the file hold exactly these rows, in this order. Raises DiskError.

        A file that only lacks the last rows is completed in place, so that whoever follows it keeps following.
        """
        wanted = "".join(line_of(row) for row in rows).encode()
        try:
            present = self.path.read_bytes() if self.path.exists() else b""
            whole = present[: present.rfind(b"\n") + 1]
            if wanted.startswith(whole) and self.path.exists():
                self._write_at(len(whole), wanted[len(whole) :])
            else:
                self._replace(wanted)
        except OSError as error:
            raise self._disk_error(error) from error

    def append(self, rows: Iterable[Row]) -> None:
        """Add whole lines and wait until the disk has them. Raises DiskError; the file is then as it was before."""
        lines = "".join(line_of(row) for row in rows).encode()
        if not lines:
            return
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            self._write_at(size, lines)
        except OSError as error:
            self._cut(size)
            raise self._disk_error(error) from error

    def _write_at(self, size: int, data: bytes) -> None:
        """Cut the file to `size` bytes (a torn line goes), then add the data."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _replace(self, data: bytes) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _cut(self, size: int) -> None:
        """Take half a line back. If even that fails, the next `rebuild` does it."""
        try:
            os.truncate(self.path, size)
        except OSError:
            return

    def _disk_error(self, error: OSError) -> DiskError:
        return DiskError(
            f"cannot write {self.path}: {error.strerror or error}; "
            "what is committed is safe: make room or fix permissions, then start the same command again"
        )
