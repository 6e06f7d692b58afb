"""How far a training moved the policy, from the low-rank factors alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper

ADAPTER = "default"
# LoRA on quantized weights; the module itself is there only where bitsandbytes is.
QUANTIZED = "peft.tuners.lora.bnb"


@dataclass(frozen=True, slots=True)
class Factors:
    """What LoRA adds to one weight: `scale * up @ down`, with `down` (r, in) and `up` (out, r), float64 on the CPU."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def factors_of(model: Any) -> dict[str, Factors] | None:
    """Copies of the adapter's factors by module; None where some are of a kind whose effect is no such product."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):  # whole weights, or rows of them (modules_to_save, tokens)
            return None
        if not isinstance(module, LoraLayer):
            continue
        if ADAPTER in module.lora_variant:  # DoRA rescales the whole weight, others act on some tokens only
            return None
        if isinstance(module, Embedding):
            down, up = module.lora_embedding_A[ADAPTER], module.lora_embedding_B[ADAPTER]
        elif isinstance(module, Linear) or type(module).__module__ == QUANTIZED:
            down, up = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
        else:
            return None
        found[name] = Factors(_copied(down), _copied(up), float(module.scaling[ADAPTER]))
    return found


def update_norm(after: Mapping[str, Factors], before: Mapping[str, Factors]) -> float:
    """Frobenius norm of the change of the effective weights, over all modules in quadrature.

    A module that one side lacks counts as zero there. The change s1 B1 A1 - s0 B0 A0 is the product U V of U = [s1 B1,
    -s0 B0] and V = [A1; A0], and ||U V||^2 = tr((U^T U)(V V^T)): r by r matrices, so that the full one is never formed.
    """
    squares = []
    for name in {**after, **before}:
        sides = [(after[name], 1.0)] if name in after else []
        sides += [(before[name], -1.0)] if name in before else []
        up = torch.cat([sign * one.scale * one.up for one, sign in sides], dim=1)
        down = torch.cat([one.down for one, _ in sides])
        # The trace of a product of symmetric matrices is the sum of their elementwise product.
        squares.append(float(((up.T @ up) * (down @ down.T)).sum()))
    return math.sqrt(max(0.0, math.fsum(squares)))


def _copied(factor: torch.Tensor) -> torch.Tensor:
    return factor.detach().to("cpu", torch.float64, copy=True)
