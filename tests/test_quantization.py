"""What can be said about quantized weights without a GPU: what is asked of bitsandbytes, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build_model
from worlds import model_recipe, run_here

from selftrain.compose import compose
from selftrain.config import ModelConfig
from selftrain.errors import ConfigError, DependencyError
from selftrain.fingerprints import Fingerprints
from selftrain.models import Bench
from selftrain.models.quantized import quantizing, require_quantizable
from selftrain.rooms import notes_on_model

GPU = torch.device("cuda", 0)


def config_of(**knobs: Any) -> ModelConfig:
    return ModelConfig(path="none", **knobs)


def found(monkeypatch: pytest.MonkeyPatch, *, bitsandbytes: bool) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return (object() if bitsandbytes else None) if name == "bitsandbytes" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_four_bits_are_those_of_qlora_computed_in_the_models_numbers(dtype: torch.dtype) -> None:
    arguments = quantizing(config_of(quantization="4bit"), GPU, dtype)
    how = arguments["quantization_config"].to_dict()
    assert (how["load_in_4bit"], how["bnb_4bit_quant_type"], how["bnb_4bit_use_double_quant"]) == (True, "nf4", True)
    assert how["bnb_4bit_compute_dtype"] == str(dtype).removeprefix("torch.")
    assert arguments["device_map"] == {"": GPU}


def test_eight_bits_are_asked_for_and_nothing_where_nothing_is_quantized() -> None:
    how = quantizing(config_of(quantization="8bit"), GPU, torch.bfloat16)["quantization_config"]
    assert (how.load_in_8bit, how.load_in_4bit) == (True, False)
    assert quantizing(config_of(), GPU, torch.bfloat16) == {}


def test_quantized_weights_are_computed_in_bfloat16_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Bench(config_of(quantization="4bit")).dtype is torch.bfloat16
    assert Bench(config_of(quantization="4bit", dtype="float16")).dtype is torch.float16


def test_a_cpu_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"4bit needs a GPU, and the model would run on cpu .*leave model.quantization out"
    ):
        _ = Bench(config_of(quantization="4bit")).digest
    with pytest.raises(ValueError, match="quantization 8bit needs a GPU, and device is cpu"):
        config_of(quantization="8bit", device="cpu")


def test_missing_bitsandbytes_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, bitsandbytes=False)
    with pytest.raises(DependencyError, match=r"pip install 'selftrain\[quantized\]'"):
        require_quantizable(config_of(quantization="4bit"), GPU)
    found(monkeypatch, bitsandbytes=True)
    require_quantizable(config_of(quantization="4bit"), GPU)


def test_a_run_on_a_cpu_ends_before_any_work_and_a_plan_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), arms=[], rounds=1)
    with pytest.raises(ConfigError, match="needs a GPU"):
        run_here(recipe, "model.quantization=4bit", runs_dir=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("**/receipts"))
    config = compose(str(recipe), overrides=["model.quantization=4bit"]).config
    if not torch.cuda.device_count():
        assert ["model.quantization 4bit needs a GPU" in one for one in notes_on_model(config, recipe.parent)] == [True]


def test_quantizing_otherwise_is_another_experiment(tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), arms=[], rounds=1)
    prompts = {"train": "t", "test": "u", "validate": "v"}
    plain, quantized = (
        Fingerprints(compose(str(recipe), overrides=one).config, recipe.parent, prompts, dict)
        for one in ([], ["model.quantization=4bit"])
    )
    for phase in ("sample", "train", "evaluate"):
        assert plain.part(phase, 1) != quantized.part(phase, 1)
