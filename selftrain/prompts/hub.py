"""Rows from a data set on the hub, or from a local folder, by the `datasets` library. No code of a data set is run."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Read when the libraries are imported: neither is to report what is loaded.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")

import datasets
from datasets.exceptions import DatasetNotFoundError

from selftrain.config import SourceConfig
from selftrain.errors import ConfigError, DataError, DependencyError
from selftrain.prompts.cells import Unusable, plain
from selftrain.prompts.rows import KINDS, Numbered


def rows(source: SourceConfig, base: Path, where: str, *, is_local: bool) -> Numbered:
    """The rows of the split after the first `skip`. Columns of images, sound and the like are not decoded: Unusable.

    A folder that `save_to_disk` wrote is opened as it is (`stream` changes nothing there: its rows are read as they are
    asked for). Raises ConfigError: no such data set, subset or split; DependencyError: the hub cannot be reached;
    DataError: files that cannot be read.
    """
    assert source.path is not None
    path = str((base / Path(source.path).expanduser()).resolve()) if is_local else source.path
    saved = is_local and any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json"))
    data = _saved(path, source, where) if saved else _loaded(path, source, where)
    if isinstance(data, Mapping):
        data = data[_split_of(data, source, where)]
    described = ", ".join(str(one) for one in (source.subset, data.split or source.split) if one)
    name = f"{source.path} ({described})" if described else source.path
    features = data.features or {}
    media = {column: Unusable(kind) for column, feature in features.items() if (kind := _media(feature))}
    if media and source.stream and not saved:  # a stream decodes even what is removed
        data = data.cast(datasets.Features({column: _undecoded(one) for column, one in features.items()}))
    try:
        for number, row in enumerate(data.remove_columns(list(media)).skip(source.skip), source.skip + 1):
            yield f"row {number} of {name}", {**plain(row), **media}
    except (ConnectionError, TimeoutError) as error:
        raise _unreachable(source, where, error) from error
    except Exception as error:
        raise _unreadable(source, where, error) from error


def splits(source: SourceConfig, base: Path, *, is_local: bool) -> dict[str, list[str]]:
    """The splits of a data set or folder, each with the files of a folder that make it; empty where they cannot be
    told, which reading says better."""
    assert source.path is not None
    path = str((base / Path(source.path).expanduser()).resolve()) if is_local else source.path
    try:
        if is_local and (Path(path) / "dataset_dict.json").is_file():
            return {str(name): [] for name in datasets.load_from_disk(path)}
        if is_local:
            files = datasets.load_dataset_builder(path, name=source.subset).config.data_files or {}
            return {str(name): [os.path.relpath(one, path) for one in of_split] for name, of_split in files.items()}
        found = datasets.get_dataset_split_names(path, config_name=source.subset, revision=source.revision)
        return {str(name): [] for name in found}
    except Exception:
        return {}


def _loaded(path: str, source: SourceConfig, where: str) -> Any:
    options = {"name": source.subset, "revision": source.revision}
    try:
        return datasets.load_dataset(path, split=source.split, streaming=source.stream, **options)
    except DatasetNotFoundError as error:
        raise ConfigError(
            f"{where}: {source.path!r} is no local file or folder, and the hub does not give it "
            f"(revision {source.revision or 'main'}): {_first_line(error)}; check the spelling, log in with "
            f"`hf auth login`, or give {KINDS}"
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise _unreachable(source, where, error) from error
    except Exception as error:
        raise (_choice(path, source, where) or _unreadable(source, where, error)) from error


def _choice(path: str, source: SourceConfig, where: str) -> ConfigError | None:
    """What to say where the subset or the split is the mistake; None where it is not."""
    try:
        subsets = datasets.get_dataset_config_names(path, revision=source.revision)
        if source.subset is not None and source.subset not in subsets:
            return ConfigError(
                f"{where}: {source.path} has no subset {source.subset!r}; it has: {', '.join(subsets)}"
                + ("; leave subset out" if subsets == ["default"] else "")
            )
        if source.subset is None and len(subsets) > 1 and "default" not in subsets:
            return ConfigError(f"{where}: {source.path} has several subsets: {', '.join(subsets)}; name one in subset")
        splits = datasets.get_dataset_split_names(path, config_name=source.subset, revision=source.revision)
    except Exception:
        return None  # the first error says more than this second one
    if source.split is not None and source.split not in splits:
        return _no_split(source, where, [str(one) for one in splits])
    return None


def _saved(path: str, source: SourceConfig, where: str) -> Any:
    if source.subset is not None:
        raise ConfigError(f"{where}: {source.path} was written by save_to_disk and has no subsets; leave subset out")
    try:
        data = datasets.load_from_disk(path)
    except Exception as error:
        raise _unreadable(source, where, error) from error
    if not isinstance(data, Mapping) and source.split not in (None, str(data.split)):
        raise _no_split(source, where, [str(data.split)] if data.split else [])
    return data


def _split_of(data: Mapping[str, Any], source: SourceConfig, where: str) -> str:
    """The split that was asked for; else the only one, or `train`."""
    splits = list(map(str, data))
    if source.split is not None:
        if source.split not in splits:
            raise _no_split(source, where, splits)
        return source.split
    if len(splits) > 1 and "train" not in splits:
        raise ConfigError(f"{where}: {source.path} has several splits: {', '.join(splits)}; name one in split")
    return splits[0] if len(splits) == 1 else "train"


def _no_split(source: SourceConfig, where: str, splits: list[str]) -> ConfigError:
    parts = " (for a part of one, give skip and limit)" if "[" in str(source.split) else ""
    return ConfigError(
        f"{where}: {source.path} has no split {source.split!r}; it has: {', '.join(splits) or 'one without a name'}"
        f"{parts}"
    )


def _media(feature: Any) -> str | None:
    """The kind of thing, in words, that would have to be decoded somewhere in the column; None: it is all text."""
    if isinstance(feature, Mapping):
        return next((kind for one in feature.values() if (kind := _media(one))), None)
    if isinstance(feature, list | tuple):
        return next((kind for one in feature if (kind := _media(one))), None)
    if (inner := getattr(feature, "feature", None)) is not None:
        return _media(inner)
    # Json has the switch too, and is text.
    has_switch = hasattr(feature, "decode") and not isinstance(feature, datasets.Json)
    name = type(feature).__name__
    return {"Image": "images", "Audio": "sound", "Video": "videos"}.get(name, f"{name} data") if has_switch else None


def _undecoded(feature: Any) -> Any:
    """The same feature, of which everything in `_media` stays the bytes that it is."""
    if isinstance(feature, Mapping):
        return {name: _undecoded(one) for name, one in feature.items()}
    if isinstance(feature, list | tuple):
        return [_undecoded(one) for one in feature]
    same = copy.copy(feature)
    if getattr(feature, "feature", None) is not None:
        same.feature = _undecoded(feature.feature)
    elif _media(feature):
        same.decode = False
    return same


def _unreachable(source: SourceConfig, where: str, error: Exception) -> DependencyError:
    return DependencyError(
        f"{where}: {source.path!r} is no local file or folder, and the hub cannot be reached ({_first_line(error)}); "
        "check the spelling and the network, or download the data set and give its folder"
    )


def _unreadable(source: SourceConfig, where: str, error: Exception) -> DataError:
    cause = f" ({type(error.__cause__).__name__}: {_first_line(error.__cause__)})" if error.__cause__ else ""
    return DataError(
        f"{where}: datasets cannot read {source.path}: {type(error).__name__}: {_first_line(error)}{cause}; mend its "
        f"files, or give {KINDS}"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
