"""What `plan` estimates, against what runs really did: counted work to the candidate, sizes within a factor of 1.5."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model
from worlds import command, model_recipe, run_here, scripted_recipe

from selftrain import prompts as prompt_room
from selftrain.compose import compose
from selftrain.disk import weight
from selftrain.estimates import memory as in_memory
from selftrain.estimates import whole
from selftrain.estimates.lengths import counter
from selftrain.estimates.saved import find
from selftrain.estimates.whole import Estimate
from selftrain.outlook import steps
from selftrain.store import RunDirectory

FACTOR = 1.5
PER_ROUND = {"prompts.per_round": 6}


def estimate(recipe: Path, *overrides: str, runs_dir: Path) -> Estimate:
    composed = compose(str(recipe), overrides=overrides)
    return whole.estimate(composed, prompt_room.load(composed.config.prompts, composed.folder), runs_dir)


def said(found: Estimate) -> dict[str, str]:
    return {what: f"{value} ({rests_on})" for what, value, rests_on in whole.rows(found)}


def done_work(run: Path) -> dict[tuple[str, int, str], float]:
    """(arm, round, phase) of each receipt that answers were drawn for, and how many."""
    amounts = {"sample": "sample/candidates", "evaluate": "", "evaluate-sampled": "", "evaluate-retention": ""}
    return {
        (one.arm, one.round, one.phase): one.metrics.get(amounts[one.phase], float(one.rows))
        for one in RunDirectory(run).receipts()
        if one.phase in amounts
    }


def planned_work(found: Estimate) -> dict[tuple[str, int, str], float]:
    phases = {
        "candidates": "sample",
        "greedy": "evaluate",
        "sampled": "evaluate-sampled",
        "retention": "evaluate-retention",
    }
    planned: dict[tuple[str, int, str], float] = {}
    for one in found.work.askings:
        key = one.arm, one.round, phases[one.kind]
        amount = one.answers if one.kind == "candidates" else len(one.prompts)
        planned[key] = planned.get(key, 0.0) + amount
    return planned


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": {"random_selection": {}, "hot": {"sample.temperature": 1.3}, "few": {"select.max_per_prompt": 1}}},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"arms": []},
                {"prompts": {"per_round": [5, 6, 7]}, "sample": {"num_candidates": [2, 4, 3]}},
                {"arms": ["no_filter", "gold", "random_selection_shared"]},
                {"arms": {"late": {"sample.temperature": [1.0, 1.3]}, "quick": {"train.learning_rate": 1e-3}}},
                {"arms": [{"random_selection": {"evaluate_rounds": [1, "last"]}}], "prompts": {"validate": None}},
                {"evaluate": {"sampled_rounds": "all"}, "prompts": {"retention": "retention.jsonl"}},
            )
        ),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_is_counted_is_what_a_run_does_and_shared_work_is_counted_once(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", rounds=3, **changes)
    (tmp_path / "recipe/retention.jsonl").write_text('{"prompt": "what comes after 999?", "reference": "1000"}\n')
    # Without a set that decides, the headline is the last round, which is where the estimate takes it to be.
    planned = planned_work(estimate(recipe, runs_dir=tmp_path / "none"))
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    done = done_work(run)
    if compose(str(recipe)).config.prompts.validate_ is not None:
        best = json.loads((run / "verdict.json").read_text())["best_round"]
        assert best == 3, "the scripted policy is best in its last round"
    assert planned == done


@pytest.mark.slow
def test_trainings_are_counted_where_a_run_trains(tmp_path: Path) -> None:
    arms = {"random_selection": {}, "gold": {}, "quick": {"train.learning_rate": [1e-4, 1e-3]}}
    recipe = scripted_recipe(tmp_path / "recipe", arms=arms)
    found = estimate(recipe, runs_dir=tmp_path / "none")
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    receipts = RunDirectory(run).receipts()
    trained = {(one.arm, one.round) for one in receipts if one.phase == "train"}
    selected = {(one.arm, one.round) for one in receipts if one.phase == "select"}
    assert {(one.arm, one.round) for one in found.work.trainings} == trained
    assert {(one.arm, one.round) for one in found.work.trainings if one.has_selection} == selected


def test_a_control_is_counted_with_as_many_updates_as_main(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, select={"max_per_prompt": 1}, arms=["no_filter", "random_selection"], rounds=2)
    found = estimate(recipe, runs_dir=tmp_path / "none")
    assert {found.amounts.num_steps(one) for one in found.work.trainings} == {3}, "12 examples in batches of 4"
    assert {found.amounts.examples(one) for one in found.work.trainings if one.arm == "no_filter"} == {48.0}
    assert len({found.amounts.trained_tokens(one) for one in found.work.trainings}) == 1


@pytest.mark.parametrize(
    ("select", "most"),
    [
        ({"buffer": "best_per_prompt", "per_prompt": 2}, [24.0, 24.0, 24.0]),
        ({"buffer": "latest_per_prompt", "max_per_prompt": 3}, [36.0, 36.0, 36.0]),
        ({"buffer": "append", "max_per_prompt": 1}, [12.0, 24.0, 36.0]),
    ],
    ids=lambda value: value["buffer"] if isinstance(value, dict) else "",
)
def test_a_buffer_by_prompt_holds_no_more_than_its_share_of_each_prompt(
    tmp_path: Path, select: dict[str, Any], most: list[float]
) -> None:
    found = estimate(scripted_recipe(tmp_path, select=select, arms=[]), runs_dir=tmp_path / "none")
    assert [found.amounts.examples(one) for one in found.work.trainings] == most


def test_the_prompts_of_a_round_are_drawn_once_however_many_arms_ask_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    of_round = prompt_room.of_round

    def counted(*words: Any, **more: Any) -> Any:
        drawn.append(more["round_number"])
        return of_round(*words, **more)

    monkeypatch.setattr(prompt_room, "of_round", counted)
    recipe = scripted_recipe(tmp_path, prompts={"per_round": 5}, arms={"random_selection": {}, "more": PER_ROUND})
    estimate(recipe, runs_dir=tmp_path / "none")
    assert sorted(drawn) == [1, 1, 2, 2, 3, 3], "a large set takes long to shuffle"


def test_the_table_counts_each_round_and_all_of_them(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, arms=["random_selection"], evaluate={"sampled_rounds": "none"})
    rows = whole.work_rows(estimate(recipe, runs_dir=tmp_path))
    assert ("main", "1-3, each", "12", "48", "384", "24", "192") in rows
    assert ("random_selection", "2", "12", "48", "384", "", "") in rows
    assert ("in all", "", "60", "240", "1,920", "96", "768") in rows


def test_without_a_run_answers_are_an_upper_bound_and_time_is_unknown(tmp_path: Path) -> None:
    words = said(estimate(scripted_recipe(tmp_path), runs_dir=tmp_path / "none"))
    assert words["tokens of an answer"].startswith("8.0 (an upper bound: sample.max_new_tokens")
    assert words["time"].startswith("unknown until a run has been made")
    assert "in bytes, which a scripted engine takes for tokens" in words["tokens of a prompt"]


def test_completions_tell_how_long_answers_are(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path)
    rows = [{"prompt": f"what is {n}?", "reference": "1", "completion": "x" * 4} for n in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = said(estimate(recipe, runs_dir=tmp_path / "none"))
    assert words["tokens of an answer"].startswith("5.0 (as the completions of prompts.train")
    thinking = said(estimate(recipe, "model.thinking={}", runs_dir=tmp_path / "none"))
    assert thinking["tokens of an answer"].startswith("8.0 (an upper bound"), "completions are without the reasoning"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scripted recipe, and a run of it."""
    folder = tmp_path_factory.mktemp("world")
    changes: dict[str, Any] = {"sample": {"num_candidates": 16}, "prompts": {"validate": None}, "rounds": 2}
    recipe = scripted_recipe(folder / "recipe", **changes)
    return recipe, run_here(recipe, runs_dir=folder / "runs")


def test_the_last_run_of_the_recipe_says_how_long_answers_are_what_is_kept_and_how_fast(
    world: tuple[Path, Path],
) -> None:
    recipe, run = world
    found = estimate(recipe, runs_dir=run.parent)
    receipts = RunDirectory(run).receipts()
    tokens = sum(one.metrics["sample/tokens"] for one in receipts if one.phase == "sample")
    assert found.sampled_tokens == pytest.approx(tokens, rel=1e-6)
    kept = [one.rows for one in receipts if one.phase == "select" and one.arm == "main"]
    examples = [found.amounts.examples(one) for one in found.work.trainings if one.arm == "main"]
    assert examples == pytest.approx(kept, rel=1e-6)
    seconds = sum(one.seconds for one in receipts if one.phase != "round")
    overhead = sum(one.metrics["overhead/seconds"] for one in receipts if one.phase == "round")
    assert found.total_seconds == pytest.approx(seconds + overhead, rel=0.05)
    assert str(run) in said(found)["time"]


def test_a_run_of_another_recipe_helps_where_model_and_prompts_are_the_same(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    runs_dir = world[1].parent
    same = scripted_recipe(tmp_path / "same", name="same")
    assert "runs/tiny" in said(estimate(same, runs_dir=runs_dir))["tokens of an answer"]
    elsewhere = scripted_recipe(tmp_path / "elsewhere", model={"path": "another"})
    assert "an upper bound" in said(estimate(elsewhere, runs_dir=runs_dir))["tokens of an answer"]


def test_a_run_with_another_engine_or_trainer_says_nothing_even_of_the_same_recipe(world: tuple[Path, Path]) -> None:
    recipe, run = world
    for other in ("sample.engine=transformers", "train.trainer=sft"):
        assert estimate(recipe, other, runs_dir=run.parent).amounts.measured is None
    own = json.loads((run / "config.json").read_text())["config"]
    assert (own["sample"]["engine"], own["train"]["trainer"]) == ("scripted", "scripted")


def test_what_was_cut_at_a_lower_limit_is_taken_to_be_as_long_as_it_may_get(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", sample={"max_new_tokens": 2}, arms=[], rounds=1)
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    (sampled,) = (one.metrics for one in RunDirectory(run).receipts() if one.phase == "sample")
    mean, cut = sampled["sample/completion_tokens_mean"], sampled["sample/truncated_rate"]
    assert 0 < cut < 1
    found = estimate(recipe, "sample.max_new_tokens=100", runs_dir=tmp_path / "runs")
    (asking,) = found.work.of("main", "candidates")
    assert found.amounts.answer_tokens(asking) == pytest.approx(mean + 98 * cut)
    assert (
        f"{cut:.0%} of them were cut at 2, and are taken to be as long as they may get"
        in (said(found)["tokens of an answer"])
    )


def test_greedy_answers_are_as_long_as_those_of_their_set_were(world: tuple[Path, Path]) -> None:
    recipe, run = world
    receipts = RunDirectory(run).receipts()
    metrics = {one.round: one.metrics for one in receipts if (one.phase, one.arm) == ("evaluate", "main")}
    found = estimate(recipe, runs_dir=run.parent)
    asked = [one for one in found.work.of("main", "greedy") if one.set_name == "test"]
    assert [one.round for one in asked] == [0, 1, 2]
    for one in asked:
        assert found.amounts.answer_tokens(one) == metrics[one.round]["evaluate/test/completion_tokens_mean"]


def test_rates_of_phases_under_a_second_leave_no_empty_list(world: tuple[Path, Path]) -> None:
    recipe, run = world
    found = estimate(recipe, runs_dir=run.parent)
    quick = dataclasses.replace(found, seconds=dict.fromkeys(found.seconds, 0.5))
    assert said(quick)["time"].endswith(": each phase under a second)")


def test_a_million_rounds_are_planned_in_seconds_and_said_not_to_be_counted_out(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path, prompts={"per_round": [5, 6]}, select={"buffer": "append"}, arms=["gold"])
    started = time.monotonic()
    found = estimate(recipe, "rounds=1000000", runs_dir=tmp_path / "none")
    composed = compose(str(recipe), overrides=["rounds=1000000", "evaluate.sampled_rounds=[7]"])
    lines = list(steps(composed.config, prompt_room.load(composed.config.prompts, composed.folder)))
    assert time.monotonic() - started < 20, "it takes about one"
    assert said(found)["rounds counted"].startswith("the first 200 of 1,000,000")
    starts = [line.partition(":")[0] for line in lines if line.startswith("round")]
    assert starts == ["round 0", "round 1", "rounds 2 to 6, each", "round 7", "rounds 8 to 1000000, each"]
    few = compose(str(recipe), overrides=["rounds=8", "evaluate.sampled_rounds=[7]"])
    shown = list(steps(few.config, prompt_room.load(few.config.prompts, few.folder)))
    assert [one.partition(": ")[2] for one in shown if one.startswith("round")] == [
        one.partition(": ")[2] for one in lines if one.startswith("round")
    ]


def test_what_cannot_be_read_in_the_runs_folder_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("torn", '{"config": {'), ("odd", "[]"), ("old", '{"config": {"model": {"path": "none"}}}')):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text(text)
    found = estimate(scripted_recipe(tmp_path / "recipe"), runs_dir=tmp_path / "runs")
    assert found.amounts.measured is None


def test_the_weight_of_a_run_without_a_model_is_near(world: tuple[Path, Path]) -> None:
    recipe, run = world
    found = estimate(recipe, runs_dir=run.parent)
    real = weight(run)
    assert_near(sum(found.disk.values()), real["total"])
    for kind in ("candidates", "scores", "evaluation"):
        assert_near(found.disk[kind], real[kind])


# With a model


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "chat", chat=True)


def test_a_saved_model_is_known_from_its_files(chat_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recipe = model_recipe(tmp_path, chat_model)
    saved = find(compose(str(recipe)).config.model, tmp_path, tmp_path)
    assert saved is not None
    model = AutoModelForCausalLM.from_pretrained(chat_model)
    assert saved.parameters == sum(one.numel() for one in model.parameters())
    config = model.config
    assert saved.cached_width == 2 * config.num_key_value_heads * config.head_dim
    assert (saved.layers, saved.hidden, saved.vocabulary) == (2, 64, config.vocab_size)
    for fields in ({"target_modules": "all-linear", "r": 8}, {"target_modules": ["q_proj", "v_proj"], "r": 4}):
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(chat_model), LoraConfig(**fields))
        trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
        assert saved.lora_parameters(fields) == trained


def test_a_model_without_weights_is_known_from_its_config_about(chat_model: Path, tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path, chat_model)
    whole_model = find(compose(str(recipe)).config.model, tmp_path, tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text((chat_model / "config.json").read_text())
    bare = find(compose(str(recipe), overrides=["model.path=bare"]).config.model, tmp_path, tmp_path)
    assert whole_model is not None
    assert bare is not None
    assert bare.lora_parameters({}) == whole_model.lora_parameters({})
    assert bare.parameters == pytest.approx(whole_model.parameters, rel=0.01)


def test_a_hub_model_is_looked_for_in_the_hubs_cache_alone(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub/models--group--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("c0ffee")
    (folder / "snapshots").mkdir()
    (folder / "snapshots/c0ffee").symlink_to(chat_model)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    recipe = model_recipe(tmp_path / "recipe", Path("group/tiny"))
    found = estimate(recipe, runs_dir=tmp_path / "none")
    assert found.model is not None
    assert "counted with the model's tokenizer" in said(found)["tokens of a prompt"]
    unknown = estimate(recipe, "model.path=group/other", runs_dir=tmp_path / "none")
    assert said(unknown)["memory"].startswith("unknown")
    assert "the adapters are unknown" in said(unknown)["disk"]


@pytest.mark.parametrize("form", ["chat", "text"])
def test_prompts_are_counted_as_the_model_will_see_them(tmp_path: Path, form: str) -> None:
    from selftrain.models import Bench

    folder = build_model(tmp_path / "model", chat=form == "chat")
    prompts: dict[str, Any] = {"format": form, "few_shot": [{"prompt": "1 + 1 =", "completion": " 2"}]}
    composed = compose(str(model_recipe(tmp_path / "recipe", folder, prompts=prompts)))
    asked = prompt_room.load(composed.config.prompts, composed.folder).train.prompts
    bench = Bench(composed.config.model)
    real = [len(bench.render(prompt)) for prompt in asked]
    found = counter(composed.config.model, find(composed.config.model, tmp_path, tmp_path)).prompts(asked)
    assert (found.mean, found.longest) == (sum(real) / len(real), max(real))
    assert found.rests_on == "counted with the model's tokenizer"


def test_a_template_that_cannot_be_rendered_leaves_a_count_that_says_about(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", chat=True)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('not for you') }}")
    recipe = model_recipe(tmp_path / "recipe", folder, prompts={"format": "chat"})
    assert "(about: " in said(estimate(recipe, runs_dir=tmp_path / "none"))["tokens of a prompt"]


def test_what_does_not_fit_is_said_with_what_to_lower(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = model_recipe(tmp_path, chat_model)
    assert list(estimate(recipe, runs_dir=tmp_path).does_not_fit()) == []
    monkeypatch.setattr(in_memory, "available_memory", lambda: 100 << 20)
    monkeypatch.setattr(whole, "_free", lambda folder: 1000)
    disk, memory = estimate(recipe, "model.device=cpu", runs_dir=tmp_path).does_not_fit()
    assert "1.0 kB are free" in disk
    assert "104.9 MB are there (cpu)" in memory
    assert "lower " in memory


def test_more_rows_and_longer_answers_take_more_memory(chat_model: Path, tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path, chat_model)
    few = estimate(recipe, runs_dir=tmp_path).memory
    many = estimate(recipe, "sample.num_candidates=64", "sample.max_new_tokens=200", runs_dir=tmp_path).memory
    assert few is not None
    assert many is not None
    assert many.parts["sampling"] > 16 * few.parts["sampling"]
    assert many.parts["weights"] == few.parts["weights"]


def test_sampling_on_a_cpu_has_the_linear_layers_a_second_time(chat_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from selftrain.sampling.packed import MAX_WEIGHTS, MIN_SIDE, _layers

    recipe = model_recipe(tmp_path, chat_model)
    found = estimate(recipe, "model.device=cpu", "model.dtype=float32", runs_dir=tmp_path).memory
    assert found is not None
    layers = _layers(AutoModelForCausalLM.from_pretrained(chat_model, dtype="float32"))
    assert found.parts["their copies"] == 4 * sum(one.weight.numel() for one in layers) > 0
    assert found.peak == sum(found.parts[name] for name in ("process", "weights", "their copies", found.at))
    half = estimate(recipe, "model.device=cpu", "model.dtype=bfloat16", runs_dir=tmp_path).memory
    assert half is not None
    assert half.parts["their copies"] == 0
    assert (in_memory.PACKED_WEIGHTS, in_memory.PACKED_SIDE) == (MAX_WEIGHTS, MIN_SIDE)


def test_stop_tokens_that_the_model_does_not_have_are_noted(chat_model: Path, tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path, chat_model)
    notes = " ".join(estimate(recipe, "sample.stop_token_ids=[3, 999999]", runs_dir=tmp_path).notes())
    assert "sample.stop_token_ids names 999999, and the model's tokens are 0 to " in notes
    assert not list(estimate(recipe, "sample.stop_token_ids=[3]", runs_dir=tmp_path).notes())


def test_answers_over_the_context_and_examples_over_max_length_are_noted(chat_model: Path, tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path, chat_model)
    context, longest, targets = estimate(
        recipe,
        "sample.max_new_tokens=256",
        "train.max_length=50",
        "train.lora.target_modules=[c_attn]",
        runs_dir=tmp_path,
    ).notes()
    assert "over the model's context of 256" in context
    assert "train.max_length is 50" in longest
    assert "its layers end in down_proj, gate_proj, k_proj" in targets
    assert list(estimate(recipe, runs_dir=tmp_path).notes()) == []


def test_keeping_the_best_and_the_last_adapter_weighs_two_of_an_arm(chat_model: Path, tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path, chat_model, rounds=5)
    everything = estimate(recipe, runs_dir=tmp_path)
    two = estimate(recipe, "keep=best_and_last", runs_dir=tmp_path)
    assert everything.model is not None
    adapter = 4 * everything.model.lora_parameters({"r": 4})
    assert everything.disk["adapters"] - two.disk["adapters"] == pytest.approx(2 * 3 * adapter, rel=0.5)
    arms = ('arms={"wide": {"train.lora": {"r": 64}}}', "keep=best_and_last")
    wide = estimate(recipe, *arms, runs_dir=tmp_path)
    assert wide.disk["adapters"] == pytest.approx(2 * (1 + 16) * adapter, rel=0.5), "an arm's own rank"


# Against real runs


def assert_near(estimated: float, real: float, factor: float = FACTOR) -> None:
    assert real / factor <= estimated <= real * factor, f"estimated {estimated:,.0f}, was {real:,.0f}"


def answer_tokens(run: Path) -> Iterator[int]:
    import pyarrow.parquet as pq

    for path in run.glob("arms/**/candidates/**/block-*.parquet"):
        yield from map(len, pq.read_table(path, columns=["completion_token_ids"]).to_pydict()["completion_token_ids"])


SIZES = {
    "small": {"model": {}, "prompts": 12, "sample": {"num_candidates": 4, "max_new_tokens": 6, "block_size": 4}},
    "wide": {
        "model": {"hidden": 256, "layers": 6},
        "prompts": 32,
        "sample": {"num_candidates": 32, "max_new_tokens": 24, "block_size": 32},
    },
    "long": {
        "model": {"hidden": 256, "layers": 4},
        "prompts": 12,
        "sample": {"num_candidates": 8, "max_new_tokens": 120, "block_size": 6},
    },
}


def sized_model(folder: Path, *, hidden: int = 64, layers: int = 2) -> Path:
    """The tiny model, or a larger one with its tokenizer."""
    build_model(folder)
    if hidden > 64:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder)
        config.update({"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers})
        config.head_dim = hidden // config.num_attention_heads
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_tokens_disk_and_memory_are_within_a_factor_of_1_5_of_a_real_run(tmp_path: Path, size: str) -> None:
    knobs = SIZES[size]
    folder = sized_model(tmp_path / "model", **knobs["model"])  # type: ignore[arg-type]
    sets = {"rounds": 2, "train": {"batch_size": 16}, "evaluate": {"sampled_rounds": ["last"]}}
    recipe = model_recipe(tmp_path / "recipe", folder, sample=knobs["sample"], **sets)
    rows = [{"prompt": f"what comes after {1000 + n}?", "reference": str(n)} for n in range(int(str(knobs["prompts"])))]
    (tmp_path / "recipe/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = estimate(recipe, "model.device=cpu", runs_dir=tmp_path / "runs")
    peak = _run_and_measure(tmp_path, recipe)
    run = tmp_path / "runs/tiny"
    assert_near(before.sampled_tokens + before.evaluated_tokens, sum(answer_tokens(run)))
    assert_near(sum(before.disk.values()), weight(run)["total"])
    assert before.memory is not None
    assert_near(before.memory.peak, peak)
    after = estimate(recipe, "model.device=cpu", runs_dir=tmp_path / "runs")
    assert_near(after.sampled_tokens + after.evaluated_tokens, sum(answer_tokens(run)), 1.1)
    assert_near(sum(after.disk.values()), weight(run)["total"], 1.3)


def _run_and_measure(folder: Path, recipe: Path) -> float:
    """Make the run in a process of its own; the most resident memory that it took, in bytes."""
    measuring = "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=2).returncode; "
    measuring += "print(done, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    words = command("run", recipe, "model.device=cpu", "--runs-dir", folder / "runs")
    done = subprocess.run([sys.executable, "-c", measuring, *words], capture_output=True, text=True, check=True)
    code, kilobytes = map(int, done.stdout.split())
    assert code == 0, done.stderr
    return kilobytes * 1024.0


def test_the_room_that_the_cache_keeps_free_is_as_large_as_the_estimate_takes_it_to_be() -> None:
    from selftrain.sampling.cache import ROOM

    assert in_memory.CACHE_ROOM == ROOM
