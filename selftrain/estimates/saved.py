"""A saved model as its files tell, without loading it: sizes, layers, tokenizer, chat template."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from selftrain.adapters import read_header
from selftrain.config import ModelConfig
from selftrain.whereabouts import PACKAGE, beside, package_file, snapshot

# Hashing more than this to tell two converted files of one name apart would make people wait.
HASHED_LIMIT = 1 << 30
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
NO_LINEAR = re.compile(r"embed|wte|wpe|lm_head|norm|ln_|router|conv1d", re.IGNORECASE)


@dataclass(frozen=True)
class SavedModel:
    """A folder with a saved model. `shapes` are those of all tensors, by name; empty where no weights are there."""

    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    weight_bytes: int = 0

    @cached_property
    def text(self) -> Mapping[str, Any]:
        """The part of the configuration that is about text."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    def number(self, *names: str, default: int = 0) -> int:
        """The first of these keys that the configuration has."""
        found = (self.text.get(name) for name in names)
        return next((int(value) for value in found if isinstance(value, int)), default)

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens."""
        return self.number("max_position_embeddings", "n_positions") or None

    @property
    def hidden(self) -> int:
        """Width of a layer's input."""
        return self.number("hidden_size", "n_embd", "d_model")

    @property
    def inner(self) -> int:
        """Width inside the feed-forward part; of experts, of all that one token passes."""
        experts = self.number("num_experts_per_tok", default=1)
        return self.number("moe_intermediate_size", default=0) * experts or self.number(
            "intermediate_size", "n_inner", default=4 * self.hidden
        )

    @property
    def layers(self) -> int:
        """How many."""
        return self.number("num_hidden_layers", "n_layer")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are logits for."""
        return self.number("vocab_size")

    @property
    def cached_width(self) -> int:
        """Numbers of one token in one layer's key-value cache, keys and values together."""
        heads = self.number("num_attention_heads", "n_head", default=1)
        size = self.number("head_dim", default=self.hidden // max(1, heads))
        return 2 * self.number("num_key_value_heads", default=heads) * size

    @property
    def parameters(self) -> int:
        """Of the files, or else, without any, about what such a configuration has."""
        if self.shapes:
            return sum(map(prod, self.shapes.values()))
        ties = 1 if self.config.get("tie_word_embeddings", True) else 2
        return self.layers * sum(map(prod, self._usual().values())) + ties * self.vocabulary * self.hidden

    @property
    def own_dtype(self) -> str:
        """The checkpoint's dtype, by name."""
        found = self.text.get("dtype") or self.text.get("torch_dtype") or self.config.get("dtype")
        return found if isinstance(found, str) and found in DTYPES else "float32"

    @cached_property
    def linear(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the linear layers that `target_modules: all-linear` names, by module."""
        if self.shapes:
            named = {name.removesuffix(".weight"): shape for name, shape in self.shapes.items() if len(shape) == 2}
            return {name: shape for name, shape in named.items() if not NO_LINEAR.search(name)}
        usual = self._usual().items()
        return {f"layers.{layer}.{name}": shape for layer in range(self.layers) for name, shape in usual}

    def _usual(self) -> dict[str, tuple[int, ...]]:
        """The linear layers of one layer, as of a Llama."""
        heads = self.number("num_attention_heads", "n_head", default=1)
        queries = heads * self.number("head_dim", default=self.hidden // max(1, heads))
        half = self.cached_width // 2
        wide, inner = self.hidden, self.inner
        return {
            "self_attn.q_proj": (queries, wide),
            "self_attn.k_proj": (half, wide),
            "self_attn.v_proj": (half, wide),
            "self_attn.o_proj": (wide, queries),
            "mlp.gate_proj": (inner, wide),
            "mlp.up_proj": (inner, wide),
            "mlp.down_proj": (wide, inner),
        }

    def targets(self, wanted: Any) -> dict[str, tuple[int, ...]]:
        """The linear layers that PEFT's `target_modules` means: all-linear, a pattern of whole names, or endings."""
        if wanted in (None, "all-linear"):
            return self.linear
        if isinstance(wanted, str):
            return {name: shape for name, shape in self.linear.items() if re.fullmatch(wanted, name)}
        ends = tuple(f".{one}" for one in wanted)
        return {name: shape for name, shape in self.linear.items() if name in wanted or name.endswith(ends)}

    def lora_parameters(self, lora: Mapping[str, Any]) -> int:
        """Numbers of an adapter with these fields of peft.LoraConfig: r x (inputs + outputs) of each target (Hu et al.
        2021, arXiv 2106.09685, section 4.1), and whole modules that are trained beside them."""
        rank = int(lora.get("r", 16))
        targets = self.targets(lora.get("target_modules", "all-linear"))
        whole = tuple(lora.get("modules_to_save") or ())
        beside = sum(prod(shape) for name, shape in self.shapes.items() if _is_in(name, whole))
        magnitudes = sum(shape[0] for shape in targets.values()) if lora.get("use_dora") else 0
        return sum(rank * sum(shape) for shape in targets.values()) + beside + magnitudes


def _is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(part in modules for part in name.split("."))


def find(config: ModelConfig, recipe_folder: Path, cache_dir: Path) -> SavedModel | None:
    """The model that `model.path` names, if it is on this machine as a folder; None if it is not, or is not readable.

    A GGUF file is known once it was converted to a folder of `cache_dir`, a hub id once it is in the hub's own cache.
    """
    folder = _folder_of(config, recipe_folder, cache_dir)
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        settings = json.loads((folder / "config.json").read_text())
        shapes, size = dict[str, tuple[int, ...]](), 0
        for path in sorted(folder.glob("*.safetensors")):
            for name, entry in read_header(path)[0].items():
                shapes[name] = tuple(entry["shape"])
                size += prod(shapes[name]) * BYTES.get(entry["dtype"], 2)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return SavedModel(folder, settings, shapes, size)


def _folder_of(config: ModelConfig, recipe_folder: Path, cache_dir: Path) -> Path | None:
    path = beside(config.path, recipe_folder)
    if config.path.startswith(PACKAGE):
        _, folder, inside = package_file(config.path)
        is_there = folder is not None and (folder / inside).is_file()
        return _converted(folder / inside, cache_dir) if folder is not None and is_there else None
    if path.suffix == ".gguf" and path.is_file():
        return _converted(path, cache_dir)
    if path.is_dir():
        return path
    found = snapshot(config.path, config.revision)
    return found if found.is_dir() else None


def _converted(file: Path, cache_dir: Path) -> Path | None:
    """The folder that the file was converted to. Most files are told apart by name, the rest by their content."""
    named = []
    for note in sorted((cache_dir / "gguf").glob("*/source.json")):
        try:
            is_named = json.loads(note.read_text()).get("gguf") == file.name
        except (OSError, ValueError, AttributeError):
            continue
        named += [note.parent] * is_named
    if not named or file.stat().st_size > HASHED_LIMIT:
        return named[0] if len(named) == 1 else None
    with file.open("rb") as opened:
        key = hashlib.file_digest(opened, "sha256").hexdigest()
    return next((folder for folder in named if folder.name == key), None)
