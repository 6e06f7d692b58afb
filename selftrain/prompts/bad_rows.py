"""Rows that hold no candidate, named together: a file is cleaned once, not row by row."""

from __future__ import annotations

from selftrain.errors import DataError

NAMED = 5


class BadRows:
    """Rows that hold no candidate: counted, and the first ones kept in words."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._first: list[DataError] = []
        self.count = 0

    def add(self, error: DataError) -> None:
        """One more row, and what is wrong with it."""
        self.count += 1
        if len(self._first) < NAMED:
            self._first.append(error)

    def refuse(self) -> None:
        """Raise DataError for all of them, if there are any."""
        if self.count == 1:
            raise self._first[0]
        if self.count:
            first = f"; the first {NAMED}" if self.count > NAMED else ""
            raise DataError(
                f"{self.count:,} rows of {self._where} cannot be taken as candidates{first}:\n"
                + "".join(f"  {one}\n" for one in self._first)
                + f"take them out of the file, or give {self._where} a function that yields the other rows "
                "(rows.py:FUNCTION)"
            )
