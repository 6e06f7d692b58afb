"""The trained verifier in runs: what it learns from and is asked, what it is never taken for; kills and resumes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model
from worlds import model_recipe, ranks, receipt_of, results_of, run_here, selftrain

from selftrain import tables
from selftrain.adapters import adapter_digest
from selftrain.errors import ConfigError
from selftrain.evaluation.best_of_k import PREFIX, best_of_k
from selftrain.outlook import status_of
from selftrain.records import Candidate, Pair, Score
from selftrain.store import RunDirectory, is_pruned

VERIFIER: dict[str, Any] = {"rounds": [1, "last"], "batch_size": 8, "learning_rate": 3e-3, "lora": {"r": 4}}


def recipe_of(folder: Path, model: Path, **changes: Any) -> Path:
    """A random model, whose answers end in a letter or digit of some, and are right by chance."""
    evaluate = {"sampled_rounds": "all", "num_samples": 4, "ks": [1, 2, 4], "block_size": 4, "resamples": 200}
    sample = {"stop_strings": list("abcdefghijk0123456789 "), "max_new_tokens": 12, "num_candidates": 6}
    defaults: dict[str, Any] = {"sample": sample, "rounds": 2, "arms": [], "evaluate": evaluate, "verifier": VERIFIER}
    return model_recipe(folder, model, **{**defaults, **changes})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A run of two rounds with a verifier after each."""
    folder = tmp_path_factory.mktemp("whole")
    return run_here(recipe_of(folder / "recipe", model), runs_dir=folder)


def rows_of(run: Path, key: str, kind: type[Any]) -> list[Any]:
    receipt = RunDirectory(run).receipt(f"arms/{key}")
    assert receipt is not None
    return [row for path in RunDirectory(run).tables(receipt) for row in tables.read(path, kind)]


def pairs_of(run: Path, number: int) -> list[Pair]:
    return tables.read(run / f"arms/main/rounds/{number:03d}/verifier/pairs.parquet", Pair)


def test_it_learns_from_right_and_wrong_candidates_of_all_rounds_so_far(whole: Path) -> None:
    candidates, scores = {}, {}
    for number in (1, 2):
        candidates |= {
            one.id: (number, one) for one in rows_of(whole, f"main/rounds/{number:03d}/sample-wave-00", Candidate)
        }
        scores |= {one.candidate_id: one for one in rows_of(whole, f"main/rounds/{number:03d}/score-wave-00", Score)}
    first, second = pairs_of(whole, 1), pairs_of(whole, 2)
    assert {one.chosen_round for one in first} | {one.rejected_round for one in first} == {1}
    assert {one.chosen_round for one in second} | {one.rejected_round for one in second} == {1, 2}
    for pair in second:
        (chosen_round, chosen), (rejected_round, rejected) = candidates[pair.chosen_id], candidates[pair.rejected_id]
        assert (chosen_round, rejected_round) == (pair.chosen_round, pair.rejected_round)
        assert scores[pair.chosen_id].correct is True
        assert scores[pair.rejected_id].correct is False
        assert chosen.finish_reason != "length"
        assert chosen.prompt_id == rejected.prompt_id == pair.prompt_id
        assert chosen.prompt_token_ids == rejected.prompt_token_ids == pair.prompt_token_ids
        assert (chosen.completion_token_ids, rejected.completion_token_ids) == (
            pair.chosen_token_ids,
            pair.rejected_token_ids,
        )
        assert pair.prompt_text.startswith("what comes after")
    metrics = receipt_of(whole, "main/rounds/002/verifier")["metrics"]
    assert metrics["verifier/pairs"] == len(second)
    assert metrics["verifier/prompts"] == len({one.prompt_id for one in second})
    assert metrics["verifier/steps"] == -(-len(second) // 8)
    steps = (whole / "arms/main/rounds/002/verifier/steps.jsonl").read_text().splitlines()
    assert len(steps) == metrics["verifier/steps"]


def test_it_is_never_taken_for_a_policy(whole: Path) -> None:
    receipts = {one.key: one for one in RunDirectory(whole).receipts()}
    verifiers = {one.output for one in receipts.values() if one.phase == "verifier"}
    assert len(verifiers) == 2
    for number in (1, 2):
        folder = whole / f"arms/main/rounds/{number:03d}/verifier/adapter"
        assert adapter_digest(folder) in verifiers
    users = {one.phase for one in receipts.values() if verifiers & set(one.ingredients["inputs"].values())}
    assert users == {"evaluate-verifier"}
    policies = {one.policy_digest for one in rows_of(whole, "main/rounds/002/sample-wave-00", Candidate)}
    assert policies == {receipts["arms/main/rounds/001/train-improve-00"].output}
    # Round 2 is the same to the byte where no verifier was trained between.
    starts = {receipts[f"arms/main/rounds/{number:03d}/verifier"].ingredients["inputs"]["start"] for number in (1, 2)}
    assert len(starts) == 1, "it starts from the policy of round 0 in every round"
    assert "verifier" not in str((whole / "best").resolve())


@pytest.mark.slow
def test_all_else_is_as_without_it(whole: Path, model: Path, tmp_path: Path) -> None:
    plain = run_here(recipe_of(tmp_path / "recipe", model, verifier=None), runs_dir=tmp_path)
    found, expected = results_of(whole), results_of(plain)
    own = {name for name in found if "verifier" in name}
    assert own
    same = {name: value for name, value in found.items() if name not in own | {"metrics.jsonl", "verdict.json"}}
    left = {name: value for name, value in expected.items() if name not in ("metrics.jsonl", "verdict.json")}
    for name in ("arms/main/rounds/001/receipts/round.json", "arms/main/rounds/002/receipts/round.json"):
        same.pop(name), left.pop(name)  # a part of their seconds
    assert same == left


def test_what_it_says_of_the_sampled_answers_is_their_likelihood_and_best_of_k_follows_from_it(
    whole: Path, model: Path
) -> None:
    from selftrain.config import ModelConfig
    from selftrain.models import Bench, token_logprobs
    from selftrain.records import Policy

    folder = whole / "arms/main/rounds/002"
    answers = rows_of(whole, "main/rounds/002/evaluate-verifier", Score)
    candidates, judged = [], {}
    for path in sorted(folder.glob("evaluation/sampled/test/candidates/*.parquet")):
        candidates += tables.read(path, Candidate)
    for path in sorted(folder.glob("evaluation/sampled/test/scores/*.parquet")):
        judged |= {one.candidate_id: one for one in tables.read(path, Score)}
    bench = Bench(ModelConfig(path=str(model)))
    verifier = Policy(str(model), str(folder / "verifier/adapter"), 2, adapter_digest(folder / "verifier/adapter"))
    expected = token_logprobs(
        bench,
        verifier,
        [one.prompt_token_ids + one.completion_token_ids for one in candidates],
        scored_from=[len(one.prompt_token_ids) for one in candidates],
    )
    assert [one.candidate_id for one in answers] == [one.id for one in candidates]
    assert [one.value for one in answers] == pytest.approx([sum(row) for row in expected], abs=1e-3)
    given = {one.candidate_id: one.value for one in answers}
    chances = []
    for prompt in dict.fromkeys(one.prompt_id for one in candidates):
        own = [one for one in candidates if one.prompt_id == prompt]
        scores = [float(given[one.id] or 0) for one in own]
        chances.append(best_of_k([bool(judged[one.id].correct) for one in own], scores, 2))
    metrics = receipt_of(whole, "main/rounds/002/evaluate-verifier")["metrics"]
    assert metrics[f"{PREFIX}/best_of_k@2"] == pytest.approx(sum(chances) / len(chances))
    sampled = receipt_of(whole, "main/rounds/002/evaluate-sampled")["metrics"]
    assert metrics[f"{PREFIX}/best_of_k@1"] == pytest.approx(sampled["evaluate/test/sampled_pass@1"])
    assert metrics[f"{PREFIX}/pass@4"] == pytest.approx(sampled["evaluate/test/sampled_pass@4"])


def test_the_verdict_and_the_status_speak_of_it(whole: Path) -> None:
    lines = json.loads((whole / "verdict.json").read_text())["lines"]
    (said,) = [line for line in lines if "by the verifier" in line]
    assert said.startswith("test, round 2: the best of 4 samples by the verifier is right in ")
    status = status_of(whole)
    assert status["state"] == "finished"
    shown = selftrain("status", whole)
    assert shown.returncode == 0, shown.stderr
    assert "by the verifier" in shown.stdout
    assert selftrain("show", whole, "--round", "2").returncode == 0


def test_the_same_command_again_does_nothing_more(whole: Path) -> None:
    before = results_of(whole)
    run_here(whole.parent / "recipe/recipe.yaml", runs_dir=whole.parent)
    assert results_of(whole) == before


def test_taken_out_of_the_recipe_it_stays_where_it_is(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "tiny", symlinks=True)
    before = results_of(whole)
    run = run_here(whole.parent / "recipe/recipe.yaml", "verifier=null", runs_dir=tmp_path)
    after = results_of(run)
    before.pop("verdict.json"), after.pop("verdict.json")
    assert after == before


@pytest.mark.slow
def test_the_implicit_reward_is_beta_times_what_the_verifier_gives_above_its_reference(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "tiny", symlinks=True)
    recipe = whole.parent / "recipe/recipe.yaml"
    with pytest.raises(ConfigError, match=r"verifier\.score: 'likelihood' -> 'implicit_reward'"):
        run_here(recipe, "verifier.score=implicit_reward", runs_dir=tmp_path)
    words = ("verifier.score=implicit_reward", "--fork", "implicit", "--runs-dir", tmp_path)
    done = selftrain("run", recipe, *words)
    assert done.returncode == 0, done.stderr
    fork = tmp_path / "implicit"
    same = "arms/main/rounds/002/receipts/verifier.json"
    assert (fork / same).read_bytes() == (whole / same).read_bytes(), "the verifier itself is kept"
    for one in rows_of(fork, "main/rounds/002/evaluate-verifier", Score):
        likelihood, reference = one.parts["likelihood"], one.parts["reference"]
        assert one.value == pytest.approx(0.1 * (float(likelihood or 0) - float(reference or 0)))


def test_without_a_right_or_a_wrong_candidate_there_is_no_verifier_and_the_run_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path / "recipe", model, rounds=1)
    (tmp_path / "recipe/verifier.py").write_text("def even_length(text):\n    return True\n")
    run = run_here(recipe, runs_dir=tmp_path)
    assert "no pairs, so no verifier" in capsys.readouterr().out
    receipt = receipt_of(run, "main/rounds/001/verifier")
    assert receipt["metrics"]["verifier/skipped"] == 1.0
    assert receipt["files"] == {}
    assert not (run / "arms/main/rounds/001/receipts/evaluate-verifier.json").exists()
    assert not (run / "arms/main/rounds/001/verifier").exists()
    assert status_of(run)["state"] == "finished"
    assert (run / "verdict.json").exists()


def test_candidates_that_were_cut_off_can_be_wrong_ones_and_never_right_ones(model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", model, rounds=1)
    run = run_here(recipe, "sample.max_new_tokens=3", "evaluate.sampled_rounds=none", runs_dir=tmp_path)
    candidates = {one.id: one for one in rows_of(run, "main/rounds/001/sample-wave-00", Candidate)}
    cut = {name for name, one in candidates.items() if one.finish_reason == "length"}
    scores = rows_of(run, "main/rounds/001/score-wave-00", Score)
    assert [one for one in scores if one.correct and one.candidate_id in cut], "the scorer finds some of them right"
    pairs = pairs_of(run, 1)
    assert not {one.chosen_id for one in pairs} & cut
    assert {one.rejected_id for one in pairs} & cut
    assert not (run / "arms/main/rounds/001/receipts/evaluate-verifier.json").exists(), "nothing to choose among"


def test_a_recipe_without_a_model_refuses_it(tmp_path: Path) -> None:
    from worlds import scripted_recipe

    with pytest.raises(ConfigError, match="verifier: it is an adapter on a model"):
        run_here(scripted_recipe(tmp_path / "recipe", verifier={}), runs_dir=tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("verifier.rounds=[0,last]", "names round 0, which has no candidates"),
        ("verifier.rounds=none", "names none"),
        ("verifier.micro_batch_size=5", "micro_batch_size 5 does not divide batch_size 8"),
        ("verifier.dpo={max_length: 8}", "pairs are never cut"),
        ("verifier.lora={lora_dropout: 2}", "verifier.lora.lora_dropout is 2"),
    ],
)
def test_a_mistake_in_its_knobs_is_refused_before_any_work(model: Path, tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_here(recipe_of(tmp_path / "recipe", model), words, runs_dir=tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_plan_says_when_one_is_trained(model: Path, tmp_path: Path) -> None:
    done = selftrain("plan", recipe_of(tmp_path / "recipe", model))
    assert done.returncode == 0, done.stderr
    assert "train a verifier on right and wrong candidates of all rounds so far, at most 16 pairs" in " ".join(
        done.stdout.split()
    )


@pytest.mark.slow
def test_with_keep_best_and_last_the_last_verifier_stays_and_an_earlier_one_comes_back_where_it_is_needed(
    model: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path / "recipe", model, keep="best_and_last", prompts={"validate": None}, rounds=3)
    run = run_here(recipe, "verifier.rounds=[1,2]", "evaluate.sampled_rounds=[2]", runs_dir=tmp_path)
    folders = {number: run / f"arms/main/rounds/{number:03d}/verifier/adapter" for number in (1, 2)}
    assert folders[2].is_dir(), "the last one that was trained"
    assert is_pruned(folders[1])
    status = status_of(run)
    assert status["state"] == "finished"
    before = receipt_of(run, "main/rounds/001/verifier")
    run_here(recipe, "verifier.rounds=[1,2]", "evaluate.sampled_rounds=[1,2]", runs_dir=tmp_path)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert "arms/main/rounds/001/verifier/adapter" in [one["folder"] for one in events if one["event"] == "put back"]
    assert (run / "arms/main/rounds/001/receipts/evaluate-verifier.json").exists()
    assert receipt_of(run, "main/rounds/001/verifier") == before
    assert is_pruned(folders[1]), "and goes again"
    plain = run_here(
        recipe, "verifier.rounds=[1,2]", "evaluate.sampled_rounds=[1,2]", "keep=all", "name=all", runs_dir=tmp_path
    )
    key = "main/rounds/001/evaluate-verifier"
    assert receipt_of(plain, key)["output"] == receipt_of(run, key)["output"]


KILLED = -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_point_of_its_phases_a_run_ends_as_if_untouched(whole: Path, model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "recipe", model)
    points = tmp_path / "points"
    counted = selftrain("run", recipe, "--runs-dir", tmp_path / "a", SELFTRAIN_FAULT=f"count:{points}")
    assert counted.returncode == 0, counted.stderr
    reference = results_of(tmp_path / "a/tiny")
    assert reference == results_of(whole)
    number = len(points.read_text().splitlines())
    visits = sorted({number * share // 100 for share in (35, 38, 41, 44, 47, 50, 88, 91, 94, 96, 98)})
    for visit in visits:
        runs = tmp_path / f"killed-{visit}"
        killed = selftrain("run", recipe, "--runs-dir", runs, SELFTRAIN_FAULT=str(visit))
        assert killed.returncode == KILLED
        done = selftrain("run", recipe, "--runs-dir", runs)
        assert done.returncode == 0, done.stderr
        assert results_of(runs / "tiny") == reference
        assert not list(runs.glob("tiny/**/.tmp-*"))
        assert not list(runs.glob("tiny/**/.work-*"))


@pytest.mark.slow
def test_two_ranks_draw_the_same_pairs_and_train_to_the_stated_tolerance(
    whole: Path, model: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    recipe = recipe_of(tmp_path / "recipe", model, rounds=1)
    process = ranks(recipe, runs_dir=tmp_path / "two")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]
    one, two = whole, tmp_path / "two/tiny"
    assert pairs_of(one, 1) == pairs_of(two, 1)
    name = "arms/main/rounds/001/verifier/adapter/adapter_model.safetensors"
    first, second = load_file(one / name), load_file(two / name)
    assert all(abs(first[key] - second[key]).max() < 1e-4 for key in first)
    metrics = [receipt_of(run, "main/rounds/001/verifier")["metrics"] for run in (one, two)]
    assert metrics[0]["verifier/loss"] == pytest.approx(metrics[1]["verifier/loss"], abs=1e-4)
    assert metrics[0]["verifier/tokens"] == metrics[1]["verifier/tokens"]
