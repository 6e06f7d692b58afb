"""Base weights in 4 or 8 bits, by bitsandbytes (4 bits: QLoRA, Dettmers et al. 2023, arXiv 2305.14314).

Norms stay in the numbers they were loaded in, instead of float32 for training alone: they compute in float32 anyway,
and a policy must be the same function when it is trained and when it is sampled from. Gradients for the inputs of
checkpointed blocks are TRL's to switch on, as for any model with an adapter.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from selftrain.config import ModelConfig
from selftrain.errors import ConfigError, DependencyError


def require_quantizable(config: ModelConfig, device: torch.device) -> None:
    """ConfigError without a GPU, DependencyError without bitsandbytes; nothing where nothing is quantized."""
    if config.quantization is None:
        return
    if device.type != "cuda":
        raise ConfigError(
            f"model.quantization: {config.quantization} needs a GPU, and the model would run on {device.type} "
            f"(model.device: {config.device}); start it on a machine with one, or leave model.quantization out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DependencyError(
            f"model.quantization: {config.quantization} needs bitsandbytes; run `pip install 'selftrain[quantized]'`"
        )


def quantizing(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments of `from_pretrained` that quantize; `dtype` is that of all that is not quantized, and computed in.

    4 bits are NF4, with the constants of blocks quantized in turn.
    """
    if config.quantization is None:
        return {}
    if config.quantization == "8bit":
        how = BitsAndBytesConfig(load_in_8bit=True)
    else:
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    # Quantized while it is read, on the device: weights of this kind cannot be moved afterwards.
    return {"quantization_config": how, "device_map": {"": device}}
