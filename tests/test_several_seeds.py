"""Several seeds of one recipe: run one after the other, resumed as a whole, and told in one table."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from worlds import receipt_of, scripted_recipe, selftrain

from selftrain.errors import ConfigError
from selftrain.launch import run_recipe
from selftrain.rooms import Rooms


def run_seeds(recipe: Path, seeds: list[int], runs_dir: Path, *overrides: str) -> None:
    run_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir, fork=None, seeds=seeds)


def test_each_seed_is_a_run_of_its_own_and_all_are_told_at_both_levels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run_seeds(recipe, [0, 1, 2], tmp_path / "runs")
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["tiny-seed-0", "tiny-seed-1", "tiny-seed-2", "tiny.seeds-0-1-2.json"]
    data = json.loads((tmp_path / "runs/tiny.seeds-0-1-2.json").read_text())
    over = {one["what"]: one for one in data["gains"]}
    verdicts = [json.loads((tmp_path / f"runs/tiny-seed-{seed}/verdict.json").read_text()) for seed in (0, 1, 2)]
    for what in ("round 0", "random_selection"):
        single = [
            next(gain["interval"]["estimate"] for gain in verdict["gains"] if gain["over"] == what)
            for verdict in verdicts
        ]
        assert over[what]["per_seed"] == pytest.approx(single)
        assert over[what]["mean"] == pytest.approx(sum(single) / 3)
        assert over[what]["over_prompts"]["low"] <= over[what]["mean"] <= over[what]["over_prompts"]["high"]
    printed = capsys.readouterr().out
    assert "over seeds" in printed
    assert "over prompts" in printed


def test_seeds_are_resumed_as_a_whole_and_a_seed_can_be_added(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run_seeds(recipe, [0, 1], tmp_path / "runs", "rounds=1")
    before = receipt_of(tmp_path / "runs/tiny-seed-1", "main/rounds/001/train-improve-00")
    run_seeds(recipe, [0, 1, 5], tmp_path / "runs", "rounds=2")
    assert receipt_of(tmp_path / "runs/tiny-seed-1", "main/rounds/001/train-improve-00") == before
    data = json.loads((tmp_path / "runs/tiny.seeds-0-1-5.json").read_text())
    assert data["seeds"] == [0, 1, 5]


@pytest.mark.parametrize("words", ["", "0,0", "0,x", "-1", "1;2"])
def test_a_list_of_seeds_that_is_none_is_refused_in_words(tmp_path: Path, words: str) -> None:
    done = selftrain("run", scripted_recipe(tmp_path / "recipe"), f"--seeds={words}", "--runs-dir", tmp_path / "runs")
    assert done.returncode == 2
    assert "--seeds" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_fork_is_of_one_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fork is for one run"):
        run_recipe(
            str(scripted_recipe(tmp_path)), layers=[], overrides=[], runs_dir=tmp_path / "r", fork="new", seeds=[0, 1]
        )


def test_a_name_too_long_for_its_seeds_is_refused_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set a shorter name"):
        run_seeds(scripted_recipe(tmp_path / "recipe"), [0, 1], tmp_path / "runs", f"name={'x' * 60}")
    assert not (tmp_path / "runs").exists()


def test_seed_beside_seeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed= and --seeds"):
        run_seeds(scripted_recipe(tmp_path / "recipe"), [0, 1], tmp_path / "runs", "seed=5")


def test_a_seeds_rooms_are_gone_before_the_next_ones_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model in them, two would have to fit into memory."""
    alive: list[weakref.ref[Rooms]] = []
    found_alive: list[int] = []

    class Watched(Rooms):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            found_alive.append(sum(one() is not None for one in alive))
            alive.append(weakref.ref(self))

    monkeypatch.setattr("selftrain.starting.Rooms", Watched)
    run_seeds(scripted_recipe(tmp_path / "recipe", arms=[], rounds=1), [0, 1, 2], tmp_path / "runs")
    assert found_alive == [0, 0, 0]
