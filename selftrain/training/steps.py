"""What is done at each optimizer step: rows of metrics, the watch for NaN, checkpoints, being asked to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback

from selftrain.config import TrainConfig, VerifierConfig
from selftrain.errors import Interrupted, PhaseError
from selftrain.records import Digest
from selftrain.training.checkpoints import Checkpoint, mark
from selftrain.world import World

OnStep = Callable[[Mapping[str, float]], None]


class Steps(TrainerCallback):  # type: ignore[misc]
    """The callback of one training, on every rank. `trainer` has the `order` of its examples and its `tally` of tokens.

    `rows`, `tally` and `interrupted` are the same on all ranks: those of the whole training.
    """

    def __init__(
        self,
        trainer: Any,
        work: Path,
        key: Digest,
        config: TrainConfig | VerifierConfig,
        found: Checkpoint | None,
        should_stop: Callable[[], bool],
        on_step: OnStep,
        world: World,
    ) -> None:
        self.rows: list[Mapping[str, float]] = list(found.rows) if found else []
        self.tally: dict[str, int] = dict(found.tally) if found else {}
        self.interrupted = False
        self._trainer = trainer
        self._work = work
        self._key = key
        self._section = "verifier" if isinstance(config, VerifierConfig) else "train"
        self._every = config.checkpoint_steps
        self._should_stop = should_stop
        self._on_step = on_step
        self._world = world

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The order depends on the epoch's number alone, so that a resumed epoch repeats it."""
        self._trainer.order.epoch = int(state.epoch or 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say where this rank is."""
        self._world.busy_with(f"optimizer step {state.global_step + 1} of {state.max_steps}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where one is due, and for the end where the caller asked to stop."""
        done = state.global_step >= state.max_steps
        asked = self._add_up(self._should_stop())
        self.interrupted = not done and asked
        due = self._every is not None and state.global_step % self._every == 0
        control.should_save = self.interrupted or (due and not done)
        control.should_training_stop = control.should_training_stop or self.interrupted

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **kwargs: Any) -> None:
        """Called before the step's checkpoint is written, so that none is ever written with NaN."""
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs["grad_norm"])
        # float16's loss scaler finds its scale by overflowing; it skips such steps.
        skipped = self._trainer.accelerator.optimizer_step_was_skipped
        if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
            raise PhaseError(
                f"loss {loss} and gradient norm {norm} at optimizer step {state.global_step}: training diverged and "
                f"nothing was published; lower {self._section}.learning_rate (now {self._trainer.args.learning_rate:g})"
            )
        row = {
            "train/step": float(state.global_step),
            "train/epoch": float(state.epoch),
            "train/loss": loss,
            "train/learning_rate": float(logs["learning_rate"]),
            "train/tokens": float(self.tally["tokens"]),
        }
        if math.isfinite(norm):
            row["train/grad_norm"] = norm
        row |= self.more(logs)
        self.rows.append(row)
        self._on_step(row)

    def more(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """What else of the trainer's logs goes into a step's row."""
        return {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Declare the checkpoint complete, once every rank has written its part."""
        folder = self._work / f"checkpoint-{state.global_step}"
        self._world.barrier(f"every part of {folder.name}")
        self._world.from_first(lambda: mark(self._work, folder, self._key, self.rows, self.tally), folder.name)

    def require_finished(self) -> None:
        """Raise Interrupted if the training was asked to stop."""
        if self.interrupted:
            state = self._trainer.state
            raise Interrupted(
                f"stopped after optimizer step {state.global_step} of {state.max_steps}; "
                "a checkpoint is saved: run the same command again to go on"
            )

    def totals(self, examples: int, norms: Mapping[str, float], seconds: float) -> dict[str, float]:
        """The training's metrics; `train/loss` is the mean over the steps."""
        return {
            "train/loss": math.fsum(row["train/loss"] for row in self.rows) / len(self.rows),
            "train/final_loss": self.rows[-1]["train/loss"],
            "train/steps": float(len(self.rows)),
            "train/examples": float(examples),
            "train/tokens": float(self.tally["tokens"]),
            "train/input_tokens": float(self.tally["input_tokens"]),
            "train/padding_rate": 1.0 - self.tally["input_tokens"] / self.tally["padded_tokens"],
            **norms,
            "train/training_seconds": seconds,
        }

    def _add_up(self, asked: bool) -> bool:
        """Move what the ranks' trainers counted into the tally; whether any of them was asked to stop."""
        counted = self._trainer.tally
        numbers = torch.tensor([int(asked), *counted.values()])
        if self._world.size > 1:
            torch.distributed.all_reduce(numbers)
        asked_ranks, *sums = numbers.tolist()
        for name, number in zip(counted, sums, strict=True):
            self.tally[name] = self.tally.get(name, 0) + number
            counted[name] = 0
        return bool(asked_ranks)
