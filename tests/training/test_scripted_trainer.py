from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain.adapters import adapter_digest
from selftrain.config import TrainConfig
from selftrain.errors import ConfigError, Interrupted, PhaseError
from selftrain.records import Digest, Policy, Survivor, Training
from selftrain.training import TRAINERS, build
from selftrain.world import World

SURVIVORS = [
    Survivor(f"candidate-{n}", "prompt", 1, (1, 2, 3), (False, True, True), 1.0, "test", "", "") for n in range(10)
]
BASE = Policy("model", None, 0, Digest("base"))


def train(out: Path, **changes: Any) -> Training:
    out.mkdir()
    config = TrainConfig(trainer="scripted", batch_size=4, epochs=2)
    arguments: dict[str, Any] = {
        "start": BASE,
        "out": out,
        "work": out / "work",
        "config": config,
        "seed": 1,
        "should_stop": lambda: False,
        "on_step": lambda row: None,
        "world": World(),
    }
    survivors = changes.pop("survivors", SURVIVORS)
    return build(config, _no_bench).train(survivors, **{**arguments, **changes})


def _no_bench() -> Any:
    raise AssertionError("the scripted trainer loads no model")


def test_equal_inputs_give_equal_bytes_and_every_input_counts(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train(tmp_path / "two")
    train(tmp_path / "seed", seed=2)
    train(tmp_path / "start", start=Policy("model", "folder", 1, Digest("other")))
    train(tmp_path / "survivors", survivors=SURVIVORS[1:])
    digests = {name: adapter_digest(tmp_path / name) for name in ("one", "two", "seed", "start", "survivors")}
    assert digests["one"] == digests["two"]
    assert len(set(digests.values())) == 4


def test_the_weights_file_is_a_real_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    training = train(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "probe.json",
    ]
    [tensor] = load_file(tmp_path / "one" / "adapter_model.safetensors").values()
    assert tensor.shape == (8,)
    assert training.metrics["train/adapter_norm"] == pytest.approx(float((tensor**2).sum()) ** 0.5)
    assert abs(tensor).max() <= 1


def test_its_metrics_are_those_of_a_training_of_that_size(tmp_path: Path) -> None:
    rows: list[Mapping[str, float]] = []
    training = train(tmp_path / "one", on_step=rows.append)
    assert tuple(rows) == training.steps
    assert len(rows) == 6
    assert training.metrics["train/tokens"] == 40
    assert training.metrics["train/examples"] == 10
    assert [row["train/loss"] for row in rows] == sorted((row["train/loss"] for row in rows), reverse=True)


def test_asked_to_stop_it_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="step 1 of 6"):
        train(tmp_path / "one", should_stop=lambda: True)
    assert list((tmp_path / "one").iterdir()) == []


def test_no_survivors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PhaseError, match="no survivors"):
        train(tmp_path / "one", survivors=[])


def test_an_unknown_trainer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean scripted"):
        build(TrainConfig(trainer="scriptd"), _no_bench)


def test_every_trainer_of_the_table_can_be_built() -> None:
    for name in TRAINERS:
        assert callable(build(TrainConfig(trainer=name), _no_bench).train)
