"""Rules, filters, buffers and mixed-in seed data in whole runs: what main and its controls train on, and receipts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import receipt_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.config import SelectConfig, resolved
from selftrain.errors import ConfigError, PhaseError
from selftrain.records import Survivor
from selftrain.selection.buffers import buffered, rounds_in_reach

# Nobody is right in round 2, and in every other one about half. What was answered does not depend on training.
ANSWERS = """
import zlib

def answer(prompt, seed, policy_round):
    luck = (seed or zlib.crc32(prompt.id.encode())) % 10
    return prompt.reference if policy_round != 1 and luck < 5 else f"no {luck}"
"""
BUFFERS: list[dict[str, Any]] = [
    {"buffer": "append"},
    {"buffer": "window", "window": 2},
    {"buffer": "window", "window": [1, 1, 3]},
    {"buffer": "latest_per_prompt"},
    {"buffer": "best_per_prompt", "per_prompt": [1, 1, 3, 2]},
]


def survivors_of(run: Path, arm: str, number: int, name: str = "survivors") -> list[Survivor]:
    path = run / f"arms/{arm}/rounds/{number:03d}/survivors/improve-00/{name}.parquet"
    return tables.read(path, Survivor) if path.exists() else []


def selection_of(run: Path, arm: str, number: int) -> dict[str, Any]:
    return receipt_of(run, f"{arm}/rounds/{number:03d}/select-improve-00")


def recipe_of(folder: Path, *, seed_data: int = 0, **changes: Any) -> Path:
    """Four rounds of six prompts each, which are others in each round; no evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"what comes after {n}?", "completion": f"it is {n + 1}"} for n in range(50, 50 + seed_data)]
    (folder / "seed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {"train": "train.jsonl", "format": "text", "per_round": 6}
    prompts |= {"seed_data": "seed.jsonl"} if seed_data else {}
    changes = {"rounds": 4, "arms": [], **changes, "select": {"dedup": "none", **changes.get("select", {})}}
    recipe = scripted_recipe(folder, prompts=prompts, **changes)
    text = recipe.read_text().replace("validate: validate.jsonl", "").replace("test: test.jsonl", "")
    recipe.write_text(text)
    (folder / "answers.py").write_text(ANSWERS)
    return recipe


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Survivor]]:
    """Each round's own survivors, which buffer `replace` trains on."""
    folder = tmp_path_factory.mktemp("own")
    run = run_here(recipe_of(folder / "recipe"), runs_dir=folder)
    return {number: survivors_of(run, "main", number) for number in range(1, 5)}


@pytest.mark.parametrize("knobs", BUFFERS, ids=lambda one: "-".join(map(str, one.values())))
def test_a_buffer_is_made_of_each_rounds_own_survivors_and_the_receipt_names_what_it_read(
    own: dict[int, list[Survivor]], tmp_path: Path, knobs: dict[str, Any]
) -> None:
    assert not own[2]
    assert len(own[1]) > 6, "a prompt has several survivors"
    run = run_here(recipe_of(tmp_path / "recipe", select=knobs), runs_dir=tmp_path)
    for number in range(1, 5):
        config = resolved(SelectConfig.model_validate({"dedup": "none", **knobs}), number)
        reach = rounds_in_reach(config, number)
        expected = buffered([one for earlier in reach for one in own[earlier]], config, seed=0)
        trained_on = survivors_of(run, "main", number)
        assert trained_on == list(expected)
        assert len({one.candidate_id for one in trained_on}) == len(trained_on)
        apart = survivors_of(run, "main", number, "own")
        assert apart == ([] if set(own[number]) <= set(trained_on) else own[number])
        inputs = selection_of(run, "main", number)["ingredients"]["inputs"]
        read = {name: digest for name, digest in inputs.items() if name.startswith("earlier")}
        earlier = {f"earlier-{one:03d}": selection_of(run, "main", one)["output"] for one in reach[:-1]}
        if knobs["buffer"] == "append" and number > 1:
            earlier = {"earlier": selection_of(run, "main", number - 1)["output"]}
        assert read == earlier


@pytest.mark.parametrize(
    "knobs",
    [pytest.param(one, marks=pytest.mark.slow if number != 4 else ()) for number, one in enumerate(BUFFERS)],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_controls_train_on_as_many_examples_as_main_with_every_buffer(tmp_path: Path, knobs: dict[str, Any]) -> None:
    arms = ["random_selection", "gold", "random_selection_shared"]
    recipe = recipe_of(tmp_path / "recipe", select={**knobs, "max_per_prompt": 3}, arms=arms)
    run = run_here(recipe, runs_dir=tmp_path)
    for number in range(1, 5):
        count = selection_of(run, "main", number)["rows"]
        for arm in ("random_selection", "gold"):
            selected = selection_of(run, arm, number)
            assert selected["rows"] + selected["metrics"].get("select/short_of_main", 0) == count
            assert selected["rows"] >= 0.75 * count
        drawn = survivors_of(run, "random_selection", number)
        assert len({one.candidate_id for one in drawn}) == len(drawn)
        assert {one.why for one in drawn} <= {"drawn at random, whatever its value"}
    assert selection_of(run, "random_selection_shared", 4)["rows"] == count


@pytest.mark.slow
def test_a_fork_reads_the_earlier_selections_that_it_kept(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", select={"buffer": "window", "window": [1, 2, 2]})
    run_here(recipe, runs_dir=tmp_path)
    change = "select.window=[1,2,3,1]"
    done = selftrain("run", recipe, change, "--fork", "longer", "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    direct = run_here(recipe, change, "name=direct", runs_dir=tmp_path)
    for number in range(1, 5):
        assert survivors_of(tmp_path / "longer", "main", number) == survivors_of(direct, "main", number)
        trained = [
            receipt_of(one, f"main/rounds/{number:03d}/train-improve-00") for one in (tmp_path / "longer", direct)
        ]
        assert trained[0]["output"] == trained[1]["output"]
    kept = selection_of(tmp_path / "longer", "main", 2)
    assert kept == selection_of(tmp_path / "tiny", "main", 2), "with its seconds: it was copied, not made again"


@pytest.mark.parametrize(
    "buffer",
    ["append", *(pytest.param(one, marks=pytest.mark.slow) for one in ("replace", "latest_per_prompt"))],
)
def test_seed_data_is_mixed_in_anew_each_round_and_never_carried_over(
    own: dict[int, list[Survivor]], tmp_path: Path, buffer: str
) -> None:
    select = {"buffer": buffer, "mix_seed_data": 0.25}
    recipe = recipe_of(tmp_path / "recipe", seed_data=3, select=select, arms=["random_selection", "no_filter"])
    run = run_here(recipe, runs_dir=tmp_path)
    seen = []
    for number in range(1, 5):
        knobs = SelectConfig.model_validate({"buffer": buffer})
        of_buffer = buffered([one for n in rounds_in_reach(knobs, number) for one in own[n]], knobs, seed=0)
        trained_on = survivors_of(run, "main", number)
        mixed = [one for one in trained_on if one.why == "seed_data"]
        assert [one for one in trained_on if one.why != "seed_data"] == list(of_buffer)
        assert len(mixed) == round(len(of_buffer) / 3)
        assert {one.round for one in mixed} <= {number}
        assert {one.text for one in mixed} <= {"it is 51", "it is 52", "it is 53"}
        assert {one.value for one in mixed} <= {None}
        metrics = selection_of(run, "main", number)["metrics"]
        assert metrics["select/from_seed_data"] == len(mixed)
        assert metrics["select/training_examples"] == len(trained_on)
        seen.append([one.candidate_id for one in mixed])
        control = selection_of(run, "random_selection", number)
        assert (control["rows"], control["metrics"]["select/from_seed_data"]) == (len(trained_on), len(mixed))
        everyone = selection_of(run, "no_filter", number)
        if everyone["rows"]:
            assert everyone["metrics"]["select/from_seed_data"] == round((everyone["rows"]) / 4)
    assert len({name for names in seen for name in names}) == sum(map(len, seen)), "each round draws its own"
    nothing = receipt_of(run, "main/rounds/002/train-improve-00")["metrics"]["train/skipped"]
    assert nothing == float(buffer == "replace"), "no survivors, no demonstrations, no training"


def test_other_seed_data_would_alter_what_was_selected_and_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", seed_data=3, select={"mix_seed_data": [0.0, 0.25]}, rounds=2)
    run = run_here(recipe, runs_dir=tmp_path)
    assert "demonstrations" not in selection_of(run, "main", 1)["ingredients"]["config"]
    assert "model" not in selection_of(run, "main", 1)["ingredients"]["inputs"]
    assert selection_of(run, "main", 2)["ingredients"]["inputs"].keys() >= {"model", "runs_on"}
    row = {"prompt": "what comes after 7?", "completion": "8"}
    (tmp_path / "recipe/seed.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(
        ConfigError, match=r"alter arms/main/rounds/002/select.*\n.*the rows of prompts\.seed_data changed"
    ):
        run_here(recipe, runs_dir=tmp_path)


def test_filters_are_steps_of_the_funnel_in_main_and_not_in_controls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["random_selection", "no_filter"]
    recipe = recipe_of(tmp_path / "recipe", select={"filters": ["mine.py:even"]}, arms=arms, rounds=1)
    (tmp_path / "recipe/mine.py").write_text(
        "def even(text, reference):\n    return int(reference) % 2 == 0 or f'{reference} is odd'\n"
    )
    run = run_here(recipe, runs_dir=tmp_path)
    metrics = selection_of(run, "main", 1)["metrics"]
    assert 0 < metrics["select/filter/even"] < metrics["select/length"]
    assert {int(one.text) % 2 for one in survivors_of(run, "main", 1)} == {0}
    assert "length > " in capsys.readouterr().out.replace(",", "")
    for arm in arms:
        assert "select/filter/even" not in selection_of(run, arm, 1)["metrics"]
    assert selection_of(run, "random_selection", 1)["rows"] == selection_of(run, "main", 1)["rows"]
    rejected = (run / "arms/main/rounds/001/survivors/improve-00/rejected.jsonl").read_text()
    assert "is odd" in rejected


def test_a_filter_is_part_of_what_was_selected(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", select={"filters": ["mine.py:brief"]}, rounds=1)
    source = tmp_path / "recipe/mine.py"
    source.write_text("def brief(text):\n    return text.missing()\n")
    with pytest.raises(PhaseError, match=r"mine\.py:brief failed on candidate \w+ with AttributeError"):
        run_here(recipe, runs_dir=tmp_path)
    source.write_text("def brief(text):\n    return len(text) < 9\n")
    run_here(recipe, runs_dir=tmp_path)
    source.write_text("def brief(text):\n    return len(text) < 2\n")
    with pytest.raises(
        ConfigError, match=r"alter arms/main/rounds/001/select.*\n.*the source of mine\.py:brief changed"
    ):
        run_here(recipe, runs_dir=tmp_path)


def test_a_filter_that_is_not_there_is_missed_before_anything_is_made(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", select={"filters": ["answers.py:brief"]})
    with pytest.raises(ConfigError, match="defines no function 'brief'; it has: answer"):
        run_here(recipe, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("select", [{"rule": "top_fraction", "top_fraction": 0.2}, {"rule": "above_mean"}])
def test_the_rules_of_rank_run_beside_their_control(tmp_path: Path, select: dict[str, Any]) -> None:
    recipe = recipe_of(tmp_path / "recipe", select=select, arms=["random_selection"], rounds=2)
    run = run_here(recipe, runs_dir=tmp_path)
    first, second = (selection_of(run, "main", number) for number in (1, 2))
    if "top_fraction" in select:
        assert (first["rows"], second["rows"]) == (5, 5), "ceil(0.2 * 24)"
    else:
        assert first["rows"] > 0
        assert second["rows"] == 0, "all are equally wrong"
    for number in (1, 2):
        main = survivors_of(run, "main", number)
        assert all("of the 24 left" in one.why or "is above" in one.why for one in main)
        assert selection_of(run, "random_selection", number)["rows"] == len(main)
