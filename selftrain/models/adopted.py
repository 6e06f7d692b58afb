"""The adapter of `model.adapter`: trained elsewhere, so that it is looked at before it answers as round 0."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from selftrain.adapters import WEIGHTS
from selftrain.errors import ConfigError
from selftrain.models.turns import computing


def adopt(folder: Path, model_path: str, mount: Callable[[], Any]) -> Any:
    """What `mount` gives, if the folder's tensors are those that it mounted.

    ConfigError: the adapter is of another model, by names or shapes of its tensors, or holds NaN or infinite values.
    PEFT itself leaves what it does not find in the file as it was initialised, with a warning.
    """
    try:
        stored = load_file(folder / WEIGHTS)
        with computing(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # an error, below
            view = mount()
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise _of_another_model(folder, model_path, shorten(str(error), 300)) from error
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"model.adapter: {folder} holds NaN or infinite values (in {name}); give another adapter")
    mounted = set(get_peft_model_state_dict(view, save_embedding_layers=False))
    if missing := sorted(mounted - set(stored)):
        raise _of_another_model(folder, model_path, f"it lacks {missing[0]} (and {len(missing) - 1} more)")
    if stray := sorted(set(stored) - mounted):
        if any(one.endswith("base_layer.weight") for one in stray):  # PEFT saves embeddings unasked
            raise ConfigError(
                f"model.adapter: {folder} holds weights of the base model itself ({stray[0]}), which would be changed; "
                "save it again with save_pretrained(..., save_embedding_layers=False)"
            )
        raise _of_another_model(folder, model_path, f"nothing takes its {stray[0]} (and {len(stray) - 1} more)")
    return view


def _of_another_model(folder: Path, model_path: str, why: str) -> ConfigError:
    return ConfigError(
        f"model.adapter: the adapter in {folder} does not fit the model {model_path!r}: {why}; give the model that it "
        "was trained on as model.path, or another adapter"
    )
