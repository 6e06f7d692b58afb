"""Tokens in, tokens out: what was sampled is what is trained on, to the id."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import build_model
from worlds import model_recipe, run_here

from selftrain import tables
from selftrain.config import ModelConfig
from selftrain.models import Bench
from selftrain.records import Candidate, Survivor


@pytest.mark.parametrize("chat", [True, False], ids=["ChatML", "plain text"])
def test_survivors_hold_the_sampled_ids_with_the_stop_token_one_bos_and_nothing_truncated(
    tmp_path: Path, chat: bool
) -> None:
    model = build_model(tmp_path / "model", chat=chat)
    recipe = model_recipe(
        tmp_path / "recipe",
        model,
        prompts={"format": "chat" if chat else "text"},
        sample={"num_candidates": 8, "max_new_tokens": 40, "stop_strings": ["a", "7"], "temperature": 1.5},
        select={"finish_reasons": ["stop_token", "stop_string"], "max_per_prompt": None, "dedup": "none"},
        arms=[],
        rounds=1,
    )
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    round_one = run / "arms/main/rounds/001"
    files = sorted((round_one / "candidates/wave-00").iterdir())
    candidates = {one.id: one for path in files for one in tables.read(path, Candidate)}
    survivors = tables.read(round_one / "survivors/improve-00/survivors.parquet", Survivor)
    tokenizer = Bench(ModelConfig(path=str(model))).tokenizer
    assert {one.finish_reason for one in candidates.values()} == {"stop_token", "stop_string", "length"}
    reasons = set()
    for survivor in survivors:
        source = candidates[survivor.candidate_id]
        reasons.add(source.finish_reason)
        assert source.finish_reason != "length"
        assert survivor.token_ids == source.prompt_token_ids + source.completion_token_ids
        trained = tuple(i for i, is_label in zip(survivor.token_ids, survivor.label_mask, strict=True) if is_label)
        assert trained == source.completion_token_ids
        if source.finish_reason == "stop_token":
            assert trained[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(trained[:-1], skip_special_tokens=True) == source.text
        else:
            decoded = tokenizer.decode(trained, skip_special_tokens=True)
            assert decoded.startswith(source.text)
            assert decoded[len(source.text) :].startswith(("a", "7"))
        if chat:
            template = tokenizer.apply_chat_template(
                [{"role": "user", "content": survivor.prompt_text.removeprefix("user: ")}],
                add_generation_prompt=True,
                return_dict=False,
            )
            assert list(source.prompt_token_ids) == template
        else:
            assert survivor.token_ids.count(tokenizer.bos_token_id) == 1
            assert survivor.token_ids[0] == tokenizer.bos_token_id
            assert tokenizer.decode(source.prompt_token_ids, skip_special_tokens=True) == survivor.prompt_text
    assert reasons == {"stop_token", "stop_string"}, "both ways of stopping must be among the examples"


def test_the_trainer_reads_exactly_the_ids_of_the_survivors_file(tmp_path: Path) -> None:
    """The trained-token count is that of the label mask; the training room's tests compare the batches themselves."""
    from worlds import receipt_of

    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), arms=[], rounds=1)
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    survivors = tables.read(run / "arms/main/rounds/001/survivors/improve-00/survivors.parquet", Survivor)
    metrics = receipt_of(run, "main/rounds/001/train-improve-00")["metrics"]
    assert metrics["train/examples"] == len(survivors)
    assert metrics["train/tokens"] == sum(sum(one.label_mask) for one in survivors)
