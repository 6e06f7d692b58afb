"""Bytes that one process of a run takes, against what is there.

The parts stand side by side: the process, the weights, their copies, and the larger of what sampling, reading and
training take beside them. Constants were measured on a CPU with torch 2.13 and transformers 5.23; on a GPU they are
taken over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from selftrain.config import Config, one, resolved
from selftrain.estimates.amounts import Amounts
from selftrain.estimates.saved import DTYPES, SavedModel
from selftrain.estimates.work import Asking, Work
from selftrain.planning import for_training

# Python with torch, transformers, peft and trl imported and a first batch computed.
PROCESS = 560 << 20
CUDA_CONTEXT = 600 << 20
# Columns that the cache has room for beyond those in use (sampling/cache.py).
CACHE_ROOM = 64
# Of logits of one batch: the model's own, their float32 copy, the tempered ones, the weights of the race, one spare.
LOGITS_COPIES = 5
# Numbers of a token in a layer that training keeps for the backward pass, per width of the layer and of its inside.
KEPT_WIDE, KEPT_INNER = 22.0, 5.6
# Logits and their gradients in training, measured; and numbers of a token that a forward pass alone holds.
TRAINED_LOGITS, PASSING_WIDE, PASSING_INNER = 5.2, 6.0, 3.0
ADAPTER_BYTES = 16  # float32 weight, gradient and two moments of Adam
# The copies that sampling multiplies with on a CPU (sampling/packed.py): of how many weights at most, of which layers.
PACKED_WEIGHTS, PACKED_SIDE = 1 << 30, 64
READ_LOGITS = 1 << 28  # models/likelihood.py reads as many at once


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part; `peak` is what is taken at once at the most, in the phase `at`."""

    parts: Mapping[str, float]
    peak: float
    at: str
    device: str
    there: int | None


def memory(config: Config, work: Work, amounts: Amounts, model: SavedModel, device: str, there: int | None) -> Memory:
    """Of one process, with all answers as long as they may get: a batch is as long as its longest answer."""
    size = bytes_per_number(config, model, device)
    weights = float(model.parameters * _weight_size(config, size))
    drawn = [one for one in work.askings if one.is_drawn_here]
    phases = {
        "sampling": max((_sampling(one, amounts, model, size) for one in drawn), default=0.0),
        "reading": _reading(config, work, amounts, model, size),
        "training": max((_training(config, number, amounts, model, size) for number in _rounds(work)), default=0.0),
    }
    at = max(phases, key=lambda name: phases[name])
    process = float(PROCESS if device == "cpu" else CUDA_CONTEXT)
    copies = float(size * packed_weights(config, model, device))
    parts = {"process": process, "weights": weights, "their copies": copies, **phases}
    return Memory(parts, process + weights + copies + phases[at], at, device, there)


def packed_weights(config: Config, model: SavedModel, device: str) -> int:
    """How many weights sampling has a second time, in the layout of the CPU's own multiplication, from the first round
    to the end of the run: those of the linear layers, the one that gives the logits among them."""
    is_plain = device == "cpu" and bytes_per_number(config, model, device) == DTYPES["float32"]
    if not is_plain or config.model.quantization is not None or config.sample.engine != "transformers":
        return 0
    sides = [*model.linear.values(), (model.vocabulary, model.hidden)]
    number = sum(prod(shape) for shape in sides if min(shape) >= PACKED_SIDE)
    return number if number <= PACKED_WEIGHTS else 0


def bytes_per_number(config: Config, model: SavedModel, device: str) -> int:
    """Of the weights and what is computed with them: `model.dtype`; `auto` is float32 on a CPU."""
    name = config.model.dtype
    if name == "auto":
        name = "float32" if device == "cpu" else model.own_dtype  # type: ignore[assignment]
    return DTYPES[name]


def _weight_size(config: Config, size: int) -> float:
    return {"4bit": 0.6, "8bit": 1.1}.get(config.model.quantization or "", float(size))


def _rounds(work: Work) -> set[int]:
    return {one.round for one in work.trainings}


def _sampling(asking: Asking, amounts: Amounts, model: SavedModel, size: int) -> float:
    """The cache of all rows at full length, the logits of a step; and the prompts' forward pass before them."""
    prompts = min(asking.block_size, len(asking.prompts))
    length = amounts.prompts[asking.set_name].longest
    rows = prompts * (1 if asking.kind in ("greedy", "retention") else asking.num_candidates)
    columns = length + asking.max_new_tokens
    if model.context is not None:
        columns = min(columns, model.context)
    columns += CACHE_ROOM
    layers = model.layers + 1  # a layer that is given more room, or loses rows, is there twice
    cache = rows * columns * model.cached_width * layers * size
    logits = rows * model.vocabulary * 4 * LOGITS_COPIES
    prefill = prompts * length * (PASSING_WIDE * model.hidden + PASSING_INNER * model.inner) * size
    return float(cache + max(logits, prefill))


def _reading(config: Config, work: Work, amounts: Amounts, model: SavedModel, size: int) -> float:
    """Log-probabilities of candidates by the base model, and of retention's texts."""
    tokens = sum(len(text) / 4 for text in work.texts)
    if config.evaluate.drift_candidates:
        of_asking = [
            min(one.answers, config.evaluate.drift_candidates) * amounts.answer_tokens(one)
            for one in work.askings
            if one.kind == "sampled" or (one.kind == "candidates" and one.round > 1 and one.is_drawn_here)
        ]
        tokens = max([tokens, *of_asking])
    if not tokens:
        return 0.0
    logits = min(READ_LOGITS, tokens * model.vocabulary * 4) * 1.5
    return float(logits + min(8192.0, tokens) * (PASSING_WIDE * model.hidden + PASSING_INNER * model.inner) * size)


def _training(config: Config, number: int, amounts: Amounts, model: SavedModel, size: int) -> float:
    """Activations of a micro-batch of the longest examples there can be, its logits, the adapter and its optimizer."""
    knobs = resolved(config.train, number)
    micro = one(knobs.micro_batch_size) or knobs.batch_size
    length = amounts.prompts["train"].longest + for_training(config, number).max_new_tokens
    limits = [length, knobs.max_length or length, model.context or length]
    tokens = micro * min(limits)
    kept = KEPT_WIDE * model.hidden + KEPT_INNER * model.inner
    layers = 1.0 if config.train.sft.get("activation_checkpointing") else float(model.layers)
    activations = tokens * kept * layers * size + tokens * model.hidden * model.layers * size
    logits = tokens * model.vocabulary * 4 * TRAINED_LOGITS
    return activations + logits + ADAPTER_BYTES * model.lora_parameters(config.train.lora)


# What is there


def device_of(config: Config) -> tuple[str, int | None]:
    """`cpu` or `cuda`, as the model would be put there, and its memory in bytes; None where that cannot be told."""
    wanted = config.model.device.partition(":")[0]
    number = int(config.model.device.partition(":")[2] or 0) if wanted == "cuda" else 0
    gpus = _gpus() if wanted != "cpu" else []
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return "cpu", available_memory()
    return wanted if wanted != "auto" else "cuda", gpus[number] if number < len(gpus) else None


def _gpus() -> list[int]:
    """Memory of each NVIDIA GPU in bytes, asked of the driver's own program."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) << 20 for line in told.split() if line.isdecimal()]


def available_memory() -> int | None:
    """Bytes of memory that a new process can take: what the kernel says, within the limit of the control group."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        pass
    return min(found, default=None)
