from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from worlds import run_here, scripted_recipe, selftrain

from selftrain.comparing import compare, verdict_of_seeds
from selftrain.errors import ConfigError, DataError
from selftrain.reporting.comparisons import render

# Right more often after every round, and luckier or not by what the environment says.
ANSWERS = """
import os
import zlib


def answer(prompt, seed, policy_round):
    luck = (seed or zlib.crc32((prompt.id + os.environ["LUCK"]).encode())) % 10
    right = prompt.reference
    return right if luck < 3 + 2 * policy_round else str(int(right) + 1 + luck % 3)
"""


def recipe_of(folder: Path, *, test_prompts: range = range(200, 240), shift: int = 1, **changes: Any) -> Path:
    """The scripted recipe with more test prompts; references are `shift` above the number asked for."""
    quick = {"block_size": 64, "sampled_rounds": "none", "trained_prompts": 0, "resamples": 1000}
    path = scripted_recipe(folder, evaluate=quick, **changes)
    (folder / "answers.py").write_text(ANSWERS)
    rows = [{"prompt": f"what comes after {n}?", "reference": str(n + shift)} for n in test_prompts]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """seed-0 to seed-2: one recipe; warm: other knobs; more: forty other test prompts, ten of them common."""
    folder = tmp_path_factory.mktemp("compared")
    recipe = recipe_of(folder / "recipe", rounds=2)
    more = recipe_of(folder / "more", rounds=2, test_prompts=range(230, 270))
    with pytest.MonkeyPatch.context() as patch:
        for seed in range(3):
            patch.setenv("LUCK", str(seed))
            run_here(recipe, f"seed={seed}", f"name=seed-{seed}", runs_dir=folder)
        run_here(recipe, "name=warm", "sample.temperature=1.5", "train.learning_rate=0.01", runs_dir=folder)
        run_here(more, "name=more", runs_dir=folder)
    return folder


def of(folder: Path, *names: str) -> list[str]:
    return [str(folder / name) for name in names]


def metrics_of(run: Path, arm: str = "main", number: int = 2) -> dict[str, float]:
    path = run / f"arms/{arm}/rounds/{number:03d}/receipts/evaluate.json"
    found: dict[str, float] = json.loads(path.read_text())["metrics"]
    return found


def test_a_run_has_its_headline_its_cost_and_its_arms_in_a_row(runs: Path) -> None:
    row = compare(of(runs, "seed-0", "warm"))["runs"][0]
    verdict = json.loads((runs / "seed-0" / "verdict.json").read_text())
    assert (row["name"], row["arm"], row["seed"], row["is_finished"]) == ("seed-0", "main", 0, True)
    assert (row["round"], row["chosen"]) == (verdict["round"], "chosen on validation")
    level = metrics_of(runs / "seed-0", number=row["round"])
    for key, name in (("estimate", "pass@1"), ("low", "pass@1_low"), ("high", "pass@1_high")):
        assert row["pass@1"][key] == pytest.approx(level[f"evaluate/test/{name}"], abs=0.03)
    assert row["arms"].keys() == {"random_selection"}
    receipts = [json.loads(path.read_text()) for path in (runs / "seed-0/arms/main").glob("rounds/*/receipts/*.json")]
    assert row["seconds"] == pytest.approx(sum(one["seconds"] for one in receipts if one["phase"] != "round"))
    assert row["sampled_tokens"] == sum(one["metrics"].get("sample/tokens", 0) for one in receipts)
    assert row["sampled_tokens"] > 0


def test_a_difference_to_an_arm_of_the_same_run_is_the_gain_of_its_verdict(runs: Path) -> None:
    run = str(runs / "seed-1")
    (difference,) = compare([f"{run}:random_selection", run])["differences"]
    verdict = json.loads((runs / "seed-1" / "verdict.json").read_text())
    (gain,) = [one for one in verdict["gains"] if one["over"] == "random_selection"]
    assert (difference["over"], difference["name"]) == ("seed-1:random_selection", "seed-1")
    assert (difference["before"], difference["after"]) == (gain["before"], gain["after"])
    assert difference["interval"] == gain["interval"]
    assert difference["knobs"] == ["arm: 'random_selection' -> 'main'"]


def test_knobs_that_differ_are_named_but_for_the_runs_name_and_seed(runs: Path) -> None:
    data = compare(of(runs, "seed-0", "warm", "seed-1"))
    warm, other_seed = data["differences"]
    assert warm["knobs"] == ["sample.temperature: 1.0 -> 1.5", "train.learning_rate: 0.0001 -> 0.01"]
    assert other_seed["knobs"] == []
    assert data["seeds"] is None
    assert "  sample.temperature: 1.0 -> 1.5" in render(data).splitlines()
    assert "how far each recipe moves with its training seed is not in them" in data["notes"][-1]


def test_runs_that_differ_in_the_seed_alone_are_taken_together(runs: Path) -> None:
    data = compare(of(runs, "seed-0", "seed-1", "seed-2"))
    assert data["notes"] == ["these runs differ in nothing but the seed"]
    assert data["seeds"]["seeds"] == (0, 1, 2)
    gains = {one["what"]: one for one in data["seeds"]["gains"]}
    verdicts = [json.loads((runs / f"seed-{seed}/verdict.json").read_text()) for seed in range(3)]
    for place, name in enumerate(("round 0", "random_selection")):
        estimates = [one["gains"][place]["interval"]["estimate"] for one in verdicts]
        assert gains[name]["per_seed"] == pytest.approx(estimates)
    assert gains["round 0"]["over_both"] is not None
    found = verdict_of_seeds([runs / f"seed-{seed}" for seed in range(3)])
    assert found.lines == data["seeds"]["lines"]
    assert "gain of main over round 0" in render(data)


def test_the_same_seed_twice_is_a_repetition_and_not_two_seeds(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "seed-0", tmp_path / "again")
    data = compare([*of(runs, "seed-0"), str(tmp_path / "again")])
    assert (data["seeds"], data["differences"][0]["interval"]["estimate"]) == (None, 0.0)


def test_runs_with_partly_other_prompts_are_compared_on_those_they_share(runs: Path) -> None:
    (difference,) = compare(of(runs, "seed-0", "more"))["differences"]
    assert (difference["common"], difference["interval"]["left_out"]) == (10, 60)
    assert difference["interval"]["num_prompts"] == 10
    (warning,) = difference["warnings"]
    assert warning.startswith("the test sets of seed-0 and more are not the same")
    text = render(compare(of(runs, "seed-0", "more")))
    assert "left out, as only one of the two has or could score them: 60" in " ".join(text.split())
    assert "careful: the test sets of seed-0 and more are not the same" in text


def test_runs_without_a_common_prompt_are_refused_unless_asked_for_unpaired(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCK", "0")
    other = run_here(
        recipe_of(tmp_path / "recipe", test_prompts=range(300, 350), rounds=1), "name=other", runs_dir=tmp_path
    )
    with pytest.raises(DataError, match=r"seed-0 and other have no test prompt in common \(of 40 and 50\)"):
        compare([*of(runs, "seed-0"), str(other)])
    data = compare([*of(runs, "seed-0"), str(other)], unpaired=True)
    assert data["differences"][0]["interval"]["method"] == "unpaired"
    assert "the two were asked different prompts" in " ".join(render(data).split())


def test_other_references_for_the_same_prompts_are_warned_about(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCK", "5")
    # Wrong answers are 1 to 3 above the reference, so that some are right by these.
    other = run_here(recipe_of(tmp_path / "recipe", shift=2, rounds=2), "name=other", runs_dir=tmp_path)
    (difference,) = compare([*of(runs, "seed-0"), str(other)])["differences"]
    assert difference["common"] == 40
    assert difference["warnings"][0].startswith("the test sets of seed-0 and other are not the same")
    assert "right in one and wrong in the other for" in difference["warnings"][1]


def test_another_scorer_is_warned_about(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCK", "0")
    recipe = recipe_of(tmp_path / "recipe", rounds=2, score={"scorers": ["numeric"]})
    other = run_here(recipe, "name=other", "seed=3", runs_dir=tmp_path)
    data = compare([*of(runs, "seed-0"), str(other)])
    (warning,) = data["differences"][0]["warnings"]
    assert warning.startswith("other is scored otherwise than seed-0: score.scorers")
    assert data["seeds"] is None


def test_a_run_that_was_killed_is_compared_as_far_as_it_got_and_called_unfinished(runs: Path, tmp_path: Path) -> None:
    killed = selftrain(
        "run", recipe_of(tmp_path / "recipe", rounds=2), "--runs-dir", tmp_path, LUCK="0", SELFTRAIN_FAULT="150"
    )
    assert killed.returncode < 0
    data = compare([*of(runs, "seed-0"), str(tmp_path / "tiny")])
    row = data["runs"][1]
    assert not row["is_finished"]
    assert "tiny is not finished: this is its headline as of round" in data["notes"][0]
    assert f"as of round {row['round']}, of 2 planned" in data["notes"][0]


def test_an_arm_whose_policy_came_out_as_mains_is_compared_all_the_same(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCK", "0")
    recipe = recipe_of(tmp_path / "recipe", rounds=1, arms=[{"same": {"select.min_survivors": 1}}])
    run = run_here(recipe, runs_dir=tmp_path)
    (difference,) = compare([str(run), f"{run}:same"])["differences"]
    assert (difference["common"], difference["interval"]["estimate"]) == (40, 0.0)


def test_an_arm_is_compared_by_its_own_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUCK", "0")
    recipe = recipe_of(tmp_path / "recipe", rounds=1, arms=[{"hot": {"sample.temperature": 1.5}}])
    run = run_here(recipe, runs_dir=tmp_path)
    data = compare([str(run), f"{run}:hot"])
    assert data["differences"][0]["knobs"] == ["sample.temperature: 1.0 -> 1.5"]
    assert "hot" in data["runs"][0]["arms"]


def test_figures_on_validation_are_labelled_where_it_chose_the_round(runs: Path) -> None:
    data = compare(of(runs, "seed-0", "warm"), set_name="validate")
    assert data["set"] == "validate"
    assert data["notes"][0] == (
        "validation chose headline rounds, so figures on these prompts flatter them; --set test does not"
    )
    assert not any("flatter" in note for note in compare(of(runs, "seed-0", "warm"))["notes"])


def test_runs_of_the_same_name_are_told_apart_by_their_folders(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "seed-1", tmp_path / "seed-0")
    names = [row["name"] for row in compare([str(runs / "seed-0"), str(tmp_path / "seed-0")])["runs"]]
    assert names == [str(runs / "seed-0"), str(tmp_path / "seed-0")]


def test_the_text_is_made_from_the_data_alone_and_fits_80_columns(runs: Path) -> None:
    for names in (("seed-0", "seed-1", "seed-2"), ("seed-0", "warm", "more")):
        data = compare(of(runs, *names))
        text = render(data)
        assert render(json.loads(json.dumps(data))) == text
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text


def damaged(runs: Path, folder: Path, name: str, content: bytes | None) -> str:
    run = folder / "damaged"
    shutil.copytree(runs / "seed-0", run)
    (path,) = run.glob(name)
    path.unlink() if content is None else path.write_bytes(content)
    return str(run)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("config.json", b"{", DataError, "config.json is damaged"),
        ("config.json", b"[]", DataError, "config.json lacks config or prompts or versions"),
        ("config.json", b'{"config": {"name": "a"}, "prompts": {}, "versions": {}}', ConfigError, "another version"),
        ("config.json", None, ConfigError, "is no run directory"),
        ("verdict.json", b"{}", DataError, "verdict.json lacks round or gains"),
        ("arms/main/rounds/001/receipts/evaluate.json", b"{}", DataError, "is no receipt"),
        ("arms/main/rounds/001/evaluation/greedy/test/outcomes.parquet", b"x", DataError, "is damaged"),
        ("arms/main/rounds/001/evaluation/greedy/test/outcomes.parquet", None, DataError, "is missing"),
    ],
)
def test_a_damaged_run_directory_is_named_with_the_way_out(
    runs: Path, tmp_path: Path, name: str, content: bytes | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        compare([str(runs / "seed-0"), damaged(runs, tmp_path, name, content)])


def test_what_is_no_run_is_refused_with_the_next_step(runs: Path, tmp_path: Path) -> None:
    good = str(runs / "seed-0")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for runs_named, words in (
        ([good], "takes two runs or more"),
        ([good, str(tmp_path / "nowhere")], "there is no folder"),
        ([good, f"{tmp_path / 'nowhere'}:gold"], "there is no folder"),
        ([good, str(tmp_path / "file")], "there is no folder"),
        ([good, str(tmp_path / "empty")], "is no run directory"),
        ([good, f"{good}:gold"], "has no arm 'gold'; its arms: main, random_selection"),
    ):
        with pytest.raises(ConfigError, match=words):
            compare(runs_named)
    with pytest.raises(ConfigError, match=r"--set train: not every run was measured on it \(seed-0: test, validate"):
        compare(of(runs, "seed-0", "warm"), set_name="train")


def test_runs_without_held_out_prompts_or_before_their_first_evaluation_are_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCK", "0")
    recipe = recipe_of(tmp_path / "recipe", rounds=1, arms=[])
    bare = scripted_recipe(tmp_path / "bare", rounds=1, arms=[], prompts={"validate": None, "test": None})
    for run, words in (
        (run_here(bare, "name=bare", runs_dir=tmp_path), "was run without held-out prompts"),
        (run_here(recipe, "name=begun", runs_dir=tmp_path), "has no evaluated round yet"),
    ):
        for folder in run.glob("arms/main/rounds/*/receipts/evaluate*.json"):
            folder.unlink()
        with pytest.raises(ConfigError, match=words):
            compare([str(runs / "seed-0"), str(run)])


def test_an_arm_that_was_not_measured_at_the_headline_round_is_refused(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "half"
    shutil.copytree(runs / "seed-0", run)
    (run / "verdict.json").unlink()
    (run / "arms/random_selection/rounds/002/receipts/evaluate.json").unlink()
    with pytest.raises(DataError, match=r"arm random_selection of .*half was not measured on test at round 2"):
        compare([str(run), f"{run}:random_selection"])
    assert compare([str(run), *of(runs, "warm")])["runs"][0]["arms"] == {}


def test_the_command_prints_text_or_data_and_loads_no_model_library(runs: Path) -> None:
    code = (
        "import sys\nfrom selftrain.cli import app\n"
        f"try:\n    app(['compare', *{of(runs, 'seed-0', 'warm')!r}, '--json'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *data, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert json.loads("\n".join(data)) == json.loads(json.dumps(compare(of(runs, "seed-0", "warm"))))
    text = selftrain("compare", *of(runs, "seed-0", "warm"))
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.startswith("greedy pass@1 on test prompts")
    wrong = selftrain("compare", runs / "seed-0", runs / "nowhere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "Traceback" not in wrong.stderr
