"""Models that a recipe names and that are not what it takes them for: found before anything is sampled."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model
from tiny_rewards import with_random_head
from worlds import scripted_recipe

from selftrain.compose import compose
from selftrain.config import ModelConfig, ScorerConfig
from selftrain.contents import require_generator, require_within_reach
from selftrain.errors import ConfigError, DependencyError
from selftrain.models import Bench
from selftrain.preflight import check, require_models
from selftrain.records import Policy
from selftrain.scoring import check_scorers


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("writes") / "model")


@pytest.fixture(scope="module")
def judges(writes: Path) -> Path:
    return with_random_head(writes.with_name("judges"), writes)


def changed(folder: Path, source: Path, **fields: Any) -> Path:
    """A copy of a saved model with other fields in its config.json; None takes one out."""
    shutil.copytree(source, folder)
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def without_tokenizer(folder: Path, source: Path) -> Path:
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*")))


def with_broken_config(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    (folder / "config.json").write_text('{"model_type": "llama",')
    return folder


def recipe(folder: Path, name: str, knob: str) -> Path:
    """A recipe that is scripted but for the model that one knob names."""
    scorers = {"score": {"scorers": ["exact", {"name": knob, "weight": 0.0, "params": {"model": name}}]}}
    return scripted_recipe(folder, **({"sample": {"policy": {"model": name}}} if knob == "sample.policy" else scorers))


KNOBS = ("sample.policy", "reward_model", "process_reward_model", "llm_judge")


def test_a_classifier_is_no_generator_by_its_config_and_not_by_its_weights(
    tmp_path: Path, writes: Path, judges: Path
) -> None:
    with pytest.raises(ConfigError, match=r"sample\.policy\.model: .* is a LlamaForSequenceClassification"):
        check(compose(str(recipe(tmp_path / "recipe", str(judges), "sample.policy"))))
    with pytest.raises(ConfigError, match=r"llm_judge: params\.model: .*writes no text"):
        check_scorers([ScorerConfig(name="llm_judge", params={"model": str(judges)})], tmp_path)
    with pytest.raises(ConfigError, match=r"^model\.path: .*writes no text"):
        require_generator(str(judges), tmp_path, what="model.path")
    require_generator(str(writes), tmp_path)
    silent = changed(tmp_path / "silent", judges, architectures=None, tie_word_embeddings=False)
    require_generator(str(silent), tmp_path)
    bench = Bench(ModelConfig(path=str(silent), device="cpu"), where="sample.policy.model")
    with pytest.raises(ConfigError, match=r"^sample\.policy\.model: .* has no weights for lm_head\.weight"):
        bench.mount(Policy(str(silent), None, 0, bench.digest))
    tied = Bench(ModelConfig(path=str(writes), device="cpu"))
    assert tied.mount(Policy(str(writes), None, 0, tied.digest)) is not None, "a head that is tied is there"


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize(
    ("spoilt", "said"), [(without_tokenizer, "no tokenizer"), (with_broken_config, r"config\.json cannot be read")]
)
def test_a_folder_without_what_a_model_needs_is_refused_before_sampling(
    tmp_path: Path, writes: Path, judges: Path, knob: str, spoilt: Callable[[Path, Path], Path], said: str
) -> None:
    source = judges if knob == "reward_model" else writes
    if knob == "process_reward_model":
        source = changed(tmp_path / "steps", writes, architectures=["LlamaForTokenClassification"])
    folder = spoilt(tmp_path / "spoilt", source)
    with pytest.raises(ConfigError, match=said):
        check(compose(str(recipe(tmp_path / "recipe", str(folder), knob))))


@pytest.mark.parametrize("spoilt", [without_tokenizer, with_broken_config])
def test_the_same_found_when_a_model_is_loaded_is_no_traceback(
    tmp_path: Path, writes: Path, spoilt: Callable[[Path, Path], Path]
) -> None:
    bench = Bench(ModelConfig(path=str(spoilt(tmp_path / "spoilt", writes)), device="cpu"))
    with pytest.raises(ConfigError, match=r"^model\.path: no tokenizer could be read"):
        _ = bench.tokenizer


@pytest.mark.parametrize("knob", KNOBS)
def test_a_model_that_is_nowhere_is_refused_before_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knob: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    composed = compose(str(recipe(tmp_path / "recipe", "nowhere", knob)))
    check(composed)  # it may be one of the hub's
    began = time.monotonic()
    with pytest.raises(DependencyError, match=r"there is no folder nowhere \(looked for .*cannot be reached"):
        require_models(composed.config, composed.folder)
    assert time.monotonic() - began < 5
    with pytest.raises(ConfigError, match=r"there is no '\./no/where' \(looked for"):
        check(compose(str(recipe(tmp_path / "other", "./no/where", knob))))
    with pytest.raises(DependencyError):
        require_within_reach("nowhere", tmp_path)


def test_of_three_labels_the_good_one_must_be_named(tmp_path: Path, writes: Path) -> None:
    folder = with_random_head(tmp_path / "three", writes, labels=3)
    params: dict[str, Any] = {"model": str(folder)}
    with pytest.raises(ConfigError, match=r"has 3 labels: 0 \(LABEL_0\), 1 .*set params\.good_label"):
        check_scorers([ScorerConfig(name="reward_model", params=params)], tmp_path)
    check_scorers([ScorerConfig(name="reward_model", params={**params, "good_label": 2})], tmp_path)


def test_several_models_under_model_are_pointed_to_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.model: .*several stand in models"):
        check_scorers([ScorerConfig(name="reward_model", params={"model": ["a", "b"]})], tmp_path)
