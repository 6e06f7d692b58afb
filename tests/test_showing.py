"""`selftrain show` and `selftrain status --watch`: what can be seen of a run, finished or at work."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from worlds import run_here, scripted_recipe, selftrain

from selftrain import outlook
from selftrain.curating import curate_recipe
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.outlook import show_status, status_of
from selftrain.reasons import reason_kind
from selftrain.reporting import showing as page
from selftrain.showing import show_run
from selftrain.store import RunDirectory

ARMS = ["random_selection", "gold"]
# The model paints the terminal, and turns the direction of what follows.
PAINTED = (
    "def answer(prompt, seed, policy_round):\n    return '\\x1b[31m' + prompt.reference + '\\u202e' * (seed % 2)\n"
)
LOGGING = (
    "def judge(completions, reference, log_extra, **columns):\n"
    "    log_extra('length', [len(one) for one in completions])\n"
    "    return [float(one == right) for one, right in zip(completions, reference, strict=True)]\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    recipe = scripted_recipe(folder / "recipe", arms=ARMS, rounds=2, select={"max_per_prompt": 2})
    return run_here(recipe, runs_dir=folder / "runs")


@pytest.fixture
def show(run: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def shown(path: Path = run, **asked: Any) -> Any:
        options = {"arm": "main", "round_number": None, "prompt": None, "kept": False, "rejected": False}
        options |= {"limit": None, "as_json": False}
        show_run(path, **(options | asked))
        out = capsys.readouterr().out
        return json.loads(out) if asked.get("as_json") else out

    return shown


def test_a_limit_that_nothing_heeds_is_refused(show: Any) -> None:
    with pytest.raises(ConfigError, match=r"no candidates are shown; .*--round N"):
        show(limit=2)
    with pytest.raises(ConfigError, match="all candidates of the prompt are shown"):
        show(limit=2, prompt="what comes after 3?", round_number=1)
    assert len(show(limit=2, kept=True, as_json=True)["kept"]) == 2
    assert len(show(round_number=1, as_json=True)["kept"]) == 5


def test_without_options_the_run_its_rounds_its_funnels_and_its_weight_are_shown(show: Any) -> None:
    text = show()
    assert text.splitlines()[0] == "tiny: finished"
    assert text.index("round  ") < text.index("last measured: main · round 2") < text.index("main · round 1 · select")
    assert "48 sampled > 48 scored" in text
    assert "value under threshold 1.0" in text
    assert " on disk: " in text
    data = show(as_json=True)
    assert data["status"]["disk"]["total"] > 0
    assert {one["arm"] for one in data["selections"]} == {"main", *ARMS}


def test_the_commonest_reasons_add_up_to_what_left(show: Any, run: Path) -> None:
    for one in show(as_json=True)["selections"]:
        metrics = RunDirectory(run).receipt(f"arms/{one['arm']}/rounds/{one['round']:03d}/select-improve-00").metrics  # type: ignore[union-attr]
        if "select/candidates" in metrics:
            assert sum(one["reasons"].values()) == metrics["select/candidates"] - metrics["select/kept"]


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("value 0.25 under threshold 1.0", "value under threshold 1.0"),
        ("value -1e-05 not among the best 2 of the prompt", "value not among the best 2 of the prompt"),
        ("value 0.5 not above 0.61 (mean 0.5 + 1 x 0.11, over 4 candidates of the prompt)", None),
        ("duplicate of 0123abcd", "duplicate"),
        ("longer than 5 tokens (17)", "longer than 5 tokens"),
        ("not scored: timed out after 10 s", "not scored"),
        ("truncated", "truncated"),
    ],
)
def test_reasons_that_differ_in_a_candidates_own_numbers_are_one_kind(why: str, kind: str | None) -> None:
    assert reason_kind(why) == (kind or "value not above the bar of the prompt")


def test_a_round_shows_its_prompts_with_how_many_are_right_and_kept(show: Any, run: Path) -> None:
    data = show(round_number=1, as_json=True)
    assert len(data["prompts"]) == 12
    assert {one["candidates"] for one in data["prompts"]} == {4}
    receipt = RunDirectory(run).receipt("arms/main/rounds/001/select-improve-00")
    assert receipt is not None
    assert sum(one["kept"] for one in data["prompts"]) == receipt.metrics["select/kept"]
    first = data["kept"][0]
    assert (first["value"], first["correct"], first["kept"]) == (1.0, True, True)
    assert first["text"] == first["answer"]
    assert first["prompt"].startswith("what comes after")
    text = show(round_number=1, limit=1)
    assert text.count("\nkept · round 1 · candidate") == 1
    assert text.count("\nrejected · round 1 · candidate") == 1
    assert "because: value 1.0 reaches threshold 1.0" in text


def test_candidates_shown_are_of_different_prompts_and_as_many_as_asked_for(show: Any) -> None:
    data = show(round_number=1, limit=4, as_json=True)
    assert len({one["prompt_id"] for one in data["rejected"]}) == len(data["rejected"]) == 4


@pytest.mark.parametrize(("only", "hidden"), [("kept", "rejected"), ("rejected", "kept")])
def test_only_kept_or_only_rejected_ones_are_shown_of_the_last_round_if_none_is_named(
    show: Any, only: str, hidden: str
) -> None:
    data = show(**{only: True}, as_json=True)
    assert data["round"] == 2
    assert data[only]
    assert hidden not in data


def test_a_prompt_is_found_by_id_or_words_and_shown_in_every_round_in_full(show: Any) -> None:
    by_words = show(prompt="after 11?", as_json=True)
    assert by_words == show(prompt=by_words["prompt_id"], as_json=True)
    assert by_words["prompt"] == "what comes after 11?"
    assert [one["round"] for one in by_words["candidates"]] == [1] * 4 + [2] * 4
    assert all(one["parts"] == {"exact": one["value"]} for one in by_words["candidates"])
    assert all(one["why"] for one in by_words["candidates"])
    text = show(prompt="after 11?", round_number=2, rejected=True)
    assert "main · prompt " in text
    assert "kept · " not in text


def test_words_that_name_several_prompts_or_none_are_refused_with_the_way_on(show: Any) -> None:
    with pytest.raises(ConfigError, match="12 prompts contain 'comes after'; give more of the text, or an id: "):
        show(prompt="comes after")
    with pytest.raises(ConfigError, match="no prompt of main"):
        show(prompt="where is")


def test_what_is_not_there_is_named_with_what_is(show: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no arm 'golden'; its arms: main, random_selection, gold"):
        show(arm="golden")
    with pytest.raises(ConfigError, match="nothing of round 7 to show; there are 1, 2"):
        show(round_number=7)
    with pytest.raises(ConfigError, match="leave nothing to show"):
        show(kept=True, rejected=True)
    with pytest.raises(ConfigError, match="is no run directory"):
        show(path=tmp_path)


def test_an_arm_shows_what_it_shares_with_main_with_its_own_choice(show: Any) -> None:
    main, control = (show(round_number=1, arm=arm, limit=99, as_json=True) for arm in ("main", "random_selection"))
    assert [one["prompt_id"] for one in control["prompts"]] == [one["prompt_id"] for one in main["prompts"]]
    assert len(control["kept"]) == len(main["kept"])
    assert {one["why"] for one in control["kept"]} == {"drawn at random, whatever its value"}


def test_an_arm_of_demonstrations_shows_those(show: Any) -> None:
    data = show(round_number=1, arm="gold", limit=99, as_json=True)
    assert data["kept"]
    assert all(one["why"] == "gold" and one["value"] is None for one in data["kept"])
    assert "kept · round 1" in show(round_number=1, arm="gold")


def test_a_round_that_has_not_selected_yet_shows_its_candidates(show: Any, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    for arm in ("main", *ARMS):
        shutil.rmtree(copy / f"arms/{arm}/rounds/002/survivors")
        (copy / f"arms/{arm}/rounds/002/receipts/select-improve-00.json").unlink()
    shutil.rmtree(copy / "arms/main/rounds/002/scores")
    (copy / "arms/main/rounds/002/receipts/score-wave-00.json").unlink()
    data = show(path=copy, round_number=2, as_json=True)
    assert len(data["waiting"]) == 5
    assert not data["kept"]
    assert not data["rejected"]
    assert data["waiting"][0]["why"] == "not selected from yet"
    assert data["waiting"][0]["value"] is None
    assert "waiting · round 2 · candidate 0 · no value" in show(path=copy, round_number=2)
    assert show(path=copy, prompt="after 3?", as_json=True)["prompt"] == "what comes after 3?"


@pytest.mark.parametrize(
    ("lost", "asked"),
    [
        ("candidates/wave-00/block-00000.parquet", {"round_number": 1}),
        ("candidates/wave-00/block-00000.parquet", {"prompt": "after 3?"}),
        ("scores/wave-00/block-00000.parquet", {"kept": True}),
        ("survivors/improve-00/rejected.jsonl", {}),
        ("survivors/improve-00/prompts.jsonl", {"prompt": "after 3?"}),
    ],
)
@pytest.mark.parametrize("is_there", [True, False], ids=["cut short", "missing"])
def test_a_committed_file_that_is_missing_or_damaged_is_named_and_nothing_is_shown_in_its_place(
    show: Any, run: Path, tmp_path: Path, lost: str, asked: dict[str, Any], is_there: bool
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    number = 2 if "kept" in asked else 1
    path = copy / f"arms/main/rounds/00{number}/{lost}"
    assert path.is_file()
    path.write_bytes(path.read_bytes()[:-9]) if is_there else path.unlink()
    with pytest.raises(DataError, match=f"{re.escape(lost)} is {'damaged' if is_there else 'missing'}"):
        show(path=copy, **asked)


def test_candidates_that_are_gone_with_their_folder_are_missing_not_replaced_by_survivors(
    show: Any, run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    shutil.rmtree(copy / "arms/main/rounds/001/candidates")
    with pytest.raises(DataError, match="is missing"):
        show(path=copy, round_number=1)


def test_what_reward_functions_logged_is_shown_with_the_candidate(tmp_path: Path, show: Any) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, score={"scorers": ["logs.py:judge"]})
    (tmp_path / "recipe/logs.py").write_text(LOGGING)
    logged = run_here(recipe, runs_dir=tmp_path / "runs")
    show()
    data = show(path=logged, round_number=1, as_json=True)
    assert all(one["extras"] == {"length": len(one["text"])} for one in data["kept"] + data["rejected"])
    assert data["kept"]
    assert "  logged length: " in show(path=logged, round_number=1)
    assert "  logged length: " in show(path=logged, prompt="after 3?")


def test_a_long_prompt_is_cut_before_a_whole_word() -> None:
    text = "user: one two three " * 8
    shown = page._end(text)
    assert shown.startswith("... ")
    assert len(shown) <= page.TEXT_SHOWN + 4
    assert set(shown.removeprefix("... ").split()) == {"user:", "one", "two", "three"}
    assert page._end("x" * 100) == f"... {'x' * page.TEXT_SHOWN}"


def test_what_a_model_wrote_is_inert(tmp_path: Path, show: Any) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, score={"scorers": ["numeric"]})
    (tmp_path / "recipe/answers.py").write_text(PAINTED)
    painted = run_here(recipe, runs_dir=tmp_path / "runs")
    show()  # what the run printed is taken away
    for text in (show(path=painted), show(path=painted, round_number=1), show(path=painted, prompt="after 3?")):
        assert "\x1b" not in text
        assert "\u202e" not in text


# Status


@pytest.mark.parametrize("arms", [["random_selection", "gold"], ["random_selection_shared", "no_filter"]])
def test_the_table_of_rounds_is_that_of_the_end_of_the_run(
    tmp_path: Path, arms: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    late = {"late": {"select.max_per_prompt": [4, 1]}}
    recipe = scripted_recipe(tmp_path / "recipe", arms=[*arms, late], rounds=2, prompts={"validate": None})
    done = run_here(recipe, runs_dir=tmp_path / "runs")
    at_the_end = capsys.readouterr().out
    show_status(done, as_json=False)
    text = capsys.readouterr().out
    table = text[text.index("round  ") : text.index("greedy pass@1")]
    assert "random_selection" in table or "no_filter" in table
    assert table in at_the_end


def test_where_nothing_is_chosen_no_round_is_called_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=2, prompts={"validate": None})
    done = run_here(recipe, runs_dir=tmp_path / "runs")
    out = capsys.readouterr().out
    assert "* " not in out
    assert "best round" not in out
    assert "best adapter" not in out
    assert re.search(r"^last adapter +\S", out, re.MULTILINE)
    assert not any(row.is_best for row in outlook.round_rows_of(done))


def test_a_phase_of_this_attempt_is_not_said_to_be_done_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, evaluate={"sampled_rounds": "all"})
    run_here(recipe, runs_dir=tmp_path)
    out = capsys.readouterr().out
    assert "main · round 1 · evaluate-sampled" in out
    assert "already done" not in out
    run_here(recipe, runs_dir=tmp_path)
    assert "main · rounds 0-1 already done" in capsys.readouterr().out


def test_where_nothing_could_be_scored_no_share_is_told_and_the_scorers_are_what_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = {"scorers": ["judge.py:judge"], "max_unscored_rate": 1.0}
    evaluate = {"scorers": ["exact"], "trained_prompts": 0}
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, score=score, evaluate=evaluate)
    (tmp_path / "recipe/judge.py").write_text("def judge(text):\n    return None\n")
    run_here(recipe, runs_dir=tmp_path)
    told = capsys.readouterr()
    assert "main · round 1 · score · none could be scored" in told.out
    assert re.search(r"^ +score +scored +none of them", told.out, re.MULTILINE)
    assert "0.0% correct" not in told.out
    assert outlook.round_rows_of(tmp_path / "tiny")[-1].acceptance is None
    assert "none of the candidates could be scored, so the policy stays as it was" in told.err
    with pytest.raises(PhaseError, match=r"mend what judges them \(score\.scorers\), or lower min_survivors"):
        run_here(recipe, "select.min_survivors=1", "name=enough", runs_dir=tmp_path)
    with pytest.raises(PhaseError, match=r"nothing to export.* shows why; none of the candidates could be scored"):
        curate_recipe(str(recipe), layers=[], overrides=["name=curated"], runs_dir=tmp_path)
    capsys.readouterr()
    with pytest.raises(PhaseError, match="48 of 48 candidates could not be scored"):
        run_here(recipe, "score.max_unscored_rate=0.5", "name=strict", runs_dir=tmp_path)
    assert re.search(r"main · round 1 · score · stopped after .*, nothing done", capsys.readouterr().out)


def test_a_run_that_trained_on_nothing_marks_no_round_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, prompts={"validate": None})
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return 'none'\n")
    done = run_here(recipe, runs_dir=tmp_path / "runs")
    out = capsys.readouterr().out
    assert "best round" not in out
    assert "none: nothing was trained up to round 1, so that its policy is the base model" in " ".join(out.split())
    assert not any(row.is_best for row in outlook.round_rows_of(done))


def test_status_lists_what_people_ask_for_and_json_has_the_rest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(run, as_json=False)
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "tiny: finished"
    assert "evaluate/" not in text
    assert "headline: round" in text
    show_status(run, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert "evaluate/test/pass@1_low" in data["arms"]["main"]["reports"][0]["metrics"]
    assert data["disk"]["total"] == sum(size for kind, size in data["disk"].items() if kind != "total")


def test_watching_a_run_that_is_over_shows_it_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(run, as_json=True, every=60.0)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["state"] == "finished"
    show_status(run, as_json=False, every=60.0)
    assert capsys.readouterr().out.count("tiny: finished") == 1


def test_watching_prints_a_line_per_change_until_the_process_is_gone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    (copy / "verdict.json").unlink()
    last = copy / "arms/gold/rounds/002/receipts/round.json"
    aside = last.rename(tmp_path / "round.json")
    at_work = RunDirectory(copy)
    at_work.lock()
    watching = threading.Thread(target=show_status, args=(copy,), kwargs={"as_json": True, "every": 0.05})
    watching.start()
    time.sleep(0.5)
    aside.rename(last)
    time.sleep(0.5)
    at_work.unlock()
    watching.join(timeout=30)
    assert not watching.is_alive()
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["state"] for one in states] == ["running", "running", "finished"]
    assert [one["next"] is None for one in states] == [False, True, True]


def test_ctrl_c_ends_the_watching_quietly(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        outlook, "status_of", lambda path: {**status_of(path), "state": "running", "holder": {"pid": 1, "host": "h"}}
    )
    monkeypatch.setattr(outlook.time, "sleep", interrupt)
    show_status(run, as_json=False, every=1.0)
    assert "tiny: running (pid 1 on h)" in capsys.readouterr().out


def test_what_an_arm_has_not_done_yet_is_not_shown_as_if_main_had_done_it_for_it(
    tmp_path: Path, show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {"hot": {"sample.temperature": 0.5}, "few": {"select.max_per_prompt": 1}}
    recipe = scripted_recipe(tmp_path / "recipe", arms=arms, rounds=1)
    run = run_here(recipe, runs_dir=tmp_path)
    capsys.readouterr()
    for arm in arms:
        shutil.rmtree(run / "arms" / arm)
    with pytest.raises(ConfigError, match="hot has nothing of round 1 to show; there is none yet"):
        show(run, arm="hot", round_number=1)
    waiting = show(run, arm="few", round_number=1, as_json=True)
    assert {one["candidates"] for one in waiting["prompts"]} == {4}, "main's, as it will share them"
    assert {one["kept"] for one in waiting["waiting"]} == {None}


def test_a_control_shows_the_candidates_that_it_shares_with_main_in_a_later_round(
    tmp_path: Path, show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=["random_selection"], rounds=2)
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return 'no'\n")
    run = run_here(recipe, runs_dir=tmp_path)
    capsys.readouterr()
    assert not (run / "arms/random_selection/rounds/002/candidates").exists(), "nobody was trained in round 1"
    assert len(show(run, arm="random_selection", round_number=2, as_json=True)["prompts"]) == 12


def test_a_run_that_a_stop_rule_ended_is_finished_also_where_nothing_was_held_out(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=5)
    stop = ("stop.max_sampled_tokens=1", "prompts.validate=null", "prompts.test=null")
    run = run_here(recipe, *stop, runs_dir=tmp_path)
    found = status_of(run)
    assert (found["state"], found["next"]) == ("finished", None)
    assert found["stopped"] == "a stop rule ended it after round 1"
    assert found["planned_phases"] == found["committed_phases"]
    run_here(recipe, *stop[1:], "rounds=2", runs_dir=tmp_path)
    assert (status_of(run)["stopped"], status_of(run)["state"]) == (None, "finished")


def test_a_stopped_run_killed_in_an_arm_goes_on_with_that_arm(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", rounds=5)
    words = ("run", recipe, "stop.max_sampled_tokens=1", "--runs-dir")
    points = tmp_path / "points"
    assert selftrain(*words, tmp_path / "a", SELFTRAIN_FAULT=f"count:{points}").returncode == 0
    visit = len(points.read_text().splitlines()) - 20
    killed = selftrain(*words, tmp_path / "b", SELFTRAIN_FAULT=str(visit))
    assert killed.returncode == -signal.SIGKILL
    following = status_of(tmp_path / "b/tiny")["next"]
    assert (following["arm"], following["round"]) == ("random_selection", 1)


@pytest.mark.parametrize("name", ["config.json", "verdict.json"])
def test_a_damaged_file_is_named_with_the_way_out(run: Path, tmp_path: Path, show: Any, name: str) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "broken", symlinks=True))
    for content in ("{", "[]"):
        (broken / name).write_text(content)
        with pytest.raises(DataError, match=rf"{name} is damaged .*delete it: the same command writes it again"):
            show(broken)
    (broken / name).write_text("{}")
    if name == "verdict.json":  # of a version that wrote other keys
        assert show(broken).startswith("tiny: finished")
    else:
        with pytest.raises(ConfigError, match="is no run directory"):
            show_status(broken, as_json=True)
