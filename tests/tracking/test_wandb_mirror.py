import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reading import alerts, history, inspect, is_of, records, shown, tables
from rows import (
    CANARY,
    CONTROL,
    RUN_ID,
    MadeRun,
    alarm,
    killed_attempt,
    points_of,
    points_of_control,
    rows_of,
    summary,
    tracker_of,
    wait_for,
)

from selftrain.config import WandbConfig
from selftrain.tracking import read_rows
from selftrain.tracking.following import Mirrored
from selftrain.tracking.wandb_mirror import fragments, mode_of

# No `environment`, `output` (the console), `stats` (the machine), `metadata` or `requirements`.
KINDS_OF_RECORDS = {
    *("header", "run", "telemetry", "metric", "history", "summary", "config"),
    *("alert", "artifact", "files", "exit", "final", "footer"),
}


def fragments_of(run_dir, arm=None):
    return [fragment for fragment in fragments(run_dir) if is_of(fragment, arm)]


def test_every_arm_is_a_run_of_its_own_with_the_same_keys_in_one_group(tmp_path):
    tracker = tracker_of(tmp_path, group="an experiment")
    for number in range(3):
        tracker.log(rows_of(number))
    tracker.log([{**row, "arm": CONTROL, "round": 3, "key": "k"} for row in rows_of(2)[:1]])
    tracker.log([summary(best_round=1, number=2)])
    tracker.close()
    ((of_main,), (of_control,)) = fragments_of(tmp_path), fragments_of(tmp_path, CONTROL)
    assert history(tmp_path) == points_of(range(3))
    controls = [("round", 3, "sample/tokens", 20), ("round", 3, "sample/seconds", 0.25)]
    assert history(tmp_path, CONTROL) == sorted([*points_of_control(range(3)), *controls])
    main, control = shown(of_main), shown(of_control)
    assert (main["run_id"], main["name"]) == (RUN_ID, "a-run")
    assert (control["run_id"], control["name"]) == (f"{RUN_ID}-{CONTROL}", f"a-run.{CONTROL}")
    for one, arm in ((main, "main"), (control, CONTROL)):
        assert (one["state"], one["tags"]) == ("finished", ["a tag"])
        assert one["config"] == {"train": {"learning_rate": 1e-4}, "arms": [CONTROL], "arm": arm}
    told = [json.dumps(inspect(one)) for one in (of_main, of_control)]
    assert all("an experiment" in one for one in told)


def test_the_summary_of_main_has_the_verdict_and_that_of_an_arm_its_own_last_metrics(tmp_path):
    committed = []
    for number in range(2):
        tracker = tracker_of(tmp_path, committed=committed)
        tracker.log(rows_of(number))
        committed += rows_of(number)
        if number:
            tracker.log([summary(best_round=1, number=number)])
        tracker.close()
    main, control = shown(fragments_of(tmp_path)[-1])["summary"], shown(fragments_of(tmp_path, CONTROL)[-1])["summary"]
    assert (main["best_round"], main["headline_round"], main["gain_over_round_0"]) == (1, 1, 0.25)
    assert (main["sample/tokens"], main["train_step/loss"]) == (10, 0.5)
    assert control["evaluate/test/pass@1"] == 1.5
    assert "best_round" not in control


def test_a_summary_that_comes_back_to_what_it_was_is_set_again(tmp_path):
    committed = rows_of(0)
    for best in (1, 2, 1):
        tracker = tracker_of(tmp_path, committed=committed)
        tracker.log([summary(best_round=best, number=2)])
        tracker.close()
        assert shown(fragments_of(tmp_path)[-1])["summary"]["best_round"] == best
    assert len(fragments_of(tmp_path)) == 3


def test_an_alarm_is_an_alert_of_its_arm_and_no_point(tmp_path):
    words = "Nothing was right, not even once. " * 10
    tracker = tracker_of(tmp_path)
    tracker.log([*rows_of(0), alarm(0, words=words), alarm(0, arm=CONTROL)])
    tracker.close()
    assert alerts(tmp_path) == [("main · round 0: no_survivors", words)]
    assert alerts(tmp_path, CONTROL) == [(f"{CONTROL} · round 0: no_survivors", "Nothing was right.")]
    assert history(tmp_path) == points_of([0])
    assert read_rows(tmp_path / "metrics.jsonl")[-1] == alarm(0, arm=CONTROL)
    tracker_of(tmp_path, committed=[*rows_of(0), alarm(0, words=words), alarm(0, arm=CONTROL)]).close()
    assert len(alerts(tmp_path)) == 1, "an alarm that was raised is not raised again"


def test_a_rounds_candidates_become_tables_of_their_arm_once(tmp_path):
    run = MadeRun(tmp_path)
    tracker = tracker_of(tmp_path)
    run.round(1)
    run.round(1, arm=CONTROL, shares=True)
    tracker.log(run.rows)
    tracker.close()
    found = tables(tmp_path)
    assert found.keys() == {("tables/kept", 1), ("tables/rejected", 1)}
    assert [row["completion"] for row in found["tables/kept", 1]] == [
        f"answer {n} of main in round 1" for n in (1, 3, 5)
    ]
    assert tables(tmp_path, CONTROL).keys() == found.keys()
    first, committed = len(fragments(tmp_path)), list(run.rows)
    tracker_of(tmp_path, committed=committed).close()
    assert len(fragments(tmp_path)) == first
    run.rows.clear()
    tracker = tracker_of(tmp_path, committed=committed)
    run.round(2)
    tracker.log(run.rows)
    tracker.close()
    assert tables(tmp_path).keys() == {(f"tables/{kind}", number) for kind in ("kept", "rejected") for number in (1, 2)}


def test_without_table_rows_there_are_no_tables(tmp_path):
    run = MadeRun(tmp_path)
    tracker = tracker_of(tmp_path, table_rows=0)
    run.round(1)
    tracker.log(run.rows)
    tracker.close()
    assert tables(tmp_path) == {}


@pytest.mark.parametrize("damage", ["missing", "cut", "no receipt"])
def test_damaged_files_cost_the_tables_alone(tmp_path, damage):
    run = MadeRun(tmp_path)
    selected, _ = run.round(1)
    table = tmp_path / next(name for name in selected.files if name.endswith(".parquet"))
    if damage == "missing":
        table.unlink()
    elif damage == "cut":
        os.truncate(table, 40)
    else:
        run.directory.receipt_path(selected.key).write_text("{")
    tracker = tracker_of(tmp_path, committed=run.rows)
    tracker.close()
    assert tables(tmp_path) == {}
    assert {key for _, _, key, _ in history(tmp_path)} >= {"select/round_of_it", "train/round_of_it"}
    log = (tmp_path / "logs" / "attempt_1" / "wandb.log").read_text()
    assert len([line for line in log.splitlines() if line.startswith(f"no tables {selected.key}: DataError")]) == 1


def test_offline_the_hashes_of_artifacts_stand_in_the_summary_and_nothing_is_staged(tmp_path):
    run = MadeRun(tmp_path)
    for number in (1, 2):
        run.round(number)
    tracker = tracker_of(tmp_path, committed=run.rows, table_rows=0)
    tracker.log([summary(best_round=1, number=2)])
    tracker.close()
    found = shown(fragments_of(tmp_path)[-1])["summary"]
    selected, trained = (run.directory.receipt(f"arms/main/rounds/001/{one}-improve-00") for one in ("select", "train"))
    of_survivors = next(value for name, value in selected.files.items() if name.endswith("survivors.parquet"))
    of_adapter = next(value for name, value in trained.files.items() if name.endswith(".safetensors"))
    assert found["artifacts/survivors/round-1"] == found["artifacts/survivors/best"] == of_survivors
    assert found["artifacts/adapter/round-1"] == found["artifacts/adapter/best"] == of_adapter
    assert found["artifacts/adapter/round-2"] != of_adapter
    assert not list((tmp_path / "wandb").rglob("*.safetensors"))
    assert not list((tmp_path / "wandb").rglob("staging/*"))


def test_nothing_of_the_environment_the_machine_or_a_receipts_config_is_in_any_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", CANARY.replace("-", "") + "0" * 40)
    monkeypatch.setenv("HF_TOKEN", f"hf_{CANARY}")
    run = MadeRun(tmp_path)
    run.round(1)
    tracker = tracker_of(tmp_path, committed=run.rows)
    tracker.log([alarm(1), summary(best_round=1, number=1)])
    tracker.close()
    places = (tmp_path / "wandb", tmp_path / "logs")
    written = b"".join(path.read_bytes() for place in places for path in place.rglob("*") if path.is_file())
    for canary in (CANARY, CANARY.replace("-", ""), "canary-in-the-config"):
        assert canary.encode() not in written
    sent = [record for fragment in fragments(tmp_path) for record in records(fragment)]
    runs = [record["run"] for record in sent if "run" in record]
    assert not {"host", "git", "settings"} & {key for run in runs for key in run}
    assert {record["type"] for record in sent} <= KINDS_OF_RECORDS


def test_an_attempt_after_a_clean_end_logs_only_what_is_new(tmp_path):
    committed = []
    for number in range(2):
        tracker = tracker_of(tmp_path, committed=committed)
        tracker.log(rows_of(number))
        tracker.close()
        committed += rows_of(number)
    assert len(fragments(tmp_path)) == 4
    assert history(tmp_path) == points_of(range(2))
    assert history(tmp_path, CONTROL) == points_of_control(range(2))
    tracker_of(tmp_path, committed=committed).close()
    assert len(fragments(tmp_path)) == 4, "an attempt with nothing to say leaves no fragment"


@pytest.mark.parametrize("what_dies", ["the run", "the machine"])
def test_after_a_kill_the_fragments_together_hold_every_row_of_every_arm_once(tmp_path, what_dies):
    rows = killed_attempt(tmp_path, mode="offline", dies=what_dies, when=lambda: len(left_open(tmp_path)) == 2)
    tracker = tracker_of(tmp_path, committed=rows)
    tracker.log(rows_of(2))
    tracker.close()
    assert history(tmp_path) == points_of(range(3))
    assert history(tmp_path, CONTROL) == points_of_control(range(3))
    assert len(alerts(tmp_path)) == 2
    superseded = list((tmp_path / "wandb").glob("superseded/offline-run-*"))
    assert len(superseded) == (2 if what_dies == "the machine" else 0)


def test_a_killed_mirror_is_started_again_once_and_the_run_never_waits_for_it(tmp_path):
    warnings = []
    tracker = tracker_of(tmp_path, warnings=warnings)
    (mirror,) = tracker.mirrors
    tracker.log(rows_of(0))
    for number in range(1, 3):
        # A process shows as a zombie a moment before it can be waited for, so one look may come too early.
        wait_for(lambda: mirror.check() or (mirror.pid and left_open(tmp_path)))
        mirror_pid = mirror.pid
        os.kill(mirror_pid, signal.SIGKILL)
        wait_for(lambda pid=mirror_pid: "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[-1])
        started = time.monotonic()
        tracker.log(rows_of(number))
        assert time.monotonic() - started < 1.0
        wait_for(lambda number=number: mirror.check() or len(warnings) == number)
    tracker.close()
    assert "was started again" in warnings[0]
    assert "the run is unaffected" in warnings[1]
    assert len(warnings) == 2
    assert read_rows(tmp_path / "metrics.jsonl") == [*rows_of(0), *rows_of(1), *rows_of(2)]


def left_open(run_dir):
    return Mirrored(run_dir / "wandb" / "mirrored.json").open


def test_a_mirror_that_cannot_be_started_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    warnings = []
    tracker = tracker_of(tmp_path, warnings=warnings)
    tracker.log(rows_of(0))
    tracker.close()
    assert len(warnings) == 1
    assert "could not be started" in warnings[0]


def test_the_environment_turns_the_mirror_down_and_never_up():
    online, offline, disabled = (WandbConfig(mode=mode) for mode in ("online", "offline", "disabled"))
    assert mode_of(online, {}) == "online"
    assert mode_of(online, {"WANDB_MODE": "offline"}) == "offline"
    assert mode_of(offline, {"WANDB_MODE": "online"}) == "offline"
    assert mode_of(offline, {"WANDB_MODE": "disabled"}) == "disabled"
    assert mode_of(disabled, {"WANDB_MODE": "online"}) == "disabled"
    assert mode_of(online, {"WANDB_MODE": "nonsense"}) == "online"


def test_a_disabled_mirror_starts_no_process_and_writes_no_file(tmp_path):
    tracker = tracker_of(tmp_path, mode="disabled")
    tracker.log(rows_of(0))
    tracker.close()
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.mark.parametrize("library", ["wandb", "accelerate", "tensorboard", "trackio", "pyarrow"])
def test_the_run_itself_never_imports_a_tracker(library):
    program = f"import selftrain.tracking, sys; assert {library!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
