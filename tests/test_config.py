from __future__ import annotations

from typing import Any

import pytest

from selftrain.config import ScorerConfig, at_round, fingerprinted, resolved
from selftrain.endpoint import check_endpoint
from selftrain.errors import ConfigError
from selftrain.parsing import parse
from selftrain.scoring import check_scorers


def minimal(**changes: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "model": {"path": "m"},
        "prompts": {"train": "a.jsonl"},
        "score": {"scorers": ["exact"]},
        **changes,
    }


def test_a_schedule_gives_one_value_per_round_and_repeats_its_last() -> None:
    config = parse(minimal(train={"learning_rate": [1e-3, 1e-4]}))
    assert [at_round(config.train, number)["learning_rate"] for number in (1, 2, 3, 9)] == [1e-3, 1e-4, 1e-4, 1e-4]
    assert resolved(config.train, 2).learning_rate == 1e-4


def test_performance_knobs_stay_out_of_fingerprints_and_others_are_in() -> None:
    config = parse(minimal())
    assert "checkpoint_steps" not in fingerprinted(config.train)
    assert {"learning_rate", "init_from", "lora", "sft", "batch_size"} <= fingerprinted(config.train).keys()
    assert "block_size" in fingerprinted(config.sample)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sample": {"num_candidate": 4}},
            "sample.num_candidate: there is no such key; did you mean sample.num_candidates?",
        ),
        ({"nmae": 1}, "did you mean name?"),
        ({"prompts": {"train": {"pth": "x"}}}, "did you mean prompts.train.path?"),
        (
            {"sample": {"num_candidates": 0}},
            "sample.num_candidates: Input should be greater than or equal to 1 (got 0)",
        ),
        ({"select": {"quality": {"without": "n"}}}, "select.quality.without: it takes a list, as [n] (got 'n')"),
        ({"select": {"quality": 3}}, "select.quality: it takes knobs of its own, as {knob: value} (got 3)"),
        ({"score": {"scorers": {"0": {"params": {}}}}}, "score.scorers: a list is given as a whole, [..., ...], and"),
        ({"train": {"learning_rate": "fast"}}, "train.learning_rate: Input should be a valid number"),
        ({"train": {"learning_rate": []}}, "learning_rate is an empty list"),
        ({"train": {"batch_size": 8, "micro_batch_size": 3}}, "micro_batch_size 3 does not divide batch_size 8"),
        ({"train": {"init_from": "best"}}, "train.init_from: best needs prompts.validate"),
        ({"stop": {"patience": 1}}, "needs prompts.validate"),
        ({"arms": ["placebo"]}, "unknown arm 'placebo'; known: random_selection"),
        ({"arms": ["random_selection", "random_selection"]}, "named twice"),
        ({"select": {"rule": "random"}}, "rule: random needs count"),
        ({"select": {"finish_reasons": []}}, "finish_reasons is empty"),
        ({"evaluate": {"ks": [16], "num_samples": 8}}, "pass@16 of num_samples 8"),
        ({"prompts": {"train": "a.jsonl", "format": "text", "system": "Be brief."}}, "system needs format: chat"),
        ({"name": "../up"}, "cannot name a folder"),
        ({"score": {}}, "score.scorers: is missing"),
        (
            {"select": {"near_duplicates": True}},
            "select.near_duplicates: it takes knobs of its own (got true); write {} for the defaults",
        ),
        ({"select": {"quality": False}}, "select.quality: it takes knobs of its own (got false); write null"),
        ({"select": {"quality": {}}}, "select.quality: no bound is given, so that it has no effect"),
        (
            {"select": {"near_duplicates": {"by": "embedding"}}},
            "select.near_duplicates: by: embedding and model go together",
        ),
        ({"sample": {"policy": {}}}, "  sample.policy takes one of model, endpoint"),
        (
            {"sample": {"policy": {"endpoint": {"url": "http://a/v1", "model": "m", "api_key": "geheim"}}}},
            "sample.policy.endpoint.api_key: there is no such key; did you mean sample.policy.endpoint.key_variable?",
        ),
        (
            {"sample": {"policy": {"endpoint": {"base_url": "http://a/v1", "model": "m"}}}},
            "did you mean sample.policy.endpoint.url?",
        ),
        ({"curate": {"language": "english"}}, "curate.language: 'english' is no code of a language"),
        ({"model": {"path": "m", "trust_remote_code": "perhaps"}}, "model.trust_remote_code"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_remedy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(minimal(**changes))
    assert said in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("key", ["sk-geheim-0123456789", "geheim key", "sk_geheim0123456789abcdef", "1geheim"])
def test_a_key_in_the_place_of_its_variable_is_not_repeated(key: str) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "m", "key_variable": key}
    with pytest.raises(ConfigError, match=r"sample\.policy\.endpoint\.key_variable: .*export JUDGE_KEY") as refused:
        check_endpoint(
            parse(minimal(sample={"policy": {"endpoint": endpoint}})).sample.policy.endpoint,  # type: ignore[union-attr, arg-type]
            "sample.policy.endpoint",
        )
    assert "geheim" not in str(refused.value)
    judge = ScorerConfig(name="llm_judge", params={"endpoint": endpoint})
    with pytest.raises(ConfigError, match=r"endpoint\.key_variable: .*export JUDGE_KEY") as refused:
        check_scorers([judge])
    assert "geheim" not in str(refused.value)


def test_a_key_by_another_name_is_pointed_to_key_variable_in_a_scorer_too() -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "m", "api_key": "geheim"}
    with pytest.raises(ConfigError, match=r"api_key: there is no such key; did you mean key_variable\?") as refused:
        check_scorers([ScorerConfig(name="llm_judge", params={"endpoint": endpoint})])
    assert "geheim" not in str(refused.value)


def test_one_language_needs_no_list() -> None:
    assert parse(minimal(curate={"language": "en", "tags": "mathematics"})).curate.language == ("en",)


def test_a_wrong_item_of_a_list_is_the_only_thing_that_is_said() -> None:
    with pytest.raises(ConfigError) as error:
        parse(minimal(score={"scorers": [{"name": "exact", "extract": {"tagg": "answer"}}]}))
    assert "did you mean tag?" in str(error.value)
    assert len(str(error.value).splitlines()) == 2, str(error.value)
    with pytest.raises(ConfigError, match=r"score.scorers: Tuple should have at least 1 item"):
        parse(minimal(score={"scorers": []}))


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    "knob",
    ["train.learning_rate", "train.weight_decay", "sample.temperature", "select.threshold", "score.correct_at"],
)
def test_no_number_is_infinite_or_none(knob: str, number: float) -> None:
    section, _, name = knob.partition(".")
    own = {"scorers": ["exact"]} if section == "score" else {}
    with pytest.raises(ConfigError, match=knob.replace(".", r"\.")):
        parse(minimal(**{section: {**own, name: number}}))


def test_no_number_inside_a_table_is_infinite() -> None:
    with pytest.raises(ConfigError, match=r"params\.bounds\.1 is inf; give a finite number"):
        parse(minimal(score={"scorers": [{"name": "f.py:f", "params": {"bounds": [0, float("inf")]}}]}))


def test_every_knob_is_documented() -> None:
    from pydantic import BaseModel

    from selftrain import config

    for section in vars(config).values():
        if isinstance(section, type) and issubclass(section, BaseModel) and section.__module__ == config.__name__:
            for name, field in section.model_fields.items():
                # Groups explain themselves where they are defined; a test of this file would only repeat their names.
                assert (
                    field.description
                    or section is config.Config
                    or name in {"project", "entity", "group", "tags", "name"}
                ), f"{section.__name__}.{name}"
