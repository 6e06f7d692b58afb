"""Every note on combinations of knobs: said where it applies, and not otherwise."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from worlds import scripted_recipe

from selftrain import advice
from selftrain import prompts as prompt_room
from selftrain.advice import generator, idle, judges, judging, note, rewards, whole
from selftrain.advice.note import Note
from selftrain.compose import compose
from selftrain.config import at_round
from selftrain.errors import ConfigError

EXACT = {"scorers": ["exact"]}
JUDGE: dict[str, Any] = {"name": "llm_judge", "params": {"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m"}}}
REWARD = {"name": "reward_model", "params": {"model": "owner/reward"}}
PAIRS = {"name": "reward_model", "params": {"model": "owner/reward", "pairwise": True}}
MIXED = {"scorers": ["exact", "answers.py:answer"]}
SEED = {"train": "train.jsonl", "format": "text", "seed_data": {"path": "seed.jsonl"}}
SEEDED = {"seed_data": {"path": "seed.jsonl"}}

# name: (advice, changes for which it is said, what it says, changes for which it is not)
CASES: dict[str, tuple[advice.Advice, dict[str, Any], str, dict[str, Any]]] = {
    "canaries at none of the prompts": (
        judges.no_canaries,
        {"score": {"scorers": [{**JUDGE, "params": {**JUDGE["params"], "canaries": 1e-9}}]}},
        "none of the 12 training prompts",
        {"score": {"scorers": [{**JUDGE, "params": {**JUDGE["params"], "canaries": 1.0}}]}},
    ),
    "a judge that measures what it selects": (
        judges.judge_of_itself,
        {"score": {"scorers": [JUDGE]}},
        "the judge that selects is also what held-out answers are measured by",
        {"score": {"scorers": [JUDGE]}, "evaluate": {"scorers": ["exact"]}},
    ),
    "rewards by a threshold that nobody chose": (
        rewards.rewards_by_threshold,
        {"score": {"scorers": [REWARD]}},
        "select.rule threshold keeps rewards from 1.0 up",
        {"score": {"scorers": [REWARD]}, "select": {"rule": "best_of_n"}},
    ),
    "rewards that are correct from 1 up": (
        rewards.rewards_called_correct,
        {"score": {"scorers": [REWARD]}},
        "score.correct_at is 1",
        {"score": {"scorers": [REWARD], "correct_at": 0.0}},
    ),
    "pairs of one greedy answer": (
        rewards.pairs_of_one,
        {"score": {"scorers": [PAIRS]}},
        "each gets 0.5",
        {"score": {"scorers": [PAIRS]}, "evaluate": {"scorers": ["exact"]}},
    ),
    "a vote that nobody can win": (
        judging.vote_of_few,
        {"score": {"scorers": ["majority"]}, "sample": {"num_candidates": 1}, "evaluate": {"scorers": ["exact"]}},
        "no answer can have the 2 votes",
        {"score": {"scorers": ["majority"]}, "sample": {"num_candidates": 8}, "evaluate": {"scorers": ["exact"]}},
    ),
    "a vote of few": (
        judging.vote_of_few,
        {"score": {"scorers": ["majority"]}, "evaluate": {"scorers": ["exact"]}},
        "fewer than 5 candidates",
        {},
    ),
    "a vote on held-out answers": (
        judging.vote_on_held_out,
        {"score": {"scorers": ["majority"]}},
        "a held-out prompt has one greedy answer",
        {"score": {"scorers": ["majority"]}, "evaluate": {"scorers": ["exact"]}},
    ),
    "greedy copies": (
        judging.greedy_copies,
        {"sample": {"temperature": [1.0, 0.0]}},
        "in rounds 2, 3: greedy candidates",
        {"sample": {"temperature": 0.0, "num_candidates": 1}},
    ),
    "the same candidates in every round": (
        generator.same_again,
        {"sample": {"policy": {"file": "train.jsonl"}}},
        "holds the same candidates in each of the 3 rounds",
        {"sample": {"policy": {"file": "train.jsonl"}}, "rounds": 1},
    ),
    "another model in every round": (
        generator.same_again,
        {"sample": {"policy": {"model": "owner/other"}}},
        "they get no better with the policy",
        {"sample": {"policy": {"checkpoints": ["policy", "owner/other"]}}},
    ),
    "sampling knobs of a file": (
        generator.unheeded_knobs,
        {"sample": {"policy": {"file": "train.jsonl"}, "temperature": 0.5}, "rounds": 1},
        "sample.temperature: no effect on candidates of sample.policy.file",
        {"sample": {"policy": {"model": "owner/other"}, "temperature": 0.5}, "rounds": 1},
    ),
    "one block": (judging.one_block, {"sample": {"block_size": 64}}, "the 12 prompts of a round", {}),
    "short reasoning": (
        judging.short_reasoning,
        {"model": {"path": "none", "thinking": {}}},
        "under 256",
        {"model": {"path": "none", "thinking": {}}, "sample": {"max_new_tokens": 256}},
    ),
    "above the mean of one": (
        judging.above_mean_of_equals,
        {"select": {"rule": "above_mean"}, "sample": {"num_candidates": [1, 4]}},
        "keeps nothing in round 1",
        {"select": {"rule": "above_mean"}},
    ),
    "best of one": (
        judging.best_of_one,
        {"select": {"rule": "best_of_n"}, "sample": {"num_candidates": 1}},
        "among equals:",
        {"select": {"rule": "best_of_n"}},
    ),
    "top of fewer": (
        judging.top_of_fewer,
        {"select": {"rule": "top_k", "top_k": 4}},
        "every candidate is among the best",
        {"select": {"rule": "top_k", "top_k": 3}},
    ),
    "an idle cap": (
        judging.idle_cap,
        {"select": {"max_per_prompt": 4}},
        "never cuts",
        {"select": {"max_per_prompt": 3}},
    ),
    "a threshold out of reach": (
        judging.threshold_out_of_reach,
        {"select": {"threshold": [1.0, 2.0, 1.0]}},
        "never reached in round 2: these scorers give at most 1",
        {"select": {"threshold": 2.0}, "score": MIXED},
    ),
    "a threshold of all": (
        judging.threshold_of_all,
        {"select": {"threshold": 0.0}},
        "always reached: these scorers give no less than 0",
        {"select": {"threshold": 0.0, "rule": "all"}},
    ),
    "never correct": (
        judging.never_correct,
        {"score": {**EXACT, "correct_at": 1.5}},
        "no answer would ever count",
        {"score": {**MIXED, "correct_at": 1.5}},
    ),
    "always correct": (
        judging.always_correct,
        {"score": {**EXACT, "correct_at": 0.0}},
        "every answer would count as correct",
        {"score": {**MIXED, "correct_at": 0.0}},
    ),
    "held-out answers never correct": (
        judging.never_correct,
        {"evaluate": {"correct_at": 1.5}},
        "evaluate.correct_at is 1.5, and score.scorers give at most 1: no held-out answer would ever count",
        {"evaluate": {"correct_at": 1.0}},
    ),
    "held-out answers always correct": (
        judging.always_correct,
        {"score": {"scorers": [REWARD], "correct_at": 0.0}, "evaluate": {"scorers": ["exact"], "correct_at": 0.0}},
        "evaluate.correct_at is 0, and evaluate.scorers give no less than 0: every held-out answer would count",
        {"score": {"scorers": [REWARD], "correct_at": 0.0}, "evaluate": {"scorers": ["exact"]}},
    ),
    "retention answers always correct": (
        judging.always_correct,
        {
            "score": {"scorers": [REWARD], "correct_at": 0.0},
            "evaluate": {"retention_scorers": ["exact"], "correct_at": 0.0},
            "prompts": {"retention": "retention.jsonl"},
        },
        "evaluate.retention_scorers give no less than 0: every retention answer would count",
        {
            "score": {"scorers": [REWARD], "correct_at": 0.0},
            "evaluate": {"retention_scorers": ["exact"]},
            "prompts": {"retention": "retention.jsonl"},
        },
    ),
    "held-out rewards that are correct from 1 up": (
        rewards.rewards_called_correct,
        {"score": {"scorers": [REWARD], "correct_at": 0.0}, "evaluate": {"scorers": [deepcopy(REWARD)]}},
        "evaluate.correct_at is 1: a held-out answer counts",
        {
            "score": {"scorers": [REWARD], "correct_at": 0.0},
            "evaluate": {"scorers": [deepcopy(REWARD)], "correct_at": 0.0},
        },
    ),
    "only cut ones": (
        judging.only_cut,
        {"select": {"finish_reasons": ["length"]}},
        "only candidates that were cut survive",
        {"select": {"finish_reasons": ["length", "stop_token"]}},
    ),
    "idle knobs": (
        idle.idle_knobs,
        {"select": {"top_k": 2, "count": [5, 6]}, "train": {"steps": 3, "epochs": 2.0}},
        "select.top_k has no effect without select.rule top_k; select.count has no effect without select.rule random; "
        "train.epochs has no effect without train.steps null; leave them out",
        {"select": {"top_k": 2}, "train": {"epochs": 2.0}, "arms": {"best": {"select.rule": "top_k"}}},
    ),
    "too long to be": (
        judging.lengths_apart,
        {"select": {"min_completion_tokens": 9}},
        "nothing is long enough",
        {"select": {"min_completion_tokens": 8, "max_completion_tokens": 7}},
    ),
    "a limit that nothing reaches": (
        judging.lengths_apart,
        {"select": {"max_completion_tokens": 8}},
        "no candidate is longer than",
        {"select": {"max_completion_tokens": 8}, "sample": {"max_new_tokens": [8, 16]}},
    ),
    "stopped and dropped": (
        judging.stopped_and_dropped,
        {"sample": {"stop_strings": ["\n"]}, "select": {"finish_reasons": ["stop_token"]}},
        "add stop_string",
        {"sample": {"stop_strings": ["\n"]}},
    ),
    "drawn duplicates": (
        judging.drawn_duplicates,
        {"select": {"rule": "random", "count": 5, "dedup": "none"}},
        "as often as it was sampled",
        {"select": {"rule": "random", "count": 5}},
    ),
    "all drawn": (
        judging.drawn_all,
        {"select": {"rule": "random", "count": 48}},
        "all of them are drawn",
        {"select": {"rule": "random", "count": 47}},
    ),
    "old data on old weights": (
        judging.old_data_on_old_weights,
        {"select": {"buffer": "append"}},
        "trains again on what the weights were trained on",
        {"select": {"buffer": "append"}, "train": {"init_from": "base"}},
    ),
    "a lone gate": (
        judging.lone_gate,
        {"score": {"scorers": [{"name": "exact", "gate": True}]}},
        "leave gate out",
        {"score": {"scorers": [{"name": "exact", "gate": True}, "numeric"]}},
    ),
    "a chat model in text": (
        whole.chat_model_in_text,
        {"model": {"path": "some/Model-7B-Instruct"}},
        "Model-7B-Instruct looks like",
        {"model": {"path": "some-chat-group/Italic-7B"}},
    ),
    "idle template variables": (
        whole.idle_template_variables,
        {"model": {"path": "none", "chat_template_kwargs": {"enable_thinking": False}}},
        "no effect",
        {"prompts": {"format": "chat"}, "model": {"path": "none", "chat_template_kwargs": {"a": 1}}},
    ),
    "idle seed data": (
        whole.idle_seed_data,
        {"prompts": SEEDED},
        "is not used",
        {"prompts": SEEDED, "arms": ["seed_only"]},
    ),
    "more pairs than survivors": (
        whole.idle_pairs,
        {"select": {"rule": "best_of_n"}, "curate": {"pairs": "best_worst", "pairs_per_prompt": 2}},
        "at most 1 of a prompt's candidates survive",
        {"select": {"rule": "all"}, "curate": {"pairs": "best_worst", "pairs_per_prompt": 2}},
    ),
    "idle retention scorers": (
        whole.idle_retention_scorers,
        {"evaluate": {"retention_scorers": ["exact"]}},
        "nothing to judge",
        {"evaluate": {"retention_scorers": ["exact"]}, "prompts": {"retention": "retention.jsonl"}},
    ),
    "more than there is": (
        whole.more_than_there_is,
        {"prompts": {"per_round": 13}},
        "there are 12 training prompts",
        {"prompts": {"per_round": 12}},
    ),
    "a long schedule": (
        whole.long_schedules,
        {"train": {"learning_rate": [1e-3, 1e-4, 1e-5, 1e-6]}, "sample": {"temperature": [1.0, 0.9, 0.8, 0.7]}},
        "sample.temperature has 4 values for 3 rounds; the rest is not used; train.learning_rate has 4",
        {"train": {"learning_rate": [1e-3, 1e-4, 1e-5]}},
    ),
    "rounds out of reach": (
        whole.rounds_out_of_reach,
        {"evaluate": {"sampled_rounds": [1, 5]}, "arms": [{"random_selection": {"evaluate_rounds": [4]}}]},
        "sampled_rounds names 5; arms.random_selection.evaluate_rounds names 4: there are 3 rounds",
        {"evaluate": {"sampled_rounds": ["first", 3, "last"]}},
    ),
    "the best of nothing": (
        whole.best_of_nothing,
        {"train": {"init_from": "best"}, "rounds": 1},
        "no other round",
        {"train": {"init_from": "best"}},
    ),
    "idle patience": (whole.idle_patience, {"stop": {"patience": 3}}, "never ends", {"stop": {"patience": 2}}),
    "unasked verifier": (
        whole.unasked_verifier,
        {"verifier": {"rounds": [1, "last"]}},
        "no answers are sampled after round 1,",
        {"verifier": {"rounds": [1, "last"]}, "evaluate": {"sampled_rounds": [1, "last"]}},
    ),
    "nothing to delete": (
        whole.nothing_to_delete,
        {"keep": "best_and_last", "rounds": 1},
        "one round",
        {"keep": "best_and_last"},
    ),
}


def notes_of(folder: Path, changes: dict[str, Any], one: advice.Advice | None = None) -> list[Note]:
    recipe = scripted_recipe(folder, **changes)
    (folder / "seed.jsonl").write_text('{"prompt": "what comes after 50?", "completion": "51"}\n')
    (folder / "retention.jsonl").write_text('{"prompt": "what comes before 50?", "reference": "49"}\n')
    composed = compose(str(recipe))
    prompts = prompt_room.load(composed.config.prompts, composed.folder)
    if one is None:
        return list(advice.notes(composed.config, prompts))
    found = one(composed.config, prompts)
    return [found] if found is not None else []


@pytest.mark.parametrize("name", CASES)
def test_a_note_is_said_where_it_applies_and_only_there(tmp_path: Path, name: str) -> None:
    one, wrong, words, right = CASES[name]
    (note,) = notes_of(tmp_path / "wrong", wrong, one)
    assert words in note.words
    assert notes_of(tmp_path / "right", right, one) == []


def test_of_a_mix_more_than_there_is_of_a_task_and_none_of_it_are_noted(tmp_path: Path) -> None:
    few = {"path": "validate.jsonl", "weight": 9}
    prompts = {"train": {"mix": {"few": few, "many": "train.jsonl"}}, "validate": None, "per_round": [10, 4]}
    (note,) = notes_of(tmp_path / "wrong", {"prompts": prompts}, whole.more_than_there_is)
    assert "per_round 10, shared out by weight, asks more than there is" in note.words
    assert "(few 9 of 6)" in note.words
    (note,) = notes_of(tmp_path / "none", {"prompts": {**prompts, "per_round": 4}}, whole.more_than_there_is)
    assert note.words.endswith("asks none at all of many")
    even = {"train": {"mix": {"few": "validate.jsonl", "many": "train.jsonl"}}, "validate": None, "per_round": 1}
    assert notes_of(tmp_path / "turns", {"prompts": even, "rounds": 2}, whole.more_than_there_is) == []
    (note,) = notes_of(tmp_path / "once", {"prompts": even, "rounds": 1}, whole.more_than_there_is)
    assert note.words.endswith("asks none at all of many")
    right = {"few": {**few, "weight": 1}, "many": "train.jsonl"}
    fits = {"prompts": {**prompts, "train": {"mix": right}}}
    assert notes_of(tmp_path / "right", fits, whole.more_than_there_is) == []


def test_what_an_arm_of_the_recipe_uses_is_not_said_to_be_unused(tmp_path: Path) -> None:
    arms = {"seed_only": {}, "hot": {"sample.temperature": 0.5}}
    assert notes_of(tmp_path, {"prompts": SEEDED, "arms": arms}) == []


def test_every_note_of_the_table_has_a_case() -> None:
    assert {one for one, _, _, _ in CASES.values()} == set(advice.TABLE)


def test_a_plain_recipe_has_no_notes(tmp_path: Path) -> None:
    assert notes_of(tmp_path, {"sample": {}}) == []


def test_what_is_said_of_main_is_not_said_again_of_its_arms(tmp_path: Path) -> None:
    arms = {"cold": {"sample.temperature": 0.0}, "warm": {"sample.temperature": 1.3}}
    words = [note.words for note in notes_of(tmp_path, {"select": {"max_per_prompt": 4}, "arms": arms})]
    assert len(words) == 2
    assert words[0].startswith("select.max_per_prompt")
    assert words[1].startswith("arm cold: sample.temperature is 0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"select": {"rule": "above_mean"}, "sample": {"num_candidates": 1}}, "above_mean keeps nothing"),
        ({"select": {"threshold": 1.5}}, "never reached"),
        ({"select": {"threshold": 1.5, "normalise": "global_minmax"}, "score": MIXED}, "global_minmax gives at most 1"),
        ({"select": {"min_completion_tokens": 9}}, "long enough"),
        ({"arms": {"strict": {"select.threshold": 1.5}}}, "arm strict: select.threshold is never reached"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    recipe = scripted_recipe(tmp_path, **changes)
    composed = compose(str(recipe))
    prompts = prompt_room.load(composed.config.prompts, composed.folder)
    with pytest.raises(ConfigError, match=words):
        advice.refuse(composed.config, prompts)


def test_what_makes_no_sense_in_some_rounds_only_is_not_refused(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, select={"threshold": [1.0, 1.5, 1.0]})
    composed = compose(str(recipe))
    advice.refuse(composed.config, prompt_room.load(composed.config.prompts, composed.folder))


@pytest.mark.parametrize(
    ("changes", "knob"),
    [
        ({"select": {"rule": "all", "threshold": 0.5}}, "select.threshold"),
        ({"select": {"top_fraction": 0.5}}, "select.top_fraction"),
        ({"select": {"above_mean": 1.0}}, "select.above_mean"),
        ({"select": {"per_prompt": 2}}, "select.per_prompt"),
        ({"select": {"rule": "best_of_n", "normalise": "zscore"}}, "select.normalise"),
        ({"select": {"rule": "top_fraction", "top_fraction": 0.5, "normalise": "global_minmax"}}, "select.normalise"),
        (
            {
                "select": {"rule": "random", "count": 3, "kl_beta": 0.1},
                "sample": {"engine": "transformers", "params": {}},
            },
            "select.kl_beta",
        ),
        ({"sample": {"temperature": 0.0, "num_candidates": 1, "min_p": 0.1}}, "sample.min_p"),
        ({"evaluate": {"retention_rounds": "all"}}, "evaluate.retention_rounds"),
    ],
)
def test_each_knob_that_is_set_for_nothing_is_named(tmp_path: Path, changes: dict[str, Any], knob: str) -> None:
    (note,) = notes_of(tmp_path, changes, idle.idle_knobs)
    assert note.words.startswith(f"{knob} has no effect without ")
    assert note.words.endswith("; leave it out")


@pytest.mark.parametrize(
    "changes",
    [
        {"select": {"normalise": "zscore", "threshold": 1.5}},
        {"select": {"rule": "top_fraction", "top_fraction": 0.5, "normalise": "per_prompt_minmax"}},
        {"select": {"kl_beta": 0.1, "threshold": 1.5}, "sample": {"engine": "transformers", "params": {}}},
    ],
)
def test_shaped_values_that_rules_can_tell_apart_are_left_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert not notes_of(tmp_path, changes, idle.idle_knobs)
    assert not notes_of(tmp_path, changes, judging.threshold_out_of_reach)


@pytest.mark.parametrize(
    ("select", "most"),
    [
        ({"rule": "best_of_n"}, 1),
        ({"rule": "top_k", "top_k": 2, "max_per_prompt": None}, 2),
        ({"max_per_prompt": 2}, 2),
    ],
)
def test_more_pairs_of_a_prompt_than_it_has_survivors_are_noted(
    tmp_path: Path, select: dict[str, Any], most: int
) -> None:
    curate = {"pairs": "best_worst", "pairs_per_prompt": 3}
    (found,) = notes_of(tmp_path, {"select": select, "curate": curate}, whole.idle_pairs)
    assert found.words.startswith(f"curate.pairs_per_prompt is 3, and at most {most} of a prompt's candidates survive")
    enough = {"select": {"rule": "all", "max_per_prompt": None}, "curate": curate}
    for other in (enough, {"select": select, "curate": {"pairs": "none", "pairs_per_prompt": 3}}):
        assert not notes_of(tmp_path, other, whole.idle_pairs)


def test_many_equal_rounds_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(note, "at_round", lambda section, number: looked.append(number) or at_round(section, number))
    changes = {"sample": {"temperature": [1.0, 1.0, 0.0]}, "rounds": 1_000_000}
    (found,) = notes_of(tmp_path, changes, judging.greedy_copies)
    assert "in rounds 3 to 1000000: greedy" in found.words
    assert max(looked) == 3
