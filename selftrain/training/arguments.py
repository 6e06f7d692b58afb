"""Every argument of TRL's SFTConfig and DPOConfig: ours, the user's over our defaults, and how ranks share a batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from selftrain.config import TrainConfig, VerifierConfig, one
from selftrain.errors import ConfigError
from selftrain.models import Bench
from selftrain.training.fields import SAMPLING_STRATEGIES
from selftrain.world import World

LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
# Linear decay from the first step: rounds are short, and Adam's own bias correction is all the warm-up LoRA needs.
DEFAULTS = {
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "activation_checkpointing": False,
    "train_sampling_strategy": SAMPLING_STRATEGIES[0],
    # Otherwise DDP sorts its buckets anew after the first step, also of a resumed training: with three ranks or more,
    # sums would be taken in another order. It also lets an expert that saw no token have no gradient.
    "ddp_find_unused_parameters": True,
}
SFT_DEFAULTS = {**DEFAULTS, "loss_type": "nll"}
DPO_DEFAULTS = {**DEFAULTS, "loss_type": ["sigmoid"]}


def micro_batch_size(config: TrainConfig | VerifierConfig, ranks: int) -> int:
    """Examples per forward pass of one rank."""
    of_rank = config.batch_size // ranks
    return min(one(config.micro_batch_size) or of_rank, of_rank)


def settings(work: Path, config: TrainConfig, bench: Bench, seed: int, world: World) -> dict[str, Any]:
    """Every effective argument of SFTConfig: the user's table over our defaults, and what selftrain owns."""
    flash = "flash" in bench.config.attn_implementation
    if config.sft.get("padding_free") and not flash:
        raise ConfigError(
            "train.sft.padding_free: only flash attention keeps the examples of a flattened batch apart; "
            "set model.attn_implementation: flash_attention_2, or remove it"
        )
    owned = {**_owned(work, config, bench, seed, world), "max_steps": config.steps or -1}
    free = {"dataloader_pin_memory": bench.device.type == "cuda", "padding_free": flash, **SFT_DEFAULTS, **config.sft}
    return {**free, **owned}


def settings_of_pairs(work: Path, config: VerifierConfig, bench: Bench, seed: int, world: World) -> dict[str, Any]:
    """Every effective argument of DPOConfig, in the same way."""
    owned = {**_owned(work, config, bench, seed, world), "beta": config.beta}
    return {"dataloader_pin_memory": bench.device.type == "cuda", **DPO_DEFAULTS, **config.dpo, **owned}


def _owned(work: Path, config: TrainConfig | VerifierConfig, bench: Bench, seed: int, world: World) -> dict[str, Any]:
    _require_own_device(bench, world)
    micro = micro_batch_size(config, world.size)
    return {
        "output_dir": str(work),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // world.size // micro,
        "average_tokens_across_devices": True,
        "seed": seed % 2**32,
        "data_seed": seed % 2**32,
        "max_length": None,
        "bf16": bench.dtype is torch.bfloat16,
        "fp16": bench.dtype is torch.float16,
        "use_cpu": bench.device.type == "cpu",
        "report_to": "none",
        "logging_steps": 1,
        # By default a NaN loss is logged as the mean of earlier ones.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
    }


def _require_own_device(bench: Bench, world: World) -> None:
    if bench.device.type != "cuda":
        return
    if world.size > 1 and bench.device.index not in (None, world.local_rank):
        raise ConfigError(
            f"model.device is {bench.device} for every process, but each of the {world.size} needs a GPU of its own; "
            "set model.device: auto"
        )
    if world.size == 1 and "LOCAL_RANK" not in os.environ and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible to one training process; start one process per GPU with "
            "accelerate launch, or make one visible: set CUDA_VISIBLE_DEVICES=0 (with model.device: auto)"
        )
