"""The files of an adapter folder: their digest, and the canonical form of the config. Stdlib only.

A folder holds `adapter_model.safetensors` and `adapter_config.json` as PEFT writes them. The digest covers what the
policy computes (tensors by name, dtype, shape and bytes; the config without what names a place or a version), so that
the same adapter has the same digest wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from selftrain.errors import ConfigError, DataError
from selftrain.records import Digest, canonical_json

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# PEFT keeps these as sets and writes them in the order of a set of strings, which changes with the hash seed.
_SETS = ("target_modules", "exclude_modules")
_NOT_THE_POLICY = ("base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping")
_CHUNK = 1 << 20
# These inits write into the base model's weights, which other rounds and the sampler share; also when such an adapter
# is loaded again.
INITS_THAT_CHANGE_THE_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


def adapter_digest(folder: Path) -> Digest:
    """Sha256 (hex) of the adapter's tensors and its canonical config. Raises DataError for other files."""
    config = {key: value for key, value in _read_config(folder).items() if key not in _NOT_THE_POLICY}
    total = hashlib.sha256(canonical_json(config).encode("utf-8", "surrogatepass"))
    path = folder / WEIGHTS
    try:
        header, start = read_header(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no safetensors file ({error}); the adapter is damaged, train it again") from None
    with path.open("rb") as file:
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            total.update(canonical_json([name, header[name]["dtype"], header[name]["shape"], end - begin]).encode())
            file.seek(start + begin)
            _update(total, file, end - begin, path)
    return Digest(total.hexdigest())


def canonicalise_adapter(folder: Path) -> None:
    """Rewrite the config in its one form: keys sorted, sets sorted. Raises DataError for a config that is none."""
    text = json.dumps(_read_config(folder), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def check_lora(folder: Path) -> dict[str, Any]:
    """The config of an adapter that was trained elsewhere. ConfigError unless it is a LoRA of a language model, in
    safetensors, that leaves the base model's own weights alone."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"model.adapter: {folder} is no adapter folder (it has no {CONFIG}); give one that PEFT saved, or "
            "runs/NAME/best"
        )
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"model.adapter: {folder} has no {WEIGHTS}; only safetensors are read: save the adapter again"
        )
    try:
        config = _read_config(folder)
    except DataError as error:
        raise ConfigError(f"model.adapter: {error}") from None
    kind = config.get("peft_type")
    init = str(config.get("init_lora_weights", "")).lower()
    refused = {
        f"its type is {kind}, and only LORA adapters can be gone on with": kind != "LORA",
        f"it was made for the task {config.get('task_type')}, not CAUSAL_LM": config.get("task_type")
        not in (None, "CAUSAL_LM"),
        f"its init_lora_weights {init!r} changes the base model's weights": init.startswith(INITS_THAT_CHANGE_THE_BASE),
        f"its bias {config.get('bias')!r} changes the base model's own biases": config.get("bias", "none") != "none",
        "its layer_replication changes the base model's layers": bool(config.get("layer_replication")),
    }
    for why, applies in refused.items():
        if applies:
            raise ConfigError(f"model.adapter: the adapter in {folder} cannot be used: {why}; give another adapter")
    return config


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no adapter config ({error}); the folder must be one that PEFT saved") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} holds {type(config).__name__}, not an adapter config; save the adapter again")
    for name in _SETS:
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    return config


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Of a safetensors file, the tensors by name and where their bytes start. OSError or ValueError: it is none.

    The format: 8 bytes of header length, JSON, then the bytes.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"its header is said to be {length} bytes long")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"its header holds {type(header).__name__}")
    header.pop("__metadata__", None)
    return header, 8 + length


def _update(total: hashlib._Hash, file: Any, size: int, path: Path) -> None:
    while size > 0:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise DataError(f"{path} ends {size} bytes early; the adapter is damaged, train it again")
        total.update(chunk)
        size -= len(chunk)
