"""Files that are written a part at a time and published whole, for what is too much to hold in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from selftrain.records import canonical_json
from selftrain.store import TEMPORARY, disk_errors, fault, sync_folder

LINES_AT_ONCE = 1 << 16
"""About so many characters of JSON lines are written at a time."""


class Publication:
    """A file under a hidden temporary name until `publish`, as `store.publish_bytes` has it. Without that it is gone
    when the block is left. A binary file to write to, for libraries that take one; nothing can be written twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.parent / f"{TEMPORARY}{path.name}"
        self._hash = hashlib.sha256()
        self._length = 0
        self.closed = False
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fault("before write")
            self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed by publish, or where the block is left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def write(self, data: Any) -> int:
        """Append bytes, or what has a buffer of them."""
        with disk_errors(self.path):
            written = self._file.write(data)
        self._hash.update(data)
        self._length += written
        return written

    def tell(self) -> int:
        """Bytes written so far."""
        return self._length

    def flush(self) -> None:
        """Nothing: what is written is durable once it is published."""

    def close(self) -> None:
        """Nothing: a library that closes the file is done with it, and it is not published yet."""

    def publish(self) -> str:
        """Have the file there, whole and durable; its sha256."""
        with disk_errors(self.path):
            fault("after write")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            fault("after fsync")
            os.rename(self._temporary, self.path)
            fault("after rename")
            sync_folder(self.path.parent)
        return self._hash.hexdigest()


class Lines(Publication):
    """A file of JSON lines, as `store.write_jsonl` writes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: list[str] = []
        self._characters = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        line = canonical_json(row) + "\n"
        self._waiting.append(line)
        self._characters += len(line)
        if self._characters >= LINES_AT_ONCE:
            self._write_waiting()

    def publish(self) -> str:
        """As `Publication.publish`."""
        self._write_waiting()
        return super().publish()

    def _write_waiting(self) -> None:
        self.write("".join(self._waiting).encode())
        self._waiting, self._characters = [], 0
