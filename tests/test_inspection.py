from pathlib import Path
from typing import Any

import pytest
from worlds import scripted_recipe

from selftrain import inspection
from selftrain.compose import compose
from selftrain.config import TrainConfig
from selftrain.errors import ConfigError


def mistakes(**train: Any) -> list[str]:
    return list(inspection.value_mistakes(TrainConfig.model_validate(train)))


@pytest.mark.parametrize(
    ("section", "knob", "value"),
    [
        ("lora", "r", 0),
        ("lora", "r", 2.5),
        ("lora", "r", True),
        ("lora", "lora_dropout", 1.0),
        ("lora", "lora_dropout", "0.1"),
        ("lora", "target_modules", []),
        ("lora", "target_modules", "q_proj("),
        ("lora", "use_dora", "yes"),
        ("sft", "weight_decay", -0.1),
        ("sft", "adam_beta2", 1),
        ("sft", "warmup_steps", -1),
    ],
)
def test_a_value_that_a_library_would_refuse_is_named(section: str, knob: str, value: Any) -> None:
    (found,) = mistakes(**{section: {knob: value}})
    assert found.startswith(f"train.{section}.{knob}")
    assert repr(value) in found


@pytest.mark.parametrize(
    "train",
    [
        {"lora": {"r": 8, "lora_alpha": 16.5, "lora_dropout": 0.05, "target_modules": ["q_proj"]}},
        {"lora": {"target_modules": "all-linear", "use_dora": True}},
        {"sft": {"lr_scheduler_type": "cosine", "optim": "adamw_torch", "warmup_steps": 0.1, "max_grad_norm": 0}},
        {"lora": {"r": None}},
    ],
)
def test_values_that_are_taken_pass(train: dict[str, Any]) -> None:
    assert mistakes(**train) == []


def test_names_are_those_of_the_installed_transformers_and_the_nearest_is_told() -> None:
    assert "cosine?" in mistakes(sft={"lr_scheduler_type": "cosin"})[0]
    assert "adamw_torch_fused?" in mistakes(sft={"optim": "adamw_torch_fuse"})[0]


def test_every_function_that_a_run_will_call_is_found(tmp_path: Path) -> None:
    recipe = scripted_recipe(
        tmp_path,
        score={"scorers": ["exact", "verify.py:judge"]},
        select={"filters": ["filters.py:short"]},
        evaluate={"num_samples": 4, "ks": [1], "retention_scorers": ["verify.py:other"]},
    )
    found = list(inspection.functions(compose(str(recipe)).config))
    assert found == ["verify.py:judge", "verify.py:other", "filters.py:short", "answers.py:answer"]


def test_a_function_that_is_not_in_its_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, score={"scorers": ["verify.py:judge"]})
    (tmp_path / "verify.py").write_text("raise SystemExit('was run')\ndef jugde(text):\n    return True\n")
    with pytest.raises(ConfigError, match=r"verify\.py:judge: .*jugde"):
        inspection.check(compose(str(recipe)).config, tmp_path)


def test_an_arm_of_its_own_is_looked_at_too(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, arms={"wide": {"train.lora": {"r": -1}}})
    with pytest.raises(ConfigError, match=r"train\.lora\.r is -1"):
        inspection.check(compose(str(recipe)).config, tmp_path)
