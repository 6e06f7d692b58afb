from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from selftrain.config import TrainConfig
from selftrain.errors import ConfigError
from selftrain.training import fields
from selftrain.training.fields import check_shares, check_tables, lora_fields, owned, sft_fields


def test_the_names_read_from_source_are_those_of_the_real_classes() -> None:
    from peft import LoraConfig
    from trl import SFTConfig

    assert lora_fields() == {field.name for field in dataclasses.fields(LoraConfig)}
    assert sft_fields() == {field.name for field in dataclasses.fields(SFTConfig)}


def test_the_names_are_read_without_importing_anything_heavy() -> None:
    program = (
        "import sys\n"
        "from selftrain.config import TrainConfig\n"
        "from selftrain.training import build\n"
        "build(TrainConfig(trainer='scripted', lora={'r': 4}, sft={'optim': 'sgd'}), lambda: None)\n"
        "print(sorted({'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("lora", "sft", "message"),
    [
        ({"lora_alhpa": 8}, {}, "train.lora.lora_alhpa: peft.LoraConfig has no such field; did you mean lora_alpha?"),
        ({}, {"lr_scheduler": "cosine"}, "did you mean lr_scheduler_type?"),
        ({"xyzzy": 1}, {}, "see the documentation of peft.LoraConfig"),
        ({}, {"learning_rate": 1e-4}, "train.sft.learning_rate: selftrain sets this itself; use train.learning_rate"),
        ({}, {"max_length": 10}, "use train.max_length"),
        ({}, {"save_steps": 10}, "use train.checkpoint_steps"),
        ({}, {"gradient_checkpointing": True}, "use activation_checkpointing"),
        ({}, {"gradient_accumulation_steps": 2}, "use train.batch_size"),
        ({"bias": "all"}, {}, "the base model's own biases would change"),
        ({"target_modules": ["q_proj", "lm_head"]}, {}, "an adapter on lm_head would never be trained"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "changes the base model"),
        ({}, {"train_sampling_strategy": "batch_rebalance"}, "is none of group_by_length, random, sequential"),
    ],
)
def test_a_wrong_field_is_refused_with_the_way_on(lora: dict[str, Any], sft: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_tables(TrainConfig(lora=lora, sft=sft))
    assert message in str(caught.value)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_tables(TrainConfig(lora={"x": 1, "bias": "all"}, sft={"y": 1, "seed": 2}))
    assert len(str(caught.value).splitlines()) == 4


def test_what_people_tune_passes() -> None:
    check_tables(
        TrainConfig(
            lora={"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "use_rslora": True, "target_modules": ["q_proj"]},
            sft={"warmup_steps": 10, "lr_scheduler_type": "cosine", "weight_decay": 0.1, "optim": "adamw_torch"},
        )
    )


def test_every_field_that_selftrain_sets_is_a_real_field() -> None:
    # A misspelt or removed name in our own table would refuse nothing.
    assert set(fields.SFT_OWNED) <= sft_fields()
    assert set(fields.LORA_OWNED) <= lora_fields()
    for prefix in fields.SFT_OWNED_PREFIXES:
        assert any(name.startswith(prefix) for name in sft_fields())


def test_every_setting_of_the_sft_trainer_is_refused_in_the_table() -> None:
    from selftrain.training.arguments import SFT_DEFAULTS

    free = {name for name in sft_fields() if owned(name) is None}
    assert set(SFT_DEFAULTS) <= free
    assert not {"output_dir", "seed", "data_seed", "max_steps", "bf16", "logging_nan_inf_filter"} & free


@pytest.mark.parametrize(
    ("settings", "ranks", "message"),
    [
        ({"batch_size": 6}, 4, "train.batch_size 6 is no multiple of the 4 processes; set it to 4 or 8, or start 3"),
        ({"batch_size": 2}, 3, "set it to 3, or start 2"),
        (
            {"batch_size": 12, "micro_batch_size": 4},
            2,
            "train.micro_batch_size 4 does not divide the 6 examples of a batch that each of the 2 processes trains "
            "on; set it to 3",
        ),
        ({"batch_size": 12, "micro_batch_size": (3, 4)}, 2, "train.micro_batch_size 4 does not divide"),
    ],
)
def test_ranks_that_cannot_share_a_batch_are_refused(settings: dict[str, Any], ranks: int, message: str) -> None:
    check_shares(TrainConfig(**settings), 1)
    with pytest.raises(ConfigError) as caught:
        check_shares(TrainConfig(**settings), ranks)
    assert message in str(caught.value)


def test_ranks_share_a_batch_in_micro_batches_of_at_most_their_share() -> None:
    for micro in (None, 1, 2, 4, 16):
        check_shares(TrainConfig(batch_size=16, micro_batch_size=micro), 4)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launcher_configured_for_sharding_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=f"configured for {name}.*or torchrun"):
        check_shares(TrainConfig(), 2)
