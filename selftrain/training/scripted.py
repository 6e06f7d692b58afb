"""A trainer without a model, for tests: writes a tiny adapter whose bytes depend on what it was given.

Torch-free. No model can load the adapter; its digest, its files and its step metrics behave like a real one's.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from selftrain.adapters import CONFIG, WEIGHTS, canonicalise_adapter
from selftrain.config import TrainConfig
from selftrain.errors import Interrupted, PhaseError
from selftrain.records import Policy, Survivor, Training, digest
from selftrain.training.fields import check_shares
from selftrain.world import World

_VALUES = 8
T = TypeVar("T")


class ScriptedTrainer:
    """The double of `sft`: same files, same metrics, same interruption; the numbers are made from the inputs."""

    def __init__(self, bench_factory: Callable[[], object]) -> None:
        del bench_factory  # a double needs no model; the table calls every trainer the same way

    def train(
        self,
        survivors: Sequence[Survivor],
        *,
        start: Policy,
        out: Path,
        work: Path,
        config: TrainConfig,
        seed: int,
        should_stop: Callable[[], bool],
        on_step: Callable[[Mapping[str, float]], None],
        world: World,
    ) -> Training:
        """As `training.Trainer.train` says; after an interruption it starts again from the first step."""
        check_shares(config, world.size)
        if not survivors:
            raise PhaseError("there are no survivors to train on; skip the round's training, or select more")
        per_epoch = math.ceil(len(survivors) / config.batch_size)
        total = _scalar(config.steps) or math.ceil(_scalar(config.epochs) * per_epoch)
        tokens_per_step = sum(sum(one.label_mask) for one in survivors) / per_epoch
        rows = []
        for number in range(1, total + 1):
            rows.append(
                {
                    "train/step": float(number),
                    "train/epoch": number / per_epoch,
                    "train/loss": 1.0 / number,
                    "train/learning_rate": _scalar(config.learning_rate) * (total - number + 1) / total,
                    "train/tokens": float(round(tokens_per_step * number)),
                    "train/grad_norm": 1.0,
                }
            )
            on_step(rows[-1])
            if number < total and world.any(should_stop(), f"step {number} of {total}"):
                raise Interrupted(f"stopped after step {number} of {total}; run the same command again to go on")
        key = digest([[one.candidate_id for one in survivors], start.digest, seed])
        norm = world.from_first(lambda: _write(out, start, key), "publishing the adapter")
        return Training(metrics=_totals(survivors, rows, norm), steps=tuple(rows))


def _scalar(value: T | tuple[T, ...]) -> T:
    assert not isinstance(value, tuple), "the configuration's schedules must be resolved"
    return value


def _write(out: Path, start: Policy, key: str) -> float:
    """A safetensors file by hand: header length, header, values in [-1, 1) from the key. Returns their L2 norm."""
    numbers = [byte / 128 - 1 for byte in hashlib.sha256(key.encode()).digest()[:_VALUES]]
    values = struct.pack(f"<{_VALUES}f", *numbers)
    header = json.dumps(
        {"scripted.lora_A.weight": {"dtype": "F32", "shape": [_VALUES], "data_offsets": [0, len(values)]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    (out / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + values)
    config = {"base_model_name_or_path": start.model, "peft_type": "LORA", "r": 1, "target_modules": ["scripted"]}
    (out / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    canonicalise_adapter(out)
    (out / "probe.json").write_text(json.dumps({"scripted": key}) + "\n", encoding="utf-8")
    return math.hypot(*numbers)


def _totals(survivors: Sequence[Survivor], rows: Sequence[Mapping[str, float]], norm: float) -> dict[str, float]:
    return {
        "train/loss": math.fsum(row["train/loss"] for row in rows) / len(rows),
        "train/final_loss": rows[-1]["train/loss"],
        "train/steps": float(len(rows)),
        "train/examples": float(len(survivors)),
        "train/tokens": rows[-1]["train/tokens"],
        "train/input_tokens": float(sum(len(one.token_ids) for one in survivors)),
        "train/padding_rate": 0.0,
        "train/adapter_norm": norm,
        "train/training_seconds": 0.0,
    }
