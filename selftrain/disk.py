"""What a run weighs on disk, by what its bytes are. Stdlib only; reading needs no lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

KINDS = ("candidates", "scores", "survivors", "adapters", "evaluation", "exports", "tracking", "logs", "other")
# The first folder of this name in a path says what the file is: an evaluation holds candidates and scores of its own.
_OF_FOLDER = {
    "candidates": "candidates",
    "scores": "scores",
    "survivors": "survivors",
    "adapter": "adapters",
    "evaluation": "evaluation",
}
# At the top of a run. Beside `arms`, `logs` and `export` every folder there is a tracker's, named after it.
_AT_TOP = {"metrics.jsonl": "tracking", "logs": "logs", "export": "exports"}


def weight(path: Path) -> dict[str, int]:
    """Bytes of a run directory by kind (`KINDS`, each there even if 0), and `total`.

    The sizes of files as they are read, not of the blocks they take. A checkpoint of a training in progress, receipts,
    the journal and what lies there by no doing of this program are `other`. Links are not followed. What goes while it
    is counted is left out; a folder that is not there weighs nothing.
    """
    found = dict.fromkeys(KINDS, 0)
    for place, size in _files(path):
        found[_kind_of(place.relative_to(path))] += size
    return {**found, "total": sum(found.values())}


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    try:
        inside = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for place in inside:
        try:
            stat = place.lstat()
        except FileNotFoundError:  # a temporary name of a file that is being published
            continue
        if S_ISDIR(stat.st_mode):
            yield from _files(place)
        elif S_ISREG(stat.st_mode):
            yield place, stat.st_size


def _kind_of(place: Path) -> str:
    top, *folders = place.parts[:-1] or place.parts
    if top != "arms":
        return _AT_TOP.get(top, "tracking" if len(place.parts) > 1 else "other")
    return next((_OF_FOLDER[name] for name in folders if name in _OF_FOLDER), "other")
