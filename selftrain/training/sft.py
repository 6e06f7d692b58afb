"""LoRA supervised fine-tuning on the sampled ids by TRL's SFTTrainer. The only module that knows TRL.

The loss is the mean negative log-likelihood over the trained tokens of a step's batch, so longer answers weigh more.
With weights, each token's term is multiplied by its example's weight; the divisor stays the number of tokens.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants as hub
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from selftrain.config import TrainConfig
from selftrain.errors import ConfigError, Interrupted, PhaseError
from selftrain.models import Bench, adapter_digest, canonicalise_adapter, write_probe
from selftrain.records import Policy, Survivor, Training, seed_from
from selftrain.training.arguments import LORA_DEFAULTS, settings
from selftrain.training.checkpoints import find, training_key
from selftrain.training.examples import IGNORED, ExampleOrder, require_trainable, to_dataset, without_fillers
from selftrain.training.fields import check_shape, check_shares, check_tables
from selftrain.training.joined import joined, joins, may_join, trained_only
from selftrain.training.norms import Factors, factors_of, update_norm
from selftrain.training.steps import OnStep, Steps
from selftrain.world import World

# TRL reports every trainer to the hub otherwise; the environment variable is only read when the hub is first imported.
hub.HF_HUB_DISABLE_TELEMETRY = True


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
        with _rng_kept(), warnings.catch_warnings():
            # PEFT reads a property that transformers deprecated, and says that it corrects itself on GPT-2's layers;
            # nothing here can change that.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
            try:
                set_seed(seed % 2**32)
                model = _adapter_on(bench, start, config)
                before = factors_of(model) if start.adapter is not None else {}
                trainer = _make_trainer(model, survivors, work, config, bench, seed, world)
                steps = Steps(trainer, work, key, config, found, should_stop, on_step, world)
                trainer.add_callback(steps)
                if world.size > 1:
                    _spare_ddp_the_base(model)
                if not world.is_first:
                    set_seed(seed_from(seed, world.rank) % 2**32)  # for dropout; the new adapter is the same everywhere
                trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
                if steps.interrupted:
                    raise Interrupted(
                        f"stopped after optimizer step {trainer.state.global_step} of {trainer.state.max_steps}; "
                        "a checkpoint is saved: run the same command again to go on"
                    )

                def publish() -> Training:
                    norms = _norms(model, before)
                    _publish(model, out, start, bench)
                    metrics = steps.totals(len(survivors), norms, time.perf_counter() - began)
                    return Training(metrics=metrics, steps=tuple(steps.rows))

                return world.from_first(publish, "publishing the adapter")
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
        check_shape(config.lora, vars(model.peft_config["default"]))
    # PEFT asks the hub about the base by this name at each save; it is set when the adapter is written.
    model.peft_config["default"].base_model_name_or_path = None
    return model


def _new_adapter(bench: Bench, config: TrainConfig) -> Any:
    base: Any = bench.unmount()
    if (
        config.lora.get("trainable_token_indices")
        and base.get_output_embeddings().weight is base.get_input_embeddings().weight
    ):
        raise ConfigError(
            "train.lora.trainable_token_indices: this model's output layer is tied to its embeddings, and TRL reads "
            "its weights past PEFT; set modules_to_save: [embed_tokens, lm_head] and ensure_weight_tying: true instead"
        )
    with _as_config_error("train.lora"):
        lora = LoraConfig(**{**LORA_DEFAULTS, **config.lora}, bias="none", task_type="CAUSAL_LM")
        return get_peft_model(base, lora)


@contextlib.contextmanager
def _as_config_error(section: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{section}: {error}; correct the value") from error


def _spare_ddp_the_base(model: Any) -> None:
    """Keep DDP from sending the base model's weights from rank to rank: every rank has read the same files."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    buffers = [name for name, _ in model.named_buffers()]
    ddp: Any = DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, frozen + buffers)


def _make_trainer(
    model: Any, survivors: Sequence[Survivor], work: Path, config: TrainConfig, bench: Bench, seed: int, world: World
) -> _SurvivorTrainer:
    with _as_config_error("train.sft"):
        arguments = SFTConfig(**settings(work, config, bench, seed, world))
    if arguments.world_size != world.size:
        raise ConfigError(
            f"Accelerate sees {arguments.world_size} processes where the run has {world.size}; start them with "
            "torchrun or accelerate launch, which set LOCAL_RANK"
        )
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
    joins: bool | None = None

    def take(self, survivors: Sequence[Survivor], order: ExampleOrder) -> None:
        """What the constructor has no argument for; called before `train`."""
        self.order = order
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
            scoring = self._scored(model, inputs)
        else:
            scoring = contextlib.nullcontext(inputs)
        with scoring as scored:
            if weights is None:
                return super().compute_loss(model, scored, return_outputs, num_items_in_batch)
            log_probs = model(**scored, use_cache=False, fused_lm_head=True).log_probs
        # DDP takes the mean of the ranks' gradients, but the tokens are counted over all ranks: their sum is wanted.
        ranks = self.accelerator.num_processes
        return -ranks * (log_probs * weights[:, : log_probs.shape[1]]).sum() / num_items_in_batch

    def _scored(self, model: Any, inputs: dict[str, Any]) -> contextlib.AbstractContextManager[dict[str, Any]]:
        """The batch with what is not needed for its loss left out; joined, if the first that can be shows it may."""
        plain = self.accelerator.unwrap_model(model)
        backbone = plain.get_base_model().base_model
        if self.joins is not False and "attention_mask" in inputs and not self.aux_loss_enabled:
            together = joined(inputs, backbone.config.get_text_config().hidden_size)
            if together is not None:
                if self.joins is None:
                    attention = backbone.config._attn_implementation
                    self.joins = may_join(plain, attention) and joins(plain, backbone, inputs, together)
                if self.joins:
                    return together.within(backbone)
        return trained_only(inputs).within(backbone)


def _norms(model: Any, before: Mapping[str, Factors] | None) -> dict[str, float]:
    trained = [tensor.detach() for tensor in model.parameters() if tensor.requires_grad]
    norms = {"train/adapter_norm": math.sqrt(math.fsum(float(one.float().pow(2).sum()) for one in trained))}
    after = factors_of(model)
    if after is not None and before is not None:
        norms["train/update_norm"] = update_norm(after, before)
    return norms


def _publish(model: Any, out: Path, start: Policy, bench: Bench) -> None:
    """Write the adapter and its probe to `out`. PhaseError for NaN or Inf."""
    for name, tensor in model.named_parameters():
        if tensor.requires_grad and not bool(torch.isfinite(tensor).all()):
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
    # Probed as it will be used: in half precision, training leaves an autocast around the model's forward.
    bench.unmount()
    published = Policy(start.model, str(out), start.round, adapter_digest(out))
    write_probe(out, bench.mount(published), bench)
