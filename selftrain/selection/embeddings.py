"""Sentence embeddings of candidates, by sentence-transformers (also of static models as model2vec saves them).

A text is read as far as the model reads (all-MiniLM-L6-v2: 256 tokens). Code that comes with a model is never run.
"""

from __future__ import annotations

import gc
import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain import contents
from selftrain.errors import ConfigError, DependencyError, PhaseError

if TYPE_CHECKING:
    from selftrain.selection.minhash import Similar

KNOB = "select.near_duplicates.model"
_MODULES = "modules.json"
_OWN = "sentence_transformers."
_CHUNK = 1024
_TILE = 256
_COLUMNS = 8192
_ROUNDING = 1e-6
"""Of cosines in float32: those of a text with itself are a little over or under 1."""

Vectors = NDArray[np.float32]


def check(name: str, base: Path) -> None:
    """ConfigError for a model that is not there, is none of embeddings, or would need code of its own; DependencyError
    for a package that is not installed. Nothing is loaded."""
    folder = contents.place(name, base, what=KNOB).on_disk
    if folder is None:
        return
    if not folder.is_dir() or not ((folder / _MODULES).is_file() or (folder / "config.json").is_file()):
        raise ConfigError(
            f"{KNOB}: {folder} holds neither {_MODULES} nor config.json; give the folder of a model that "
            "sentence-transformers or model2vec saved"
        )
    if (folder / _MODULES).is_file():
        foreign = [one["type"] for one in _json(folder / _MODULES) if not str(one["type"]).startswith(_OWN)]
        if foreign:
            raise ConfigError(f"{KNOB}: {name} needs code of its own ({foreign[0]}), which is never run; take another")


class Encoder:
    """A model of embeddings, which is loaded for the first text and given up at the end of the `with`. `device` as
    torch names it; None: an accelerator if there is one.

    The same texts in the same order give the same vectors, bit for bit. Loading raises DependencyError where the hub
    does not give the model, PhaseError where its files do not make one.
    """

    def __init__(self, name: str, base: Path, device: str | None = None) -> None:
        self._name, self._base, self._device = name, base, device
        self._model: Any = None

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._model = None
        gc.collect()

    @property
    def device(self) -> Any:
        """Where it runs."""
        return self._loaded().device

    def texts(self) -> Texts:
        """To compare texts by what it makes of them."""
        return Texts(self)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimensions), of length 1 each (0 for a text in which the model knows no token)."""
        vectors: Vectors = self._loaded().encode(
            list(texts), convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return np.nan_to_num(vectors.astype(np.float32, copy=False))

    def read(self, texts: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """The vectors by text."""
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self.encode(distinct), strict=True)) if distinct else {}

    def _loaded(self) -> Any:
        if self._model is None:
            from selftrain.models.turns import loading

            with loading():
                self._model = _load(contents.place(self._name, self._base, what=KNOB), self._name, self._device)
        return self._model


class Texts:
    """Texts added one by one, of which the nearly equal ones are asked for once. Equal texts are read once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: list[Vectors] = []
        self._waiting: list[str] = []
        self._row_of: dict[bytes, int] = {}
        self._rows = array("q")

    def add(self, text: str) -> None:
        """Take the text, numbered in order."""
        if self._is_new(text):
            self._waiting.append(text)
            if len(self._waiting) == _CHUNK:
                self._read()

    def take(self, text: str, read: Mapping[str, NDArray[np.float32]]) -> None:
        """As `add`, of a text that is read already."""
        if self._is_new(text):
            self._vectors.append(read[text][None])

    def similar(self, ranked: Sequence[int], threshold: float) -> Similar:
        """In the order of `ranked`, which has every number once, a text leaves if its cosine with one before it that
        stays is at least the threshold."""
        if not ranked:
            return {}
        self._read()
        first: dict[int, int] = {}  # of each distinct text
        for number in ranked:
            first.setdefault(self._rows[number], number)
        vectors = np.concatenate(self._vectors)[list(first)]
        self._vectors.clear()
        place = {row: place for place, row in enumerate(first)}
        numbers = list(first.values())
        device = self._encoder.device if len(numbers) > _TILE else "cpu"
        resembled = _greedy(vectors, threshold - _ROUNDING, device)
        found: Similar = {}
        for number in ranked:
            at = place[self._rows[number]]
            if at in resembled:
                found[number] = numbers[resembled[at][0]], min(1.0, resembled[at][1])
            elif number != numbers[at]:
                found[number] = numbers[at], 1.0
        return found

    def _is_new(self, text: str) -> bool:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        is_new = key not in self._row_of
        self._rows.append(self._row_of.setdefault(key, len(self._row_of)))
        return is_new

    def _read(self) -> None:
        if self._waiting:
            self._vectors.append(self._encoder.encode(self._waiting))
            self._waiting = []


def _greedy(vectors: Vectors, threshold: float, device: Any) -> dict[int, tuple[int, float]]:
    """Of rows from the best one down, those that leave: the row that stays and that they resemble most, and the cosine.
    `vectors` (rows, dimensions) is overwritten. Takes rows x rows that stay x dimensions steps, in tiles."""
    import torch

    every = torch.from_numpy(vectors).to(device)
    stay: list[int] = []  # the first rows of `every` are theirs: a tile is read before that reaches it
    found: dict[int, tuple[int, float]] = {}
    for start in range(0, len(every), _TILE):
        tile = every[start : start + _TILE].clone()
        best, where = torch.full((len(tile),), -2.0, device=every.device), torch.zeros(len(tile), dtype=torch.long)
        where = where.to(every.device)
        for column in range(0, len(stay), _COLUMNS):
            part = tile @ every[column : min(column + _COLUMNS, len(stay))].T
            most = part.max(dim=1)
            is_more = most.values > best
            best, where = torch.where(is_more, most.values, best), torch.where(is_more, most.indices + column, where)
        among = (tile @ tile.T).cpu().numpy()
        similarities, places = best.tolist(), where.tolist()
        kept: list[int] = []
        for row in range(len(tile)):
            most_alike, which = similarities[row], stay[places[row]] if stay else -1
            if kept and (inner := among[row, kept]).max() > most_alike:
                most_alike, which = float(inner.max()), start + kept[int(inner.argmax())]
            if most_alike >= threshold:
                found[start + row] = which, most_alike
            else:
                kept.append(row)
        every[len(stay) : len(stay) + len(kept)] = tile[kept]
        stay += [start + row for row in kept]
    return found


def _load(place: contents.Place, name: str, device: str | None) -> Any:
    import sentence_transformers
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder = place.on_disk
    own = {"device": device, "trust_remote_code": False}
    try:
        if folder is not None and not (folder / _MODULES).is_file() and _is_static(folder):
            from sentence_transformers.sentence_transformer.modules import StaticEmbedding

            loaded = StaticEmbedding.load(str(folder), local_files_only=True)
            return sentence_transformers.SentenceTransformer(modules=[loaded], **own)
        return sentence_transformers.SentenceTransformer(
            place.path,
            revision=place.revision,
            local_files_only=folder is not None,
            model_kwargs={"use_safetensors": True},
            **own,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise DependencyError(
            f"{KNOB}: the hub does not give {name!r}: {str(error).splitlines()[0]}; check the network and the name, or "
            "download the model and give its folder"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise PhaseError(
            f"{KNOB}: {name} cannot be loaded ({type(error).__name__}: {str(error)[:300]}); give another model and run "
            "the same command again: candidates and scores are kept"
        ) from error


def _is_static(folder: Path) -> bool:
    return (folder / "config.json").is_file() and _json(folder / "config.json").get("model_type") == "model2vec"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{KNOB}: {path} is no JSON ({error}); download the model anew") from None
