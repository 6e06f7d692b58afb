"""LoRA supervised fine-tuning on the sampled ids by TRL's SFTTrainer.

The loss is the mean negative log-likelihood over the trained tokens of a step's batch, so longer answers weigh more.
With weights, each token's term is multiplied by its example's weight; the divisor stays the number of tokens.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from selftrain.config import TrainConfig
from selftrain.errors import ConfigError, PhaseError
from selftrain.models import Bench
from selftrain.records import Policy, Survivor, Training
from selftrain.training import lora
from selftrain.training.arguments import settings
from selftrain.training.checkpoints import find, training_key
from selftrain.training.examples import IGNORED, ExampleOrder, require_trainable, to_dataset, without_fillers
from selftrain.training.fields import check_shares, check_tables
from selftrain.training.joined import Trimming
from selftrain.training.steps import OnStep, Steps
from selftrain.world import World


class SftTrainer:
    """Trains a LoRA adapter on survivors; leaves the bench's model, its tokenizer and the global RNGs as they were."""

    def __init__(self, bench_factory: Callable[[], Bench]) -> None:
        self._bench_factory = bench_factory

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
        on_step: OnStep,
        world: World,
    ) -> Training:
        """As `training.Trainer.train` says. Same inputs, versions, ranks and machine: bitwise the same on a CPU."""
        check_tables(config)
        check_shares(config, world.size)
        bench = self._bench_factory()
        limit = min(config.max_length or bench.context_length, bench.context_length)
        require_trainable(survivors, limit, "train.max_length" if limit == config.max_length else "the model's context")
        began = time.perf_counter()
        key = training_key(survivors, start, config, seed, ranks=world.size)
        world.require_agreement("what is trained on", key)
        found = world.from_first(lambda: find(work, key), "looking for a checkpoint")

        def make(model: Any) -> tuple[Any, Steps]:
            trainer = _make_trainer(model, survivors, work, config, bench, seed, world)
            return trainer, Steps(trainer, work, key, config, found, should_stop, on_step, world)

        return lora.trained(
            bench,
            start,
            config,
            make,
            section="train",
            out=out,
            seed=seed,
            examples=len(survivors),
            found=found,
            began=began,
            world=world,
        )


def _make_trainer(
    model: Any, survivors: Sequence[Survivor], work: Path, config: TrainConfig, bench: Bench, seed: int, world: World
) -> _SurvivorTrainer:
    with lora.as_config_error("train.sft"):
        arguments = SFTConfig(**settings(work, config, bench, seed, world))
    lora.require_ranks(arguments, world)
    dataset = to_dataset(survivors, filler=world.size > 1)
    trainer = _SurvivorTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        # A copy: TRL sets a pad token where there is none, and the sampler's tokenizer must stay as it is.
        processing_class=copy.deepcopy(bench.tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    # TRL drops or cuts examples in some settings, without a word.
    prepared = trainer.train_dataset
    for name in ("input_ids", "labels"):
        if prepared[name][:] != dataset[name][:]:
            raise PhaseError(
                f"TRL changed the {name} of the examples while preparing them; remove settings in train.sft"
            )
    trainer.take(
        survivors,
        ExampleOrder(
            [len(one.token_ids) for one in survivors],
            config.batch_size,
            arguments.train_sampling_strategy,
            seed,
            share=world.size * arguments.per_device_train_batch_size if world.size > 1 else 1,
        ),
    )
    return trainer


class _SurvivorTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that goes through the survivors in our order, counts tokens, and weighs examples."""

    data_collator: Any

    def take(self, survivors: Sequence[Survivor], order: ExampleOrder) -> None:
        """What the constructor has no argument for; called before `train`."""
        self.order = order
        self.trimming = Trimming()
        # Both losses divide by the tokens of the whole batch themselves, whatever the model's forward accepts.
        self.model_accepts_loss_kwargs = True
        self.tally = {"tokens": 0, "input_tokens": 0, "padded_tokens": 0}
        self.weighted = any(one.weight != 1.0 for one in survivors)
        plain = self.args.loss_type == "nll" and not self.args.label_smoothing_factor and not self.aux_loss_enabled
        if self.weighted and not plain:
            raise ConfigError(
                "survivors of different weights are trained with the plain loss only; remove loss_type, "
                "label_smoothing_factor and router_aux_loss_coef from train.sft, or give every survivor weight 1"
            )
        self._collate = self.data_collator
        self.data_collator = self._collate_rows

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is no publication."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ExampleOrder:
        return self.order

    def _collate_rows(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        examples = without_fillers(rows)
        batch: dict[str, Any] = self._collate(examples)
        if self.weighted:
            weights = [torch.full((len(one["input_ids"]),), one["weight"]) for one in examples]
            flat = torch.cat(weights)[None] if self.padding_free else None
            padded = torch.nn.utils.rnn.pad_sequence(weights, batch_first=True)
            short = batch["labels"].shape[1] - padded.shape[1]  # with pad_to_multiple_of, labels are longer
            batch["weight"] = torch.nn.functional.pad(padded, (0, short)) if flat is None else flat
        return batch

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
        size = inputs["input_ids"].numel()
        self.tally["tokens"] += tokens
        if tokens:  # else a filler
            self.tally["input_tokens"] += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else size
        self.tally["padded_tokens"] += size
        weights = inputs.pop("weight")[:, 1:] if self.weighted else None
        # Elsewhere TRL leaves out what is not trained itself; label smoothing goes through the model's own head.
        if tokens and inputs["input_ids"].device.type == "cpu" and not self.args.label_smoothing_factor:
            weights = weights if weights is None else weights[inputs["labels"][:, 1:] != IGNORED][None]
            plain = self.accelerator.unwrap_model(model)
            scoring = self.trimming.of(plain, inputs, by_rows=self.aux_loss_enabled)
        else:
            scoring = contextlib.nullcontext(inputs)
        with scoring as scored:
            if weights is None:
                return super().compute_loss(model, scored, return_outputs, num_items_in_batch)
            log_probs = model(**scored, use_cache=False, fused_lm_head=True).log_probs
        # DDP takes the mean of the ranks' gradients, but the tokens are counted over all ranks: their sum is wanted.
        ranks = self.accelerator.num_processes
        return -ranks * (log_probs * weights[:, : log_probs.shape[1]]).sum() / num_items_in_batch
