"""Disks and file systems: free space, and whether what a run does to files works, by doing it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from selftrain.doctor.findings import Finding, note, ok, problem
from selftrain.errors import DiskError
from selftrain.store import sync_folder
from selftrain.whereabouts import cache_dir

LOW, SCARCE = 1 << 30, 10 << 30
LOCK_SECONDS = 20.0
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "beegfs",
    "gpfs",
    "glusterfs",
    "pvfs2",
}
TAKES_THE_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def check(runs_dir: Path) -> Iterator[Finding]:
    """Where runs are kept, then where converted models are."""
    runs, cache = existing(runs_dir), existing(cache_dir())
    yield _space("runs", runs_dir, runs)
    yield _kind("runs", runs)
    yield from _trials(runs)
    yield _space("cache", cache_dir(), cache)
    if not os.access(cache, os.W_OK):
        remedy = "set SELFTRAIN_CACHE to a folder of your own"
        yield problem("cache", f"{cache} cannot be written", remedy, DiskError)


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that there is."""
    path = path.expanduser().absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _space(area: str, named: Path, folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
        files = os.statvfs(folder)
    except OSError as error:
        return problem(area, f"{folder}: {error.strerror}", "choose another --runs-dir", DiskError)
    where = f"{named.absolute()}" + ("" if folder == named.absolute() else f" (to be made in {folder})")
    text = f"{where}: {free / 2**30:.1f} GiB free"
    if files.f_files and files.f_favail < 1000:
        return problem(area, f"{text}, but only {files.f_favail} more files", "remove files there", DiskError)
    if free < LOW:
        return problem(area, text, "free some space, or choose another folder", DiskError)
    if free < SCARCE:
        return note(area, f"{text}: enough for small models")
    return ok(area, text)


def _kind(area: str, folder: Path) -> Finding:
    kind = file_system(folder)
    if kind in NETWORK or kind.startswith("fuse"):
        return note(
            area,
            f"{folder} is on a network or user file system ({kind})",
            "the trials below are of this machine alone; with several machines, see that locks hold between them",
        )
    if kind == "overlay":
        return note(
            area,
            f"{folder} is in a container's own layer ({kind}): it goes when the container goes",
            "mount a volume, and give it as --runs-dir",
        )
    if kind in ("tmpfs", "ramfs"):
        return note(
            area,
            f"{folder} is in memory ({kind}): it takes memory from the run, and goes at a restart",
            "give a folder on a disk as --runs-dir",
        )
    return ok(area, f"{folder} is on a local file system ({kind})")


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of file system that holds the folder; `unknown` where the system does not say."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return "unknown"
    found = ("unknown", -1)
    for _, point, kind, *_ in (line.split(" ") for line in lines if line.count(" ") >= 2):
        place = Path(point.replace("\\040", " ").replace("\\011", "\t"))
        # Of two mounts at one place the later one is seen.
        if (folder.resolve() == place or place in folder.resolve().parents) and len(place.parts) >= found[1]:
            found = (kind, len(place.parts))
    return found[0]


def _trials(parent: Path) -> Iterator[Finding]:
    """What a run does to files, in a folder that is removed again."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".selftrain-doctor-", dir=parent))
    except OSError as error:
        remedy = "choose another --runs-dir, or change the folder's owner"
        yield problem("runs", f"{parent} cannot be written: {error.strerror}", remedy, DiskError)
        return
    try:
        done, failed = [], []
        for name, trial, remedy in TRIALS:
            try:
                trial(folder)
                done.append(name)
            except (OSError, subprocess.SubprocessError) as error:
                failed.append(problem("runs", f"{name} does not work in {parent}: {error}", remedy, DiskError))
        if done:
            yield ok("runs", f"works there: {', '.join(done)}")
        yield from failed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _writes(folder: Path) -> None:
    with open(folder / "file", "wb") as file:
        file.write(b"first")
        file.flush()
        os.fsync(file.fileno())
    if (folder / "file").read_bytes() != b"first":
        raise OSError("what was written is not what is read")


def _replaces(folder: Path) -> None:
    (folder / "old").write_bytes(b"old")
    (folder / "new").write_bytes(b"new")
    os.rename(folder / "new", folder / "old")
    if (folder / "old").read_bytes() != b"new" or (folder / "new").exists():
        raise OSError("the old content is still there")


def _locks(folder: Path) -> None:
    """A second process must be refused the lock, and get it once it is free."""
    path = folder / "lock"
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _takes_lock(path):
            raise OSError("a second process got the lock as well, so two runs could write the same directory")
    if not _takes_lock(path):
        raise OSError("the lock is not free once its file is closed")


def _takes_lock(path: Path) -> bool:
    command = [sys.executable, "-c", TAKES_THE_LOCK, str(path)]
    done = subprocess.run(command, timeout=LOCK_SECONDS, capture_output=True, check=False, text=True)
    if done.returncode not in (0, 3):
        raise OSError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.returncode == 0


def _links(folder: Path) -> None:
    link = folder / "link"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to("file")
    if os.readlink(link) != "file":
        raise OSError("the link leads elsewhere")


ANOTHER = "choose a --runs-dir on another file system"
TRIALS: list[tuple[str, Callable[[Path], None], str]] = [
    ("writing and fsync", _writes, ANOTHER),
    ("fsync of a folder", sync_folder, ANOTHER),
    ("renaming over a file", _replaces, ANOTHER),
    ("locks (flock)", _locks, f"{ANOTHER}; on NFS, mount it without nolock"),
    ("symbolic links", _links, ANOTHER),
]
