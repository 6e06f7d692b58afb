"""Proof that a mounted adapter is the one that was trained.

Engines have silently sampled from the base model, or from last round's adapter. So the trainer stores, beside the
adapter, the log-probabilities that the trained policy gives to a fixed token sequence, and the sampler recomputes them
with what it has mounted.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open

from selftrain.adapters import WEIGHTS
from selftrain.errors import DataError, PhaseError
from selftrain.models.bench import Bench
from selftrain.records import Policy

PROBE = "probe.json"
PROBE_TOKENS = 16
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 5e-2
# Half precision or 4 bits here, float32 there. Another base model differs by more.
ADOPTED_TOLERANCE = 1.0


def probe_token_ids(bench: Bench) -> list[int]:
    """Ids spread evenly over the vocabulary: no text, so that no template or training data matters."""
    size = len(bench.tokenizer)
    return [(2 * number + 1) * size // (2 * PROBE_TOKENS) for number in range(PROBE_TOKENS)]


def probe_logprobs(model: Any, bench: Bench) -> list[float]:
    """Log-probabilities (nats) of the probe's ids but the first, under the model in eval mode."""
    training = {module: module.training for module in model.modules()}
    ids = torch.tensor([probe_token_ids(bench)], device=bench.device)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    for module, mode in training.items():
        module.training = mode
    chosen: list[float] = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].tolist()
    if not all(math.isfinite(one) for one in chosen):
        raise PhaseError("the policy gives NaN or infinite log-probabilities; lower the learning rate and train again")
    return chosen


def write_probe(folder: Path, model: Any, bench: Bench) -> None:
    """Store the trained policy's probe in its adapter folder. PhaseError when the policy gives NaN."""
    probe = {"token_ids": probe_token_ids(bench), "logprobs": probe_logprobs(model, bench)}
    (folder / PROBE).write_text(json.dumps(probe) + "\n", encoding="utf-8")


def check_probe(model: Any, policy: Policy, bench: Bench) -> None:
    """PhaseError unless the mounted model computes what was trained; nothing to check for a policy without adapter.

    An adapter that was trained elsewhere may have no probe, or one that was made in other numbers.
    """
    if policy.adapter is None or (bench.is_adopted(policy) and not (Path(policy.adapter) / PROBE).is_file()):
        return
    stored = _read(Path(policy.adapter) / PROBE)
    found = probe_logprobs(model, bench)
    tolerance = ADOPTED_TOLERANCE if bench.is_adopted(policy) else TOLERANCE.get(bench.dtype, HALF_TOLERANCE)
    difference = max(abs(one - other) for one, other in zip(stored, found, strict=True))
    if difference > tolerance:
        raise PhaseError(
            f"the mounted model is not the trained policy {policy.digest[:12]}: its log-probabilities differ by "
            f"{difference:.3g} (at most {tolerance:g}); another adapter or base model is loaded, or model.dtype or the "
            "libraries changed since training"
        )
    # In half precision a tiny update can vanish in rounding; then the trained policy itself equals the base.
    if stored != found and _has_effect(Path(policy.adapter)) and found == _base_logprobs(model, bench):
        raise PhaseError(
            f"the adapter of policy {policy.digest[:12]} is mounted but disabled: the model answers like its base; "
            "mount it through the bench"
        )


def _read(path: Path) -> list[float]:
    if not path.is_file():
        raise DataError(f"{path} is missing, so it cannot be proved that the adapter is in use; train the round again")
    logprobs: list[float] = json.loads(path.read_text(encoding="utf-8"))["logprobs"]
    if len(logprobs) != PROBE_TOKENS - 1:
        raise DataError(
            f"{path} holds {len(logprobs)} log-probabilities, not {PROBE_TOKENS - 1}; train the round again"
        )
    return logprobs


def _has_effect(folder: Path) -> bool:
    with safe_open(folder / WEIGHTS, framework="pt") as tensors:
        return any("lora_B" in name and bool(tensors.get_tensor(name).any()) for name in tensors.keys())  # noqa: SIM118


def _base_logprobs(model: Any, bench: Bench) -> list[float]:
    if not isinstance(model, PeftModel):
        return probe_logprobs(model, bench)
    with model.disable_adapter():
        return probe_logprobs(model, bench)
