"""Every kind of LoRA goes the whole way: trained, published, mounted, gone on with, and off the base again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_sft import policy_of, survivor, train
from tiny_models import build_model
from transformers import AutoModelForCausalLM

from selftrain.config import ModelConfig
from selftrain.errors import ConfigError
from selftrain.models import Bench, check_probe

SURVIVORS = [survivor(number, 10) for number in range(4)]
KINDS: dict[str, dict[str, Any]] = {
    "a list of targets": {"target_modules": ["q_proj", "down_proj"]},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "on the embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "a whole output layer": {"modules_to_save": ["lm_head"]},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "some tokens' embeddings": {"trainable_token_indices": [12, 15]},
}
TIED = {
    "DoRA": KINDS["DoRA"],
    "both, tied": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
}
# Whose change is no product of two factors.
WITHOUT_NORM = ("DoRA", "a whole output layer", "whole embeddings", "both", "some tokens' embeddings", "both, tied")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(ModelConfig(path=str(build_model(tmp_path_factory.mktemp("model") / "tied", context=64))))


@pytest.fixture(scope="module")
def untied(tied: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = build_model(tmp_path_factory.mktemp("model") / "untied", context=64)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() + 0.01)
    model.save_pretrained(folder)
    return Bench(ModelConfig(path=str(folder)))


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([SURVIVORS[1].token_ids])).logits  # type: ignore[no-any-return]


def goes_the_whole_way(bench: Bench, folder: Path, kind: str, lora: dict[str, Any]) -> None:
    base: Any = bench.unmount()
    weights = {name: one.detach().clone() for name, one in base.named_parameters()}
    before = logits_of(base)
    knobs: dict[str, Any] = {"steps": 2, "learning_rate": 1e-2, "lora": {"r": 4, **lora}}
    first = train(bench, folder / "1", SURVIVORS, **knobs)
    policy = policy_of(bench, folder / "1/out")
    check_probe(bench.mount(policy), policy, bench)
    one = logits_of(bench.mount(policy))
    # Without a word about its kind: the adapter knows.
    second = train(bench, folder / "2", SURVIVORS, start=policy, **{**knobs, "lora": {}})
    policy = policy_of(bench, folder / "2/out")
    check_probe(bench.mount(policy), policy, bench)
    two = logits_of(bench.mount(policy))
    assert not torch.equal(one, before)
    assert not torch.equal(two, one)
    for training in (first, second):
        assert ("train/update_norm" in training.metrics) == (kind not in WITHOUT_NORM)
    configs = [json.loads((folder / name / "out/adapter_config.json").read_text()) for name in "12"]
    assert configs[0] == configs[1]
    stored = load_file(folder / "2/out/adapter_model.safetensors")
    for name in lora.get("modules_to_save", ()):
        (saved,) = (key for key in stored if key.endswith(f"{name}.weight"))
        assert not torch.equal(stored[saved], weights[saved.removeprefix("base_model.model.")])
    if "modules_to_save" not in lora:
        assert not any("base_layer" in key or key.endswith("embed_tokens.weight") for key in stored), "no base weights"
    base = bench.unmount()
    assert {name: bool(torch.equal(one, weights[name])) for name, one in base.named_parameters()} == dict.fromkeys(
        weights, True
    )
    assert torch.equal(logits_of(base), before)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "DoRA")) for kind in KINDS])
def test_it_goes_the_whole_way(untied: Bench, tmp_path: Path, kind: str) -> None:
    goes_the_whole_way(untied, tmp_path, kind, KINDS[kind])


@pytest.mark.parametrize("kind", [pytest.param("DoRA", marks=pytest.mark.slow), "both, tied"])
def test_it_goes_the_whole_way_where_the_output_layer_is_tied_to_the_embeddings(
    tied: Bench, tmp_path: Path, kind: str
) -> None:
    goes_the_whole_way(tied, tmp_path, kind, TIED[kind])
    base: Any = tied.unmount()
    assert base.lm_head.weight is base.model.embed_tokens.weight


def test_single_tokens_cannot_be_trained_where_the_output_layer_is_tied(tied: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tied to its embeddings.*ensure_weight_tying"):
        train(tied, tmp_path, SURVIVORS, lora={"trainable_token_indices": [12]})


@pytest.mark.parametrize(
    ("lora", "named"),
    [({"r": 8}, "r is 8"), ({"use_dora": True}, "use_dora"), ({"target_modules": ["k_proj"]}, "target_modules")],
)
def test_a_table_that_contradicts_the_adapter_is_refused(
    untied: Bench, tmp_path: Path, lora: dict[str, Any], named: str
) -> None:
    train(untied, tmp_path / "1", SURVIVORS, steps=1, lora={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    start = policy_of(untied, tmp_path / "1/out")
    with pytest.raises(ConfigError, match=f"train.lora.{named}.*the adapter that training goes on from has"):
        train(untied, tmp_path / "2", SURVIVORS, start=start, steps=1, lora=lora)
    train(
        untied, tmp_path / "3", SURVIVORS, start=start, steps=1, lora={"r": 4, "target_modules": ["v_proj", "q_proj"]}
    )
