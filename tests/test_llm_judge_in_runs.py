"""Whole runs that are judged by a model: behind a server that fails in every way, and on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import faulty_proxy
from tiny_judges import TEMPLATE, Kind, build_judge, model_behind_http
from worlds import command, receipt_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.errors import ConfigError, PhaseError
from selftrain.records import Candidate, Score
from selftrain.verifying import show_verdict

KEY = "main/rounds/001/score-wave-00"
HIGH, LOW = 8 / 9, 1 / 9
# A word of its own for each candidate, so that each is asked about; a third of them good, a few empty.
WRITER = """
def answer(prompt, seed, policy_round):
    if seed % 11 == 0:
        return "..."
    return f"word {seed % 100_000}" + (" Q" if seed % 3 == 0 else "")
"""


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    folder = tmp_path_factory.mktemp("judges")
    kinds: list[Kind] = ["fair", "likes_all"]
    return {kind: build_judge(folder / kind, kind) for kind in kinds}


@pytest.fixture(scope="module")
def fair(judges: dict[Kind, Path]) -> Iterator[str]:
    with model_behind_http(judges["fair"]) as (url, _):
        yield url


def judged_recipe(folder: Path, params: dict[str, Any], **changes: Any) -> Path:
    """One round of 12 prompts with 4 candidates in 3 blocks, without held-out sets; `params` are the judge's."""
    given = {"template": TEMPLATE, "canaries": 0.0, "max_new_tokens": 8, **params}
    score = {"scorers": [{"name": "llm_judge", "params": given}], "correct_at": 0.8, **changes.pop("score", {})}
    held_out = {"validate": None, "test": None}
    sample = {"max_new_tokens": 40, **changes.pop("sample", {})}
    recipe = scripted_recipe(folder, score=score, prompts=held_out, sample=sample, rounds=1, arms=[], **changes)
    (folder / "answers.py").write_text(WRITER)
    return recipe


def behind(url: str, **more: Any) -> dict[str, Any]:
    return {"endpoint": {"url": url, "model": "judge", "retries": 8, "concurrency": 4, **more}}


def scores_of(run: Path) -> dict[str, tuple[str, Score]]:
    """By candidate: its text, and its score."""
    folder = run / "arms/main/rounds/001"
    texts = {
        one.id: one.text
        for path in sorted(folder.glob("candidates/wave-00/*.parquet"))
        for one in tables.read(path, Candidate)
    }
    scores = [one for path in sorted(folder.glob("scores/wave-00/*.parquet")) for one in tables.read(path, Score)]
    return {one.candidate_id: (texts[one.candidate_id], one) for one in scores}


def assert_judged_rightly(run: Path) -> int:
    """Every score is what the fair judge must say; how many candidates it was asked about."""
    asked = 0
    for text, score in scores_of(run).values():
        if text == "...":
            assert score.value == 0.0
            assert "refused" in str(score.explanation)
        else:
            asked += 1
            assert score.value == pytest.approx(HIGH if "Q" in text else LOW)
    assert {round(score.value or 0, 2) for _, score in scores_of(run).values()} == {0.0, 0.11, 0.89}
    return asked


def test_a_judge_that_is_down_ends_the_phase_at_once_and_says_what_to_look_at(tmp_path: Path) -> None:
    recipe = judged_recipe(tmp_path / "recipe", behind("http://127.0.0.1:9", retries=0))
    began = time.monotonic()
    with pytest.raises(PhaseError, match=r"see whether the server at http://127\.0\.0\.1:9 is up") as error:
        run_here(recipe, runs_dir=tmp_path)
    assert time.monotonic() - began < 20
    assert "the endpoint's url, key_variable" in str(error.value)
    assert "a missing package" not in str(error.value)


def test_a_judge_that_does_not_end_as_asked_is_what_to_mend_and_then_the_run_goes_on(
    judges: dict[Kind, Path], tmp_path: Path
) -> None:
    recipe = judged_recipe(tmp_path / "recipe", {"model": str(judges["fair"]), "max_new_tokens": 2})
    with pytest.raises(PhaseError, match=r"cannot be read: it is cut at params\.max_new_tokens") as error:
        run_here(recipe, runs_dir=tmp_path)
    assert "Give llm_judge a rubric or a template that says more plainly how to end" in str(error.value)
    assert "a missing package" not in str(error.value)
    judged_recipe(tmp_path / "recipe", {"model": str(build_judge(tmp_path / "short", context=60))})
    with pytest.raises(PhaseError, match=r"question has \d+ tokens, and the model reads 60.*a judge model that reads"):
        run_here(recipe, runs_dir=tmp_path)
    judged_recipe(tmp_path / "recipe", {"model": str(judges["fair"])})
    assert_judged_rightly(run_here(recipe, runs_dir=tmp_path))


def test_a_run_comes_through_every_kind_of_fault_with_right_scores_and_counts(fair: str, tmp_path: Path) -> None:
    kinds = ("429", "500", "malformed", "no_choices", "disconnect", "html", "cut", "429_date")
    faults = [word for kind in kinds for word in ("pass", kind, "slow")]
    with faulty_proxy(fair, faults, is_cycled=True, slow_seconds=0.02, retry_after=0.02) as proxy:
        run = run_here(judged_recipe(tmp_path / "recipe", behind(proxy.url)), runs_dir=tmp_path)
        asked = assert_judged_rightly(run)
        metrics = receipt_of(run, KEY)["metrics"]
        done = Counter(proxy.done)
    assert len(scores_of(run)) == 48
    injected = sum(count for name, count in done.items() if name not in ("pass", "slow"))
    assert injected >= 16
    assert metrics["score/llm_judge/requests"] == sum(done.values()) == asked + injected
    assert metrics["score/llm_judge/retries"] == injected
    assert metrics["score/llm_judge/faults/rate_limited"] == done["429"] + done["429_date"]
    assert metrics["score/llm_judge/faults/server"] == done["500"]
    assert metrics["score/llm_judge/faults/connection"] == done["disconnect"] + done["cut"]
    assert metrics["score/llm_judge/faults/malformed"] == done["malformed"] + done["no_choices"] + done["html"]
    assert metrics["score/llm_judge/completion_tokens"] == 3 * asked
    assert metrics["score/llm_judge/parse_failures"] == 0
    assert metrics["score/unscored_rate"] == 0


def test_too_many_unanswered_fail_the_phase_and_the_mended_server_is_asked_about_those_alone(
    fair: str, tmp_path: Path
) -> None:
    with faulty_proxy(fair, ["400"] * 6) as proxy:
        recipe = judged_recipe(tmp_path / "recipe", behind(proxy.url, concurrency=1))
        with pytest.raises(PhaseError, match=r"6 of 48 candidates could not be scored .*the endpoint gave no answer"):
            run_here(recipe, runs_dir=tmp_path)
        published = scores_of(tmp_path / "tiny")
        assert 0 < len(published) < 48
        assert all(score.value is not None for _, score in published.values())
        before = proxy.requests
        run = run_here(recipe, runs_dir=tmp_path)
        unpublished = sum(text != "..." for name, (text, _) in scores_of(run).items() if name not in published)
        assert proxy.requests - before == unpublished
    assert_judged_rightly(run)


def test_few_unanswered_are_left_unscored_and_are_neither_wrong_nor_selected(fair: str, tmp_path: Path) -> None:
    with faulty_proxy(fair, ["400"] * 2) as proxy:
        recipe = judged_recipe(tmp_path / "recipe", behind(proxy.url), score={"max_unscored_rate": 0.05})
        run = run_here(recipe, runs_dir=tmp_path)
    unscored = [score for _, score in scores_of(run).values() if score.value is None]
    assert len(unscored) == 2
    assert all(str(one.error).startswith("the endpoint gave no answer: status 400") for one in unscored)
    assert receipt_of(run, KEY)["metrics"]["score/unscored_rate"] == pytest.approx(2 / 48)
    survivors = (run / "arms/main/rounds/001/survivors").rglob("*.parquet")
    assert list(survivors)


def test_killed_while_it_judges_a_run_goes_on_and_asks_nothing_twice_that_is_published(
    fair: str, tmp_path: Path
) -> None:
    script = ["pass", "500", "slow"] * 4 + ["slow"] * 400
    with faulty_proxy(fair, script, slow_seconds=0.3) as proxy:
        recipe = judged_recipe(tmp_path / "recipe", behind(proxy.url, concurrency=2))
        words = command("run", recipe, "--runs-dir", tmp_path)
        scores = tmp_path / "tiny/arms/main/rounds/001/scores/wave-00"
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            deadline = time.monotonic() + 120
            while not list(scores.glob("block-*.parquet")) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        kept = {path: path.read_bytes() for path in scores.glob("block-*.parquet")}
        assert 0 < len(kept) < 3
        of_kept = {one.candidate_id for path in kept for one in tables.read(path, Score)}
        before = proxy.requests
        proxy.slow_seconds = 0.0
        run = run_here(recipe, runs_dir=tmp_path)
        left = sum(text != "..." for name, (text, _) in scores_of(run).items() if name not in of_kept)
        assert proxy.requests - before == left
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(scores_of(run)) == 48
    assert_judged_rightly(run)


def test_asked_to_stop_while_the_server_is_silent_a_run_ends_soon_and_loses_no_candidate(
    fair: str, tmp_path: Path
) -> None:
    with faulty_proxy(fair, ["hang"], is_cycled=True) as proxy:
        recipe = judged_recipe(tmp_path / "recipe", behind(proxy.url))
        words = command("run", recipe, "--runs-dir", tmp_path)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            deadline = time.monotonic() + 120
            while not (tmp_path / "tiny/arms/main/rounds/001/receipts/sample-wave-00.json").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 75, said
            assert time.monotonic() - started < 20
    assert "Traceback" not in said
    assert not list((tmp_path / "tiny").rglob("scores/wave-00/*.parquet"))
    assert len(list((tmp_path / "tiny").rglob("candidates/wave-00/*.parquet"))) == 3


def test_a_judge_that_canaries_fool_is_stopped_before_anything_is_committed_and_another_takes_over(
    judges: dict[Kind, Path], fair: str, tmp_path: Path
) -> None:
    with model_behind_http(judges["likes_all"]) as (url, _):
        recipe = judged_recipe(tmp_path / "recipe", {**behind(url), "canaries": 1.0, "swapped_canaries": False})
        with pytest.raises(PhaseError) as caught:
            run_here(recipe, runs_dir=tmp_path)
    said = str(caught.value)
    assert "48 of 48 canaries fooled it (max_canary_rate is 0.2): ':' (12 of 12), 'Thought process:' (12 of 12)" in said
    assert "the candidates are kept" in said
    run = tmp_path / "tiny"
    assert not (run / "arms/main/rounds/001/receipts/score-wave-00.json").exists()
    assert not scores_of(run)
    drawn = {path: path.stat().st_mtime_ns for path in run.rglob("candidates/wave-00/*.parquet")}
    assert len(drawn) == 3
    judged_recipe(tmp_path / "recipe", {**behind(fair), "canaries": 1.0, "swapped_canaries": False})
    run_here(recipe, runs_dir=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    assert_judged_rightly(run)
    metrics = receipt_of(run, KEY)["metrics"]
    assert metrics["score/llm_judge/canary_false_positive_rate"] == 0.0
    assert metrics["score/llm_judge/canaries"] == 48


def test_a_judge_on_this_machine_says_the_same_as_behind_a_server(
    judges: dict[Kind, Path], fair: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = judged_recipe(tmp_path / "here", {"model": str(judges["fair"])})
    here = run_here(recipe, runs_dir=tmp_path / "runs-here")
    there = run_here(judged_recipe(tmp_path / "there", behind(fair)), runs_dir=tmp_path / "runs-there")
    assert_judged_rightly(here)
    assert {name: (text, score.value) for name, (text, score) in scores_of(here).items()} == {
        name: (text, score.value) for name, (text, score) in scores_of(there).items()
    }
    options: dict[str, Any] = {"set_name": "train", "prompt": None, "reference": None, "file": None}
    capsys.readouterr()
    code = show_verdict(
        str(recipe), layers=[], overrides=[], answer="a Q", unsafe_no_sandbox=False, as_json=True, **options
    )
    data = json.loads(capsys.readouterr().out)
    assert code == 0
    assert data["value"] == pytest.approx(HIGH)
    assert '{"score":9}' in data["scorers"][0]["explanation"]


def test_patience_and_place_may_change_in_a_run_and_what_is_asked_of_whom_may_not(fair: str, tmp_path: Path) -> None:
    recipe = judged_recipe(tmp_path / "recipe", behind(fair))
    run = run_here(recipe, runs_dir=tmp_path)
    receipt = receipt_of(run, KEY)
    given = receipt["ingredients"]["config"]["score"]["scorers"][0]["params"]
    assert given["endpoint"] == {"model": "judge"}
    patient = {**behind(fair, retries=1, timeout_seconds=5.0, concurrency=9), "max_canary_rate": 0.5}
    for alike in (patient, behind(fair.replace("127.0.0.1", "localhost"))):
        judged_recipe(tmp_path / "recipe", alike)
        run_here(recipe, runs_dir=tmp_path)
        assert receipt_of(run, KEY) == receipt
    for other in (
        behind(fair, model="another"),
        {**behind(fair), "rubric": "Be strict."},
        {**behind(fair), "template": TEMPLATE + " "},
    ):
        judged_recipe(tmp_path / "recipe", other)
        with pytest.raises(ConfigError, match="would alter"):
            run_here(recipe, runs_dir=tmp_path)
