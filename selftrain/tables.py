"""Records as Parquet files: one schema per record type, equal records give equal bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.errors import DataError
from selftrain.records import Candidate, Outcome, Score, Survivor, canonical_json
from selftrain.store import publish_bytes

R = TypeVar("R", Candidate, Score, Survivor, Outcome)

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
        ]
    ),
}
_TUPLES = (
    "prompt_token_ids",
    "completion_token_ids",
    "logprobs",
    "token_ids",
    "label_mask",
    "right_answers",
    "wrong_answers",
)
_AS_JSON = ("parts", "extras")
_FINGERPRINT = b"selftrain.fingerprint"


def _plain(value: Any, name: str) -> Any:
    value = canonical_json(dict(value)) if name in _AS_JSON else value
    # A model or a scorer may emit lone surrogates, which are no UTF-8; scored text must still reach the disk.
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def write(path: Path, records: Sequence[R], of: type[R], *, fingerprint: str) -> str:
    """Publish records of type `of`, marked with the fingerprint of the phase they belong to; return the sha256."""
    schema = SCHEMAS[of]
    columns = [[_plain(getattr(record, name), name) for record in records] for name in schema.names]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema.with_metadata({_FINGERPRINT: fingerprint.encode()}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return publish_bytes(path, buffer.getvalue())


def read(path: Path, of: type[R]) -> list[R]:
    """The records of a file written by `write`. Raises DataError if it is none."""
    try:
        rows = pq.read_table(path, schema=SCHEMAS[of]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file of {of.__name__}: {error}") from error
    for row in rows:
        for name in _TUPLES:
            if name in row:
                row[name] = tuple(row[name])
        for name in _AS_JSON:
            if name in row:
                row[name] = json.loads(row[name])
    return [of(**row) for row in rows]


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint a file was written under, or None if it is not a whole file of ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata.get(_FINGERPRINT, b"").decode() or None
