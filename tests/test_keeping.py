"""`keep: best_and_last`: adapters go once nothing needs them, what needs one later has it trained again, kills do no
harm; and what a run weighs."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from worlds import model_recipe, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import launch
from selftrain.arms import Arm
from selftrain.compose import compose
from selftrain.disk import KINDS, weight
from selftrain.errors import DataError, PhaseError
from selftrain.keeping import needed
from selftrain.outlook import status_of
from selftrain.records import Outcome, Report
from selftrain.store import RunDirectory, is_pruned
from selftrain.tracking.wandb_artifacts import Upload, payload_of
from selftrain.training import scripted as scripted_trainer

KEEP = "keep=best_and_last"
ADAPTERS_OF = ("main", "random_selection")
# Of four rounds the second is the best on validation.
ANSWERS = """
import zlib

def answer(prompt, seed, policy_round):
    luck = (seed or zlib.crc32(prompt.id.encode())) % 10
    return prompt.reference if luck < (3, 5, 10, 6, 4, 4)[policy_round] else str(-luck)
"""


def recipe_of(folder: Path, **changes: Any) -> Path:
    recipe = scripted_recipe(folder, **{"rounds": 4, "arms": [], **changes})
    (folder / "answers.py").write_text(ANSWERS)
    return recipe


def adapters(run: Path, arm: str = "main") -> list[int]:
    """The rounds whose adapters are there."""
    return sorted(int(path.parts[-3]) for path in run.glob(f"arms/{arm}/rounds/*/adapter/improve-00"))


def events(run: Path, kind: str) -> list[str]:
    found = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [one["folder"] for one in found if one["event"] == kind]


def but_adapters(results: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if "/adapter/improve-00" not in name}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps all its adapters."""
    folder = tmp_path_factory.mktemp("whole")
    return run_here(recipe_of(folder / "recipe", arms=["random_selection"]), runs_dir=folder)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of main alone that keeps its best adapter and its last one, and its recipe beside it."""
    folder = tmp_path_factory.mktemp("pruned")
    return run_here(recipe_of(folder / "recipe"), KEEP, runs_dir=folder)


def test_the_best_and_the_last_rounds_adapters_of_each_arm_stay_and_all_else_is_as_without(
    whole: Path, tmp_path: Path
) -> None:
    run = run_here(recipe_of(tmp_path / "recipe", arms=["random_selection"]), KEEP, runs_dir=tmp_path)
    assert json.loads((run / "verdict.json").read_text())["best_round"] == 2
    for arm in ADAPTERS_OF:
        assert adapters(whole, arm) == [1, 2, 3, 4]
        assert adapters(run, arm) == [2, 4]
    gone = {f"arms/{arm}/rounds/{number:03d}/adapter/improve-00" for arm in ADAPTERS_OF for number in (1, 3)}
    assert sorted(events(run, "pruned")) == sorted(gone)
    assert not events(run, "put back")
    assert (run / "best").resolve() == run / "arms/main/rounds/002/adapter/improve-00"
    assert but_adapters(results_of(run)) == but_adapters(results_of(whole))
    note = json.loads((run / "arms/main/rounds/001/adapter/improve-00.pruned.json").read_text())
    assert note["receipt"] == "arms/main/rounds/001/train-improve-00"
    assert note["why"] == "keep: best_and_last"
    assert weight(run)["adapters"] < weight(whole)["adapters"]
    assert weight(run)["survivors"] == weight(whole)["survivors"]


def test_the_same_command_again_does_nothing_more(pruned: Path) -> None:
    run, before = pruned, results_of(pruned)
    run_here(pruned.parent / "recipe/recipe.yaml", KEEP, runs_dir=pruned.parent)
    assert results_of(run) == before
    assert len(events(run, "pruned")) == 2
    assert status_of(run)["state"] == "finished"


@pytest.mark.slow
def test_a_finished_run_is_pruned_at_the_next_start_and_goes_on_from_its_last_round(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "tiny", symlinks=True)
    recipe = recipe_of(tmp_path / "recipe", arms=["random_selection"])
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    assert (adapters(run), adapters(run, "random_selection")) == ([2, 4], [2, 4])
    run_here(recipe, KEEP, "rounds=5", runs_dir=tmp_path)
    assert adapters(run) == [2, 5]
    assert (run / "best").resolve() == run / "arms/main/rounds/002/adapter/improve-00"
    assert not events(run, "put back"), "nothing was trained twice"
    assert adapters(run, "random_selection") == [2, 5]
    shutil.copytree(whole, tmp_path / "whole/tiny", symlinks=True)
    other = run_here(recipe, "rounds=5", runs_dir=tmp_path / "whole")
    assert but_adapters(results_of(run)) == but_adapters(results_of(other))


def test_the_link_to_the_best_adapter_never_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(tmp_path / "recipe", rounds=2, arms=["random_selection"])
    (tmp_path / "recipe/answers.py").write_text(ANSWERS.replace("(3, 5, 10, 6, 4, 4)", "(3, 5, 8, 10)"))
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    assert (run / "best").resolve().is_dir()

    def fail(*arguments: Any) -> None:
        raise PhaseError("the run ends before its verdict")

    monkeypatch.setattr(launch, "_conclude", fail)
    with pytest.raises(PhaseError, match="before its verdict"):
        run_here(recipe, KEEP, "rounds=3", runs_dir=tmp_path)
    assert adapters(run) == [3]
    assert not (run / "best").is_symlink()
    monkeypatch.undo()
    run_here(recipe, KEEP, "rounds=3", runs_dir=tmp_path)
    assert (run / "best").resolve() == run / "arms/main/rounds/003/adapter/improve-00"


def test_without_validation_the_last_adapter_stays(tmp_path: Path) -> None:
    prompts = {"train": "train.jsonl", "test": "test.jsonl", "format": "text"}
    recipe = recipe_of(tmp_path / "recipe", prompts=prompts, rounds=3)
    recipe.write_text(recipe.read_text().replace("validate: validate.jsonl", ""))
    assert adapters(run_here(recipe, KEEP, runs_dir=tmp_path)) == [3]


def test_a_round_without_survivors_keeps_the_adapter_that_it_goes_on_with(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", rounds=3)
    (tmp_path / "recipe/answers.py").write_text(
        "def answer(prompt, seed, policy_round):\n    return prompt.reference if policy_round == 0 else 'no'\n"
    )
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    assert receipt_of(run, "main/rounds/003/train-improve-00")["metrics"]["train/skipped"] == 1.0
    assert adapters(run) == [1], "rounds 2 and 3 have no adapter of their own"


@pytest.mark.slow
def test_what_the_regression_guard_goes_back_to_is_there(tmp_path: Path) -> None:
    knobs = ("stop.max_regression=0.1", "train.init_from=[previous,previous,best]")
    recipe = recipe_of(tmp_path / "recipe", arms=["random_selection"])
    plain = run_here(recipe, *knobs, "name=plain", runs_dir=tmp_path)
    run = run_here(recipe, *knobs, KEEP, runs_dir=tmp_path)
    assert but_adapters(results_of(run)) == but_adapters(results_of(plain))
    assert not events(run, "put back")
    assert set(adapters(run)) == {2, 4}


@pytest.mark.slow
def test_adapters_that_the_one_round_diagnostic_may_start_from_wait_for_it(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", arms=["random_selection_shared"])
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    assert not events(run, "put back")
    assert adapters(run) == [2, 4]


def test_an_arm_that_shares_mains_first_rounds_finds_their_adapters(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", arms={"late": {"train.learning_rate": [1e-4, 1e-4, 5e-5]}})
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    assert not events(run, "put back")
    assert adapters(run) == [2, 4]
    assert set(adapters(run, "late")) == {4}, "its round 2 is main's"


def test_an_arm_that_is_added_later_has_what_it_needs_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path / "recipe")
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    recipe = recipe_of(tmp_path / "recipe", arms={"late": {"train.learning_rate": [1e-4, 5e-5]}})
    capsys.readouterr()
    run_here(recipe, KEEP, runs_dir=tmp_path)
    assert "main · round 1: its adapter, removed by keep: best_and_last, is needed again" in capsys.readouterr().out
    assert events(run, "put back") == ["arms/main/rounds/001/adapter/improve-00"]
    assert adapters(run) == [2, 4]
    assert results_of(run) == results_of(run_here(recipe, KEEP, "name=at_once", runs_dir=tmp_path))


@pytest.mark.slow
def test_measurements_that_are_asked_for_later_have_the_adapters_trained_again_in_a_chain(
    whole: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path / "recipe", arms=["random_selection"])
    run = run_here(recipe, KEEP, runs_dir=tmp_path)
    run_here(recipe, KEEP, "evaluate.sampled_rounds=[first,3,last]", runs_dir=tmp_path)
    # Round 3 went on from round 2, which stayed.
    assert events(run, "put back") == ["arms/main/rounds/003/adapter/improve-00"]
    assert adapters(run) == [2, 4]
    shutil.copytree(whole, tmp_path / "whole/tiny", symlinks=True)
    other = run_here(recipe, "evaluate.sampled_rounds=[first,3,last]", runs_dir=tmp_path / "whole")
    assert but_adapters(results_of(run)) == but_adapters(results_of(other))


@pytest.mark.slow
def test_a_fork_keeps_what_it_can_and_trains_again_what_it_needs(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe")
    run_here(recipe, KEEP, runs_dir=tmp_path)
    change = "train.learning_rate=[1e-4,1e-4,1e-4,5e-5]"
    done = selftrain("run", recipe, KEEP, change, "--fork", "slower", "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "round 3: its adapter, removed by keep: best_and_last, is needed again" in done.stdout
    fork = tmp_path / "slower"
    same = "arms/main/rounds/003/receipts/train-improve-00.json"
    assert (fork / same).read_bytes() == (tmp_path / "tiny" / same).read_bytes()
    assert events(fork, "put back") == ["arms/main/rounds/003/adapter/improve-00"]
    assert results_of(fork) == results_of(run_here(recipe, KEEP, change, "name=direct", runs_dir=tmp_path))


def test_an_adapter_that_comes_out_otherwise_is_not_put_back(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = pruned.parent / "recipe/recipe.yaml", tmp_path / "tiny"
    shutil.copytree(pruned, run, symlinks=True)
    monkeypatch.setattr(scripted_trainer, "_VALUES", 7)
    with pytest.raises(PhaseError, match=r"adapter_model\.safetensors.*the same kind of machine.*name=NEW"):
        run_here(recipe, KEEP, "evaluate.sampled_rounds=[first,3,last]", runs_dir=tmp_path)
    assert adapters(run) == [2, 4]
    assert is_pruned(run / "arms/main/rounds/003/adapter/improve-00")


def test_a_lost_adapter_is_not_taken_for_a_removed_one(pruned: Path, tmp_path: Path) -> None:
    recipe, run = pruned.parent / "recipe/recipe.yaml", RunDirectory(tmp_path / "tiny")
    shutil.copytree(pruned, run.path, symlinks=True)
    removed, stayed = (run.receipt(f"arms/main/rounds/{number:03d}/train-improve-00") for number in (1, 2))
    assert removed is not None
    assert stayed is not None
    with pytest.raises(DataError, match=r"removed on purpose \(keep: best_and_last\)"):
        run.verified(removed)
    assert sorted(path.name for path in run.present(removed)) == ["improve-00.pruned.json", "improve-00.steps.jsonl"]
    assert len(run.present(stayed)) == len(stayed.files)
    shutil.rmtree(run.path / "arms/main/rounds/002/adapter/improve-00")
    with pytest.raises(DataError, match="is missing; restore it from a backup"):
        run.verified(stayed)
    with pytest.raises(DataError, match="is missing; restore it from a backup"):
        run_here(recipe, KEEP, runs_dir=tmp_path)
    assert not is_pruned(run.path / "arms/main/rounds/002/adapter/improve-00")


@pytest.mark.slow
def test_a_real_models_adapter_comes_back_to_the_byte(tmp_path: Path) -> None:
    from tiny_models import build_model

    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), arms=[], rounds=4)
    knobs = (KEEP, "evaluate.sampled_rounds=none")
    run = run_here(recipe, *knobs, runs_dir=tmp_path)
    best = json.loads((run / "verdict.json").read_text())["best_round"]
    gone = sorted({1, 2, 3} - {best})
    assert adapters(run) == sorted({best, 4} - {0})
    run_here(recipe, KEEP, "evaluate.sampled_rounds=[3]", runs_dir=tmp_path)
    came_back = [int(folder.split("/")[3]) for folder in events(run, "put back")]
    assert came_back == [number for number in gone if number > (best if best < 3 else 0)]
    assert adapters(run) == sorted({best, 4} - {0})


@pytest.mark.slow
def test_killed_at_every_point_of_a_removal_a_run_ends_as_if_untouched(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", rounds=3, arms=["random_selection"])
    points = tmp_path / "points"
    done = selftrain("run", recipe, KEEP, "--runs-dir", tmp_path / "a", SELFTRAIN_FAULT=f"count:{points}")
    assert done.returncode == 0, done.stderr
    names = points.read_text().splitlines()
    reference = results_of(tmp_path / "a/tiny")
    middle = names.index("in the middle of pruning")
    assert names[middle - 1] == "before pruning"
    # From the commit before the first removal to the one after it: the note, the journal, the folder, what follows.
    for visit in range(middle - 6, middle + 3):
        runs = tmp_path / f"killed-{visit}"
        killed = selftrain("run", recipe, KEEP, "--runs-dir", runs, SELFTRAIN_FAULT=str(visit))
        assert killed.returncode == -signal.SIGKILL
        resumed = selftrain("run", recipe, KEEP, "--runs-dir", runs)
        assert resumed.returncode == 0, resumed.stderr
        assert results_of(runs / "tiny") == reference
        assert adapters(runs / "tiny") == adapters(tmp_path / "a/tiny")
        assert set(events(runs / "tiny", "pruned")) == set(events(tmp_path / "a/tiny", "pruned"))
        assert not list((runs / "tiny").glob("**/.tmp-*"))


@pytest.mark.slow
def test_killed_while_an_adapter_is_put_back_the_same_command_goes_on(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe")
    again = ("run", recipe, KEEP, "evaluate.sampled_rounds=[first,3,last]", "--runs-dir")
    run_here(recipe, KEEP, runs_dir=tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True)
    points = tmp_path / "points"
    assert selftrain(*again, tmp_path / "a", SELFTRAIN_FAULT=f"count:{points}").returncode == 0
    goes = points.read_text().splitlines().index("before the note goes") + 1
    for visit in (goes - 2, goes, goes + 1):
        killed = selftrain(*again, tmp_path / "b", SELFTRAIN_FAULT=str(visit))
        assert killed.returncode == -signal.SIGKILL
    assert selftrain(*again, tmp_path / "b").returncode == 0
    assert results_of(tmp_path / "a/tiny") == results_of(tmp_path / "b/tiny")
    assert adapters(tmp_path / "b/tiny") == [2, 4]


def report(number: int, *greedy: bool | None) -> Report:
    outcomes = tuple(Outcome(f"p{place}", value, 0, 0) for place, value in enumerate(greedy))
    return Report("main", number, {}, {"validate": outcomes})


def test_beside_main_an_arm_needs_the_best_round_so_far_and_the_best_of_all(tmp_path: Path) -> None:
    config = compose(str(recipe_of(tmp_path / "recipe", arms=["random_selection"]))).config
    main = Arm("main", config)
    rows = [(False, False), (True, False), (False, False), (True, True)]
    main.reports = {number: report(number, *row) for number, row in enumerate(rows)}
    arm = Arm("random_selection", config, config.arms[0], main)
    assert [needed(arm, number) for number in (1, 2, 3)] == [{1}, {1, 2}, {3}]
    assert needed(main, 3) == {3}
    main.reports[4] = report(4, False, True)
    assert needed(arm, 4) == {3, 4}


def test_an_adapter_that_went_before_it_was_uploaded_is_let_go(
    pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(pruned)
    payload = payload_of(run, "arms/main/rounds/001/train-improve-00", "tiny", ("adapters",))
    assert payload is not None

    def open_run() -> None:
        raise AssertionError("there is nothing to upload")

    capsys.readouterr()
    assert Upload(ModuleType("wandb"), payload, open_run).advance()
    assert "tiny-main-adapter:round-1 is not uploaded" in "".join(capsys.readouterr())


def test_what_a_run_weighs_is_told_by_kind(whole: Path, tmp_path: Path) -> None:
    found = weight(whole)
    assert list(found) == [*KINDS, "total"]
    files = [path for path in whole.rglob("*") if path.is_file() and not path.is_symlink()]
    in_best = [path for path in files if path.is_relative_to(whole / "best")]
    assert found["total"] == sum(path.stat().st_size for path in files if path not in in_best)
    assert found["total"] == sum(found[kind] for kind in KINDS)
    assert all(found[kind] > 0 for kind in KINDS if kind not in ("exports", "logs"))
    of_folder = {"candidates": "candidates", "scores": "scores", "survivors": "survivors", "adapters": "adapter"}
    for kind, folder in of_folder.items():
        inside = [path for path in whole.glob(f"arms/*/rounds/*/{folder}/**/*") if path.is_file()]
        assert found[kind] == sum(path.stat().st_size for path in inside)
    (tmp_path / "tensorboard/main").mkdir(parents=True)
    (tmp_path / "tensorboard/main/events").write_bytes(b"12345")
    (tmp_path / "notes.txt").write_bytes(b"123")
    assert weight(tmp_path) == {**dict.fromkeys(KINDS, 0), "tracking": 5, "other": 3, "total": 8}
    assert weight(tmp_path / "nowhere")["total"] == 0
