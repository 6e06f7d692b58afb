"""`evaluate.scorers`: held-out answers judged otherwise than candidates, and values reported with their doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import receipt_of, results_of, run_here, scripted_recipe, selftrain, write_recipe

from selftrain import tables
from selftrain.alterations import in_words
from selftrain.compose import compose, differences
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.fingerprints import Fingerprints
from selftrain.records import Outcome

# Takes any answer of one digit or more for right, as a fooled judge does.
FOOLED = "def fooled(text):\n    return text.isdigit()\n\n\ndef near(text, reference):\n"
FOOLED += "    return 1 / (1 + abs(int(text) - int(reference)))\n"


def recipe_with(folder: Path, **changes: Any) -> Path:
    recipe = scripted_recipe(folder, score={"scorers": ["judges.py:fooled"]}, **changes)
    (folder / "judges.py").write_text(FOOLED)
    return recipe


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates judged by a fooled judge, held-out answers by a graded scorer with `exact` beside it."""
    folder = tmp_path_factory.mktemp("measured")
    scorers = ["judges.py:near", {"name": "exact", "weight": 0}]
    recipe = recipe_with(folder / "recipe", rounds=2, evaluate={"scorers": scorers})
    return run_here(recipe, runs_dir=folder)


def test_held_out_and_trained_answers_are_judged_by_them_and_candidates_are_not(measured: Path) -> None:
    scored = receipt_of(measured, "main/rounds/001/score-wave-00")["metrics"]
    assert scored["score/correct_rate"] == 1.0, "the fooled judge takes every answer"
    for name in ("validate", "test", "trained"):
        at = receipt_of(measured, "main/rounds/001/evaluate")["metrics"]
        assert at[f"evaluate/{name}/pass@1"] == at[f"evaluate/{name}/part/exact"] < 1.0
        assert at[f"evaluate/{name}/pass@1"] < at[f"evaluate/{name}/value"] < 1.0
        assert at[f"evaluate/{name}/value_low"] <= at[f"evaluate/{name}/value"] <= at[f"evaluate/{name}/value_high"]
        assert 0 < at[f"evaluate/{name}/distinct_1"] <= 1
    control = receipt_of(measured, "random_selection/rounds/002/evaluate")["metrics"]
    assert "evaluate/test/part/exact" in control, "arms are measured as main is"


def test_the_outcomes_on_disk_hold_the_value_and_the_parts_of_each_answer(measured: Path) -> None:
    rows = tables.read(next(measured.glob("arms/main/rounds/001/**/greedy/test/outcomes.parquet")), Outcome)
    at = receipt_of(measured, "main/rounds/001/evaluate")["metrics"]
    assert sum(one.value or 0.0 for one in rows) / len(rows) == pytest.approx(at["evaluate/test/value"])
    assert all(one.parts["exact"] == float(bool(one.greedy)) for one in rows)
    sampled = receipt_of(measured, "main/rounds/000/evaluate-sampled")["metrics"]
    best = [sampled[f"evaluate/test/sampled_value_best@{k}"] for k in (1, 2, 4)]
    assert best[0] == pytest.approx(sampled["evaluate/test/sampled_value"])
    assert best[0] < best[1] < best[2] <= 1.0


def parts_of(recipe: Path, *overrides: str) -> dict[str, Any]:
    composed = compose(str(recipe), overrides=overrides)
    prints = Fingerprints(composed.config, composed.folder, {"train": "t", "test": "e"}, dict)
    return {phase: prints.part(phase, 1) for phase in ("sample", "score", "select", "train", "evaluate")}


def test_without_them_fingerprints_are_as_if_the_knob_were_not_there(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe")
    plain, other = parts_of(recipe), parts_of(recipe, "evaluate.scorers=[exact]")
    assert plain["evaluate"]["scoring"]["score"] == plain["score"]["score"]
    assert [name for name in plain if plain[name] != other[name]] == ["evaluate"]
    exact = parts_of(recipe, "score.scorers=[exact]")
    assert other["evaluate"] == exact["evaluate"], "what judges alike has one fingerprint, so runs compare"


def test_another_scorer_of_held_out_answers_is_refused_where_some_were_judged(measured: Path) -> None:
    recipe = measured.parent / "recipe/recipe.yaml"
    before = results_of(measured)
    with pytest.raises(ConfigError, match=r"evaluate.*already committed[\s\S]*scorers"):
        run_here(recipe, "evaluate.scorers=[exact]", runs_dir=measured.parent)
    assert results_of(measured) == before
    run_here(recipe, runs_dir=measured.parent)
    assert results_of(measured) == before, "the same command finds everything done"


def test_references_are_checked_by_what_will_read_them(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", rounds=1, evaluate={"scorers": ["numeric"]}, arms=[])
    rows = [{"prompt": f"say {number}", "reference": "no number"} for number in range(6)]
    for name in ("train", "test"):
        (tmp_path / f"recipe/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"prompt": f"tell {number}", "reference": "none either"} for number in range(6)]
    with pytest.raises(UnusablePrompts, match="numeric cannot use the references of 6 prompts"):
        run_here(recipe, "evaluate.trained_prompts=0", runs_dir=tmp_path)
    (tmp_path / "recipe/test.jsonl").write_text('{"prompt": "how many?", "reference": "7"}\n')
    with pytest.raises(UnusablePrompts, match=r"evaluate\.trained_prompts=0"):
        run_here(recipe, runs_dir=tmp_path)
    assert not (tmp_path / "tiny/arms").exists()


def test_mistakes_in_the_list_are_refused_when_it_is_read(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe")
    for text, words in (
        ("evaluate.scorers=[{name: exact, weight: 0}]", "no scorer has a weight above 0"),
        ("evaluate.scorers=[{name: exact, tasks: [logic]}]", "judges the task 'logic'"),
        ("stop.target=1.5", "at most 1"),
        ("stop.max_regression=1", "under 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            compose(str(recipe), overrides=[text])
    compose(str(recipe), overrides=["stop.target=1.5", "evaluate.decide_by=value"])
    alone = write_recipe(tmp_path / "recipe", compose_plain(tmp_path), {})
    with pytest.raises(ConfigError, match=r"decide_by: value needs prompts\.validate"):
        compose(str(alone), overrides=["evaluate.decide_by=value"])


def compose_plain(folder: Path) -> dict[str, Any]:
    import yaml

    recipe: dict[str, Any] = yaml.safe_load((folder / "recipe/recipe.yaml").read_text())
    del recipe["prompts"]["validate"]
    return recipe


def test_the_bar_for_right_held_out_answers_can_be_its_own(tmp_path: Path) -> None:
    evaluate = {"scorers": ["judges.py:near"], "correct_at": 0.5}
    recipe = recipe_with(tmp_path / "recipe", rounds=1, evaluate=evaluate, arms=[])
    run = run_here(recipe, runs_dir=tmp_path)
    files = run.glob("arms/main/rounds/*/evaluation/greedy/*/outcomes.parquet")
    rows = [one for file in files for one in tables.read(file, Outcome)]
    assert all(one.greedy == (one.value is not None and one.value >= 0.5) for one in rows)
    assert any(one.greedy and one.value == 0.5 for one in rows), "one beside the reference is right here"


def test_scorers_of_their_own_take_over_no_bar_that_everything_reaches(tmp_path: Path) -> None:
    """As where a reward model selects, whose values have no zero of their own: a rule's wrong answers are worth 0."""
    score = {"scorers": ["judges.py:near"], "correct_at": 0.0}
    recipe = scripted_recipe(tmp_path / "recipe", score=score, rounds=1, evaluate={"scorers": ["exact"]}, arms=[])
    (tmp_path / "recipe/judges.py").write_text(FOOLED)
    run = run_here(recipe, runs_dir=tmp_path)
    files = run.glob("arms/main/rounds/*/evaluation/greedy/*/outcomes.parquet")
    rows = [one for file in files for one in tables.read(file, Outcome)]
    assert {(one.greedy, one.value) for one in rows} == {(True, 1.0), (False, 0.0)}
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/correct_rate"] == 1.0
    planned = selftrain("plan", recipe).stdout
    assert "judged by exact (evaluate.scorers), right from 1 up, candidates by score.scorers" in planned


def test_where_the_bar_is_and_when_a_run_goes_on(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", prompts={"retention": "test.jsonl"})

    def bars(*overrides: str) -> tuple[float, float, float]:
        config = compose(str(recipe), overrides=overrides).config
        return config.score.correct_at, config.judging_held_out.correct_at, config.judging_retention.correct_at

    own, retention = "evaluate.scorers=[exact]", "evaluate.retention_scorers=[exact]"
    assert bars("score.correct_at=-2") == (-2, -2, -2), "the same scorers judge"
    assert bars("score.correct_at=-2", own) == (-2, 1, 1)
    assert bars("score.correct_at=-2", retention) == (-2, -2, 1)
    assert bars("score.correct_at=-2", own, retention, "evaluate.correct_at=0.5") == (-2, 0.5, 0.5)
    kept = parts_of(recipe, own, "score.correct_at=0", "evaluate.correct_at=0")["evaluate"]
    (changed,) = differences(kept, parts_of(recipe, own, "score.correct_at=0")["evaluate"])
    assert in_words(changed).startswith("evaluate.correct_at: 0.0 -> 1.0 (held-out answers were right from 0.0 up")
    assert kept == parts_of(recipe, "score.scorers=[exact]", "score.correct_at=0")["evaluate"], "as before the knob"

    def of_retention(*overrides: str) -> dict[str, Any]:
        composed = compose(str(recipe), overrides=[retention, *overrides])
        digests = {"train": "t", "test": "e", "retention": "r"}
        return Fingerprints(composed.config, composed.folder, digests, dict).part("evaluate-retention", 1)

    before = of_retention("score.correct_at=0", "evaluate.correct_at=0")
    (changed,) = differences(before, of_retention("score.correct_at=0"))
    assert in_words(changed).endswith("evaluate.correct_at=0.0 keeps that)")
    assert of_retention() == of_retention("evaluate.correct_at=1")


def test_the_verdict_has_value_and_parts_with_paired_intervals_for_round_0_and_every_arm(measured: Path) -> None:
    verdict = json.loads((measured / "verdict.json").read_text())
    figures = {(one["over"], one["figure"]) for one in verdict["values"]}
    others = ("round 0", "random_selection")
    assert figures == {(over, name) for over in others for name in ("value", "part/judges.py:near", "part/exact")}
    value = next(one for one in verdict["values"] if one["over"] == "round 0" and one["figure"] == "value")
    assert value["interval"]["low"] <= value["after"] - value["before"] <= value["interval"]["high"]
    assert value["after"] - value["before"] == pytest.approx(value["interval"]["estimate"])
    said = [line for line in verdict["lines"] if line.startswith("test ")]
    assert [line.split(" ")[1] for line in said] == ["pass@1", "pass@1", "value", "value"], (
        "parts that repeat are silent"
    )
    assert f"test value {value['before']:.3f} -> {value['after']:.3f}: gain of main over round 0" in said[2]
    rows = [json.loads(line) for line in (measured / "metrics.jsonl").read_text().splitlines()]
    summary = next(row for row in rows if row["phase"] == "summary")
    assert summary["summary/value_gain_over_round_0"] == value["interval"]["estimate"]
    assert summary["summary/part/exact_gain_over_round_0_low"] <= summary["summary/gain_over_round_0"]


def test_by_value_validation_chooses_another_round_and_the_verdict_speaks_of_value_first(tmp_path: Path) -> None:
    """Right answers become fewer after round 1, and the others come nearer, so that the mean value rises."""
    recipe = recipe_with(
        tmp_path / "recipe", evaluate={"scorers": ["judges.py:near"], "sampled_rounds": "none"}, arms=[]
    )
    (tmp_path / "recipe/answers.py").write_text(
        "def answer(prompt, seed, policy_round):\n"
        "    right = int(prompt.reference)\n"
        "    if policy_round == 1 and right % 2:\n"
        "        return str(right)\n"
        "    return str(right + (9 if policy_round < 2 else 1))\n"
    )
    by_right = run_here(recipe, "name=right", runs_dir=tmp_path)
    by_value = run_here(recipe, "name=value", "evaluate.decide_by=value", "stop.target=0.5", runs_dir=tmp_path)
    verdicts = [json.loads((run / "verdict.json").read_text()) for run in (by_right, by_value)]
    assert [one["best_round"] for one in verdicts] == [1, 1]
    assert not (by_value / "arms/main/rounds/002").exists(), "stop.target was reached by value"
    by_value = run_here(recipe, "name=value2", "evaluate.decide_by=value", runs_dir=tmp_path)
    verdict = json.loads((by_value / "verdict.json").read_text())
    said = [line for line in verdict["lines"] if line.startswith("test ")]
    assert [line.split(" ")[1] for line in said] == ["value", "pass@1"]
    assert "stops after" not in verdict["lines"]


def test_several_seeds_tell_of_values_at_both_levels(measured: Path, tmp_path: Path) -> None:
    from selftrain.comparing import compare
    from selftrain.launch import run_recipe

    recipe = measured.parent / "recipe/recipe.yaml"
    run_recipe(str(recipe), layers=[], overrides=(), runs_dir=tmp_path, fork=None, seeds=[0, 1])
    data = json.loads((tmp_path / "tiny.seeds-0-1.json").read_text())
    values = {(one["figure"], one["what"], one["is_gain"]): one for one in data["values"]}
    gain = values["value", "round 0", True]
    verdicts = [json.loads((tmp_path / f"tiny-seed-{seed}/verdict.json").read_text()) for seed in (0, 1)]
    single = [
        next(one["interval"]["estimate"] for one in verdict["values"] if (one["over"], one["figure"]) == of)
        for verdict in verdicts
        for of in [("round 0", "value")]
    ]
    assert gain["per_seed"] == pytest.approx(single)
    assert gain["over_prompts"]["low"] <= gain["mean"] <= gain["over_prompts"]["high"]
    assert {figure for figure, _, _ in values} == {"value"}, "parts that repeat value and pass@1 are not told again"
    assert ("value", "random_selection", False) in values
    assert any("test value: gain of main over round 0" in line for line in data["lines"])
    compared = compare([str(tmp_path / f"tiny-seed-{seed}") for seed in (0, 1)])
    assert [one["figure"] for one in compared["differences"][0]["values"]] == ["value"]


def test_verify_and_audit_ask_what_judges_the_set_in_a_run(measured: Path) -> None:
    recipe = measured.parent / "recipe"
    of_train = selftrain("verify", recipe, "--answer", "999", "--json")
    assert json.loads(of_train.stdout)["value"] == 1.0, "the fooled judge of candidates"
    of_test = json.loads(selftrain("verify", recipe, "--set", "test", "--answer", "201", "--json").stdout)
    assert [(one["name"], one["value"]) for one in of_test["scorers"]] == [("judges.py:near", 1.0), ("exact", 1.0)]
    audited = json.loads(selftrain("audit", recipe, "--set", "train", "--set", "test", "--json").stdout)
    assert [(one["set"], one["scorers"]) for one in audited["audits"]] == [
        ("train", ["judges.py:fooled"]),
        ("test", ["judges.py:near", "exact"]),
    ]
    refused = selftrain("audit", recipe, "--set", "train", "score.scorers=[majority]")
    assert refused.returncode == 2
    assert "majority compares the candidates of a prompt with each other" in refused.stderr


def test_plan_says_what_judges_held_out_answers(measured: Path) -> None:
    planned = selftrain("plan", measured.parent / "recipe").stdout
    assert "held-out answers are judged by judges.py:near, exact (only reported) (evaluate.scorers)" in planned
