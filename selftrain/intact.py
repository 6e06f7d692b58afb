"""Whether the files of committed phases are still there whole, looked at before a run goes on.

Hashing everything at every start would take minutes for a large run. A file that is missing or was cut short shows in
its size and its last bytes; what is read later is checked against its hash there (`RunDirectory.verified`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from selftrain.adapters import read_header
from selftrain.errors import DataError
from selftrain.records import Receipt
from selftrain.store import RunDirectory, is_pruned

PARQUET = b"PAR1"  # a Parquet file begins and ends with it


def require_intact(receipts: Iterable[Receipt], run: Path) -> None:
    """Raise DataError naming the first committed file that is missing or cut short, with the ways out.

    Folders that were removed on purpose are passed over; a file of JSON lines may be empty.
    """
    for receipt in receipts:
        for name in receipt.files:
            path = run / name
            if (wrong := _what_is_wrong(path)) and not is_pruned(path.parent):
                raise DataError(
                    f"{path} {wrong}; restore it from a backup, "
                    f"or delete {RunDirectory(run).receipt_path(receipt.key)} to redo that phase"
                )


def verified_file(run: RunDirectory, receipt: Receipt, name: str) -> Path:
    """The path of one committed file, checked against its hash. Raises DataError with the way out."""
    return run.verified(replace(receipt, files={name: receipt.files[name]}))[0]


def _what_is_wrong(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        if path.suffix == ".safetensors":
            is_whole = _safetensors_size(path) == size
        else:
            with path.open("rb") as file:
                file.seek(max(0, size - len(PARQUET)))
                is_whole = _ends_as_it_should(path.suffix, file.read())
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"is damaged ({type(error).__name__})"
    return None if is_whole else f"is damaged (it ends in the middle, after {size:,} bytes)"


def _ends_as_it_should(suffix: str, end: bytes) -> bool:
    if suffix == ".parquet":
        return end == PARQUET
    return suffix != ".jsonl" or not end or end.endswith(b"\n")


def _safetensors_size(path: Path) -> int:
    """Bytes that the file has by its header."""
    header, start = read_header(path)
    return start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
