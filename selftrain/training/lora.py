"""The adapter in training: made or mounted, kept apart from what DDP sends around, measured, published."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants as hub
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel
from transformers import set_seed

from selftrain.config import TrainConfig, VerifierConfig
from selftrain.errors import ConfigError, PhaseError
from selftrain.models import Bench, adapter_digest, canonicalise_adapter, write_probe
from selftrain.records import Policy, Training, seed_from
from selftrain.training.arguments import LORA_DEFAULTS
from selftrain.training.checkpoints import Checkpoint
from selftrain.training.fields import check_shape
from selftrain.training.norms import Factors, factors_of, update_norm
from selftrain.training.steps import Steps
from selftrain.world import World

# TRL reports every trainer to the hub otherwise; the environment variable is only read when the hub is first imported.
hub.HF_HUB_DISABLE_TELEMETRY = True


@contextlib.contextmanager
def _on_bench(bench: Bench, section: str) -> Iterator[None]:
    """A training: the global generators, the bench's model and the accelerator's memory are afterwards as they were.
    `section` is that of its knobs, which the advice names where memory ran out."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    table = "dpo" if section == "verifier" else "sft"
    with warnings.catch_warnings():
        # PEFT reads a property that transformers deprecated, and says that it corrects itself on GPT-2's layers;
        # nothing here can change that.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        try:
            yield
        except torch.OutOfMemoryError as error:
            again = " (by a list, from this round on)" if section == "train" else ""
            raise PhaseError(
                f"training ran out of the accelerator's memory; lower {section}.micro_batch_size{again}, or set "
                f"{section}.{table}: {{activation_checkpointing: true}}"
            ) from error
        finally:
            # TRL reseeds the global generators at every construction; give the caller its own back.
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            if on_devices:
                torch.cuda.set_rng_state_all(on_devices)
            bench.unmount()
            # The trainer, its callback and its optimizer hold each other: without this, their memory would stay
            # taken while the next round samples.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def trained(
    bench: Bench,
    start: Policy,
    config: TrainConfig | VerifierConfig,
    make: Callable[[Any], tuple[Any, Steps]],
    *,
    section: str,
    out: Path,
    seed: int,
    examples: int,
    found: Checkpoint | None,
    began: float,
    world: World,
) -> Training:
    """One training on every rank, from `found` on if there is such: the adapter is made or mounted, trained, written to
    `out`. `make` gives, of the model with its adapter, the trainer and its steps. `began` is when all of it did."""
    with _on_bench(bench, section):
        set_seed(seed % 2**32)
        model = _adapter_on(bench, start, config.lora, section)
        before = factors_of(model) if start.adapter is not None else {}
        trainer, steps = make(model)
        trainer.add_callback(steps)
        if world.size > 1:
            _spare_ddp_the_base(model)
        if not world.is_first:
            set_seed(seed_from(seed, world.rank) % 2**32)  # for dropout; the new adapter is the same everywhere
        trainer.train(resume_from_checkpoint=str(found.folder) if found else None)
        steps.require_finished()

        def publish() -> Training:
            norms = _norms_of(model, before)
            _publish(model, out, start, bench, section)
            metrics = steps.totals(examples, norms, time.perf_counter() - began)
            return Training(metrics=metrics, steps=tuple(steps.rows))

        return world.from_first(publish, f"publishing the {'verifier' if section == 'verifier' else 'adapter'}")


def _adapter_on(bench: Bench, start: Policy, lora: Mapping[str, Any], section: str) -> Any:
    """The base model with the start's adapter, or a new one of that shape, ready to be trained. ConfigError: fields of
    `lora`, the table of that section, that PEFT refuses, or that the start's adapter contradicts."""
    if start.adapter is None:
        model: Any = _new_adapter(bench, lora, f"{section}.lora")
    else:
        model = bench.mount(start, trainable=True)
        check_shape(lora, vars(model.peft_config["default"]), f"{section}.lora")
    # PEFT asks the hub about the base by this name at each save; it is set when the adapter is written.
    model.peft_config["default"].base_model_name_or_path = None
    return model


def _new_adapter(bench: Bench, lora: Mapping[str, Any], table: str) -> Any:
    base: Any = bench.unmount()
    if (
        lora.get("trainable_token_indices")
        and base.get_output_embeddings().weight is base.get_input_embeddings().weight
    ):
        raise ConfigError(
            f"{table}.trainable_token_indices: this model's output layer is tied to its embeddings, and TRL reads "
            "its weights past PEFT; set modules_to_save: [embed_tokens, lm_head] and ensure_weight_tying: true instead"
        )
    with as_config_error(table):
        config = LoraConfig(**{**LORA_DEFAULTS, **lora}, bias="none", task_type="CAUSAL_LM")
        return get_peft_model(base, config)


@contextlib.contextmanager
def as_config_error(table: str) -> Iterator[None]:
    """What a library refuses of that table, as ConfigError."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{table}: {error}; correct the value") from error


def _spare_ddp_the_base(model: Any) -> None:
    """Keep DDP from sending the base model's weights from rank to rank: every rank has read the same files."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    buffers = [name for name, _ in model.named_buffers()]
    ddp: Any = DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, frozen + buffers)


def require_ranks(arguments: Any, world: World) -> None:
    """ConfigError where Accelerate was started otherwise than the run."""
    if arguments.world_size != world.size:
        raise ConfigError(
            f"Accelerate sees {arguments.world_size} processes where the run has {world.size}; start them with "
            "torchrun or accelerate launch, which set LOCAL_RANK"
        )


def _norms_of(model: Any, before: Mapping[str, Factors] | None) -> dict[str, float]:
    """`train/adapter_norm`, and `train/update_norm` to the factors of before, where both have such."""
    trained = [tensor.detach() for tensor in model.parameters() if tensor.requires_grad]
    norms = {"train/adapter_norm": math.sqrt(math.fsum(float(one.float().pow(2).sum()) for one in trained))}
    after = factors_of(model)
    if after is not None and before is not None:
        norms["train/update_norm"] = update_norm(after, before)
    return norms


def _publish(model: Any, out: Path, start: Policy, bench: Bench, section: str) -> None:
    """Write the adapter and its probe to `out`. PhaseError for NaN or Inf."""
    for name, tensor in model.named_parameters():
        if tensor.requires_grad and not bool(torch.isfinite(tensor).all()):
            raise PhaseError(
                f"the trained adapter holds NaN or infinite values (in {name}) and is not published; "
                f"lower {section}.learning_rate"
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
