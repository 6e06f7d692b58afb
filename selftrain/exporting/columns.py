"""Columns of a candidate file that the data set takes over: of which type they are, and their values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["bool", "int64", "float64", "string"]
_LARGEST = 2**63


class Kinds:
    """What the candidates of a round hold in some columns of their file; `add` is told of each."""

    def __init__(self, names: Sequence[str]) -> None:
        self._seen: dict[str, set[Kind]] = {name: set() for name in names}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """One more candidate."""
        for name, seen in self._seen.items():
            if (value := metadata.get(name)) is not None:
                seen.add(_kind(value))

    def found(self) -> dict[str, Kind]:
        """The type of each column, in order, but for those that are null in all rows."""
        return {name: _together(seen) for name, seen in self._seen.items() if seen}


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return "int64"
    return "float64" if isinstance(value, float) else "string"


def _together(seen: set[Kind]) -> Kind:
    if len(seen) == 1:
        return next(iter(seen))
    return "float64" if seen == {"int64", "float64"} else "string"


def values(metadata: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """A candidate's values in these columns. In one of texts, what is none is written as JSON."""
    return {name: _value(metadata.get(name), kind) for name, kind in kinds.items()}


def _value(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "float64":
        return float(value)
    return value if kind != "string" or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
