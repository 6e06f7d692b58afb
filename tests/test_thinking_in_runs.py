"""Whole runs of a model that thinks: the answer is scored, and trained on alone where the recipe says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_scored
from worlds import receipt_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.compose import compose
from selftrain.config import ModelConfig, SelectConfig
from selftrain.errors import ConfigError, PhaseError
from selftrain.evaluation.rounds import of_token_counts
from selftrain.records import Candidate, Survivor
from selftrain.selection import select
from selftrain.selection.survivors import to_survivors
from selftrain.store import read_jsonl
from selftrain.summaries import funnel_words

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


def test_with_train_on_answer_the_reasoning_is_masked_and_what_never_answers_leaves_at_a_step(tmp_path: Path) -> None:
    select = {"train_on": "answer", "rule": "all", "dedup": "none"}
    recipe = recipe_of(tmp_path / "recipe", select=select, arms=["random_selection", "no_filter"])
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    survivors = survivors_of(run)
    candidates = candidates_of(run)
    assert {one.candidate_id for one in survivors} == {name for name, one in candidates.items() if one.text}
    for one in survivors:
        assert spoken(one).decode() == one.text == candidates[one.candidate_id].text
        assert one.token_ids[-1] == 256
        assert one.label_mask[-1], "the stop token is trained on"
    of_main = receipt_of(run, "main/rounds/001/select-improve-00")
    assert of_main["metrics"]["select/finished"] == len(candidates)
    assert of_main["metrics"]["select/answered"] == of_main["metrics"]["select/kept"] == len(survivors)
    assert f"{len(candidates)} finished > {len(survivors)} answered" in funnel_words(of_main["metrics"])
    rejected = read_jsonl(run / "arms/main/rounds/001/survivors/improve-00/rejected.jsonl")
    assert {row["candidate_id"]: row["why"] for row in rejected} == {
        name: "no answer to train on" for name, one in candidates.items() if not one.text
    }
    for arm in ("random_selection", "no_filter"):
        assert receipt_of(run, f"{arm}/rounds/001/select-improve-00")["rows"] == len(survivors)


def test_where_no_candidate_answers_the_round_trains_on_nothing_and_goes_on(tmp_path: Path) -> None:
    select = {"train_on": "answer", "rule": "all", "dedup": "none"}
    recipe = recipe_of(tmp_path / "recipe", select=select, rounds=2)
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return '<think>and on'\n")
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    for number in (1, 2):
        assert receipt_of(run, f"main/rounds/00{number}/train-improve-00")["metrics"]["train/skipped"] == 1.0
    with pytest.raises(PhaseError, match=r"0 survivors.*0 answered"):
        run_here(recipe, "select.min_survivors=1", "name=other", runs_dir=tmp_path / "runs")


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


def test_a_candidate_without_an_answer_to_train_on_leaves_by_itself() -> None:
    from dataclasses import replace

    candidates = [
        replace(make_candidate("p", index, "57", num_tokens=3), reasoning="r", reasoning_tokens=index)
        for index in (0, 1, 3)
    ]
    group = make_scored("p", [(one, 1.0) for one in candidates])
    knobs = SelectConfig(rule="all", dedup="none", train_on="answer")
    chosen = select([group], knobs, seed=0)
    assert chosen.reasons == {"p/3": "no answer to train on"}
    kept = select([group], knobs.model_copy(update={"train_on": "completion"}), seed=0).kept
    without = [
        replace(make_candidate("p", 0, "57", num_tokens=0), reasoning="r", prompt_token_ids=()),
        replace(make_candidate("p", 1, "", num_tokens=0), reasoning="for ever", prompt_token_ids=()),
        replace(make_candidate("p", 2, "58", num_tokens=0), reasoning="r"),
    ]
    of_texts = select([make_scored("p", [(one, 1.0) for one in without])], knobs, seed=0)
    assert of_texts.reasons == {
        "p/1": "no answer to train on",
        "p/2": "cannot be written in the policy's tokens and context",
    }, "where no model is loaded nothing has tokens"
    texts = {"p": "ask p"}
    whole = to_survivors(kept, round_number=1, prompt_texts=texts)
    assert [one.label_mask for one in whole] == [(False, False, True, True, True)] * 3
    answers = to_survivors(chosen.kept, round_number=1, prompt_texts=texts, train_on="answer")
    assert [one.label_mask for one in answers] == [(False, False, True, True, True), (False, False, False, True, True)]
    assert of_token_counts(candidates, "sample")["sample/reasoning_tokens_mean"] == pytest.approx(4 / 3)
    assert "sample/reasoning_tokens_mean" not in of_token_counts([make_candidate("p", 0, "57")], "sample")
