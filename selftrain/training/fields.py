"""Checks the pass-through tables `train.lora`, `train.sft`, `verifier.lora` and `verifier.dpo` before anything heavy is
imported.

Their fields are those of peft.LoraConfig, trl.SFTConfig and trl.DPOConfig as installed: read from the packages' source
by `ast`, since importing them takes ten seconds.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from selftrain.adapters import INITS_THAT_CHANGE_THE_BASE
from selftrain.config import TrainConfig, VerifierConfig
from selftrain.errors import ConfigError, DependencyError

# package, file, class: the config's own class and its bases.
_LORA = (
    ("peft", "tuners/lora/config.py", "LoraConfig"),
    ("peft", "config.py", "PeftConfig"),
    ("peft", "config.py", "PeftConfigMixin"),
)
_SFT = (
    ("trl", "trainer/sft_config.py", "SFTConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)
_DPO = (("trl", "trainer/dpo_config.py", "DPOConfig"), *_SFT[1:])

# Of TRL's DPOTrainer, which names a wrong one only when its loss is computed.
PAIR_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
SAMPLING_STRATEGIES = ("group_by_length", "random", "sequential")

LORA_OWNED = {
    "base_model_name_or_path": "it is model.path",
    "revision": "use model.revision",
    "task_type": "it is always CAUSAL_LM",
    "inference_mode": "adapters are trained here and frozen elsewhere",
    "peft_type": "it is always LORA",
    "peft_version": "PEFT sets it",
    "auto_mapping": "PEFT sets it",
    "bias": "the base model's own biases would change; use lora_bias",
    "layer_replication": "the base model's layers would change",
}
SFT_OWNED = {
    "learning_rate": "use train.learning_rate",
    "num_train_epochs": "use train.epochs",
    "max_steps": "use train.steps",
    "per_device_train_batch_size": "use train.batch_size and train.micro_batch_size",
    "gradient_accumulation_steps": "use train.batch_size and train.micro_batch_size",
    "auto_find_batch_size": "use train.micro_batch_size",
    "max_length": "use train.max_length",
    "truncation_mode": "examples are never cut; use train.max_length",
    "seed": "use seed",
    "data_seed": "use seed",
    "bf16": "use model.dtype",
    "fp16": "use model.dtype",
    "use_cpu": "use model.device",
    "gradient_checkpointing": "use activation_checkpointing",
    "gradient_checkpointing_kwargs": "use activation_checkpointing_kwargs",
    "trust_remote_code": "use model.trust_remote_code",
    "model_init_kwargs": "use the model section",
    "report_to": "use track",
    "run_name": "use name",
    "packing": "batch_size would no longer count examples; with flash attention batches have no padding anyway",
    "packing_strategy": "batch_size would no longer count examples",
    "eval_packing": "batch_size would no longer count examples",
    "shuffle_dataset": "use train_sampling_strategy",
    "dataloader_drop_last": "no example is ever dropped",
    "completion_only_loss": "survivors say which tokens are trained on",
    "assistant_only_loss": "survivors say which tokens are trained on",
    "output_dir": "selftrain decides where adapters and checkpoints go",
    "resume_from_checkpoint": "the same command goes on from the last checkpoint by itself",
    "ignore_data_skip": "the same command goes on from the last checkpoint by itself",
    "restore_callback_states_from_checkpoint": "the same command goes on from the last checkpoint by itself",
    "enable_jit_checkpoint": "SIGTERM and SIGUSR1 save a checkpoint by themselves",
    "use_liger_kernel": "TRL deprecated it",
    "liger_kernel_config": "TRL deprecated it",
    "pad_token": "the tokenizer's own is used; padding is masked",
    "eos_token": "survivors end as they were sampled",
    "chat_template_path": "the model's own chat template is used",
    "remove_unused_columns": "selftrain makes the data set",
    "label_names": "selftrain makes the data set",
    "length_column_name": "selftrain makes the data set",
    "disable_tqdm": "progress is in metrics.jsonl",
    "accelerator_config": "selftrain decides how ranks share a batch",
    "average_tokens_across_devices": "the loss is that of the whole batch, however many ranks share it",
    "parallelism_config": "ranks train data-parallel (DDP)",
    "deepspeed": "ranks train data-parallel (DDP)",
    "local_rank": "the launcher says",
    "ddp_backend": "the processes connect by themselves",
    "ddp_timeout": "use ranks.wait_seconds",
    "load_best_model_at_end": "evaluation is a phase of its own",
    "metric_for_best_model": "evaluation is a phase of its own",
    "greater_is_better": "evaluation is a phase of its own",
    "per_device_eval_batch_size": "evaluation is a phase of its own",
    "bf16_full_eval": "evaluation is a phase of its own",
    "fp16_full_eval": "evaluation is a phase of its own",
    "prediction_loss_only": "evaluation is a phase of its own",
    "batch_eval_metrics": "evaluation is a phase of its own",
    "project": "use track",
    "full_determinism": "it would stay on for the sampler of later rounds",
    "tf32": "it would stay on for the sampler of later rounds",
}
SFT_OWNED_PREFIXES = {
    "eval_": "evaluation is a phase of its own",
    "do_": "selftrain runs the phases",
    "save_": "use train.checkpoint_steps",
    "hub_": "export the adapter when the run is done",
    "push_to_hub": "export the adapter when the run is done",
    "logging_": "every step is logged",
    "log_": "every step is logged",
    "include_": "every step is logged",
    "trackio_": "use track",
    "dataset_": "selftrain makes the data set",
    "fsdp": "ranks train data-parallel (DDP)",
}
# Beside those of SFT_OWNED, or otherwise.
DPO_OWNED = {
    "max_steps": "use verifier.epochs",
    "max_length": "pairs are never cut",
    "truncation_mode": "pairs are never cut",
    "beta": "use verifier.beta",
    "padding_free": "TRL has none for pairs",
    "precompute_ref_log_probs": "the reference reads each answer once, before training",
    "precompute_ref_batch_size": "the reference reads each answer once, before training",
    "sync_ref_model": "the reference is the policy of round 0 throughout",
    "ref_model_mixup_alpha": "the reference is the policy of round 0 throughout",
    "ref_model_sync_steps": "the reference is the policy of round 0 throughout",
    "ld_alpha": "the reference's log-probabilities are those of whole answers",
}


def lora_fields() -> frozenset[str]:
    """The field names of peft.LoraConfig. DependencyError where peft is not installed."""
    return _fields(_LORA)


def sft_fields() -> frozenset[str]:
    """The field names of trl.SFTConfig. DependencyError where trl or transformers is not installed."""
    return _fields(_SFT)


def dpo_fields() -> frozenset[str]:
    """The field names of trl.DPOConfig. DependencyError where trl or transformers is not installed."""
    return _fields(_DPO)


def owned(name: str) -> str | None:
    """What to use instead of a field of trl.SFTConfig that selftrain sets itself; None for a field that is free."""
    if name in SFT_OWNED:
        return SFT_OWNED[name]
    return next((advice for prefix, advice in SFT_OWNED_PREFIXES.items() if name.startswith(prefix)), None)


def owned_of_dpo(name: str) -> str | None:
    """The same of a field of trl.DPOConfig."""
    found = DPO_OWNED.get(name) or owned(name)
    return found if found is None else found.replace("train.", "verifier.")


def check_tables(config: TrainConfig) -> None:
    """Raise ConfigError with one line per mistake in `train.lora` and `train.sft`."""
    mistakes = [*_mistakes("train.lora", config.lora, lora_fields() if config.lora else frozenset(), LORA_OWNED.get)]
    mistakes += _mistakes("train.sft", config.sft, sft_fields() if config.sft else frozenset(), owned)
    mistakes += _values("train", config.lora, "sft", config.sft)
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def check_verifier(config: VerifierConfig, *, ranks: int = 1) -> None:
    """Raise ConfigError with one line per mistake in `verifier.lora` and `verifier.dpo`, or for uneven shares."""
    mistakes = [*_mistakes("verifier.lora", config.lora, lora_fields() if config.lora else frozenset(), LORA_OWNED.get)]
    mistakes += _mistakes("verifier.dpo", config.dpo, dpo_fields() if config.dpo else frozenset(), owned_of_dpo)
    mistakes += _values("verifier", config.lora, "dpo", config.dpo)
    losses = config.dpo.get("loss_type", ())
    for loss in [losses] if isinstance(losses, str) else losses:
        if loss not in PAIR_LOSSES:
            mistakes.append(f"verifier.dpo.loss_type: {loss!r} is none of {', '.join(PAIR_LOSSES)}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    check_shares(config, ranks, "verifier")


def check_shape(lora: Mapping[str, Any], of_adapter: Mapping[str, Any], table: str = "train.lora") -> None:
    """Raise ConfigError for a field of `lora`, the table of that name, that is otherwise in the adapter which training
    goes on from.

    What is not set is as in the adapter. `all-linear`, and how a new adapter is initialised, say nothing about it.
    """
    for name, wanted in lora.items():
        found = of_adapter.get(name)
        if name != "init_lora_weights" and wanted != "all-linear" and _plain(wanted) != _plain(found):
            raise ConfigError(
                f"{table}.{name} is {wanted!r}, but the adapter that training goes on from has {found!r}; set it to "
                "that, or leave it out; a new adapter starts from the base model, without model.adapter, with "
                "train.init_from: base"
            )


def _plain(value: Any) -> Any:
    """One form of what PEFT keeps as a set; of nothing (false, null, an empty table) as well."""
    if isinstance(value, list | tuple | set | frozenset):
        return sorted(map(str, value)) or None
    return value or None


def check_shares(config: TrainConfig | VerifierConfig, ranks: int, section: str = "train") -> None:
    """Raise ConfigError where so many ranks cannot share a batch evenly, in micro-batches of the size asked for.
    `section` is the config's name."""
    if config.batch_size % ranks:
        fits = [size for size in (config.batch_size // ranks * ranks, -(-config.batch_size // ranks) * ranks) if size]
        raise ConfigError(
            f"{section}.batch_size {config.batch_size} is no multiple of the {ranks} processes; set it to "
            f"{' or '.join(map(str, fits))}, or start {_divisor(config.batch_size, ranks)}"
        )
    share = config.batch_size // ranks
    micro = config.micro_batch_size
    for size in micro if isinstance(micro, tuple) else (micro,):
        if size is not None and size < share and share % size:
            raise ConfigError(
                f"{section}.micro_batch_size {size} does not divide the {share} examples of a batch that each of the "
                f"{ranks} processes trains on; set it to {_divisor(share, size)}"
            )
    if wrong := [name for name in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{name}") == "true"]:
        raise ConfigError(
            f"the launcher was configured for {wrong[0]}, but ranks train data-parallel (DDP) and each holds the whole "
            "model; use `accelerate launch --multi_gpu`, or torchrun"
        )


def _divisor(number: int, at_most: int) -> int:
    """The largest divisor of the number that is no more than that."""
    return next(one for one in range(at_most, 0, -1) if number % one == 0)


def _mistakes(path: str, table: Mapping[str, Any], known: frozenset[str], advice_for: Any) -> Iterator[str]:
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            kind = path.rpartition(".")[2]
            owner = {"lora": "peft.LoraConfig", "sft": "trl.SFTConfig", "dpo": "trl.DPOConfig"}[kind]
            hint = f"did you mean {close[0]}?" if close else f"see the documentation of {owner}"
            yield f"{path}.{name}: {owner} has no such field; {hint}"
        elif advice := advice_for(name):
            yield f"{path}.{name}: selftrain sets this itself; {advice}"


def _values(section: str, lora: Mapping[str, Any], table: str, free: Mapping[str, Any]) -> Iterator[str]:
    targets = lora.get("target_modules", ())
    if "lm_head" in ([targets] if isinstance(targets, str) else targets or ()):
        yield f"{section}.lora.target_modules: an adapter on lm_head would never be trained (TRL skips it); remove it"
    init = str(lora.get("init_lora_weights", "")).lower()
    if init.startswith(INITS_THAT_CHANGE_THE_BASE):
        yield f"{section}.lora.init_lora_weights: {init!r} changes the base model; use true, gaussian or orthogonal"
    strategy = free.get("train_sampling_strategy", SAMPLING_STRATEGIES[0])
    if strategy not in SAMPLING_STRATEGIES:
        yield f"{section}.{table}.train_sampling_strategy: {strategy!r} is none of {', '.join(SAMPLING_STRATEGIES)}"


@cache
def _fields(classes: tuple[tuple[str, str, str], ...]) -> frozenset[str]:
    names: set[str] = set()
    for package, file, name in classes:
        names.update(_annotated(_folder(package) / file, name))
    return frozenset(names)


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(f"the package {package} is not installed; run `pip install {package}`")
    return Path(spec.submodule_search_locations[0])


def _annotated(path: Path, name: str) -> Iterator[str]:
    """The annotated names in a class body: the fields of a dataclass."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id
            return
    raise DependencyError(f"{path} has no class {name}; install the versions that selftrain asks for: `pip check`")
