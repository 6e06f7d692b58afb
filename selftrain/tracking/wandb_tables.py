"""Tables of a round's kept and rejected candidates, read from the run directory after select was committed.

Only what is shown is read into memory, and of many candidates a sample that depends on their ids alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selftrain.errors import DataError
from selftrain.records import Receipt
from selftrain.store import RunDirectory, file_sha256, read_jsonl

COLUMNS = ("round", "prompt", "completion", "value", "answer", "why", "tokens")
TEXT_LENGTH = 2_000
MAIN_FOLDER = "arms/main"


def candidate_tables(run: RunDirectory, key: str, limit: int) -> dict[str, list[list[Any]]]:
    """Rows of `COLUMNS` under `kept` and `rejected`, at most `limit` each, for the receipt of a select phase.

    `tokens` counts the completion's tokens. `value` and `answer` are null where nothing was scored; a prompt of which
    the run directory has no text is shown by its id. Raises DataError where a file is missing or damaged.
    """
    receipt = run.receipt(key)
    if receipt is None:
        raise DataError(f"{run.receipt_path(key)} is missing")
    files = {path.name: path for path in _files(run, receipt)}
    kept = _kept(files["survivors.parquet"], receipt.round, limit)
    rejected = sample(read_jsonl(files["rejected.jsonl"]) if "rejected.jsonl" in files else [], limit)
    made_from = _inputs(run, receipt)
    ids = [one["candidate_id"] for one in (*kept, *rejected)]
    scores = _rows_of(made_from, "score", "candidate_id", ids, ["value", "answer"])
    wanted = [one["candidate_id"] for one in rejected]
    candidates = _rows_of(made_from, "sample", "id", wanted, ["prompt_id", "text", "completion_token_ids"])
    if missing := set(wanted) - candidates.keys():
        raise DataError(f"{len(missing)} of the rejected candidates of {key} are in no file of candidates")
    texts = _prompt_texts(files)

    def row(prompt: str, text: str, why: str, tokens: int, candidate_id: str) -> list[Any]:
        score = scores.get(candidate_id, {})
        shown = (cut(prompt), cut(text), score.get("value"), cut(score.get("answer")), cut(why), tokens)
        return [receipt.round, *shown]

    return {
        "kept": [
            row(one["prompt_text"], one["text"], one["why"], sum(one["label_mask"]), one["candidate_id"])
            for one in kept
        ],
        "rejected": [
            row(
                texts.get(found["prompt_id"], f"prompt {found['prompt_id']}"),
                found["text"],
                one["why"],
                len(found["completion_token_ids"]),
                one["candidate_id"],
            )
            for one in rejected
            for found in [candidates[one["candidate_id"]]]
        ],
    }


def sample(rows: Iterable[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """At most `limit` of the rows, in their order; which ones depends on their candidates' ids alone."""
    every = list(rows)
    chosen = {one["candidate_id"] for one in sorted(every, key=lambda one: _rank(one["candidate_id"]))[:limit]}
    return [one for one in every if one["candidate_id"] in chosen]


def cut(text: str | None) -> str | None:
    """The text, or its beginning where it is very long."""
    return text if text is None or len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + " ..."


def _rank(candidate_id: str) -> bytes:
    return hashlib.sha256(candidate_id.encode()).digest()


def _files(run: RunDirectory, receipt: Receipt) -> list[Path]:
    """Like `RunDirectory.verified`, but without telling the reader of a log to delete anything."""
    for name, expected in receipt.files.items():
        path = run.path / name
        if not path.is_file() or file_sha256(path) != expected:
            raise DataError(f"{path} is {'damaged' if path.is_file() else 'missing'}")
    return [run.path / name for name in receipt.files]


def _inputs(run: RunDirectory, receipt: Receipt) -> dict[str, list[Path]]:
    """The files of candidates and scores that the phase read, by phase: of its own arm, or of main where shared."""
    digests = set(receipt.ingredients.get("inputs", {}).values())
    own = receipt.key.rpartition("/")[0]
    shared = f"{MAIN_FOLDER}/{own.split('/', 2)[2]}"
    found: dict[str, list[Path]] = {"sample": [], "score": []}
    for folder in dict.fromkeys((own, shared)):
        for path in sorted((run.path / folder / "receipts").glob("s*.json")):
            one = run.receipt(f"{folder}/{path.stem}")
            if one is not None and one.phase in found and one.output in digests:
                found[one.phase] += [file for file in _files(run, one) if file.suffix == ".parquet"]
    return found


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not readable: {error}") from error


def _kept(path: Path, round_number: int, limit: int) -> list[Mapping[str, Any]]:
    # With select.buffer=append the file holds the survivors of earlier rounds too.
    ids = _read(path, ["candidate_id", "round"])
    ids = ids.filter(pc.equal(ids["round"], round_number))
    chosen = [one["candidate_id"] for one in sample(ids.to_pylist(), limit)]
    rows = _read(path, ["candidate_id", "round", "prompt_text", "text", "why", "label_mask"])
    of_round = rows.filter(pc.equal(rows["round"], round_number))
    return list(of_round.filter(_among(of_round["candidate_id"], chosen)).to_pylist())


def _rows_of(
    made_from: Mapping[str, list[Path]], phase: str, key: str, ids: Collection[str], columns: list[str]
) -> dict[str, dict[str, Any]]:
    """The rows with these ids, by id."""
    found: dict[str, dict[str, Any]] = {}
    for path in made_from[phase] if ids else ():
        table = _read(path, [key, *columns])
        found |= {row[key]: row for row in table.filter(_among(table[key], ids)).to_pylist()}
    return found


def _among(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), type=pa.string()))


def _prompt_texts(files: Mapping[str, Path]) -> dict[str, str]:
    """Rendered prompts by id: those of all prompts where the phase left them, else those of survivors."""
    if "prompts.jsonl" in files:
        return {row["prompt_id"]: row["text"] for row in read_jsonl(files["prompts.jsonl"])}
    rows = _read(files["survivors.parquet"], ["prompt_id", "prompt_text"]).to_pylist()
    return {row["prompt_id"]: row["prompt_text"] for row in rows}
