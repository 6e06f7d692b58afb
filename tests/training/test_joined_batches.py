from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_models import build_model
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from selftrain.training.examples import IGNORED
from selftrain.training.joined import joined, joins, may_join, trained_only

HIDDEN = 10_000  # attention is never what a row costs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = AutoModelForCausalLM.from_pretrained(build_model(tmp_path_factory.mktemp("models") / "tiny"))
    add_fused_lm_head(base)
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted.train()


def batch_of(examples: list[list[int]], untrained: int) -> dict[str, torch.Tensor]:
    """Padded on the right; the first `untrained` ids of each have no label."""
    longest = max(map(len, examples))
    rows = [(ids, ids[untrained:]) for ids in examples]
    return {
        "input_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([[IGNORED] * untrained + kept + [IGNORED] * (longest - len(ids)) for ids, kept in rows]),
    }


def logprobs_and_gradients(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    output = model(**inputs, use_cache=False, fused_lm_head=True)
    # Tokens are weighed differently, so that one in another's place would be noticed.
    terms = output.log_probs[output.log_probs != 0]
    (terms * torch.linspace(0.5, 1.5, len(terms))).sum().backward()
    return terms.detach(), [one.grad for one in model.parameters() if one.requires_grad]


def assert_same(model: Any, inputs: dict[str, torch.Tensor], *ways: Any) -> None:
    expected, gradients = logprobs_and_gradients(model, inputs)
    for way in ways:
        with way.within(model.get_base_model().base_model) as given_inputs:
            found, of_way = logprobs_and_gradients(model, given_inputs)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for one, other in zip(of_way, gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(3, 300), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(3, 300), min_size=2, max_size=9), min_size=2, max_size=5),
    st.integers(0, 14),
)
def test_loss_and_gradients_are_those_of_the_plain_batch(
    model: Any, beginning: list[int], endings: list[list[int]], untrained: int
) -> None:
    """Also where what is shared is trained on, and where endings begin alike."""
    examples = [beginning + ending for ending in endings]
    inputs = batch_of(examples, min(untrained, min(map(len, examples)) - 1))
    together = joined(inputs, HIDDEN)
    assert_same(model, inputs, trained_only(inputs), *([together] if together is not None else []))


def test_a_joined_row_holds_the_beginning_once_and_no_padding(model: Any) -> None:
    inputs = batch_of([[5, 6, 7, 8, 9, 20], [5, 6, 7, 8, 30, 31, 32], [5, 6, 7, 8, 40, 41]], 5)
    together = joined(inputs, HIDDEN)
    assert together is not None
    assert together.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 20, 30, 31, 32, 40, 41]]
    assert together.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6, 4, 5]]
    assert together.inputs["attention_mask"][0, 0, 10].tolist() == [True] * 4 + [False] * 5 + [True] * 2
    assert_same(model, inputs, together)
    assert joins(model, model.get_base_model().base_model, inputs, together)


def test_equal_examples_are_joined_up_to_their_last_token(model: Any) -> None:
    inputs = batch_of([[5, 6, 7, 8, 9]] * 3, 2)
    together = joined(inputs, HIDDEN)
    assert together is not None
    assert together.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 9, 9]]
    assert_same(model, inputs, together)


def test_batches_that_share_nothing_or_would_make_attention_dear_stay_as_they_are() -> None:
    assert joined(batch_of([[5, 6, 7, 8], [15, 16, 17, 18]], 1), HIDDEN) is None
    alike = batch_of([[5, 6, 7, 8, 9], [5, 6, 7, 8, 19]], 1)
    assert joined(alike, HIDDEN) is not None
    assert joined(alike, 1) is None
    left = {**alike, "attention_mask": alike["attention_mask"].flip(1).clone()}
    left["attention_mask"][0, 0] = 0
    assert joined(left, HIDDEN) is None


def test_a_model_that_ignores_the_mask_or_drops_out_is_found_out(model: Any, tmp_path: Path) -> None:
    inputs = batch_of([[5, 6, 7, 8, 9, 20], [5, 6, 7, 8, 30, 31], [5, 6, 7, 8, 40, 41]], 3)
    together = joined(inputs, HIDDEN)
    assert together is not None
    backbone = model.get_base_model().base_model
    together.inputs["attention_mask"] = None
    assert not joins(model, backbone, inputs, together)
    assert may_join(model, "sdpa")
    assert not may_join(model, "flash_attention_2")
    base = AutoModelForCausalLM.from_pretrained(build_model(tmp_path / "tiny"))
    dropping = get_peft_model(base, LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear"))
    assert not may_join(dropping, "sdpa")
