"""The metrics of a mix by task, from hand-made groups and from a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_scored
from worlds import run_here, scripted_recipe

from selftrain.evaluation import tasks
from selftrain.evaluation.retention import of_logprobs
from selftrain.evaluation.rounds import of_scoring
from selftrain.records import Group
from selftrain.tracking.axes import chart_points, patterns
from selftrain.tracking.ledger import read


def group(name: str, task: str | None, *values: float | None) -> Group:
    rows = [(make_candidate(name, number, "x"), value) for number, value in enumerate(values)]
    made = make_scored(name, rows)
    return replace(made, prompt=replace(made.prompt, task=task))


GROUPS = [
    group("a", "sums", 1.0, 0.0, 1.0),
    group("b", "logic", 0.0, None),
    group("c", "sums", 0.0, 0.0),
    group("d", "codes", None, None),
]


def test_scoring_is_told_by_task_over_what_was_scored() -> None:
    assert tasks.of_scoring(GROUPS) == {
        "score/sums/candidates": 5.0,
        "score/sums/correct_rate": 2 / 5,
        "score/sums/prompts_solved_rate": 1 / 2,
        "score/logic/candidates": 2.0,
        "score/logic/correct_rate": 0.0,
        "score/logic/prompts_solved_rate": 0.0,
        "score/codes/candidates": 2.0,
    }
    assert tasks.of_scoring(GROUPS).items() <= of_scoring(GROUPS, {}).items()


def test_a_set_without_tasks_has_no_metrics_by_task() -> None:
    plain = [group("a", None, 1.0), group("b", None, 0.0)]
    assert tasks.of_scoring(plain) == {}
    assert tasks.of_selection(["a"], [one.prompt for one in plain]) == {}
    assert tasks.of_sets("test", plain, lambda name, ones: {name: 1.0}) == {}
    assert tasks.of_texts((), [[-1.0]], None, confidence=0.95, resamples=10, seed=0) == {}
    whole = of_scoring(plain, {})
    assert not [key for key in whole if key.endswith(("/candidates", "/correct_rate")) and key.count("/") > 1]


def test_a_task_of_which_nothing_was_scored_has_its_counts_alone() -> None:
    def figures(name: str, ones: Sequence[Group]) -> dict[str, float]:
        return {f"evaluate/{name}/pass@1": float(len(ones))}

    assert tasks.of_sets("test", GROUPS, figures) == {
        "evaluate/test/sums/pass@1": 2.0,
        "evaluate/test/logic/pass@1": 1.0,
        "evaluate/test/codes/prompts": 1.0,
        "evaluate/test/codes/unscored": 1.0,
    }


def test_what_was_kept_is_counted_for_every_task_that_was_asked() -> None:
    kept = tasks.of_selection(["a", "a", "c"], [one.prompt for one in GROUPS])
    assert kept == {"select/sums/kept": 3.0, "select/logic/kept": 0.0, "select/codes/kept": 0.0}


def test_texts_are_measured_by_task_as_they_are_together() -> None:
    rows, before = [[-1.0, -2.0], [-3.0], [], [-0.5, -0.25, -0.125]], [[-1.5, -2.0], [-3.0], [], [-0.5, -0.5, -0.5]]
    of = ("news", "news", "empty", "code")
    found = tasks.of_texts(of, rows, before, confidence=0.95, resamples=100, seed=0)
    assert found["evaluate/retention/news/nll"] == pytest.approx(2.0)
    assert found["evaluate/retention/news/nll_change"] == pytest.approx((1.5 + 2 + 3) / 3 * -1 + 2.0)
    assert found["evaluate/retention/code/perplexity"] == of_logprobs(rows[3:])["evaluate/retention/perplexity"]
    assert not [key for key in found if "/empty/" in key]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds without a model: sums are always right, lies always wrong, and the test set is no mix."""
    folder = tmp_path_factory.mktemp("mix")
    (folder / "recipe").mkdir()
    for task, start in (("sums", 300), ("lies", 400)):
        for name, offset in (("train", 0), ("validate", 50)):
            rows = [
                {"prompt": f"{task} {n}", "reference": str(n) if task == "sums" else "none"}
                for n in range(start + offset, start + offset + 8)
            ]
            (folder / f"recipe/{task}-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def mix(name: str, **weights: float) -> dict[str, Any]:
        return {
            "mix": {
                task: {"path": f"{task}-{name}.jsonl", "weight": weights.get(task, 1.0)} for task in ("sums", "lies")
            }
        }

    prompts = {
        "train": mix("train", sums=2.0),
        "validate": mix("validate"),
        "test": "test.jsonl",
        "per_round": 6,
        "format": "text",
    }
    seed_data = {"seed_data": mix("train")}
    recipe = scripted_recipe(
        folder / "recipe", prompts={**prompts, **seed_data}, arms=["random_selection", "seed_only"]
    )
    (folder / "recipe/answers.py").write_text(
        "def answer(prompt, seed, policy_round):\n    return prompt.text.split()[-1].strip('?')\n"
    )
    return run_here(recipe, runs_dir=folder)


def rows_of(run: Path, phase: str, arm: str = "main") -> list[dict[str, Any]]:
    return [row for row in read(run / "metrics.jsonl") if row["phase"] == phase and row["arm"] == arm]


def test_a_run_of_a_mix_is_measured_by_task(run: Path) -> None:
    rows = rows_of(run, "evaluate")
    assert len(rows) == 4
    for row in rows:
        assert row["evaluate/validate/sums/pass@1"] == 1.0
        assert row["evaluate/validate/lies/pass@1"] == 0.0
        assert row["evaluate/validate/sums/pass@1_low"] < 1.0 == row["evaluate/validate/sums/pass@1_high"]
        assert row["evaluate/validate/lies/pass@1_low"] == 0.0 < row["evaluate/validate/lies/pass@1_high"]
        assert row["evaluate/validate/sums/prompts"] == row["evaluate/validate/lies/prompts"] == 8.0
        assert row["evaluate/validate/pass@1"] == 0.5
        assert not [key for key in row if key.startswith("evaluate/test/") and key.count("/") > 2]
    trained = [key for key in rows[1] if key.startswith("evaluate/trained/sums/")]
    assert "evaluate/trained/sums/pass@1" in trained
    assert rows[1]["evaluate/trained_gap"] == rows[1]["evaluate/trained/pass@1"] - 0.5


def test_training_of_a_mix_is_told_by_task_with_the_shares_of_the_weights(run: Path) -> None:
    for score, select in zip(rows_of(run, "score"), rows_of(run, "select"), strict=True):
        assert (score["score/sums/candidates"], score["score/lies/candidates"]) == (16.0, 8.0)
        assert (score["score/sums/correct_rate"], score["score/lies/correct_rate"]) == (1.0, 0.0)
        assert (score["score/sums/prompts_solved_rate"], score["score/lies/prompts_solved_rate"]) == (1.0, 0.0)
        assert (select["select/sums/kept"], select["select/lies/kept"]) == (select["select/kept"], 0.0)


def test_a_control_that_trains_on_demonstrations_counts_them_by_task(run: Path) -> None:
    for row in rows_of(run, "select", "seed_only"):
        assert row["select/sums/kept"] + row["select/lies/kept"] == row["select/kept"] > 0


def test_metrics_by_task_are_charts_of_the_phase_on_the_axis_of_rounds(run: Path) -> None:
    row = rows_of(run, "evaluate")[1]
    points = chart_points(row)
    assert points["evaluate/validate/sums/pass@1"] == 1.0
    assert patterns(row) == ["evaluate/*"]
    assert patterns(rows_of(run, "score")[0]) == ["score/*"]


def test_figures_by_task_do_not_pass_for_sets(run: Path) -> None:
    from selftrain.outlook import status_of

    verdict = json.loads((run / "verdict.json").read_text())
    assert (verdict["set_name"], verdict["best_round"]) == ("test", 0)
    measured = run.glob("arms/main/rounds/001/evaluation/greedy/*/outcomes.parquet")
    assert {path.parent.name for path in measured} == {"validate", "test", "trained"}
    reports = status_of(run)["arms"]["main"]["reports"]
    greedy = [one["metrics"] for one in reports if "evaluate/validate/pass@1" in one["metrics"]]
    assert [one["evaluate/validate/pass@1"] for one in greedy] == [0.5] * 4
