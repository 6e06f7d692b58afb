"""Removing a folder of a committed phase on purpose, and putting it back.

The receipt stays, and with a note beside the folder's place it says that the folder was there and is gone on purpose.
The note is written first: a kill at any moment leaves a folder that is there whole, or a note and a removal to finish.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from selftrain.errors import PhaseError
from selftrain.records import Receipt
from selftrain.store import (
    TEMPORARY,
    RunDirectory,
    disk_errors,
    fault,
    file_sha256,
    note_of,
    publish_bytes,
    publish_folder,
    sync_folder,
)


def prune(run: RunDirectory, receipt: Receipt, folder: str, *, why: str) -> int:
    """Remove a folder, named relative to the run; return how many bytes that freed.

    A folder that is not there and has no note is lost, not removed: nothing is done about that here.
    """
    place = run.path / folder
    if not place.is_dir():
        return 0
    size = sum(path.stat().st_size for path in place.iterdir())
    with disk_errors(place):
        if not note_of(place).exists():
            data = {"removed": folder, "why": why, "receipt": receipt.key, "output": receipt.output}
            publish_bytes(note_of(place), (json.dumps(data, indent=1) + "\n").encode())
        run.note("pruned", folder=folder, key=receipt.key)
        gone = place.with_name(f"{TEMPORARY}{place.name}")
        shutil.rmtree(gone, ignore_errors=True)
        fault("before pruning")
        os.rename(place, gone)
        fault("in the middle of pruning")
        sync_folder(place.parent)
        shutil.rmtree(gone)
    return size


def put_back(run: RunDirectory, receipt: Receipt, temporary: Path, folder: str) -> None:
    """Publish what was made again in place of a removed folder. Raises PhaseError unless it is the same to the byte."""
    expected = {Path(name).name: sha256 for name, sha256 in receipt.files.items() if str(Path(name).parent) == folder}
    found = {path.name: file_sha256(path) for path in temporary.iterdir()}
    if found != expected:
        other = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        shutil.rmtree(temporary)
        raise PhaseError(
            f"{run.path / folder} was removed (keep: best_and_last) and is needed again, but came out otherwise this "
            f"time ({', '.join(other)}): that takes the same kind of machine, the same versions and as many processes "
            "as the first time. Go on where the run was made, or start one of its own with name=NEW"
        )
    place = run.path / folder
    publish_folder(temporary, place)
    with disk_errors(place):
        fault("before the note goes")
        note_of(place).unlink()
        sync_folder(place.parent)
    run.note("put back", folder=folder, key=receipt.key)
