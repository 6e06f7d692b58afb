"""From plain data to a Config, with one readable line for every mistake. Ground floor: stdlib and pydantic only."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from selftrain.config import Config
from selftrain.errors import ConfigError

BY_ANOTHER_NAME = {
    **dict.fromkeys(("api_key", "key", "token", "api_key_env"), "key_variable"),
    **dict.fromkeys(("base_url", "api_base"), "url"),
}
"""What other programs call a knob."""


def parse(data: dict[str, Any]) -> Config:
    """Validate plain data. Raises ConfigError with one line per mistake, each naming the key, the value, the remedy."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        found: list[Any] = list(error.errors())
        # A schedule may also be a list, which is no news to someone whose single value is wrong.
        told = [one for one in found if one["type"] != "tuple_type" and not _is_of_wrong_items(one, found)] or found
        lines = [_explain(one, data) for one in told]
        raise ConfigError(
            "the configuration is wrong:\n" + "\n".join(f"  {line}" for line in dict.fromkeys(lines))
        ) from None


def _is_of_wrong_items(error: Any, found: list[Any]) -> bool:
    """Whether a list is too short only because its items are wrong, which is said of them."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(one["loc"] != loc and one["loc"][: len(loc)] == loc for one in found)


def _explain(error: Any, data: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in readable(error["loc"], data))
    if error["type"] == "extra_forbidden":
        near = near_key(path, list(_all_keys(Config)))
        return f"{path}: there is no such key" + (f"; did you mean {near}?" if near else "; see `selftrain plan`")
    if error["type"] == "missing":
        return f"{path}: is missing and has no default"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        # A section says of itself which knob it means, by a name that stands in the path already.
        own = path.rpartition(".")[2]
        return f"{path}: {message.removeprefix(f'{own}: ')}" if path and not message.startswith(path) else message
    if error["type"] == "model_type" and isinstance(error["input"], bool):
        switch = "write {} for the defaults" if error["input"] else "write null to leave it out"
        return f"{path}: it takes knobs of its own (got {str(error['input']).lower()}); {switch}"
    return f"{path}: {said(error)}"


def said(error: Any) -> str:
    """A mistake of pydantic's in the words of people who write YAML, with the value seen."""
    given = error["input"]
    if error["type"] in ("model_type", "dict_type"):
        return f"it takes knobs of its own, as {{knob: value}} (got {given!r})"
    if error["type"] not in ("tuple_type", "list_type"):
        return f"{error['msg'].removeprefix('Value error, ')} (got {given!r})"
    if isinstance(given, Mapping) and given and all(str(key).isdigit() for key in given):
        return f"a list is given as a whole, [..., ...], and not by the numbers of its items (got {given!r})"
    return f"it takes a list, as [{given if isinstance(given, str | int | float) else '...'}] (got {given!r})"


def near_key(path: str, known: Sequence[str]) -> str | None:
    """The known key that was meant: one by another name that people know, or the nearest in letters."""
    section, dot, name = path.rpartition(".")
    if (meant := f"{section}{dot}{BY_ANOTHER_NAME.get(name)}") in known:
        return meant
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    return close[0] if close else None


def readable(loc: tuple[Any, ...], data: Any) -> Iterator[Any]:
    """The parts of a location that exist in the data: pydantic adds names of union members in between."""
    for number, part in enumerate(loc):
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
        elif number < len(loc) - 1 or not isinstance(part, str) or not isinstance(data, dict):
            continue
        yield part


def _all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        inner = field.annotation
        for candidate in (inner, *getattr(inner, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _all_keys(candidate, f"{key}.")
