"""The exported folder: there whole or not at all, made anew where what it is made from changed, never somebody else's.

`selftrain.json` in it says what it was made from and the sha256 of every file. A folder without it, or with files that
are not as they were written, is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import ConfigError
from selftrain.records import Digest
from selftrain.store import TEMPORARY, disk_errors, fault, file_sha256, publish_folder, read_json

FOLDER = "export"
"""In the run directory, where no other place is asked for."""
MANIFEST = "selftrain.json"
CARD = "README.md"


def found(folder: Path, made_from: Digest) -> Mapping[str, Any] | None:
    """What the folder says of itself, if it is an export of exactly this; None where it must be made (again).

    Raises ConfigError for a folder that must not be overwritten: not an export, or changed since, hidden files in it
    (a repository's) included. A card that was edited by hand stays as long as the data need not change.
    """
    manifest = manifest_of(folder)
    if manifest is None:
        return None
    is_same = manifest["made_from"] == made_from
    changed = _changed(folder, manifest["files"])
    if is_same and changed <= {CARD}:
        return manifest
    changed |= {one.name for one in folder.iterdir() if one.name.startswith(".")}  # what would go with the folder
    if changed:
        raise ConfigError(
            f"{folder}: {', '.join(sorted(changed))} {'was' if len(changed) == 1 else 'were'} changed since the data "
            "set was exported, and is not overwritten; give --out another folder, or move it away"
        )
    return None


def require_place(folder: Path, run: Path) -> None:
    """Raise ConfigError, before hours of work, for a folder that the data set of that run directory cannot take:
    another run's data set, what is none, a part of the run directory, a mount point, or one that cannot be made."""
    _require_name(folder)
    manifest = manifest_of(folder)
    if manifest is not None and manifest.get("run", run.name) != run.name:
        raise ConfigError(
            f"{folder} holds the data set of another run, {manifest['run']}, and is not overwritten; give --out "
            "another folder, or move it away"
        )
    place, inside = folder.resolve(), run.resolve()
    own = inside / FOLDER
    if inside.is_relative_to(place) or (place.is_relative_to(inside) and place != own):
        raise ConfigError(
            f"--out {folder} is in the way of the run directory {run}; give a folder elsewhere, or leave --out out: "
            f"the data set is then in {run / FOLDER}"
        )
    if os.path.ismount(place):
        raise ConfigError(f"--out {folder} is a mount point, which cannot be replaced as a whole; give a folder in it")
    above = next(one for one in place.parents if one.exists())
    try:  # nothing else tells: where nobody makes folders, as in /proc, root has every permission
        os.rmdir(tempfile.mkdtemp(prefix=TEMPORARY, dir=above))
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"--out {folder}: no folder can be made in {above} ({why}); give --out another one") from None


def _require_name(folder: Path) -> None:
    """Raise ConfigError for a folder whose name, or that of its temporary neighbours, is too long to be one."""
    try:
        for one in (folder, *_neighbours(folder)):
            one.exists()
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror or error}; give --out another folder") from None


def _neighbours(folder: Path) -> tuple[Path, Path]:
    """Where the data set is made, and where the one before it is until then."""
    folder = folder.resolve()
    return folder.with_name(f"{TEMPORARY}{folder.name}"), folder.with_name(f"{TEMPORARY}old-{folder.name}")


def manifest_of(folder: Path) -> Mapping[str, Any] | None:
    """What an exported folder says of itself; None where there is none, or an empty one. Raises ConfigError for what is
    somebody else's."""
    if not folder.exists() and not folder.is_symlink():
        return None
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give --out another one for the data set")
    if not any(folder.iterdir()):
        return None
    manifest = read_json(folder / MANIFEST)
    if "made_from" not in manifest or not isinstance(manifest.get("files"), dict):
        raise ConfigError(
            f"{folder} is no exported data set (it has no {MANIFEST}), and is not overwritten; give --out another "
            "folder, or move it away"
        )
    return manifest


def _changed(folder: Path, files: Mapping[str, str]) -> set[str]:
    there = {one.name for one in folder.iterdir() if not one.name.startswith(".")} - {MANIFEST}
    same = {name for name in there & set(files) if file_sha256(folder / name) == files[name]}
    return (there | set(files)) - same


def publish(folder: Path, made_from: Digest, fill: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Make the folder: `fill` writes its files into a hidden one, and says what the manifest is to say beside them."""
    folder = folder.resolve()
    temporary, old = _neighbours(folder)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in (temporary, old):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        try:
            temporary.mkdir()
            said = fill(temporary)
            files = {one.name: file_sha256(one) for one in sorted(temporary.iterdir())}
            manifest = {"made_from": made_from, **said, "files": files}
            fault("before manifest")
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            if folder.exists():  # whole until it is gone: a folder that was half removed would be nobody's
                fault("before the old export leaves")
                folder.rename(old)
            publish_folder(temporary, folder)
        except BaseException:  # a full disk, among others, which this would keep full
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
    return manifest
