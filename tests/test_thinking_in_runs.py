"""Whole runs of a model that thinks: the answer is scored, and trained on alone where the recipe says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate
from worlds import receipt_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.compose import compose
from selftrain.config import ModelConfig
from selftrain.errors import ConfigError
from selftrain.evaluation.rounds import of_reasoning
from selftrain.records import Candidate, Score, Survivor
from selftrain.selection import Kept
from selftrain.selection.survivors import to_survivors

THINKER = '''
def answer(prompt, seed, policy_round):
    """A third never ends its reasoning; the others are right."""
    text = f"<think>what comes after {prompt.reference[:-1]}</think>\\n{prompt.reference}"
    return "<think>and on and on" if seed % 3 == 1 else text
'''


def recipe_of(folder: Path, **changes: Any) -> Path:
    changes = {"rounds": 1, "arms": [], "model": {"path": "none", "thinking": {}}} | changes
    sample = {"max_new_tokens": 80}
    recipe = scripted_recipe(folder, sample=sample, **changes)
    (folder / "answers.py").write_text(THINKER)
    return recipe


def candidates_of(run: Path) -> dict[str, Candidate]:
    files = (run / "arms/main/rounds/001/candidates/wave-00").iterdir()
    return {one.id: one for path in files for one in tables.read(path, Candidate)}


def survivors_of(run: Path) -> list[Survivor]:
    return tables.read(run / "arms/main/rounds/001/survivors/improve-00/survivors.parquet", Survivor)


def spoken(survivor: Survivor) -> bytes:
    ids = zip(survivor.token_ids, survivor.label_mask, strict=True)
    return bytes(one for one, trained in ids if trained and one < 256)


def test_the_answer_alone_is_scored_and_all_of_it_trained_on(tmp_path: Path) -> None:
    run = run_here(recipe_of(tmp_path / "recipe"), runs_dir=tmp_path / "runs")
    candidates = candidates_of(run)
    open_ended = {name for name, one in candidates.items() if one.reasoning == "and on and on"}
    assert open_ended
    assert all(one.text == "" for name, one in candidates.items() if name in open_ended)
    survivors = survivors_of(run)
    assert survivors
    assert not open_ended & {one.candidate_id for one in survivors}
    for one in survivors:
        assert spoken(one).decode() == f"<think>{candidates[one.candidate_id].reasoning}</think>{one.text}"
    metrics = receipt_of(run, "main/rounds/001/sample-wave-00")["metrics"]
    spent = [one.reasoning_tokens for one in candidates.values()]
    assert metrics["sample/reasoning_tokens_mean"] == pytest.approx(sum(spent) / len(spent))
    assert receipt_of(run, "main/rounds/001/evaluate")["metrics"]["evaluate/test/reasoning_tokens_mean"] > 0


def test_with_train_on_answer_the_reasoning_is_masked_and_what_never_answers_is_left_out(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", select={"train_on": "answer", "rule": "all", "dedup": "none"})
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    survivors = survivors_of(run)
    candidates = candidates_of(run)
    assert {one.candidate_id for one in survivors} == {name for name, one in candidates.items() if one.text}
    for one in survivors:
        assert spoken(one).decode() == one.text == candidates[one.candidate_id].text
        assert one.token_ids[-1] == 256
        assert one.label_mask[-1], "the stop token is trained on"


def test_other_tags_or_other_template_variables_are_another_experiment(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe")
    run_here(recipe, runs_dir=tmp_path / "runs")
    for override in ("model.thinking={open: <a>, close: </a>}", "model.chat_template_kwargs={enable_thinking: false}"):
        with pytest.raises(ConfigError, match=override.partition("=")[0].rpartition(".")[2]):
            run_here(recipe, override, runs_dir=tmp_path / "runs")


def test_what_the_template_is_called_with_is_no_variable_of_it() -> None:
    with pytest.raises(ValueError, match="chat_template_kwargs: add_generation_prompt is no variable"):
        ModelConfig(path="x", chat_template_kwargs={"add_generation_prompt": False})


def test_train_on_answer_needs_tags(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.thinking"):
        compose(str(recipe_of(tmp_path / "recipe", model={"path": "none"})), overrides=["select.train_on=answer"])


def test_a_survivor_without_an_answer_is_none() -> None:
    from dataclasses import replace

    candidates = [
        replace(make_candidate("p", index, "57", num_tokens=3), reasoning="r", reasoning_tokens=index)
        for index in (0, 1, 3)
    ]
    kept = [Kept(one, Score(one.id, 1.0, True), "all") for one in candidates]
    texts = {"p": "ask p"}
    whole = to_survivors(kept, round_number=1, prompt_texts=texts)
    assert [one.label_mask for one in whole] == [(False, False, True, True, True)] * 3
    answers = to_survivors(kept, round_number=1, prompt_texts=texts, train_on="answer")
    assert [one.label_mask for one in answers] == [(False, False, True, True, True), (False, False, False, True, True)]
    assert of_reasoning(candidates, "sample") == {"sample/reasoning_tokens_mean": pytest.approx(4 / 3)}
    assert of_reasoning([make_candidate("p", 0, "57")], "sample") == {}
