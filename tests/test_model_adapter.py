"""An adapter from elsewhere as the policy of round 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import build_model
from transformers import AutoModelForCausalLM
from worlds import model_recipe, receipt_of, results_of, run_here, selftrain, write_recipe

from selftrain import tables
from selftrain.adapters import adapter_digest, check_lora
from selftrain.compose import compose
from selftrain.config import ModelConfig
from selftrain.errors import ConfigError
from selftrain.models import Bench, check_probe
from selftrain.outlook import show_plan
from selftrain.preflight import check
from selftrain.records import Candidate, Policy
from selftrain.rooms import notes_on_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


def save_foreign(model: Path, folder: Path, config: Any = None, scale: float = 0.3) -> Path:
    """An adapter as PEFT alone leaves it: no probe, sets in any order, the base by another path."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model)
    view = get_peft_model(base, config or LoraConfig(r=3, lora_alpha=5, target_modules=["v_proj", "q_proj"]))
    with torch.no_grad():
        for name, parameter in view.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale)
    view.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def foreign(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_foreign(model, tmp_path_factory.mktemp("adapters") / "foreign")


def recipe_with(folder: Path, model: Path, adapter: Path | str, **changes: Any) -> Path:
    changes = {"arms": [], "rounds": 2, "train": {"lora": {}, "init_from": "base"}} | changes
    path = model_recipe(folder, model, **changes)
    return write_recipe(folder, yaml.safe_load(path.read_text()), {"model": {"adapter": str(adapter)}})


def logits(bench: Bench, policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return bench.mount(policy)(input_ids=torch.tensor([[5, 6, 7, 8]])).logits  # type: ignore[no-any-return]


def test_round_0_is_the_adapters_policy_and_training_starts_from_a_copy(
    model: Path, foreign: Path, tmp_path: Path
) -> None:
    shutil.copytree(foreign, tmp_path / "recipe/start")
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    run = run_here(recipe_with(tmp_path / "recipe", model, "start"), runs_dir=tmp_path / "runs")
    start = adapter_digest(foreign)
    answers = tables.read(next(run.glob("arms/main/rounds/000/evaluation/greedy/test/candidates/*")), Candidate)
    assert {one.policy_digest for one in answers} == {start}
    bench = Bench(ModelConfig(path=str(model), device="cpu", adapter=str(foreign)))
    policy = Policy(str(model), str(foreign), 0, start)
    ids = torch.tensor([answers[0].prompt_token_ids])
    with torch.no_grad():
        likeliest = int(bench.mount(policy)(input_ids=ids).logits[0, -1].argmax())
    assert answers[0].completion_token_ids[0] == likeliest
    for number in (1, 2):
        trained = receipt_of(run, f"main/rounds/{number:03d}/train-improve-00")
        assert trained["ingredients"]["inputs"]["start"] == start
        config = json.loads((run / f"arms/main/rounds/{number:03d}/adapter/improve-00/adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["q_proj", "v_proj"])
    first = receipt_of(run, "main/rounds/001/sample-wave-00")["metrics"]
    second = receipt_of(run, "main/rounds/002/sample-wave-00")["metrics"]
    kl = next(key for key in first if "kl" in key and "sequence" not in key)
    assert first[kl] == 0.0 != second[kl], "distance is measured from the policy of round 0"
    assert {path.name: path.read_bytes() for path in (tmp_path / "recipe/start").iterdir()} == before


def test_the_same_command_goes_on_and_another_adapter_is_refused(model: Path, foreign: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", model, foreign, rounds=1)
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    whole = results_of(run)
    shutil.rmtree(run / "arms/main/rounds/001/evaluation")
    for name in ("train-improve-00", "evaluate", "evaluate-sampled", "round"):
        (run / f"arms/main/rounds/001/receipts/{name}.json").unlink(missing_ok=True)
    assert results_of(run_here(recipe, runs_dir=tmp_path / "runs")) == whole
    other = save_foreign(model, tmp_path / "other", scale=0.1)
    with pytest.raises(ConfigError, match="adapter"):
        run_here(recipe, f"model.adapter={other}", runs_dir=tmp_path / "runs")
    assert not (run / "best").exists() or (run / "best").resolve().is_relative_to(run.resolve())


def test_the_best_of_one_run_is_the_start_of_another_and_its_probe_is_checked(model: Path, tmp_path: Path) -> None:
    first = run_here(model_recipe(tmp_path / "one", model, arms=[], rounds=1), runs_dir=tmp_path / "runs")
    made = first / "arms/main/rounds/001/adapter/improve-00"
    (first / "chosen").symlink_to(made)
    second = run_here(
        recipe_with(tmp_path / "two", model, "../runs/tiny/chosen", rounds=1), "name=second", runs_dir=tmp_path / "runs"
    )
    assert receipt_of(second, "main/rounds/001/train-improve-00")["ingredients"]["inputs"]["start"] == adapter_digest(
        made
    )
    wrong = build_model(tmp_path / "wrong", seed=1)
    bench = Bench(ModelConfig(path=str(wrong), device="cpu", adapter=str(made)))
    policy = Policy(str(wrong), str(made), 0, adapter_digest(made))
    bench.mount(policy)
    stored = json.loads((made / "probe.json").read_text())
    (made / "probe.json").write_text(json.dumps({**stored, "logprobs": [one - 2 for one in stored["logprobs"]]}))
    with pytest.raises(Exception, match="not the trained policy"):
        check_probe(bench.mount(policy), policy, bench)


def adopted(model: Path, adapter: Path) -> torch.Tensor:
    bench = Bench(ModelConfig(path=str(model), device="cpu", adapter=str(adapter)))
    return logits(bench, Policy(str(model), str(adapter), 0, adapter_digest(adapter)))


def test_an_adapter_of_other_shapes_or_targets_does_not_fit(model: Path, foreign: Path, tmp_path: Path) -> None:
    assert bool(adopted(model, foreign).isfinite().all())
    wide = shutil.copytree(foreign, tmp_path / "wide")
    tensors = load_file(wide / "adapter_model.safetensors")
    save_file(
        {name: torch.cat([one, one], dim=-1) for name, one in tensors.items()}, wide / "adapter_model.safetensors"
    )
    config = json.loads((foreign / "adapter_config.json").read_text())
    lost = shutil.copytree(foreign, tmp_path / "lost")
    save_file({name: one for name, one in tensors.items() if "q_proj" in name}, lost / "adapter_model.safetensors")
    stray = shutil.copytree(foreign, tmp_path / "stray")
    (stray / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    elsewhere = shutil.copytree(foreign, tmp_path / "elsewhere")
    (elsewhere / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}))
    for folder, why in (
        (wide, "size mismatch"),
        (lost, "lacks .*v_proj"),
        (stray, "nothing takes"),
        (elsewhere, "c_attn"),
    ):
        with pytest.raises(ConfigError, match=f"does not fit the model(.|\n)*{why}") as error:
            adopted(model, folder)
        assert "model.path" in str(error.value)


def test_an_adapter_with_nan_is_refused(model: Path, foreign: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(foreign, tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="NaN or infinite"):
        adopted(model, broken)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"peft_type": "IA3"}, "its type is IA3"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"bias": "all"}, "own biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layers"),
    ],
)
def test_an_adapter_that_could_not_be_gone_on_with_is_refused_by_what_it_is(
    foreign: Path, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    folder = shutil.copytree(foreign, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ConfigError, match=why):
        check_lora(folder)


def test_what_another_method_of_peft_saved_is_refused_by_its_name(model: Path, tmp_path: Path) -> None:
    kind = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(ConfigError, match="its type is PROMPT_TUNING, and only LORA"):
        check_lora(save_foreign(model, tmp_path / "prompt", kind))


def test_a_plan_refuses_what_is_wrong_before_anything_is_loaded(model: Path, foreign: Path, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", model, foreign)
    for override, why in (
        ("model.adapter=nowhere", "'nowhere' is no folder"),
        (f"model.adapter={tmp_path}", "no adapter folder"),
        ("train.lora={r: 8}", "train.lora.r is 8, but the adapter that training goes on from has 3"),
        ("train.lora={target_modules: [k_proj]}", "target_modules"),
        ("train.lora={use_dora: true}", "use_dora"),
    ):
        with pytest.raises(ConfigError, match=why):
            check(compose(str(recipe), overrides=[override]))
    for override in ("train.lora={r: 3, target_modules: [q_proj, v_proj]}", "train.lora={target_modules: all-linear}"):
        check(compose(str(recipe), overrides=[override]))


def test_another_base_models_name_is_worth_a_note(
    model: Path, foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(foreign, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/other"}))
    for adapter, notes in (
        (folder, [f"model.adapter was trained on some/other, and model.path is {model}"]),
        (foreign, []),
    ):
        recipe = recipe_with(tmp_path / f"recipe-{len(notes)}", model, adapter)
        assert list(notes_on_model(compose(str(recipe)).config, recipe.parent)) == notes
        show_plan(str(recipe), layers=[], overrides=[], runs_dir=tmp_path / "runs")
        page = capsys.readouterr().out
        assert ("note: model.adapter was trained on some/other" in page) == bool(notes)
        assert "train a copy of model.adapter for" in page
        assert "a new adapter" not in page


@pytest.mark.slow
def test_a_mistaken_adapter_ends_a_run_without_a_traceback(model: Path, foreign: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(foreign, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    done = selftrain("run", recipe_with(tmp_path / "recipe", model, folder), "--runs-dir", tmp_path / "runs")
    assert done.returncode == 2
    assert "does not fit the model" in done.stderr
    assert "Traceback" not in done.stderr
