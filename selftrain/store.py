"""The run directory: receipts, the publish protocol, the lock and the journal.

A phase is done when its receipt exists; there is no other state. Every file is published the same way: written under a
hidden temporary name, fsynced, hashed, renamed, and its folder fsynced; the receipt is written last. A kill at any
moment therefore leaves committed phases whole and uncommitted work either invisible or reusable block by block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from selftrain.errors import DataError, DiskError, RunLocked, SelftrainError
from selftrain.records import Digest, Receipt, canonical_json, digest

TEMPORARY = ".tmp-"
_visits = itertools.count(1)  # several threads publish


def fault(point: str) -> None:
    """A place where a test may kill this process: SELFTRAIN_FAULT=N kills it at the Nth publish point it reaches.

    SELFTRAIN_FAULT=count:FILE instead appends each point's name to FILE, so that a test can enumerate them all.
    """
    wanted = os.environ.get("SELFTRAIN_FAULT")
    if wanted is None:
        return
    visit = next(_visits)
    if wanted.startswith("count:"):
        with open(wanted.removeprefix("count:"), "a") as file:
            file.write(f"{point}\n")
    elif int(wanted) == visit:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into DiskError with the next step."""
    try:
        yield
    except SelftrainError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and "No space left on device" in str(error):
            number = errno.ENOSPC  # safetensors raises errors of its own type
        advice = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some of your quota",
            errno.EROFS: "the file system is read-only: choose another --runs-dir",
            errno.EACCES: "no permission: choose another --runs-dir, or change the folder's owner",
            errno.EPERM: "no permission: choose another --runs-dir, or change the folder's owner",
            errno.ENOTDIR: "a file is in the way: choose another --runs-dir",
            errno.EMFILE: "too many open files: raise `ulimit -n`",
        }.get(number or 0)
        if advice is None:
            raise
        raise DiskError(
            f"cannot write {path}: {os.strerror(number or 0)}; {advice} "
            "and run the same command again (what was committed is safe)"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_bytes(path: Path, data: bytes) -> str:
    """Write `data` to `path` so that the file is there whole or not at all; return its sha256."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{path.name}"
        fault("before write")
        with open(temporary, "wb") as file:
            file.write(data)
            fault("after write")
            file.flush()
            os.fsync(file.fileno())
        fault("after fsync")
        os.rename(temporary, path)
        fault("after rename")
        sync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


def publish_folder(temporary: Path, path: Path) -> dict[str, str]:
    """Rename a finished folder into place; return the sha256 of each file in it by name."""
    with disk_errors(path):
        hashes = {}
        for file in sorted(temporary.iterdir()):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            hashes[file.name] = file_sha256(file)
        sync_folder(temporary)
        fault("before folder rename")
        if path.exists():  # left by a kill between this rename and the receipt: never committed
            shutil.rmtree(path)
        os.rename(temporary, path)
        fault("after folder rename")
        sync_folder(path.parent)
    return hashes


def file_sha256(path: Path) -> str:
    """Sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_of(folder: Path) -> Path:
    """Where it is written that a published folder was removed on purpose: beside it, `improve-00.pruned.json`."""
    return folder.with_name(f"{folder.name}.pruned.json")


def is_pruned(folder: Path) -> bool:
    """Whether the folder was removed on purpose (`selftrain.pruning`), not lost."""
    return note_of(folder).exists()


class RunDirectory:
    """One run's directory. Reading needs no lock; `lock()` is for the one process that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None
        self._receipts: dict[str, Receipt] = {}

    def lock(self) -> None:
        """Become the one writer, or raise RunLocked naming the holder. The kernel frees it when this process dies."""
        with disk_errors(self.path):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # a place such as /proc, where nobody makes folders
                raise OSError(errno.EACCES, "no folders can be made there") from error
            file = open(self.path / "run.lock", "a+")  # noqa: SIM115 - held until the process ends
        for _ in range(4):  # a reader has it for a moment (`holder`)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        else:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise RunLocked(
                f"{self.path} is in use by {holder}; wait for it, stop it, or choose another name= for this run"
            )
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock = file
        self._drop_torn_journal_line()
        self._remove_leftovers()
        self._complete_journal()

    def holder(self) -> str | None:
        """Who holds the run now (`pid 123 on host`), or None."""
        if not (self.path / "run.lock").exists():
            return None
        with open(self.path / "run.lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: whoever else looks is no holder
            except BlockingIOError:
                return file.read().strip() or "another process"
        return None

    def unlock(self) -> None:
        """Let go of the run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # Receipts

    def receipt_path(self, key: str) -> Path:
        """`arms/main/rounds/001/train-improve-00` -> `.../001/receipts/train-improve-00.json`."""
        folder, _, name = key.rpartition("/")
        return self.path / folder / "receipts" / f"{name}.json"

    def receipt(self, key: str) -> Receipt | None:
        """The receipt of a committed phase, or None. Raises DataError if it cannot be read."""
        if key not in self._receipts:
            path = self.receipt_path(key)
            if not path.exists():
                return None
            self._receipts[key] = _read_receipt(path)
        return self._receipts[key]

    def receipts(self) -> list[Receipt]:
        """All receipts: main before the other arms, then by round and by the order in which they were committed."""
        paths = self.path.glob("arms/*/rounds/*/receipts/*.json")
        found = [_read_receipt(path) for path in paths if not path.name.startswith(TEMPORARY)]
        order = {key: position for position, key in enumerate(self.journal_keys())}
        return sorted(
            found, key=lambda one: (one.arm != "main", one.arm, one.round, order.get(one.key, len(order)), one.key)
        )

    def commit(self, receipt: Receipt) -> Receipt:
        """Write the receipt and its journal line: from now on the phase is done."""
        fault("before receipt")
        publish_bytes(self.receipt_path(receipt.key), (json.dumps(asdict(receipt), indent=1) + "\n").encode())
        self._receipts[receipt.key] = receipt
        self._append_commit(receipt)
        fault("after receipt")
        return receipt

    def _append_commit(self, receipt: Receipt) -> None:
        self._append_event(
            {"event": "commit", "key": receipt.key, "fingerprint": receipt.fingerprint, "output": receipt.output}
        )

    def verified(self, receipt: Receipt) -> list[Path]:
        """The paths of a committed phase's files, each checked against its hash. Raises DataError with the way out."""
        paths = []
        for name, expected in receipt.files.items():
            path = self.path / name
            if is_pruned(path.parent):
                raise DataError(
                    f"{path} was removed on purpose (keep: best_and_last); the run that it belongs to trains it again "
                    "where a phase needs it"
                )
            if not path.is_file() or file_sha256(path) != expected:
                state = "is damaged (its sha256 is not the receipt's)" if path.is_file() else "is missing"
                raise DataError(
                    f"{path} {state}; restore it from a backup, "
                    f"or delete {self.receipt_path(receipt.key)} to redo that phase"
                )
            paths.append(path)
        return paths

    def present(self, receipt: Receipt) -> list[Path]:
        """As `verified`, but of a folder that was removed on purpose the note that says so, in place of its files."""
        folders = {(self.path / name).parent for name in receipt.files}
        pruned = {folder for folder in folders if is_pruned(folder)}
        left = {name: sha256 for name, sha256 in receipt.files.items() if (self.path / name).parent not in pruned}
        return [*self.verified(replace(receipt, files=left)), *sorted(note_of(folder) for folder in pruned)]

    def tables(self, receipt: Receipt) -> list[Path]:
        """Those of its verified files that hold records."""
        return [path for path in self.verified(receipt) if path.suffix == ".parquet"]

    def hashes(self, names: Sequence[str]) -> dict[str, str]:
        """The sha256 of published files, by their paths relative to the run."""
        return {name: file_sha256(self.path / name) for name in names}

    # Journal

    def _append_event(self, event: Mapping[str, Any]) -> None:
        with disk_errors(self.path / "events.jsonl"), open(self.path / "events.jsonl", "ab") as file:
            fault("before journal")
            file.write((json.dumps({"time": round(time.time(), 3), **event}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def note(self, event: str, **details: Any) -> None:
        """Append a line to the journal that commits nothing (an attempt started, a knob changed, a stop rule)."""
        self._append_event({"event": event, **details})

    def journal(self) -> Iterator[dict[str, Any]]:
        """The events in order, as far as whole lines are written."""
        path = self.path / "events.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise DataError(
                    f"{path}, line {number} is damaged; receipts do not depend on it: delete that line"
                ) from None

    def journal_keys(self) -> list[str]:
        """Keys of commits in journal order."""
        return [event["key"] for event in self.journal() if event.get("event") == "commit"]

    def _complete_journal(self) -> None:
        """Add the line that a kill between a receipt and its journal line left out."""
        known = set(self.journal_keys())
        for receipt in self.receipts():
            if receipt.key not in known:
                self._append_commit(receipt)

    def _drop_torn_journal_line(self) -> None:
        path = self.path / "events.jsonl"
        if path.exists():
            data = path.read_bytes()
            if data and not data.endswith(b"\n"):
                os.truncate(path, data.rfind(b"\n") + 1)

    def _remove_leftovers(self) -> None:
        for path in self.path.glob(f"**/{TEMPORARY}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read_receipt(path: Path) -> Receipt:
    try:
        data = json.loads(path.read_bytes())
        return Receipt(**{field.name: data[field.name] for field in fields(Receipt)})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no receipt ({type(error).__name__}: {error}); delete it to redo that phase"
        ) from error


def output_digest(files: Mapping[str, str]) -> Digest:
    """What stands for a phase's files in later fingerprints: file names without their place in the run, and hashes."""
    return digest([[Path(name).name, sha256] for name, sha256 in sorted(files.items())])


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file that only this program writes; a torn last line is dropped."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that the command writes anew; empty where there is none. DataError for a damaged one."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it: the same command writes it again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path} is damaged (no JSON object); delete it: the same command writes it again")
    return data


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Publish rows as JSON lines; return the sha256."""
    return publish_bytes(path, "".join(canonical_json(row) + "\n" for row in rows).encode())
