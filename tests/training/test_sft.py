"""Real trainings of a two-layer model on a CPU: what goes in, what comes out, and what is left behind."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build_model
from trl import SFTTrainer

from selftrain.adapters import adapter_digest
from selftrain.config import ModelConfig, TrainConfig
from selftrain.errors import ConfigError, Interrupted, PhaseError
from selftrain.models import Bench, check_probe
from selftrain.records import Digest, Policy, Survivor, Training
from selftrain.training.sft import SftTrainer
from selftrain.world import World

SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3, "lora": {"r": 4}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = build_model(tmp_path_factory.mktemp("model") / "tiny", context=64)
    return Bench(ModelConfig(path=str(folder)), cache_dir=folder.parent / "cache")


def survivor(number: int, length: int, weight: float = 1.0) -> Survivor:
    ids = tuple(10 + (7 * number + 3 * place) % 200 for place in range(length))
    mask = tuple(place >= 3 for place in range(length))
    return Survivor(f"candidate-{number}", f"prompt-{number}", 1, ids, mask, weight, "test", "", "")


# 10 examples in batches of 4: the last batch of an epoch is short.
SURVIVORS = [survivor(number, 6 + 2 * number) for number in range(10)]


def base_policy(bench: Bench) -> Policy:
    return Policy(bench.config.path, None, 0, Digest("base"))


def policy_of(bench: Bench, folder: Path) -> Policy:
    return Policy(bench.config.path, str(folder), 1, adapter_digest(folder))


def train(
    bench: Bench,
    folder: Path,
    survivors: Sequence[Survivor] = SURVIVORS,
    *,
    start: Policy | None = None,
    seed: int = 2**62 + 5,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Mapping[str, float]], None] = lambda row: None,
    **settings: Any,
) -> Training:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return SftTrainer(lambda: bench).train(
        survivors,
        start=start or base_policy(bench),
        out=folder / "out",
        work=folder / "work",
        config=TrainConfig(**{**SETTINGS, **settings}),
        seed=seed,
        should_stop=should_stop,
        on_step=on_step,
        world=World(),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def after(calls: int) -> Callable[[], bool]:
    left = iter([False] * (calls - 1))
    return lambda: next(left, True)


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([SURVIVORS[5].token_ids])).logits


def test_the_loss_falls_when_one_example_is_repeated(bench: Bench, tmp_path: Path) -> None:
    training = train(bench, tmp_path, [survivor(0, 20)] * 4, steps=30, learning_rate=1e-2)
    # Unit-norm hidden states on small frozen embeddings bound this model's logits, so its loss cannot fall below 4.5.
    assert training.metrics["train/final_loss"] < training.steps[0]["train/loss"] - 0.8


def test_the_adapter_folder_holds_three_files_and_is_what_was_trained(bench: Bench, tmp_path: Path) -> None:
    train(bench, tmp_path)
    assert sorted(files_of(tmp_path)) == ["adapter_config.json", "adapter_model.safetensors", "probe.json"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == bench.config.path
    assert config["target_modules"] == sorted(config["target_modules"])
    policy = policy_of(bench, tmp_path / "out")
    check_probe(bench.mount(policy), policy, bench)
    trained = logits_of(bench.mount(policy))
    assert not torch.equal(trained, logits_of(bench.unmount()))


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}, {"sft": {"train_sampling_strategy": "random"}}])
def test_every_given_id_and_no_other_is_trained_on_once_per_epoch(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    scored: list[int] = []
    step = SFTTrainer.training_step

    def record(trainer: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
            length = int(mask.sum())
            assert bool((labels[length:] == -100).all())
            seen.append((tuple(ids[:length].tolist()), tuple(labels[:length].tolist())))
        return step(trainer, model, inputs, *rest)

    def score(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and "shift_labels" in kwargs:
            scored.extend(kwargs["shift_labels"].flatten().tolist())

    monkeypatch.setattr(SFTTrainer, "training_step", record)
    handle = bench.unmount().register_forward_pre_hook(score, with_kwargs=True)
    try:
        train(bench, tmp_path, epochs=2, **settings)
    finally:
        handle.remove()
    assert scored == [label for _, labels in seen for label in labels if label != -100], "what the output layer is for"
    given = [
        (one.token_ids, tuple(i if m else -100 for i, m in zip(one.token_ids, one.label_mask, strict=True)))
        for one in SURVIVORS
    ]
    assert sorted(seen[:10]) == sorted(given)
    assert sorted(seen[10:20]) == sorted(given)
    assert len(seen) == 20
    assert seen[:10] != seen[10:]


def test_each_step_has_a_row_and_the_totals_add_up(bench: Bench, tmp_path: Path) -> None:
    rows: list[Mapping[str, float]] = []
    training = train(bench, tmp_path, on_step=rows.append)
    assert tuple(rows) == training.steps
    assert [row["train/step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["train/learning_rate"] == 1e-3
    assert [row["train/learning_rate"] for row in rows] == sorted(
        (row["train/learning_rate"] for row in rows), reverse=True
    )
    totals = training.metrics
    assert totals["train/examples"] == 10
    assert totals["train/steps"] == 6
    assert totals["train/tokens"] == rows[-1]["train/tokens"] == 2 * sum(sum(one.label_mask) for one in SURVIVORS)
    assert totals["train/input_tokens"] == 2 * sum(len(one.token_ids) for one in SURVIVORS)
    assert totals["train/loss"] == pytest.approx(sum(row["train/loss"] for row in rows) / 6)
    assert totals["train/training_seconds"] > 0


def test_grouping_by_length_pads_less_than_a_random_order(bench: Bench, tmp_path: Path) -> None:
    survivors = [survivor(number, 5 + 13 * number % 50) for number in range(24)]
    grouped = train(bench, tmp_path / "grouped", survivors, epochs=1)
    shuffled = train(bench, tmp_path / "random", survivors, epochs=1, sft={"train_sampling_strategy": "random"})
    assert grouped.metrics["train/padding_rate"] < shuffled.metrics["train/padding_rate"] / 2


def test_micro_batches_change_memory_and_not_the_gradient(bench: Bench, tmp_path: Path) -> None:
    whole = train(bench, tmp_path / "whole")
    parts = train(bench, tmp_path / "parts", micro_batch_size=1)
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], abs=1e-5)
        assert one["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=1e-4)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(bench: Bench, tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(bench, tmp_path / "one")
    torch.manual_seed(2)
    train(bench, tmp_path / "two")
    train(bench, tmp_path / "other", seed=6)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert files_of(tmp_path / "one") != files_of(tmp_path / "other")


def test_going_on_from_an_adapter_starts_where_it_ended(bench: Bench, tmp_path: Path) -> None:
    first = train(bench, tmp_path / "first", learning_rate=1e-2)
    start = policy_of(bench, tmp_path / "first" / "out")
    second = train(bench, tmp_path / "second", start=start, learning_rate=1e-2)
    assert second.steps[0]["train/loss"] < first.steps[0]["train/loss"] - 0.2
    assert files_of(tmp_path / "first") != files_of(tmp_path / "second")
    assert adapter_digest(tmp_path / "first" / "out") == start.digest


def effective(folder: Path) -> dict[str, torch.Tensor]:
    """The full matrices that the adapter adds, by module."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    tensors = {name: tensor.double() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    downs = [name for name in tensors if "lora_A" in name]
    return {name: scale * tensors[name.replace("lora_A", "lora_B")] @ tensors[name] for name in downs}


@pytest.mark.parametrize("lora", [{"r": 4}, {"r": 2, "lora_alpha": 3, "use_rslora": True}], ids=str)
def test_the_update_norm_is_the_change_of_the_weights_since_the_start(
    bench: Bench, tmp_path: Path, lora: dict[str, Any]
) -> None:
    first = train(bench, tmp_path / "first", lora=lora, learning_rate=1e-2)
    start = policy_of(bench, tmp_path / "first" / "out")
    second = train(bench, tmp_path / "second", start=start, lora=lora, steps=2)
    before, after = effective(tmp_path / "first" / "out"), effective(tmp_path / "second" / "out")
    assert len(before) == 14
    moved_first = math.sqrt(sum(float(one.pow(2).sum()) for one in before.values()))
    moved_second = math.sqrt(sum(float((after[name] - before[name]).pow(2).sum()) for name in before))
    assert first.metrics["train/update_norm"] == pytest.approx(moved_first, rel=1e-6)
    assert second.metrics["train/update_norm"] == pytest.approx(moved_second, rel=1e-5)
    assert moved_second < moved_first / 2


def test_going_on_with_another_rank_is_refused(bench: Bench, tmp_path: Path) -> None:
    train(bench, tmp_path / "first", steps=1)
    start = policy_of(bench, tmp_path / "first" / "out")
    with pytest.raises(ConfigError, match=r"lora.r is 8.* has 4"):
        train(bench, tmp_path / "second", start=start, lora={"r": 8})


@pytest.mark.parametrize("end", ["finished", "interrupted", "failed"])
def test_a_training_leaves_the_bench_and_the_generators_as_they_were(bench: Bench, tmp_path: Path, end: str) -> None:
    model: Any = bench.unmount()

    def state() -> dict[str, Any]:
        return {
            "training": [module.training for module in model.modules()],
            "modules": [name for name, _ in model.named_modules()],
            "gradients": [parameter.requires_grad for parameter in model.parameters()],
            "attributes": sorted(vars(model)),
            "config": model.config.to_json_string(),
            "generation": model.generation_config.to_json_string(),
            "tokenizer": (bench.tokenizer.pad_token, bench.tokenizer.eos_token, len(bench.tokenizer)),
            "python": random.getstate(),
            "numpy": [str(part) for part in np.random.get_state()],
            "torch": torch.get_rng_state().tolist(),
        }

    before, logits = state(), logits_of(model)
    if end == "finished":
        train(bench, tmp_path)
    elif end == "interrupted":
        with pytest.raises(Interrupted):
            train(bench, tmp_path, should_stop=lambda: True)
    else:
        with pytest.raises(PhaseError):
            train(bench, tmp_path, learning_rate=1e30)
    assert state() == before
    assert torch.equal(logits_of(model), logits)


def test_two_trainings_in_one_process_equal_two_processes(bench: Bench, tmp_path: Path) -> None:
    train(bench, tmp_path / "first")
    start = policy_of(bench, tmp_path / "first" / "out")
    train(bench, tmp_path / "second", start=start)
    fresh = Bench(bench.config, cache_dir=tmp_path / "cache")
    train(fresh, tmp_path / "alone", start=start)
    assert files_of(tmp_path / "second") == files_of(tmp_path / "alone")
    assert "forward" not in vars(bench.unmount())


# Of 3 steps per epoch: inside the first, at its end, inside the second.
@pytest.mark.parametrize(("stop_at", "strategy"), [(1, "group_by_length"), (3, "group_by_length"), (5, "random")])
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    bench: Bench, tmp_path: Path, stop_at: int, strategy: str
) -> None:
    settings: dict[str, Any] = {
        "sft": {"train_sampling_strategy": strategy, "warmup_steps": 2},
        "lora": {"r": 4, "lora_dropout": 0.3},
        "micro_batch_size": 2,
    }
    whole = train(bench, tmp_path / "whole", **settings)
    with pytest.raises(Interrupted, match=f"step {stop_at} of 6"):
        train(bench, tmp_path / "parts", should_stop=after(stop_at), **settings)
    assert files_of(tmp_path / "parts") == {}
    new: list[Mapping[str, float]] = []
    parts = train(bench, tmp_path / "parts", on_step=new.append, **settings)
    assert [row["train/step"] for row in new] == list(range(stop_at + 1, 7))
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert parts.steps == whole.steps
    timeless = {key: value for key, value in parts.metrics.items() if key != "train/training_seconds"}
    assert timeless == {key: value for key, value in whole.metrics.items() if key != "train/training_seconds"}


def test_a_kill_costs_at_most_the_steps_since_the_last_checkpoint(bench: Bench, tmp_path: Path) -> None:
    def die(row: Mapping[str, float]) -> None:
        if row["train/step"] == 5:
            raise KeyboardInterrupt

    train(bench, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(bench, tmp_path / "parts", on_step=die, checkpoint_steps=2)
    new: list[Mapping[str, float]] = []
    train(bench, tmp_path / "parts", on_step=new.append, checkpoint_steps=2)
    assert [row["train/step"] for row in new] == [5, 6]
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["torn", "foreign", "unmarked"])
def test_a_checkpoint_that_is_torn_or_of_another_training_is_not_used(bench: Bench, tmp_path: Path, harm: str) -> None:
    with pytest.raises(Interrupted):
        train(bench, tmp_path, should_stop=after(3), seed=6 if harm == "foreign" else 5)
    [optimizer] = (tmp_path / "work").glob("checkpoint-*/optimizer.pt")
    if harm == "torn":
        optimizer.write_bytes(optimizer.read_bytes()[:-1])
    if harm == "unmarked":
        (tmp_path / "work" / "checkpoint.json").unlink()
    new: list[Mapping[str, float]] = []
    train(bench, tmp_path, seed=5, on_step=new.append)
    assert len(new) == 6
    assert not optimizer.exists()


def test_divergence_publishes_nothing_and_names_the_learning_rate(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PhaseError, match=r"diverged.*learning_rate"):
        train(bench, tmp_path, learning_rate=1e30)
    assert files_of(tmp_path) == {}


def test_nan_in_the_adapter_gone_on_from_is_found(bench: Bench, tmp_path: Path) -> None:
    train(bench, tmp_path / "first", steps=1)
    path = tmp_path / "first" / "out" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0] = math.nan
    save_file(tensors, path)
    with pytest.raises(PhaseError, match="diverged"):
        train(bench, tmp_path / "second", start=policy_of(bench, path.parent))
    assert files_of(tmp_path / "second") == {}


def test_a_last_step_that_ruins_the_adapter_publishes_nothing(bench: Bench, tmp_path: Path) -> None:
    # The loss is computed before the update, so it cannot tell.
    with pytest.raises(PhaseError, match="holds NaN or infinite values"):
        train(bench, tmp_path, steps=1, learning_rate=1e39)
    assert files_of(tmp_path) == {}


def test_an_example_longer_than_the_limit_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PhaseError, match=r"candidate-9 has 24 tokens.*train.max_length allows \(23\)"):
        train(bench, tmp_path, max_length=23)
    with pytest.raises(PhaseError, match=r"candidate-1 has 65 tokens.*the model's context allows \(64\)"):
        train(bench, tmp_path, [survivor(1, 65)], max_length=1000)


def test_examples_without_a_trained_token_and_no_examples_are_refused(bench: Bench, tmp_path: Path) -> None:
    untrained = dataclasses.replace(SURVIVORS[0], label_mask=(True,) + (False,) * 5)
    with pytest.raises(PhaseError, match="no token to train on"):
        train(bench, tmp_path, [untrained])
    with pytest.raises(PhaseError, match="no survivors"):
        train(bench, tmp_path, [])


def test_a_weight_scales_the_loss_of_its_example(bench: Bench, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 1, "learning_rate": 1e-3}
    a, b = survivor(1, 12), survivor(2, 30)
    loss = {
        name: train(bench, tmp_path / name, survivors, **settings).steps[0]["train/loss"]
        for name, survivors in {
            "a": [a],
            "b": [b],
            "weighted": [dataclasses.replace(a, weight=3.0), dataclasses.replace(b, weight=0.5)],
        }.items()
    }
    tokens = 9, 27
    expected = (3.0 * loss["a"] * tokens[0] + 0.5 * loss["b"] * tokens[1]) / sum(tokens)
    assert loss["weighted"] == pytest.approx(expected, rel=1e-5)


def test_equal_weights_of_one_are_the_plain_loss(bench: Bench, tmp_path: Path) -> None:
    plain = train(bench, tmp_path / "plain", epochs=1)
    # A hair from 1 takes the weighted path.
    nearly = [dataclasses.replace(one, weight=1.0 + 1e-9) for one in SURVIVORS]
    weighted = train(bench, tmp_path / "weighted", nearly, epochs=1, micro_batch_size=2)
    for one, other in zip(plain.steps, weighted.steps, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
        assert one["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=1e-3)


def test_weights_with_another_loss_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plain loss"):
        train(bench, tmp_path, [dataclasses.replace(SURVIVORS[0], weight=2.0)], sft={"loss_type": "dft"})


def test_values_that_trl_and_peft_refuse_are_errors_of_the_configuration(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train.sft:"):
        train(bench, tmp_path, sft={"optim": "no_such_optimizer"})
    with pytest.raises(ConfigError, match=r"^train.lora:"):
        train(bench, tmp_path, lora={"target_modules": ["no_such_module"]})
    with pytest.raises(ConfigError, match="flash attention"):
        train(bench, tmp_path, sft={"padding_free": True})


def test_a_tokenizer_without_a_pad_token_trains_and_stays_without(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "tiny", chat=False, context=64)
    bench = Bench(ModelConfig(path=str(folder)), cache_dir=tmp_path / "cache")
    assert bench.tokenizer.pad_token is None
    train(bench, tmp_path, steps=1)
    assert bench.tokenizer.pad_token is None


def test_the_library_sends_no_telemetry() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_TELEMETRY is True
