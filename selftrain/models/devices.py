"""Which device a process computes on."""

from __future__ import annotations

import os

import torch

from selftrain.errors import ConfigError


def device_of(name: str) -> torch.device:
    """The device that `model.device` names; `auto` is this rank's CUDA device, or the CPU.

    A launcher that shows every rank one GPU of its own leaves no choice; among several, `LOCAL_RANK` names the one.
    ConfigError: there are more ranks on this machine than GPUs.
    """
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    rank = int(os.environ.get("LOCAL_RANK", "0")) if visible > 1 else 0
    if rank >= visible:
        raise ConfigError(
            f"model.device: LOCAL_RANK is {rank}, but {visible} GPUs are visible; start at most {visible} "
            "processes on this machine, or show them more GPUs (CUDA_VISIBLE_DEVICES)"
        )
    return torch.device("cuda", rank)
