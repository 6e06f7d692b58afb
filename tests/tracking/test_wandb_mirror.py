import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selftrain.config import TrackConfig, WandbConfig
from selftrain.tracking import Ledger, build, read_rows
from selftrain.tracking.wandb_mirror import Mirror, fragments, mode_of

CANARY = "canary-7f3a-secret"


@pytest.fixture(autouse=True)
def wandb_environment(monkeypatch, tmp_path):
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SOME_TOKEN", CANARY)


def rows_of(round_number):
    def row(phase, arm="main", **metrics):
        key = f"{arm}/{round_number}/{phase}"
        return {"arm": arm, "round": round_number, "phase": phase, "key": key, **metrics}

    steps = [
        row("train", global_step=2 * round_number + step, round_step=step, **{"train/loss": 1.0 / (step + 1)})
        for step in range(2)
    ]
    return [
        row("sample", **{"sample/tokens": 10 * round_number, "sample/seconds": 0.25}),
        *steps,
        row("train", **{"train/loss": 0.75}),
        row("evaluate", arm="random_selection", **{"evaluate/test/pass@1": 0.5}),
    ]


def tracker_of(run_dir, *, committed=(), mode="offline", warnings=None):
    return build(
        run_dir,
        TrackConfig(wandb=WandbConfig(mode=mode, tags=("a tag",))),
        committed=committed,
        run_id="abc123",
        name="a run",
        mirrored_config={"train.learning_rate": 1e-4},
        log_path=run_dir / "logs" / "attempt_1" / "wandb.log",
        warn=pytest.fail if warnings is None else warnings.append,
    )


def inspect(fragment, *options):
    """The records of a fragment, one JSON object per line; none where W&B was killed before it wrote any."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json"]
    files = list(fragment.glob("*.wandb"))
    return subprocess.run([*command, *files], capture_output=True, text=True, check=False).stdout if files else ""


def history(run_dir):
    """Every point of every fragment: (axis, its value, key, value)."""
    points = []
    for fragment in fragments(run_dir):
        records = [json.loads(line) for line in inspect(fragment).splitlines() if line.startswith("{")]
        for item in [record["history"]["item"] for record in records if "history" in record]:
            (axis,) = {"round", "global_step"} & item.keys()
            points += [
                (axis, item[axis], key, value) for key, value in item.items() if key != axis and not key.startswith("_")
            ]
    return sorted(points)


def points_of(rounds):
    points = []
    for number in rounds:
        points += [
            ("round", number, "sample/tokens", 10 * number),
            ("round", number, "sample/seconds", 0.25),
            ("round", number, "train/loss", 0.75),
            ("round", number, "random_selection/evaluate/test/pass@1", 0.5),
            ("global_step", 2 * number, "train_step/loss", 1.0),
            ("global_step", 2 * number + 1, "train_step/loss", 0.5),
        ]
    return sorted(points)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.05)


def test_an_offline_run_holds_every_metric_once_on_its_axis_and_nothing_else(tmp_path):
    tracker = tracker_of(tmp_path)
    for number in range(3):
        tracker.log(rows_of(number))
    summary = {"arm": "main", "round": 2, "phase": "summary", "key": "summary", "summary/best_round": 1}
    tracker.log([summary])
    tracker.close()
    (fragment,) = fragments(tmp_path)
    assert history(tmp_path) == points_of(range(3))
    shown = json.loads(inspect(fragment, "--summary"))
    assert (shown["state"], shown["run_id"], shown["name"], shown["tags"]) == ("finished", "abc123", "a run", ["a tag"])
    assert shown["config"] == {"train.learning_rate": 1e-4}
    assert shown["summary"]["best_round"] == 1
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY.encode() not in written
    assert socket.gethostname().encode() not in inspect(fragment).encode()


def test_an_attempt_after_a_clean_end_logs_only_what_is_new(tmp_path):
    committed = []
    for number in range(2):
        tracker = tracker_of(tmp_path, committed=committed)
        tracker.log(rows_of(number))
        tracker.close()
        committed += rows_of(number)
    assert len(fragments(tmp_path)) == 2
    assert history(tmp_path) == points_of(range(2))
    tracker_of(tmp_path, committed=committed).close()
    assert len(fragments(tmp_path)) == 2, "an attempt with nothing to say leaves no fragment"


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_wandb_mirror import rows_of, tracker_of
tracker = tracker_of(Path({run_dir!r}))
for number in range(2):
    tracker.log(rows_of(number))
print(tracker.mirror.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("what_dies", ["the run", "the machine"])
def test_after_a_kill_the_fragments_together_hold_every_row(tmp_path, what_dies):
    program = PARENT.format(tests=str(Path(__file__).parent), run_dir=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        mirror_pid = int(parent.stdout.readline())
        wait_for(lambda: fragments(tmp_path))
        if what_dies == "the machine":
            os.kill(mirror_pid, signal.SIGKILL)
        parent.kill()
    tracker = tracker_of(tmp_path, committed=[*rows_of(0), *rows_of(1)])
    tracker.log(rows_of(2))
    tracker.close()
    found = history(tmp_path)
    assert sorted(set(found)) == points_of(range(3))
    if what_dies == "the run":
        assert found == points_of(range(3)), "the mirror copied the rest by itself, so nothing was logged twice"


def test_a_killed_mirror_is_started_again_once_and_the_run_never_waits_for_it(tmp_path):
    warnings = []
    tracker = tracker_of(tmp_path, warnings=warnings)
    tracker.log(rows_of(0))
    for number in range(1, 3):
        # A process shows as a zombie a moment before it can be waited for, so one look may come too early.
        wait_for(lambda number=number: tracker.mirror.check() or len(fragments(tmp_path)) == number)
        mirror_pid = tracker.mirror.pid
        os.kill(mirror_pid, signal.SIGKILL)
        wait_for(lambda pid=mirror_pid: "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[-1])
        started = time.monotonic()
        tracker.log(rows_of(number))
        assert time.monotonic() - started < 1.0
    wait_for(lambda: tracker.mirror.check() or len(warnings) == 2)
    tracker.close()
    assert "was started again" in warnings[0]
    assert "the run is unaffected" in warnings[1]
    assert len(warnings) == 2
    assert read_rows(tmp_path / "metrics.jsonl") == [*rows_of(0), *rows_of(1), *rows_of(2)]


@pytest.fixture
def silent_server():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("outage", ["refused", pytest.param("silent", marks=pytest.mark.slow), "no login"])
def test_without_a_server_the_run_goes_on_and_is_mirrored_offline(tmp_path, monkeypatch, silent_server, outage):
    if outage != "no login":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{9 if outage == 'refused' else silent_server}")
    warnings = []
    Ledger(tmp_path / "metrics.jsonl").rebuild(rows_of(0))
    started = time.monotonic()
    mirror = Mirror(
        tmp_path,
        WandbConfig(mode="online"),
        run_id="abc123",
        name="a run",
        shown_config={},
        log_path=tmp_path / "wandb.log",
        warn=warnings.append,
        start_seconds=2.0,
    )
    assert time.monotonic() - started < 1.0
    mirror.close()
    assert time.monotonic() - started < 25
    (warning,) = warnings
    assert warning.startswith("Weights & Biases could not start online (")
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in warning
    assert history(tmp_path) == points_of([0])


def test_a_mirror_that_cannot_end_in_time_is_ended_with_one_warning(tmp_path, monkeypatch, silent_server):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent_server}")
    warnings = []
    tracker = tracker_of(tmp_path, mode="online", warnings=warnings)
    tracker.log(rows_of(0))
    wait_for(lambda: fragments(tmp_path))
    started = time.monotonic()
    tracker.mirror.close(timeout_seconds=0.5)
    assert time.monotonic() - started < 2
    assert tracker.mirror.pid is None
    (warning,) = warnings
    assert "did not finish within" in warning
    assert f"wandb sync {fragments(tmp_path)[-1]}" in warning


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


def test_the_run_itself_never_imports_wandb():
    program = "import selftrain.tracking, sys; assert 'wandb' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
