"""TRL's trainers take an exported folder as `datasets` loads it: really trained, two steps each, on a tiny model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny_models import build_model
from worlds import scripted_recipe

from selftrain.curating import curate_recipe

KNOBS: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "max_length": 128,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about each other
        yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module", params=["chat", "text"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A curated folder, and a tiny model that speaks its format."""
    folder = tmp_path_factory.mktemp(f"exported-{request.param}")
    files = {"train": "train.jsonl"}
    mix = {"train": {"mix": {"low": {"path": "train.jsonl"}, "high": {"path": "validate.jsonl"}}}}
    prompts = {"format": request.param, **(mix if request.param == "chat" else files), "validate": None, "test": None}
    recipe = scripted_recipe(folder / "recipe", prompts=prompts, arms=[], curate={"pairs": "correct_incorrect"})
    out = curate_recipe(str(recipe), layers=[], overrides=[], runs_dir=folder / "runs")
    return out, build_model(folder / "model", chat=request.param == "chat")


def load(folder: Path, name: str | None, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [row["train_loss"] for row in trainer.state.log_history if "train_loss" in row]


@pytest.mark.parametrize("whole", [False, True], ids=["prompt_completion", "whole"])
def test_sft_trainer_takes_the_demonstrations_and_trains_on_what_was_answered(
    exported: tuple[Path, Path], tmp_path: Path, whole: bool
) -> None:
    from trl import SFTConfig, SFTTrainer

    folder, model = exported
    is_chat = (folder / "messages.parquet").exists()
    name = ("messages" if is_chat else "text") if whole else None
    data = load(folder, name, tmp_path / "cache")
    trainer = SFTTrainer(str(model), SFTConfig(output_dir=str(tmp_path / "out"), **KNOBS), train_dataset=data)
    [loss] = losses(trainer)
    assert math.isfinite(loss)
    for row, example in zip(data, trainer.train_dataset, strict=True):
        labels = example.get("labels") or example["input_ids"]
        said = trainer.processing_class.decode([one for one in labels if one != -100])
        if whole:
            assert (row["messages"][-1]["content"] if is_chat else row["text"]) in said
        else:
            answer = row["completion"][0]["content"] if is_chat else row["completion"]
            asked = row["prompt"][-1]["content"] if is_chat else row["prompt"]
            assert answer in said
            assert asked not in said


@pytest.mark.parametrize("kind", ["DPO", "Reward"])
def test_preference_trainers_take_the_pairs(exported: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    import trl

    folder, model = exported
    data = load(folder, "preference", tmp_path / "cache")
    assert data.num_rows >= 8
    config = getattr(trl, f"{kind}Config")(output_dir=str(tmp_path / "out"), **KNOBS)
    [loss] = losses(getattr(trl, f"{kind}Trainer")(str(model), args=config, train_dataset=data))
    assert math.isfinite(loss)
    assert loss > 0
