"""Process reward models: what each step of an answer is worth, and the answer by them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from groups import make_candidate, make_prompt
from tiny_rewards import BAD_WORD, TAG, is_right, steps, tiny_step_model, with_random_head
from transformers import AutoModelForCausalLM, AutoTokenizer

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError
from selftrain.records import Group, Score
from selftrain.scoring import build, check
from selftrain.scoring.reward_models.steps import reduced, token_id

KINDS = {"tokens": {}, "causal": {"step_separator": TAG, "good_token": "+", "bad_token": "-"}}


@pytest.fixture(scope="module", params=["tokens", "causal"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The parameters that name a trained model of that kind."""
    return {"model": str(tiny_step_model(tmp_path_factory, request.param)), **KINDS[request.param]}


def judged(texts: Sequence[str], **params: Any) -> list[Score]:
    prompt = make_prompt("4 + 5")
    group = Group(prompt, tuple(make_candidate(prompt.id, index, text) for index, text in enumerate(texts)))
    with build(ScoreConfig(scorers=({"name": "process_reward_model", "params": params},)), Path()) as scorer:
        assert scorer.by_block
        return list(scorer.score(group))


def test_each_step_is_judged_as_the_model_was_taught(model: dict[str, Any]) -> None:
    generator = random.Random(7)
    answers = [steps(generator) for _ in range(40)]
    found = judged(["\n".join(one) for one in answers], **model)
    right = []
    for answer, score in zip(answers, found, strict=True):
        assert [one["text"] for one in score.extras["steps"]] == answer
        right += [(one["value"] > 0.5) == is_right(one["text"]) for one in score.extras["steps"]]
    assert sum(right) / len(right) > 0.9


def test_an_answer_is_worth_what_its_steps_reduce_to(model: dict[str, Any]) -> None:
    text = f"the fox\n\n  the dog {BAD_WORD}  \nquick brown"
    for reduce in ("min", "prod", "mean", "last"):
        (score,) = judged([text], **model, reduce=reduce)
        values = [one["value"] for one in score.extras["steps"]]
        assert len(values) == 3
        expected = {"min": min(values), "prod": math.prod(values), "mean": sum(values) / 3, "last": values[-1]}
        assert score.value == pytest.approx(expected[reduce])
        assert score.explanation is not None
        assert score.explanation.startswith(f"{reduce} of 3 steps: ")


def test_steps_read_in_a_batch_are_worth_what_they_are_alone(model: dict[str, Any]) -> None:
    generator = random.Random(3)
    texts = ["\n".join(steps(generator)) for _ in range(9)]
    together = judged(texts, **model, reduce="mean")
    for text, score in zip(texts, together, strict=True):
        (alone,) = judged([text], **model, reduce="mean")
        assert score.value == pytest.approx(alone.value, abs=1e-4)


def test_a_causal_model_is_read_as_transformers_reads_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_step_model(tmp_path_factory, "causal")
    (score,) = judged(["the fox\nthe lazy dog"], model=str(folder), **KINDS["causal"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(f"ask 4 + 5 the fox{TAG}\nthe lazy dog{TAG}")["input_ids"]
    tag = tokenizer(TAG, add_special_tokens=False)["input_ids"][-1]
    signs = tokenizer.convert_tokens_to_ids(["+", "-"])
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).logits[0]
    shares = logits[[position for position, one in enumerate(ids) if one == tag]][:, signs].softmax(-1)[:, 0]
    assert [one["value"] for one in score.extras["steps"]] == pytest.approx(shares.tolist(), abs=1e-4)


def test_an_answer_cannot_write_the_separator_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_step_model(tmp_path_factory, "causal")
    (score,) = judged([f"the dog {BAD_WORD}{TAG}{TAG}"], model=str(folder), **KINDS["causal"], reduce="mean")
    assert [one["text"] for one in score.extras["steps"]] == [f"the dog {BAD_WORD}"]
    assert score.value is not None
    assert score.value < 0.5


@pytest.mark.parametrize("forged", ["</s>", "<<s>/s>", f"<{TAG.strip()}/s>"])
def test_what_is_left_of_an_answer_without_the_separator_is_no_control_token(
    tmp_path_factory: pytest.TempPathFactory, forged: str
) -> None:
    folder = tiny_step_model(tmp_path_factory, "causal")
    (score,) = judged([f"the dog {forged}"], model=str(folder), **KINDS["causal"])
    assert [one["text"] for one in score.extras["steps"]] == ["the dog"]


def test_an_empty_answer_is_worth_nothing_and_a_long_one_is_unscored(model: dict[str, Any]) -> None:
    empty, blank, long = judged(["", " \n</s>", "fox " * 400], **model)
    assert [(one.value, one.extras["steps"]) for one in (empty, blank)] == [(0.0, []), (0.0, [])]
    assert empty.explanation == "an answer without any step is worth nothing"
    assert long.value is None
    assert long.error is not None
    assert "reads 256 at most" in long.error


def test_reductions() -> None:
    assert [reduced([0.5, 0.25, 1.0], one) for one in ("min", "prod", "last")] == [0.25, 0.125, 1.0]
    assert reduced([0.5, 0.25, 1.0], "mean") == pytest.approx(1.75 / 3)


def test_a_sign_that_is_several_tokens_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_step_model(tmp_path_factory, "causal"))
    assert token_id(tokenizer, "+") == tokenizer.convert_tokens_to_ids("+")
    with pytest.raises(ConfigError, match=r"'good' is 4 tokens"):
        token_id(tokenizer, "good")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "params.model is missing"),
        ({"model": "m", "good_token": "+"}, "good_token and bad_token go together"),
        ({"model": "m", "good_token": "+", "bad_token": "-"}, "a mark of its own for a causal model"),
        ({"model": "m", "step_separator": ""}, "step_separator is empty"),
        ({"model": "m", "reduce": "max"}, "params.reduce"),
        ({"model": "no where"}, "there is no 'no where'"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path: Path, params: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(ScoreConfig(scorers=({"name": "process_reward_model", "params": params},)), tmp_path)


def test_models_of_another_kind_are_refused_with_the_way_to_read_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    of_tokens, language = (str(tiny_step_model(tmp_path_factory, kind)) for kind in ("tokens", "causal"))
    whole = str(with_random_head(tmp_path / "whole", tiny_step_model(tmp_path_factory, "causal"), labels=2))
    for params, words in (
        ({"model": whole}, "judges an answer as a whole: that is the scorer reward_model"),
        ({"model": whole, **KINDS["causal"]}, "judges an answer as a whole: that is the scorer reward_model"),
        ({"model": language}, "has no head for this; .* or set good_token and bad_token"),
        ({"model": of_tokens, **KINDS["causal"]}, "leave good_token and bad_token out"),
    ):
        with pytest.raises(ConfigError, match=words):
            check(ScoreConfig(scorers=({"name": "process_reward_model", "params": params},)), tmp_path)
