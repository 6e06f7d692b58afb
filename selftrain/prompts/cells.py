"""What the cells of rows hold, as JSON would: what it cannot hold is marked, and matters where it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any

from selftrain.errors import DataError
from selftrain.records import canonical_json

NOT_FINITE = "NaN or infinity"
READ = "text, numbers, dates, and lists and objects of these"


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands in a row for a value that JSON cannot hold (an image, bytes, NaN); `what` says which. `rest` is a list or
    an object that holds numbers of which some are not finite, with null in their place."""

    what: str
    rest: Any = None


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a table: dates and times as ISO 8601 writes them; decimals as whole numbers where their type has no
    places after the point, else as floats; and Unusable in place of every column that holds what JSON cannot."""
    return {str(name): _cell(value, _from_table) for name, value in row.items()}


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a source that is JSON already, or is taken for it, with Unusable in place of every column that holds
    NaN or infinity, which Python reads and writes there."""
    return {name: _cell(value, lambda other: other) for name, value in row.items()}


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without what is Unusable; of lists and objects, with null in place of what is not finite."""
    found = {name: value.rest if isinstance(value, Unusable) else value for name, value in row.items()}
    return {name: value for name, value in found.items() if value is not None or row[name] is None}


def require_json(columns: Mapping[str, Any], place: str) -> None:
    """DataError with the first of the columns that holds what is not plain JSON."""
    if _why_not_json(columns) is None:
        return
    for name, value in columns.items():
        if (why := _why_not_json(value)) is not None:
            raise DataError(f"{place}: the column {name!r} holds {why}")
    raise DataError(f"{place} has a column whose name holds {_why_not_json(columns)}")


def _why_not_json(value: Any) -> str | None:
    try:
        canonical_json(value).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        return f"half a character ({half!a}), which no text has; mend that text, or take the row out"
    except (TypeError, ValueError, RecursionError) as error:
        return f"something that is not plain JSON text and numbers: {error}; leave that column out"
    return None


def _cell(value: Any, scalar: Callable[[Any], Any]) -> Any:
    nulled = False

    def inside(one: Any) -> Any:
        """As JSON has it, with null for what is not finite; Unusable for what it cannot have."""
        nonlocal nulled
        if one is None or isinstance(one, str | int):
            return one
        if isinstance(one, float):
            nulled = nulled or not math.isfinite(one)
            return one if math.isfinite(one) else None
        if isinstance(one, list | tuple):
            several = [inside(each) for each in one]
            return next((each for each in several if isinstance(each, Unusable)), several)
        if not isinstance(one, Mapping):
            return scalar(one)
        if scalar is _from_table and one.keys() == {"bytes", "path"}:  # how `datasets` stores images, sound and video
            return Unusable("images or sound")
        named = {name: inside(each) for name, each in one.items()}
        return next((each for each in named.values() if isinstance(each, Unusable)), named)

    found = inside(value)
    return Unusable(NOT_FINITE, found) if nulled and not isinstance(found, Unusable) else found


def _from_table(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value) if int(value.as_tuple().exponent) < 0 else int(value)
    if isinstance(value, date | time):  # of which a datetime is one
        return value.isoformat()
    return Unusable(f"values of type {type(value).__name__}")
