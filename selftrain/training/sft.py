"""LoRA supervised fine-tuning on the sampled ids by TRL's SFTTrainer. The only module that knows TRL.

The loss is the mean negative log-likelihood over the trained tokens of a step's batch, so longer answers weigh more.
With weights, each token's term is multiplied by its example's weight; the divisor stays the number of tokens.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants as hub
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from selftrain.config import TrainConfig, one
from selftrain.errors import ConfigError, Interrupted, PhaseError
from selftrain.models import Bench, adapter_digest, canonicalise_adapter, write_probe
from selftrain.records import Policy, Survivor, Training
from selftrain.training.checkpoints import find, training_key
from selftrain.training.examples import IGNORED, ExampleOrder, require_trainable, to_dataset
from selftrain.training.fields import SAMPLING_STRATEGIES, check_tables
from selftrain.training.steps import OnStep, Steps

# TRL reports every trainer to the hub otherwise; the environment variable is only read when the hub is first imported.
hub.HF_HUB_DISABLE_TELEMETRY = True

LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
# Linear decay from the first step: rounds are short, and Adam's own bias correction is all the warm-up LoRA needs.
SFT_DEFAULTS = {
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "activation_checkpointing": False,
    "train_sampling_strategy": SAMPLING_STRATEGIES[0],
    "loss_type": "nll",
}


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
    ) -> Training:
        """As `training.Trainer.train` says. Same inputs, versions and machine: bitwise the same adapter on a CPU."""
        check_tables(config)
        bench = self._bench_factory()
        limit = min(config.max_length or bench.context_length, bench.context_length)
        require_trainable(survivors, limit, "train.max_length" if limit == config.max_length else "the model's context")
        began = time.perf_counter()
        key = training_key(survivors, start, config, seed)
        found = find(work, key)
        with _rng_kept(), warnings.catch_warnings():
            # PEFT reads a property that transformers deprecated; nothing here can change that.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            try:
                set_seed(seed % 2**32)
                model = _adapter_on(bench, start, config)
                trainer = _make_trainer(model, survivors, work, config, bench, seed)
                steps = Steps(trainer, work, key, config, found, should_stop, on_step)
                trainer.add_callback(steps)
                trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
                if steps.interrupted:
                    raise Interrupted(
                        f"stopped after optimizer step {trainer.state.global_step} of {trainer.state.max_steps}; "
                        "a checkpoint is saved: run the same command again to go on"
                    )
                norm = _publish(model, out, start, bench)
            except torch.OutOfMemoryError as error:
                raise PhaseError(
                    "training ran out of the accelerator's memory; lower train.micro_batch_size (by a list, from "
                    "this round on), or set train.sft: {activation_checkpointing: true}"
                ) from error
            finally:
                bench.unmount()
                # The trainer, its callback and its optimizer hold each other: without this, their memory would stay
                # taken while the next round samples.
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        metrics = steps.totals(len(survivors), norm, time.perf_counter() - began)
        return Training(metrics=metrics, steps=tuple(steps.rows))


@contextlib.contextmanager
def _rng_kept() -> Iterator[None]:
    """TRL reseeds the global generators at every construction; give the caller its own back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)


def _adapter_on(bench: Bench, start: Policy, config: TrainConfig) -> Any:
    """The base model with the start's adapter, or a new one, ready to be trained."""
    if start.adapter is None:
        model: Any = _new_adapter(bench, config)
    else:
        model = bench.mount(start, trainable=True)
        _require_same_shape(model.peft_config["default"], config)
    # PEFT asks the hub about the base by this name at each save; it is set when the adapter is written.
    model.peft_config["default"].base_model_name_or_path = None
    return model


def _new_adapter(bench: Bench, config: TrainConfig) -> Any:
    with _as_config_error("train.lora"):
        lora = LoraConfig(**{**LORA_DEFAULTS, **config.lora}, bias="none", task_type="CAUSAL_LM")
        return get_peft_model(bench.unmount(), lora)


def _require_same_shape(found: Any, config: TrainConfig) -> None:
    for name, wanted in {**LORA_DEFAULTS, **config.lora}.items():
        if isinstance(wanted, int | float) and getattr(found, name) != wanted:
            raise ConfigError(
                f"train.lora.{name} is {wanted}, but the adapter that training goes on from has "
                f"{getattr(found, name)}; set it to that, or train.init_from: base"
            )


@contextlib.contextmanager
def _as_config_error(section: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{section}: {error}; correct the value") from error


def _make_trainer(
    model: Any, survivors: Sequence[Survivor], work: Path, config: TrainConfig, bench: Bench, seed: int
) -> _SurvivorTrainer:
    with _as_config_error("train.sft"):
        arguments = SFTConfig(**_settings(work, config, bench, seed))
    dataset = to_dataset(survivors)
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
            [len(one.token_ids) for one in survivors], config.batch_size, arguments.train_sampling_strategy, seed
        ),
    )
    return trainer


def _settings(work: Path, config: TrainConfig, bench: Bench, seed: int) -> dict[str, Any]:
    """Every effective argument of SFTConfig: the user's table over our defaults, and what selftrain owns."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch_size % world:
        raise ConfigError(f"train.batch_size {config.batch_size} is no multiple of the {world} processes; change it")
    per_rank = config.batch_size // world
    micro = min(one(config.micro_batch_size), per_rank) if config.micro_batch_size else per_rank
    if per_rank % micro:
        raise ConfigError(
            f"train.micro_batch_size {micro} does not divide the {per_rank} examples of a rank; change it"
        )
    if bench.device.type == "cuda" and torch.cuda.device_count() > world:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible to {world} training process; "
            "make one visible: set CUDA_VISIBLE_DEVICES=0 (with model.device: auto)"
        )
    flash = "flash" in bench.config.attn_implementation
    if config.sft.get("padding_free") and not flash:
        raise ConfigError(
            "train.sft.padding_free: only flash attention keeps the examples of a flattened batch apart; "
            "set model.attn_implementation: flash_attention_2, or remove it"
        )
    owned = {
        "output_dir": str(work),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.steps or -1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": per_rank // micro,
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
    free = {"dataloader_pin_memory": bench.device.type == "cuda", "padding_free": flash, **SFT_DEFAULTS, **config.sft}
    return {**free, **owned}


class _SurvivorTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that goes through the survivors in our order, counts tokens, and weighs examples."""

    data_collator: Any

    def take(self, survivors: Sequence[Survivor], order: ExampleOrder) -> None:
        """What the constructor has no argument for; called before `train`."""
        self.order = order
        self.tally = {"tokens": 0, "input_tokens": 0, "padded_tokens": 0}
        self.weighted = any(one.weight != 1.0 for one in survivors)
        plain = self.args.loss_type == "nll" and not self.args.label_smoothing_factor and not self.aux_loss_enabled
        if self.weighted and not plain:
            raise ConfigError(
                "survivors of different weights are trained with the plain loss only; remove loss_type, "
                "label_smoothing_factor and router_aux_loss_coef from train.sft, or give every survivor weight 1"
            )
        self._collate = self.data_collator
        self.data_collator = self._collate_with_weights

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is no publication."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ExampleOrder:
        return self.order

    def _collate_with_weights(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
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
        self.tally["input_tokens"] += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else size
        self.tally["padded_tokens"] += size
        if not self.weighted:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        weights = inputs.pop("weight")[:, 1:]
        log_probs = model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        return -(log_probs * weights[:, : log_probs.shape[1]]).sum() / (num_items_in_batch or tokens)


def _publish(model: Any, out: Path, start: Policy, bench: Bench) -> float:
    """Write the adapter and its probe to `out`; return the L2 norm of its tensors. PhaseError for NaN or Inf."""
    trained = {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad}
    for name, tensor in trained.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PhaseError(
                f"the trained adapter holds NaN or infinite values (in {name}) and is not published; "
                "lower train.learning_rate"
            )
    config = model.peft_config["default"]
    config.base_model_name_or_path = start.model
    # "auto" would ask the hub whether the vocabulary was resized; it never is.
    model.save_pretrained(out, safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink()  # PEFT's model card
    canonicalise_adapter(out)
    norm = math.sqrt(math.fsum(float(tensor.float().pow(2).sum()) for tensor in trained.values()))
    # Probed as it will be used: in half precision, training leaves an autocast around the model's forward.
    bench.unmount()
    published = Policy(start.model, str(out), start.round, adapter_digest(out))
    write_probe(out, bench.mount(published), bench)
    return norm
