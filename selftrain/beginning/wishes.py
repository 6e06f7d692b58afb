"""What the user said: the flags of `selftrain init`, and the sources in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import SourceConfig
from selftrain.errors import ConfigError
from selftrain.prompts.rows import FILES, GYM, HUB_ID

KNOBS = ("subset", "split", "revision")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The flags; None where a flag was not given."""

    data: str | None = None
    prompt_column: str | None = None
    reference_column: str | None = None
    template: str | None = None
    model: str | None = None
    format: str | None = None
    scorer: str | None = None
    validate: str | None = None
    test: str | None = None
    holdout: int | None = None
    name: str | None = None
    thinking: bool = False


def parse_source(text: str, flag: str, folder: Path, main: dict[str, Any] | None = None) -> dict[str, Any]:
    """`PATH` or `PATH,split=test,subset=main`, as knobs of a source that paths in `folder`, the recipe's, can name.

    Without a path (`split=test`) it is the same data as `main`, another part of them. Raises ConfigError.
    """
    words = text.split(",")
    knobs = {}
    while words and words[-1].partition("=")[0] in KNOBS and "=" in words[-1]:
        key, _, value = words.pop().partition("=")
        knobs[key] = value
    path = ",".join(words)
    if path:
        return {"path": located(path, flag, folder), **dict(reversed(knobs.items()))}
    if main is None or not knobs:
        raise ConfigError(f"{flag} {text!r} names no data; give a path, a hub id, or reasoning_gym:TASK")
    return {**main, **knobs}


def located(path: str, flag: str, folder: Path) -> str:
    """The path as the recipe writes it: relative to its folder, unless that leads over the root."""
    if path.startswith(GYM):
        return path
    file, colon, function = path.rpartition(":")
    place = Path(file if colon and file.endswith(".py") else path).expanduser()
    if place.exists():
        return _relative(place.absolute(), folder) + (f":{function}" if colon and file.endswith(".py") else "")
    if colon and not file.endswith(".py"):
        return path  # package.module:function
    if place.suffix in (*FILES, ".py") or place.is_absolute() or not HUB_ID.fullmatch(path):
        raise ConfigError(f"{flag}: there is no file or folder {place.absolute()}; correct the path")
    return path  # a hub id


def _relative(place: Path, folder: Path) -> str:
    folder = folder.absolute()
    shared = Path(os.path.commonpath([place, folder]))
    return str(place) if shared == Path(shared.anchor) else os.path.relpath(place, folder)


def source_to_read(knobs: dict[str, Any], folder: Path, limit: int) -> SourceConfig:
    """The first rows of a source, while the recipe's folder may not be there: `new/../rows.jsonl` cannot be opened."""
    path = str(knobs["path"])
    whole = os.path.normpath(folder.absolute() / path)
    if path.startswith(".") and Path(whole.rpartition(".py:")[0] + ".py" if ".py:" in whole else whole).exists():
        path = whole
    return SourceConfig.model_validate({**knobs, "path": path, "limit": limit})
