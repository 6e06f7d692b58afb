"""The recipe `curate_instructions` with a tiny model and a reward model that was really trained."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from tiny_models import build_model
from tiny_rewards import tiny_reward_model

from selftrain import prompts
from selftrain.compose import compose, find_recipe
from selftrain.curating import curate_recipe

RECIPE = find_recipe("curate_instructions")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curated-instructions")
    model = build_model(folder / "model", context=512)
    reward = tiny_reward_model(tmp_path_factory)
    overrides = [
        f"model.path={model}",
        "model.device=cpu",
        f"score.scorers=[{{name: reward_model, params: {{model: {reward}}}}}]",
        "prompts.train.limit=12",
        "prompts.test.limit=4",
        "sample.max_new_tokens=24",
        "select.finish_reasons=[stop_token,stop_string,length]",  # a model without sense seldom comes to an end
        "select.quality={min_words: 1, ends_whole: false}",
    ]
    return curate_recipe(str(RECIPE), layers=[], overrides=overrides, runs_dir=folder / "runs")


def test_the_best_answer_of_each_prompt_is_exported_with_its_worst(exported: Path) -> None:
    rows = [json.loads(line) for line in (exported / "prompt_completion.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (exported / "preference.jsonl").read_text().splitlines()]
    assert 6 <= len(rows) <= 12
    assert len({row["prompt_id"] for row in rows}) == len(rows), "best of n keeps one"
    kept = {row["candidate_id"]: row for row in rows}
    for one in pairs:
        assert one["chosen"] == kept[one["chosen_candidate_id"]]["completion"]
        assert one["chosen_value"] > one["rejected_value"]
    assert len(pairs) >= 6


def test_the_card_names_the_filters_and_loads(exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    for words in ("near_duplicates", "decontaminate", "max_repeated_ngrams: 0.2", "reward_model", "apache-2.0"):
        assert words in card
    data = datasets.load_dataset(str(exported), "preference", split="train", cache_dir=str(tmp_path))
    assert data.column_names[:3] == ["prompt", "chosen", "rejected"]


def test_the_recipe_asks_about_other_topics_than_those_that_it_must_not_touch() -> None:
    composed = compose(str(RECIPE))
    sets = prompts.load(composed.config.prompts, composed.folder)
    assert sets.test is not None
    asked, kept_out = ({one.metadata["topic"] for one in of.prompts} for of in (sets.train, sets.test))
    assert len(sets.train.prompts) == 160
    assert not asked & kept_out
