"""Training: survivors in, an adapter folder out.

- `sft`         LoRA fine-tuning on the sampled ids by TRL's SFTTrainer; with `dpo` all that knows TRL
- `pairs`       right and wrong candidates of one prompt, drawn for the verifier
- `dpo`         the verifier: LoRA on such pairs by TRL's DPOTrainer
- `lora`        the adapter in training, whatever the loss
- `arguments`   the arguments of TRL's SFTConfig and DPOConfig, and how ranks and micro-batches share a batch
- `examples`    survivors as a data set that is neither cut nor reordered, and the order in which they are trained on
- `joined`      what a batch need not compute: untrained positions' logits, shared beginnings twice
- `steps`       what is done at each optimizer step: metrics, the watch for NaN, checkpoints, stopping
- `norms`       how far a training moved the policy
- `checkpoints` a killed training's way back: complete, of the same training, hashes verified before anything is read
- `fields`      checks the tables for PEFT and TRL (`train.lora`, `train.sft`, ...) against their fields, unimported
- `scripted`    writes a tiny adapter without a model, for tests of everything around training
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from selftrain.config import TrainConfig
from selftrain.errors import ConfigError
from selftrain.records import Policy, Survivor, Training
from selftrain.training.fields import check_shares, check_tables, check_verifier
from selftrain.world import World

if TYPE_CHECKING:
    from selftrain.models import Bench

TRAINERS: dict[str, str] = {
    "sft": "selftrain.training.sft:SftTrainer",
    "scripted": "selftrain.training.scripted:ScriptedTrainer",
}


__all__ = ["TRAINERS", "Trainer", "build", "check", "check_verifier"]


class Trainer(Protocol):
    """Makes a new adapter out of survivors."""

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
        """Train on the survivors, going on from `start`'s adapter (none: a new one), and write the adapter to `out`.

        `out` is an empty folder; it receives `adapter_model.safetensors`, `adapter_config.json` and `probe.json`, or
        nothing when an error is raised. `work` is scratch space that outlives a kill: the same call goes on from a
        checkpoint found there; the caller removes it once `out` is published. `config` has its schedules resolved.
        `on_step` receives each optimizer step's row of metrics, after a resume only those of new steps;
        `Training.steps` has them all.

        Every rank of `world` makes this call with the same arguments, and is given the same `Training`; they share each
        batch, and the first alone writes to `out`. What `should_stop` says on one rank holds for all.

        Raises Interrupted after `should_stop()` turned true and a checkpoint was saved; PhaseError where training is
        impossible (no survivors, over-long examples, NaN); ConfigError for settings that TRL or PEFT refuse.
        """
        ...


def check(config: TrainConfig, *, ranks: int = 1) -> None:
    """Raise ConfigError for a trainer that does not exist, fields that TRL and PEFT do not have, or uneven shares."""
    if config.trainer not in TRAINERS:
        close = difflib.get_close_matches(config.trainer, TRAINERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TRAINERS)}"
        raise ConfigError(f"train.trainer: there is no trainer {config.trainer!r}; {hint}")
    check_tables(config)
    check_shares(config, ranks)


def build(config: TrainConfig, bench_factory: Callable[[], Bench]) -> Trainer:
    """The trainer that `train.trainer` names. The bench is made at the first training, not here."""
    check(config)
    module, _, name = TRAINERS[config.trainer].partition(":")
    return cast(Trainer, getattr(importlib.import_module(module), name)(bench_factory))
