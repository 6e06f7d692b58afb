"""Rows from a Parquet file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.errors import DataError
from selftrain.prompts.cells import plain
from selftrain.prompts.rows import Numbered

_ROWS_AT_ONCE = 256


def num_rows(path: Path) -> int:
    """How many there are, as the file says."""
    return int(pq.read_metadata(path).num_rows)


def rows(path: Path, name: str) -> Numbered:
    """The rows in order, read a few at a time. What JSON cannot hold is Unusable."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{name}: two columns have the same name; it has: {', '.join(names)}")
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number} of {name}", plain(row)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a Parquet file that can be read: {error}") from error
