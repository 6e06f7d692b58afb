"""What a run would refuse is named, and written as `exclude` takes it; with that, the run starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner
from worlds import run_here, scripted_recipe

from selftrain.cli import app
from selftrain.compose import compose
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.outlook import steps
from selftrain.preflight import check
from selftrain.unusable import HEADER, write_unusable


def row(number: int, *, broken: bool = False) -> dict[str, Any]:
    return {"prompt": f"what comes after {number}?", "reference": "nobody knows" if broken else str(number + 1)}


def data(path: Path, *some: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in some))


def recipe_of(folder: Path, **changes: Any) -> Path:
    """Numbers, of which 8 in training and 2 in the test set are none."""
    recipe = scripted_recipe(folder, rounds=1, score={"scorers": ["numeric"]}, **changes)
    data(folder / "train.jsonl", *(row(n, broken=n >= 12) for n in range(20)))
    data(folder / "test.jsonl", *(row(n, broken=n >= 204) for n in range(200, 206)))
    return recipe


def written(recipe: Path, folder: Path, *overrides: str, sets: tuple[str, ...] = (), as_json: bool = False) -> None:
    write_unusable(
        str(recipe),
        layers=[],
        overrides=overrides,
        sets=sets,
        folder=folder,
        unsafe_no_sandbox=False,
        as_json=as_json,
    )


def ids(file: Path) -> list[str]:
    return [line.split()[0] for line in file.read_text().splitlines() if not line.startswith("#")]


def test_a_refused_run_says_how_and_starts_with_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path / "mine")
    with pytest.raises(UnusablePrompts) as caught:
        run_here(recipe, runs_dir=tmp_path / "runs")
    assert "cannot use the references of 8 prompts" in str(caught.value)
    assert "and 3 more" in str(caught.value)
    assert "selftrain audit RECIPE --unusable FOLDER" in str(caught.value)
    assert len(caught.value.why) == 8
    written(recipe, tmp_path / "mine/out")
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "train: 8 of 20 prompts cannot be used",
        "validate: 0 of 6 prompts cannot be used",
        "test: 2 of 6 prompts cannot be used",
        "to leave them out, set in the recipe or on the command line:",
        "  prompts.train.exclude=out/train.txt",
        "  prompts.test.exclude=out/test.txt",
    ]
    assert set(ids(tmp_path / "mine/out/train.txt")) == set(caught.value.why)
    assert "'nobody knows'" in (tmp_path / "mine/out/train.txt").read_text()
    run = run_here(recipe, *(line.strip() for line in said[-2:]), runs_dir=tmp_path / "runs")
    sets = json.loads((run / "config.json").read_text())["prompts"]
    assert {name: (one["prompts"], one["excluded"]) for name, one in sets.items()} == {
        "train": (12, 8),
        "validate": (6, 0),
        "test": (4, 2),
    }
    test = check(compose(str(recipe)))[0].test
    assert test is not None
    left = ", ".join(f"'{one}'" for one in [*ids(tmp_path / "mine/out/test.txt"), test.prompts[0].id])
    with pytest.raises(ConfigError, match=r"the rows of prompts\.test changed"):
        run_here(recipe, said[-2].strip(), f"prompts.test.exclude=[{left}]", runs_dir=tmp_path / "runs")
    composed = compose(str(recipe), overrides=[line.strip() for line in said[-2:]])
    assert "train: 12 prompts (8 excluded)" in list(steps(composed.config, check(composed)[0]))


def test_what_is_excluded_already_stays_so_and_the_file_may_be_written_again(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "mine")
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["audit", str(recipe), "--unusable", str(out), "--set", "train"])
    assert (done.exit_code, done.exception) == (0, None)
    assert done.stdout.startswith("train: 8 of 20 prompts cannot be used")
    first = ids(out / "train.txt")
    assert [path.name for path in out.iterdir()] == ["train.txt"]
    data(tmp_path / "mine/train.jsonl", *(row(n, broken=n >= 10) for n in range(20)))
    written(recipe, out, f"prompts.train.exclude={out / 'train.txt'}")
    assert set(first) < set(ids(out / "train.txt"))
    assert len(ids(out / "train.txt")) == 10


def test_a_file_that_somebody_else_wrote_is_not_overwritten(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "mine")
    (tmp_path / "train.txt").write_text("my notes\n")
    with pytest.raises(ConfigError, match=r"train\.txt is there, and was not written by this command"):
        written(recipe, tmp_path)
    assert (tmp_path / "train.txt").read_text() == "my notes\n"
    assert not (tmp_path / "test.txt").exists()


def change(recipe: Path, mix: dict[str, dict[str, str]]) -> None:
    """Make the training prompts that mix."""
    knobs = yaml.safe_load(recipe.read_text())
    knobs["prompts"]["train"] = {"mix": mix}
    recipe.write_text(yaml.safe_dump(knobs))


def test_every_source_of_a_mix_has_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(tmp_path / "mine")
    data(tmp_path / "mine/more.jsonl", *(row(n, broken=n < 302) for n in range(300, 306)))
    sources = {"low": {"path": "train.jsonl"}, "high": {"path": "more.jsonl"}}
    change(recipe, sources)
    written(recipe, tmp_path / "out", as_json=True)
    found = {(one["set"], one["task"]): len(one["unusable"]) for one in json.loads(capsys.readouterr().out)}
    assert found == {("train", "low"): 8, ("train", "high"): 2, ("validate", None): 0, ("test", None): 2}
    out = tmp_path / "out"
    low, high = out / "train-low.txt", out / "train-high.txt"
    assert (len(ids(low)), len(ids(high))) == (8, 2)
    change(recipe, {"low": {**sources["low"], "exclude": str(low)}, "high": {**sources["high"], "exclude": str(high)}})
    run = run_here(recipe, f"prompts.test.exclude={out}/test.txt", runs_dir=tmp_path / "runs")
    assert json.loads((run / "config.json").read_text())["prompts"]["train"]["excluded"] == 10


def test_prompts_that_only_one_scorer_cannot_use_are_found_too(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "mine")
    rows = (row(n, broken=n >= 12) for n in range(20))
    data(tmp_path / "mine/train.jsonl", *rows, {**row(30), "reference": "1,031"})
    written(recipe, tmp_path / "numeric", sets=("train",))
    written(recipe, tmp_path / "both", "score.scorers=[numeric, json_schema]", sets=("train",))
    only, both = ids(tmp_path / "numeric/train.txt"), ids(tmp_path / "both/train.txt")
    assert (len(only), len(both)) == (8, 9)
    assert set(only) < set(both)


def test_a_set_that_is_not_judged_is_refused_and_the_others_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set 'seed_data': this recipe has no such set.*train, validate, test"):
        written(recipe_of(tmp_path / "mine"), tmp_path / "out", sets=("seed_data",))


def test_solutions_that_fail_their_own_tests_are_written_with_the_reason(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "mine")
    rows = [
        {
            "prompt": f"Write add{n}(a), a plus {n}.",
            "reference": f"def add{n}(a):\n    return a + {n + n % 2}\n",
            "tests": [f"assert add{n}(1) == {n + 1}", f"assert add{n}(5) == {n + 5}"],
        }
        for n in range(8)
    ]
    rows.append({**rows[0], "prompt": "Check nothing.", "tests": ["assert True"]})
    data(tmp_path / "mine/train.jsonl", *rows)
    knobs = ("score.scorers=[code]", "prompts.validate=null", "prompts.test=null")
    written(recipe, tmp_path / "out", *knobs)
    text = (tmp_path / "out/train.txt").read_text()
    assert text.startswith(HEADER)
    assert len(ids(tmp_path / "out/train.txt")) == 5
    assert text.count("its reference solution does not pass its own tests") == 4
    assert text.count("the tests have nothing to check") == 1
