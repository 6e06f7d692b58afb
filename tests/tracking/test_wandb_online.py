"""What reaches a W&B server, and what it has after outages: every row, table, artifact and alarm once."""

import json
import time
from pathlib import Path

import pytest
from reading import alerts, history
from rows import (
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

from selftrain.tracking.wandb_mirror import fragments

OF_CONTROL = f"{RUN_ID}-{CONTROL}"


def numbers_of(run, arm="main"):
    """What the server is to have of a made run's arm."""
    return sorted(
        ("round", row["round"], key, value)
        for row in run.rows
        if row["arm"] == arm
        for key, value in row.items()
        if isinstance(value, float)
    )


def test_arms_points_tables_alarms_and_the_summary_arrive_and_nothing_else(tmp_path, server):
    run = MadeRun(tmp_path)
    tracker = tracker_of(tmp_path, mode="online", project="p", group="an experiment")
    for number in (1, 2):
        run.round(number)
    for number in (1, 2):
        run.round(number, arm=CONTROL, shares=number == 1)
    tracker.log(run.rows)
    tracker.log([alarm(2), summary(best_round=1, number=2)])
    tracker.close()
    assert server.unknown == []
    assert server.points(RUN_ID) == numbers_of(run)
    assert server.points(OF_CONTROL) == numbers_of(run, CONTROL)
    of_rounds = [(f"tables/{kind}", number) for kind in ("kept", "rejected") for number in (1, 2)]
    assert server.tables(RUN_ID) == server.tables(OF_CONTROL) == of_rounds
    for run_id, arm, name in ((RUN_ID, "main", "a-run"), (OF_CONTROL, CONTROL, f"a-run.{CONTROL}")):
        found = server.runs[run_id]
        assert (found["name"], found["job_type"], found["group"]) == (name, arm, "an experiment")
        assert (found["complete"], found["host"], found["program"]) == (True, None, "selftrain")
        shown = {key: value for key, value in found["config"].items() if key != "_wandb"}
        assert shown == {"train": {"learning_rate": 1e-4}, "arms": [CONTROL], "arm": arm}
    assert server.summary(RUN_ID)["best_round"] == 1
    assert [(one["runName"], one["title"]) for one in server.alerts] == [(RUN_ID, "main · round 2: no_survivors")]
    sent = {place for place in server.places if not place.startswith(("/storage/", "/files/"))}
    assert sent <= {"/graphql", "/healthz", "/"}, "no telemetry"
    uploaded = {name for name in server.files if "/media/table/" not in name and not name.startswith("artifact-")}
    assert {name.rpartition("/")[2] for name in uploaded} == {"config.yaml", "wandb-summary.json"}


def test_survivors_and_adapters_are_artifacts_with_their_hashes_and_their_lineage(tmp_path, server):
    run = MadeRun(tmp_path)
    for number in (1, 2):
        run.round(number)
    run.round(1, arm=CONTROL, shares=True)
    tracker = tracker_of(tmp_path, mode="online", committed=run.rows)
    tracker.log([summary(best_round=1, number=2)])
    tracker.close()
    assert server.unknown == []
    for number in (1, 2):
        selected = run.directory.receipt(f"arms/main/rounds/{number:03d}/select-improve-00")
        trained = run.directory.receipt(f"arms/main/rounds/{number:03d}/train-improve-00")
        survivors = server.artifact(f"a-run-main-survivors:round-{number}")
        adapter = server.artifact(f"a-run-main-adapter:round-{number}")
        assert (survivors["type"], adapter["type"], adapter["state"]) == ("survivors", "adapter", "COMMITTED")
        assert set(adapter["files"]) == {"adapter_model.safetensors", "adapter_config.json"}
        place = next(name for name in trained.files if name.endswith(".safetensors"))
        assert server.files[adapter["files"]["adapter_model.safetensors"]] == (tmp_path / place).read_bytes()
        assert adapter["metadata"]["sha256"]["adapter_model.safetensors"] == trained.files[place]
        assert adapter["metadata"]["receipt"] == trained.key
        assert adapter["metadata"]["parents"]["survivors"] == selected.output == survivors["metadata"]["digest"]
        assert RUN_ID in survivors["used_by"]
        assert "canary-in-the-config" not in json.dumps([survivors, adapter])
    assert server.artifact("a-run-main-adapter:round-1")["used_by"] == [RUN_ID], "round 2 trained on from round 1"
    assert server.artifact("a-run-main-adapter:round-2")["used_by"] == []
    assert "best" in server.artifact("a-run-main-adapter:round-1")["aliases"]
    assert "best" in server.artifact("a-run-main-survivors:round-1")["aliases"]
    of_control = server.artifact(f"a-run-{CONTROL}-survivors:round-1")
    assert (of_control["made_by"], of_control["used_by"]) == (OF_CONTROL, [OF_CONTROL])
    versions = [one for one in server.artifacts if one["type"] in ("survivors", "adapter")]
    assert len(versions) == 6, "the best ones are not uploaded twice"
    asked = len(server.operations)
    tracker = tracker_of(tmp_path, mode="online", committed=run.rows)
    tracker.log([summary(best_round=1, number=2)])
    tracker.close()
    assert len(server.operations) == asked, "an attempt with nothing new says nothing"


def test_an_upload_that_takes_its_time_is_waited_for(tmp_path, server):
    run = MadeRun(tmp_path)
    run.round(1)
    server.seconds_per_file = 2.5
    tracker_of(tmp_path, mode="online", committed=run.rows, artifacts=("adapters",), table_rows=0).close()
    assert server.artifact("a-run-main-adapter:round-1")["state"] == "COMMITTED"
    asked = len(server.operations)
    tracker_of(tmp_path, mode="online", committed=run.rows, artifacts=("adapters",), table_rows=0).close()
    assert len(server.operations) == asked


def test_an_upload_that_fails_at_first_is_tried_again_at_the_end(tmp_path, server):
    run = MadeRun(tmp_path)
    run.round(1)
    server.failing.add("CreateArtifact")
    tracker = tracker_of(tmp_path, mode="online", committed=run.rows, artifacts=("adapters",), table_rows=0)
    log = tmp_path / "logs" / "attempt_1" / "wandb.log"
    wait_for(lambda: "train-improve-00 failed" in log.read_text(), seconds=60)
    server.failing.clear()
    tracker.close()
    assert server.artifact("a-run-main-adapter:round-1")["state"] == "COMMITTED"


def test_only_the_artifacts_that_are_asked_for_are_uploaded(tmp_path, server):
    run = MadeRun(tmp_path)
    for number in (1, 2):
        run.round(number)
    tracker_of(tmp_path, mode="online", committed=run.rows, artifacts=("adapters",), table_rows=0).close()
    assert sorted(sorted(one["aliases"]) for one in server.artifacts) == [["latest", "round-2"], ["round-1"]]
    assert {one["name"] for one in server.artifacts} == {"a-run-main-adapter"}


def test_an_adapter_whose_file_is_gone_costs_its_artifact_alone(tmp_path, server):
    run = MadeRun(tmp_path)
    _, trained = run.round(1)
    (tmp_path / next(name for name in trained.files if name.endswith(".safetensors"))).unlink()
    tracker_of(tmp_path, mode="online", committed=run.rows).close()
    assert {one["name"] for one in server.artifacts if one["type"] != "run_table"} == {"a-run-main-survivors"}
    assert server.points(RUN_ID) == numbers_of(run)


@pytest.mark.slow  # W&B sends points every 15 s
@pytest.mark.parametrize("what_dies", ["the run", "the machine"])
def test_after_a_kill_the_next_attempt_sends_what_the_server_does_not_have(tmp_path, server, what_dies):
    def has_some():
        return OF_CONTROL in server.runs and server.runs[OF_CONTROL]["lines"] and len(server.runs[RUN_ID]["lines"]) > 5

    rows = killed_attempt(tmp_path, mode="online", dies=what_dies, when=has_some)
    run = MadeRun(tmp_path)
    run.round(2)
    tracker = tracker_of(tmp_path, mode="online", committed=[*rows, *run.rows])
    tracker.log(rows_of(3))
    tracker.close()
    assert server.unknown == []
    assert server.points(RUN_ID) == sorted([*points_of((0, 1, 3)), *numbers_of(run)])
    assert server.points(OF_CONTROL) == points_of_control((0, 1, 3))
    assert server.tables(RUN_ID) == [("tables/kept", 2), ("tables/rejected", 2)]
    assert len(server.alerts) == 2


@pytest.mark.slow  # W&B sends points every 15 s
@pytest.mark.parametrize("outage", ["die", "hang", "refuse"])
def test_after_an_outage_in_the_middle_the_next_attempt_sends_what_is_missing(tmp_path, server, outage):
    run = MadeRun(tmp_path)
    warnings: list[str] = []
    tracker = tracker_of(tmp_path, mode="online", warnings=warnings)
    tracker.log(rows_of(0))
    wait_for(lambda: OF_CONTROL in server.runs and len(server.runs[OF_CONTROL]["lines"]) == 1)
    getattr(server, outage)()
    run.round(1)
    began = time.monotonic()
    tracker.log([*run.rows, alarm(1)])
    assert time.monotonic() - began < 0.5
    time.sleep(1.5)
    ended, mirror = time.monotonic(), Path(f"/proc/{tracker.mirrors[0].pid}/stat")
    tracker.close()
    assert time.monotonic() - ended < 8
    wait_for(lambda: not mirror.exists() or "Z" in mirror.read_text().split(")")[-1], seconds=60)
    assert len(warnings) == 1, warnings
    assert "Weights & Biases" in warnings[0]
    assert "wandb sync" in warnings[0]
    assert history(tmp_path) == sorted([*points_of([0]), *numbers_of(run)]), "what is to be synced is all there"
    server.revive()
    tracker = tracker_of(tmp_path, mode="online", committed=[*rows_of(0), *run.rows, alarm(1)])
    tracker.log([summary(best_round=1, number=1)])
    tracker.close()
    assert server.unknown == []
    assert server.points(RUN_ID) == sorted([*points_of([0]), *numbers_of(run)])
    assert server.points(OF_CONTROL) == points_of_control([0])
    assert server.tables(RUN_ID) == [("tables/kept", 1), ("tables/rejected", 1)]
    assert len(server.alerts) == 1
    assert server.summary(RUN_ID)["best_round"] == 1
    adapter = server.artifact("a-run-main-adapter:round-1")
    assert (adapter["state"], "best" in adapter["aliases"]) == ("COMMITTED", True)


@pytest.mark.slow  # W&B sends points every 15 s
def test_an_arm_that_begins_in_an_outage_waits_for_its_end(tmp_path, server):
    run = MadeRun(tmp_path)
    tracker = tracker_of(tmp_path, mode="online")
    tracker.log(rows_of(0)[:-1])
    wait_for(lambda: RUN_ID in server.runs and len(server.runs[RUN_ID]["lines"]) == 4)
    server.die()
    run.round(1, arm=CONTROL)
    tracker.log([*rows_of(0)[-1:], *run.rows, alarm(1, arm=CONTROL)])
    time.sleep(2)
    server.revive()
    tracker.close()
    assert server.points(RUN_ID) == points_of([0])
    assert server.points(OF_CONTROL) == sorted([*points_of_control([0]), *numbers_of(run, CONTROL)])
    assert server.tables(OF_CONTROL) == [("tables/kept", 1), ("tables/rejected", 1)]
    assert len(server.alerts) == 1
    assert server.artifact(f"a-run-{CONTROL}-adapter:round-1")["state"] == "COMMITTED"


@pytest.mark.slow
def test_an_arm_that_begins_in_an_outage_is_mirrored_by_the_next_attempt(tmp_path, server):
    warnings: list[str] = []
    tracker = tracker_of(tmp_path, mode="online", warnings=warnings)
    tracker.log(rows_of(0)[:-1])
    wait_for(lambda: RUN_ID in server.runs and len(server.runs[RUN_ID]["lines"]) == 4)
    server.hang()
    tracker.log(rows_of(0)[-1:])
    time.sleep(1)
    mirror = Path(f"/proc/{tracker.mirrors[0].pid}/stat")
    tracker.close()
    wait_for(lambda: not mirror.exists() or "Z" in mirror.read_text().split(")")[-1], seconds=60)
    assert len(warnings) == 1
    server.revive()
    tracker_of(tmp_path, mode="online", committed=rows_of(0)).close()
    assert server.points(RUN_ID) == points_of([0])
    assert server.points(OF_CONTROL) == points_of_control([0])


@pytest.mark.slow
def test_an_arm_that_the_server_will_not_have_is_mirrored_offline_with_all_the_others(tmp_path, server):
    warnings: list[str] = []
    tracker = tracker_of(tmp_path, mode="online", warnings=warnings)
    tracker.log(rows_of(0)[:-1])
    wait_for(lambda: RUN_ID in server.runs and len(server.runs[RUN_ID]["lines"]) == 4)
    server.refuse()
    tracker.log([*rows_of(0)[-1:], alarm(0, arm=CONTROL)])
    wait_for(lambda: tracker.mirrors[0].check() or warnings)
    tracker.close()
    assert len(warnings) == 1
    assert "could not start online" in warnings[0]
    offline = [fragment.name for fragment in fragments(tmp_path) if fragment.name.startswith("offline")]
    assert len(offline) == 2
    assert set(points_of([0])) <= set(history(tmp_path))
    assert history(tmp_path, CONTROL) == points_of_control([0])
    assert len(alerts(tmp_path, CONTROL)) == 1
