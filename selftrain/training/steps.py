"""What is done at each optimizer step: rows of metrics, the watch for NaN, checkpoints, being asked to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from selftrain.config import TrainConfig
from selftrain.errors import PhaseError
from selftrain.records import Digest
from selftrain.training.checkpoints import Checkpoint, mark

OnStep = Callable[[Mapping[str, float]], None]


class Steps(TrainerCallback):  # type: ignore[misc]
    """The callback of one training. `trainer` has the `order` of its examples and the `tally` of its tokens."""

    def __init__(
        self,
        trainer: Any,
        work: Path,
        key: Digest,
        config: TrainConfig,
        found: Checkpoint | None,
        should_stop: Callable[[], bool],
        on_step: OnStep,
    ) -> None:
        self.rows: list[Mapping[str, float]] = list(found.rows) if found else []
        self.interrupted = False
        self._trainer = trainer
        self._work = work
        self._key = key
        self._every = config.checkpoint_steps
        self._should_stop = should_stop
        self._on_step = on_step
        trainer.tally.update(found.tally if found else {})

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The order depends on the epoch's number alone, so that a resumed epoch repeats it."""
        self._trainer.order.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where one is due, and for the end where the caller asked to stop."""
        done = state.global_step >= state.max_steps
        self.interrupted = not done and self._should_stop()
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
                f"nothing was published; lower train.learning_rate (now {self._trainer.args.learning_rate:g})"
            )
        row = {
            "train/step": float(state.global_step),
            "train/epoch": float(state.epoch),
            "train/loss": loss,
            "train/learning_rate": float(logs["learning_rate"]),
            "train/tokens": float(self._trainer.tally["tokens"]),
        }
        if math.isfinite(norm):
            row["train/grad_norm"] = norm
        self.rows.append(row)
        self._on_step(row)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Declare the checkpoint complete."""
        folder = self._work / f"checkpoint-{state.global_step}"
        mark(self._work, folder, self._key, self.rows, self._trainer.tally)

    def totals(self, examples: int, norm: float, seconds: float) -> dict[str, float]:
        """The training's metrics; `train/loss` is the mean over the steps."""
        tally = self._trainer.tally
        return {
            "train/loss": math.fsum(row["train/loss"] for row in self.rows) / len(self.rows),
            "train/final_loss": self.rows[-1]["train/loss"],
            "train/steps": float(len(self.rows)),
            "train/examples": float(examples),
            "train/tokens": float(tally["tokens"]),
            "train/input_tokens": float(tally["input_tokens"]),
            "train/padding_rate": 1.0 - tally["input_tokens"] / tally["padded_tokens"],
            "train/adapter_norm": norm,
            "train/training_seconds": seconds,
        }
