"""The norm of a training's update, against the full matrices."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from selftrain.training.norms import Factors, factors_of, update_norm

SIZES = st.integers(1, 6)


def factors(generator: torch.Generator, out: int, r: int, into: int, scale: float) -> Factors:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Factors(down=normal(r, into), up=normal(out, r), scale=scale)


def full(one: Factors) -> torch.Tensor:
    return one.scale * one.up @ one.down


@given(SIZES, SIZES, SIZES, SIZES, st.floats(0.1, 10), st.floats(0.1, 10), st.integers(0, 2**31))
def test_it_is_that_of_the_full_matrices_for_any_ranks_and_scales(
    out: int, into: int, r_after: int, r_before: int, scale_after: float, scale_before: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    after = {name: factors(generator, out, r_after, into, scale_after) for name in ("a", "b")}
    before = {name: factors(generator, out, r_before, into, scale_before) for name in ("a", "b")}
    dense = math.sqrt(sum(float((full(after[name]) - full(before[name])).pow(2).sum()) for name in after))
    assert update_norm(after, before) == pytest.approx(dense, rel=1e-9, abs=1e-9)
    alone = math.sqrt(sum(float(full(one).pow(2).sum()) for one in after.values()))
    assert update_norm(after, {}) == pytest.approx(alone, rel=1e-9)
    assert update_norm(after, after) == pytest.approx(0.0, abs=1e-6 * alone)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.words(ids)))


def adapted(**settings: Any) -> Any:
    torch.manual_seed(0)
    wanted = {"r": 4, "lora_alpha": 8, "target_modules": ["words", "first", "second"], "init_lora_weights": False}
    return get_peft_model(Small(), LoraConfig(**{**wanted, **settings}))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_alpha": 3}, {"r": 1}], ids=str)
def test_the_factors_of_a_model_give_what_peft_would_merge(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    found = factors_of(model)
    assert found is not None
    merged = [
        module.get_delta_weight("default").detach() for module in model.modules() if isinstance(module, LoraLayer)
    ]
    assert len(found) == len(merged) == 3
    expected = math.sqrt(sum(float(one.double().pow(2).sum()) for one in merged))
    assert update_norm(found, {}) == pytest.approx(expected, rel=1e-6)


def test_a_new_adapter_has_moved_nothing_yet() -> None:
    found = factors_of(adapted(init_lora_weights=True))
    assert found is not None
    assert update_norm(found, {}) == 0.0


def test_the_factors_are_copies() -> None:
    model = adapted()
    before = factors_of(model)
    assert before is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    after = factors_of(model)
    assert after is not None
    assert update_norm(after, before) > 0.1


def test_of_weights_that_no_product_describes_nothing_is_claimed() -> None:
    assert factors_of(adapted(use_dora=True, target_modules=["first"])) is None
