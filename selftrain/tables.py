"""Records as Parquet files: one schema per record type, equal records give equal bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain, islice, pairwise, repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.errors import DataError
from selftrain.publishing import Publication
from selftrain.records import Candidate, Outcome, Pair, Score, Survivor, canonical_json
from selftrain.store import publish_bytes

R = TypeVar("R", Candidate, Score, Survivor, Outcome, Pair)

_IDS = pa.list_(pa.int32())
SCHEMAS: dict[type, pa.Schema] = {
    Candidate: pa.schema(
        [
            ("id", pa.string()),
            ("prompt_id", pa.string()),
            ("index", pa.int32()),
            ("wave", pa.int32()),
            ("text", pa.string()),
            ("prompt_token_ids", _IDS),
            ("completion_token_ids", _IDS),
            ("finish_reason", pa.string()),
            ("seed", pa.int64()),
            ("policy_digest", pa.string()),
            ("logprobs", pa.list_(pa.float32())),
            ("logprobs_of", pa.string()),
            ("entropy", pa.float64()),
            ("reasoning", pa.string()),
            ("reasoning_tokens", pa.int32()),
            ("base_logprob", pa.float64()),
            ("metadata", pa.string()),
        ]
    ),
    Score: pa.schema(
        [
            ("candidate_id", pa.string()),
            ("value", pa.float64()),
            ("correct", pa.bool_()),
            ("answer", pa.string()),
            ("explanation", pa.string()),
            ("parts", pa.string()),
            ("error", pa.string()),
            ("extras", pa.string()),
        ]
    ),
    Survivor: pa.schema(
        [
            ("candidate_id", pa.string()),
            ("prompt_id", pa.string()),
            ("round", pa.int32()),
            ("token_ids", _IDS),
            ("label_mask", pa.list_(pa.bool_())),
            ("weight", pa.float64()),
            ("why", pa.string()),
            ("prompt_text", pa.string()),
            ("text", pa.string()),
            ("value", pa.float64()),
        ]
    ),
    Outcome: pa.schema(
        [
            ("prompt_id", pa.string()),
            ("greedy", pa.bool_()),
            ("num_samples", pa.int32()),
            ("num_correct", pa.int32()),
            ("right_answers", _IDS),
            ("wrong_answers", _IDS),
            ("value", pa.float64()),
            ("parts", pa.string()),
        ]
    ),
    Pair: pa.schema(
        [
            ("prompt_id", pa.string()),
            ("chosen_id", pa.string()),
            ("rejected_id", pa.string()),
            ("chosen_round", pa.int32()),
            ("rejected_round", pa.int32()),
            ("prompt_token_ids", _IDS),
            ("chosen_token_ids", _IDS),
            ("rejected_token_ids", _IDS),
            ("prompt_text", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
        ]
    ),
}
_TUPLES = (
    "prompt_token_ids",
    "chosen_token_ids",
    "rejected_token_ids",
    "completion_token_ids",
    "logprobs",
    "token_ids",
    "label_mask",
    "right_answers",
    "wrong_answers",
)
_AS_JSON = ("parts", "extras", "metadata")
_FINGERPRINT = b"selftrain.fingerprint"
ROWS_AT_ONCE = 4096
"""Rows of a row group of a table that grows."""


def write(path: Path, records: Sequence[R], of: type[R], *, fingerprint: str) -> str:
    """Publish records of type `of`, marked with the fingerprint of the phase they belong to; return the sha256."""
    buffer = io.BytesIO()
    pq.write_table(_table(records, of, fingerprint), buffer, compression="zstd")
    return publish_bytes(path, buffer.getvalue())


class Writer(Generic[R]):
    """A table that grows record by record, `ROWS_AT_ONCE` in memory; of few records the bytes are those of `write`.

    It is there once it is published; leaving the block without that leaves nothing.
    """

    def __init__(self, path: Path, of: type[R], *, fingerprint: str) -> None:
        self._of: type[R] = of
        self._fingerprint = fingerprint
        self._publication = Publication(path)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[R] = []
        self.rows = 0
        """How many were added."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._publication.__exit__(*error)

    def add(self, record: R) -> None:
        """Append a record."""
        self._waiting.append(record)
        self.rows += 1
        if len(self._waiting) == ROWS_AT_ONCE:
            self._write_waiting()

    def publish(self) -> str:
        """Have the table there, whole and durable; its sha256."""
        if self._waiting or self._writer is None:
            self._write_waiting()
        assert self._writer is not None
        self._writer.close()
        return self._publication.publish()

    def _write_waiting(self) -> None:
        table = _table(self._waiting, self._of, self._fingerprint)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._publication, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._waiting = []


def _table(records: Sequence[R], of: type[R], fingerprint: str) -> pa.Table:
    schema = SCHEMAS[of]
    arrays = [_array([getattr(record, field.name) for record in records], field) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata({_FINGERPRINT: fingerprint.encode()}))


def _array(column: Sequence[Any], field: pa.Field) -> pa.Array:
    if field.name in _AS_JSON:
        column = [canonical_json(dict(value)) if value else "{}" for value in column]
    try:
        return pa.array(column, type=field.type)
    except UnicodeEncodeError:
        # A model or a scorer may emit lone surrogates, which are no UTF-8; scored text must still reach the disk.
        escaped = (None if one is None else one.encode("utf-8", "backslashreplace").decode() for one in column)
        return pa.array(escaped, type=field.type)


def read(path: Path, of: type[R], *, without: Collection[str] = ()) -> list[R]:
    """The records of a file written by `write`. Raises DataError if it is none.

    `without` names columns that may be null or hold lists or objects, and are not looked at: they are not read, and the
    records have nothing there.
    """
    names = [field.name for field in fields(of) if field.name not in without]
    try:
        table = pq.read_table(path, schema=SCHEMAS[of], columns=names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file of {of.__name__}: {error}") from error
    columns = [
        _nothing(field.name) if field.name in without else _column(table[field.name], field.name)
        for field in fields(of)
    ]
    return [of(*row) for row in islice(zip(*columns, strict=False), table.num_rows)]


def _nothing(name: str) -> Iterator[Any]:
    """Without end."""
    empty: Mapping[str, Any] = MappingProxyType({})  # one for all, so that nobody can write into it
    return repeat(empty if name in _AS_JSON else () if name in _TUPLES else None)


def _column(column: pa.ChunkedArray, name: str) -> Iterable[Any]:
    """The values of a column as a record has them. Column by column is several times as fast as row by row."""
    if name in _TUPLES:
        return chain.from_iterable(map(_tuples, column.chunks))
    if name in _AS_JSON:  # a table of an earlier version lacks the column
        return [json.loads(value) if value and value != "{}" else {} for value in column.to_pylist()]
    return list(column.to_pylist())


def _tuples(lists: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    values = lists.values.to_numpy(zero_copy_only=False).tolist()
    for first, end in pairwise(lists.offsets.to_pylist()):
        yield tuple(values[first:end])


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint a file was written under, or None if it is not a whole file of ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata.get(_FINGERPRINT, b"").decode() or None
