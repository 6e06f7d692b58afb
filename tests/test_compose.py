from __future__ import annotations

from pathlib import Path

import pytest
from worlds import scripted_recipe

from selftrain.compose import compose, differences, find_recipe, leaves, recipes, shipped
from selftrain.errors import ConfigError

RECIPE = """
name: one
model: {path: m}
prompts: {train: a.jsonl}
score: {scorers: [exact]}
train: {learning_rate: 1e-5}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_float_without_a_dot_is_a_float(recipe: Path) -> None:
    assert compose(str(recipe)).config.train.learning_rate == 1e-5


def test_layers_win_from_left_to_right_and_the_command_line_last(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("sample: {temperature: 0.1, top_k: 1}")
    (tmp_path / "high.yaml").write_text("sample: {temperature: 0.2, num_candidates: 2}")
    recipe.write_text("extends: [low.yaml, high.yaml]\n" + RECIPE + "sample: {top_k: 3}\n")
    (tmp_path / "over.yaml").write_text("sample: {num_candidates: 5}")
    composed = compose(str(recipe), layers=[str(tmp_path / "over.yaml")], overrides=["sample.min_p=0.25"])
    sample = composed.config.sample
    assert (sample.temperature, sample.top_k, sample.num_candidates, sample.min_p) == (0.2, 3, 5, 0.25)
    assert composed.origins["sample.temperature"] == "extends high.yaml"
    assert composed.origins["sample.top_k"] == "recipe"
    assert composed.origins["sample.num_candidates"] == f"--with {tmp_path / 'over.yaml'}"
    assert composed.origins["sample.min_p"] == "command line"


def test_a_layer_replaces_a_list_and_merges_a_mapping(recipe: Path) -> None:
    composed = compose(str(recipe), overrides=["score.scorers=[numeric]", "prompts.train={limit: 3, path: b.jsonl}"])
    assert [one.name for one in composed.config.score.scorers] == ["numeric"]
    assert composed.config.prompts.train.limit == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "duplicate key a"),
        ("a: &x 1\nb: *x", "anchors and aliases are refused"),
        ("a: [1", "line 1"),
        ("- a", "must hold keys and values"),
        ("extends: {a: 1}", "extends must be a list"),
        ("extends: nowhere.yaml", "there is no config file 'nowhere.yaml'"),
        ("extends: recipe.yaml", "extends itself"),
        ("1: x", "is not text"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(recipe: Path, text: str, said: str) -> None:
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=said):
        compose(str(recipe))


@pytest.mark.parametrize("text", ["no_equals", "=3", "a..b=3", "a.b=[1"])
def test_a_broken_override_is_refused(recipe: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        compose(str(recipe), overrides=[text])


def test_interpolation_is_plain_text(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    composed = compose(str(recipe), overrides=["prompts.template=${oc.env:SECRET}"])
    assert composed.config.prompts.template == "${oc.env:SECRET}"


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        find_recipe("quikstart")


def test_differences_name_every_knob_that_changed() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == [
        "a.b: 1 -> 3",
        "c: 2 -> '(absent)'",
        "d: '(absent)' -> 4",
    ]


def test_of_a_section_or_short_form_only_what_was_given_has_an_origin(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: x\nmodel: {path: m}\nprompts: {train: a.jsonl}\nscore: {scorers: [exact]}\n"
        "select: {near_duplicates: {}, quality: {min_words: 3}}\nverifier: {}\n"
    )
    composed = compose(str(path), overrides=["select.quality.max_words=9"])
    named = {key: composed.origin(key) for key, _ in leaves(composed.config.model_dump(mode="json", by_alias=True))}
    given = {"name", "model.path", "prompts.train.path", "score.scorers"}
    assert {key for key, origin in named.items() if origin == "recipe"} == {*given, "select.quality.min_words"}
    assert {key for key, origin in named.items() if origin == "command line"} == {"select.quality.max_words"}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_shipped_recipe_composes_is_short_and_has_a_readme_with_a_command(name: str) -> None:
    path = recipes()[name]
    compose(name)
    assert len(path.read_text().splitlines()) <= 40
    readme = (path.parent / "README.md").read_text()
    assert any(one in readme for one in ("selftrain run", "selftrain curate", "make quickstart"))
    assert "%" in readme


@pytest.mark.parametrize(
    "path", sorted(path for path in shipped("configs").rglob("*.yaml") if path.parent.name != "sweeps"), ids=str
)
def test_every_shipped_config_composes_with_a_recipe(path: Path) -> None:
    compose("quickstart", layers=[str(path.relative_to(shipped("configs")).with_suffix(""))])


def test_a_short_form_can_be_added_to_and_a_document_marker_is_no_matter(recipe: Path) -> None:
    recipe.write_text("---\n" + RECIPE)
    composed = compose(str(recipe), overrides=["prompts.train.limit=3"])
    assert (composed.config.prompts.train.path, composed.config.prompts.train.limit) == ("a.jsonl", 3)
    assert composed.origins["prompts.train.path"] == "recipe"
    assert composed.origins["prompts.train.limit"] == "command line"


def test_a_mapping_of_arms_adds_to_a_list_and_a_list_replaces(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, arms=["random_selection", {"cold": {"sample.temperature": 0.5}}])
    added = compose(str(recipe), overrides=["arms.hot.sample.temperature=1.5"]).config
    assert [arm.name for arm in added.arms] == ["random_selection", "cold", "hot"]
    assert [arm.name for arm in compose(str(recipe), overrides=["arms=[no_filter]"]).config.arms] == ["no_filter"]
