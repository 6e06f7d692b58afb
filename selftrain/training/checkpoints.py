"""Checkpoints of a training in progress. A marker, written last, names the training and the hash of every file.

Optimizer and RNG states are pickles, so nothing of a checkpoint is read before its hashes agree with the marker.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selftrain.config import TrainConfig, fingerprinted
from selftrain.records import Digest, Policy, Survivor, canonical_json, digest
from selftrain.store import disk_errors, file_sha256, publish_bytes

MARKER = "checkpoint.json"
# What writes and reads a checkpoint: another version starts again.
_WRITERS = ("torch", "transformers", "trl", "peft", "accelerate")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint: its folder, the rows of the steps so far, and the running totals."""

    folder: Path
    rows: tuple[Mapping[str, float], ...]
    tally: Mapping[str, int]


def training_key(survivors: Sequence[Survivor], start: Policy, config: TrainConfig, seed: int, *, ranks: int) -> Digest:
    """Names a training: equal keys, equal result to the bit. Performance-only knobs are left out."""
    examples = [[one.candidate_id, one.token_ids, one.label_mask, one.weight] for one in survivors]
    return key_of(examples, start, fingerprinted(config), seed, ranks=ranks)


def key_of(examples: Sequence[Any], start: Policy, knobs: Mapping[str, Any], seed: int, *, ranks: int) -> Digest:
    """The same of any examples and knobs, given as JSON data."""
    versions = {name: version(name) for name in _WRITERS}
    return digest([examples, start.model, start.digest, knobs, seed, ranks, versions])


def mark(work: Path, folder: Path, key: Digest, rows: Sequence[Mapping[str, float]], tally: Mapping[str, int]) -> None:
    """Declare the checkpoint in `folder` (inside `work`) complete; then remove older ones."""
    files = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    marker = {"of": key, "folder": folder.name, "files": files, "rows": list(rows), "tally": dict(tally)}
    publish_bytes(work / MARKER, canonical_json(marker).encode())
    for other in work.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other)


def find(work: Path, key: Digest) -> Checkpoint | None:
    """The complete checkpoint of this very training in `work`; otherwise None, and `work` is emptied."""
    try:
        marker = json.loads((work / MARKER).read_bytes())
        folder = work / marker["folder"]
        if marker["of"] == key and all(file_sha256(folder / name) == sha for name, sha in marker["files"].items()):
            return Checkpoint(folder, tuple(marker["rows"]), marker["tally"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # torn or not ours: as good as none
    with disk_errors(work):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    return None
