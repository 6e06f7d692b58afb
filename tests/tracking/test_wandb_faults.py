"""What a missing, silent or hostile W&B server costs the run: one line of warning."""

import socket
import time

import pytest
from reading import alerts, history, tables
from rows import CONTROL, RUN_ID, MadeRun, alarm, points_of, points_of_control, rows_of, tracker_of, wait_for

from selftrain.config import WandbConfig
from selftrain.tracking import Ledger
from selftrain.tracking.following import Mirrored
from selftrain.tracking.wandb_mirror import WandbMirror, fragments


@pytest.fixture
def nobody():
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def mirror_of(run_dir, warnings, start_seconds=2.0):
    """Online, and impatient."""
    return WandbMirror(
        run_dir,
        WandbConfig(mode="online"),
        run_id=RUN_ID,
        name="a-run",
        group="a-run",
        shown_config={},
        log_path=run_dir / "wandb.log",
        warn=warnings.append,
        start_seconds=start_seconds,
    )


@pytest.mark.parametrize("outage", ["refused", pytest.param("silent", marks=pytest.mark.slow), "401", "no login"])
def test_without_a_server_the_run_goes_on_and_everything_is_mirrored_offline(
    tmp_path, monkeypatch, server, nobody, outage
):
    if outage == "refused":
        monkeypatch.setenv("WANDB_BASE_URL", nobody)
    elif outage == "silent":
        server.hang()
    elif outage == "401":
        server.refuse()
    else:
        monkeypatch.delenv("WANDB_API_KEY")
    run = MadeRun(tmp_path)
    run.round(1)
    Ledger(tmp_path / "metrics.jsonl").rebuild([*rows_of(0), *run.rows, alarm(1)])
    warnings = []
    started = time.monotonic()
    mirror = mirror_of(tmp_path, warnings)
    assert time.monotonic() - started < 1.0
    mirror.close()
    assert time.monotonic() - started < 30
    (warning,) = warnings
    assert warning.startswith("Weights & Biases could not start online (")
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in warning
    assert set(points_of([0])) <= set(history(tmp_path))
    assert history(tmp_path, CONTROL) == points_of_control([0])
    assert tables(tmp_path).keys() == {("tables/kept", 1), ("tables/rejected", 1)}
    assert len(alerts(tmp_path)) == 1
    assert server.runs == {}


def test_a_mirror_that_does_not_end_in_time_goes_on_alone_with_one_warning(tmp_path, server):
    server.hang()
    warnings = []
    Ledger(tmp_path / "metrics.jsonl").rebuild(rows_of(0))
    mirror = mirror_of(tmp_path, warnings, start_seconds=4.0)
    pid = mirror.pid
    wait_for(lambda: fragments(tmp_path))
    started = time.monotonic()
    mirror.close(timeout_seconds=0.5)
    assert time.monotonic() - started < 2
    assert mirror.pid is None
    (warning,) = warnings
    assert f"(it took more than 0.5 s); process {pid} goes on for a while" in warning
    assert f"wandb sync {fragments(tmp_path)[-1]}" in warning
    wait_for(lambda: "could not" in (tmp_path / "wandb.log").read_text() or is_gone(pid))


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(")")[-1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_server_that_is_gone_at_the_end_is_not_waited_for(tmp_path, server):
    warnings = []
    tracker = tracker_of(tmp_path, mode="online", warnings=warnings)
    tracker.log(rows_of(0))
    wait_for(lambda: len(Mirrored(tmp_path / "wandb" / "mirrored.json").open) == 2)
    server.die()
    started = time.monotonic()
    tracker.close()
    assert time.monotonic() - started < 5
    (warning,) = warnings
    assert f"{server.url} does not answer); process" in warning
    assert warning.count("/wandb/run-") == 2, "both arms' fragments are to be synced"


def test_two_mirrors_of_one_run_never_write_at_the_same_time(tmp_path):
    first = tracker_of(tmp_path)
    first.log(rows_of(0))
    wait_for(lambda: fragments(tmp_path))
    second = tracker_of(tmp_path, committed=rows_of(0))
    second.log(rows_of(1))
    time.sleep(1)
    assert len({fragment.name for fragment in fragments(tmp_path)}) <= 2
    first.close()
    second.close()
    assert history(tmp_path) == points_of([0, 1])
