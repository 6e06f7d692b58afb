from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt

from selftrain.config import Config, ScoreConfig
from selftrain.errors import ConfigError, DataError
from selftrain.fingerprints import Parts
from selftrain.scoring import build, check
from selftrain.scoring.combined import CombinedScorer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def config(**params: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"scorers": [{"name": "json_schema", "params": params}], "timeout_seconds": 2})


@pytest.fixture(scope="module")
def exactly() -> Iterator[CombinedScorer]:
    with build(config(), Path()) as built:
        yield built


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1.0}', 1.0),
        ('Here it is:\n```json\n{"a": 1}\n```', '{"a": 1}', 1.0),
        ('It is {"a": 1}.', '{"a": 1}', 1.0),
        ('{"a": true}', '{"a": 1}', 0.0),
        ('{"a": "1"}', '{"a": 1}', 0.0),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', 0.0),
        ('{"a": 1, "b": 2}', '{"a": 1}', 0.0),
        ('{"a": 1, "a": 1}', '{"a": 1}', 0.0),
        ('{"a": 1} {"a": 2}', '{"a": 1}', 0.0),
        ("{'a': 1}", '{"a": 1}', 0.0),
        ("no JSON", '{"a": 1}', 0.0),
        ("[" * 100_000 + "]" * 100_000, '{"a": 1}', 0.0),
        ("9" * 10_000, '{"a": 1}', 0.0),
    ],
)
def test_a_value_is_right_when_it_equals_the_reference(
    exactly: CombinedScorer, text: str, reference: str, value: float
) -> None:
    (score,) = exactly.score(make_group([text], reference=reference))
    assert (score.value, score.error) == (value, None), score.explanation


def test_subset_asks_for_the_references_keys_alone() -> None:
    with build(config(match="subset"), Path()) as scorer:
        texts = ['{"a": {"b": 1, "c": 2}, "d": 3}', '{"a": {"c": 2}, "d": 3}', '{"a": {"b": true}}']
        scores = scorer.score(make_group(texts, reference='{"a": {"b": 1}}'))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]


def test_a_schema_is_looked_at_first_and_says_where_a_value_does_not_fit() -> None:
    with build(config(schema=PERSON, match="none"), Path()) as scorer:
        texts = ['{"name": "Ada", "age": 36}', '{"name": "Ada", "age": "old"}', '{"age": 36}', '{"name": "A", "x": 1}']
        scores = scorer.score(make_group(texts, reference=None))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0, 0.0]
    assert scores[1].explanation is not None
    assert "the value does not fit the schema: at $.age: 'old' is not of type 'integer'" in scores[1].explanation
    assert scores[0].answer == '{"age":36,"name":"Ada"}'


def test_a_pattern_in_a_schema_that_backtracks_for_ever_is_stopped() -> None:
    with build(config(schema={"type": "string", "pattern": "^(a+)+$"}, match="none"), Path()) as scorer:
        scores = scorer.score(make_group(['"aaa"', json.dumps("a" * 60 + "!"), '"b"']))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert str(scores[1].explanation).endswith("judging it took over the time limit of 2 s, twice")


def test_a_schema_in_a_file_is_read_relative_to_the_recipe_and_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text(json.dumps(PERSON))
    settings = config(schema="person.json", match="none")
    with build(settings, tmp_path) as scorer:
        assert [one.value for one in scorer.score(make_group(['{"name": "Ada"}', "{}"]))] == [1.0, 0.0]
    whole = Config.model_validate(
        {"name": "x", "model": {"path": "m"}, "prompts": {"train": "t.jsonl"}, "rounds": 1, "score": settings}
    )
    before = Parts(whole, tmp_path, {"train": "d"}).part("score", 1)
    (tmp_path / "person.json").write_text(json.dumps({**PERSON, "required": []}))
    after = Parts(whole, tmp_path, {"train": "d"}).part("score", 1)
    assert before["sources"].keys() == {"person.json"}
    assert before != after


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("{", "is not JSON"),
        ("[]", "a schema is an object"),
        ('{"type": "objekt"}', "is no JSON schema: at "),
        ('{"$ref": "#/$defs/x"}', "leads nowhere"),
        ('{"$ref": "https://example.org/x.json"}', "none to files or the network"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_before_any_work(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        check(config(schema="s.json"), tmp_path)


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    with build(config(schema=tree, match="none"), Path()) as scorer:
        scores = scorer.score(make_group(["[[], [[]]]", "[1]", "[" * 900 + "]" * 900]))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert all(score.error is None for score in scores)


def test_a_reference_must_be_json_and_fit_the_schema(exactly: CombinedScorer) -> None:
    with pytest.raises(DataError, match="is not strict JSON"):
        exactly.check_references([make_prompt(reference="{'a': 1}")])
    with pytest.raises(DataError, match="there is no reference; give one, or set match: none"):
        exactly.check_references([make_prompt(reference=None)])
    with build(config(schema=PERSON), Path()) as scorer:
        scorer.check_references([make_prompt(reference='{"name": "Ada"}')])
        with pytest.raises(DataError, match="the reference does not fit the schema"):
            scorer.check_references([make_prompt(reference='{"age": 1}')])
