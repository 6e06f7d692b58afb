import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reading import history
from rows import CANARY, CONTROL, RUN_ID, alarm, points_of, points_of_control, rows_of, summary, tracker_of, wait_for

from selftrain.config import TrackConfig
from selftrain.errors import ConfigError
from selftrain.tracking import Ledger, check, read_rows
from selftrain.tracking.accelerate_mirror import MODULES, AccelerateMirror

SUMMARY = [("summary/best_round", 1), ("summary/headline_round", 1), ("summary/gain_over_round_0", 0.25)]


def as_logged(points):
    """(key, step, value) of what `reading.history` gives as (axis, step, key, value)."""
    return sorted((key, step, value) for _, step, key, value in points)


def in_tensorboard(run_dir, arm="main"):
    """Every scalar of an arm's event files, as often as it is there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard" / arm), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    texts = {tag: [one.tensor_proto.string_val[0].decode() for one in events.Tensors(tag)] for tag in tags["tensors"]}
    return sorted((tag, one.step, one.value) for tag in tags["scalars"] for one in events.Scalars(tag)), texts


def test_tensorboard_has_every_arm_as_a_run_with_phases_over_rounds_and_steps_over_global_steps(tmp_path):
    tracker = tracker_of(tmp_path, mode="disabled", also=("tensorboard",))
    for number in range(2):
        tracker.log(rows_of(number)[:-1])
    for number in range(2):
        tracker.log(rows_of(number)[-1:])
    tracker.log([alarm(1), summary(best_round=1, number=1)])
    tracker.close()
    scalars, texts = in_tensorboard(tmp_path)
    assert scalars == sorted([*as_logged(points_of(range(2))), *((key, 1, value) for key, value in SUMMARY)])
    assert texts == {"alarm/no_survivors/text_summary": ["Nothing was right."]}
    assert in_tensorboard(tmp_path, CONTROL) == (as_logged(points_of_control(range(2))), {})
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY.encode() not in written


def test_a_second_attempt_gives_tensorboard_only_what_is_new_after_a_kill_too(tmp_path):
    tracker = tracker_of(tmp_path, mode="disabled", also=("tensorboard",), warnings=[])
    tracker.log(rows_of(0)[:-1])
    state = tmp_path / "tensorboard" / "mirrored.json"
    wait_for(lambda: state.exists() and len(json.loads(state.read_text())["rows"]) == 5, seconds=60)
    os.kill(tracker.mirrors[0].pid, signal.SIGKILL)
    wait_for(lambda: tracker.mirrors[0].check() or tracker.mirrors[0].pid is None)
    tracker = tracker_of(tmp_path, mode="disabled", also=("tensorboard",), committed=rows_of(0)[:-1])
    tracker.log(rows_of(1)[:-1])
    tracker.close()
    assert in_tensorboard(tmp_path)[0] == as_logged(points_of(range(2)))


def trackio(*arguments):
    done = subprocess.run([str(Path(sys.executable).with_name("trackio")), *arguments, "--json"], capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_trackio_has_every_arm_as_a_run_of_its_own_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with socket.create_server(("127.0.0.1", 0)) as wall:  # whatever would go out goes here, and gets no answer
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{wall.getsockname()[1]}")
        committed = []
        for number in range(2):
            tracker = tracker_of(tmp_path, mode="disabled", also=("trackio",), committed=committed, group="both")
            tracker.log(rows_of(number))
            committed += rows_of(number)
            if number:
                tracker.log([summary(best_round=1, number=1)])
            tracker.close()
        wall.settimeout(0)
        with pytest.raises(BlockingIOError):
            wall.accept()
    assert trackio("list", "runs", "--project", "selftrain")["runs"] == ["a-run", f"a-run.{CONTROL}"]
    for run, wanted in (
        ("a-run", [*as_logged(points_of(range(2))), *((key, 1, value) for key, value in SUMMARY)]),
        (f"a-run.{CONTROL}", as_logged(points_of_control(range(2)))),
    ):
        found = trackio("get", "run", "--project", "selftrain", "--run", run)
        assert {key: found["config"][key] for key in ("train.learning_rate", "arm")} == {
            "train.learning_rate": 1e-4,
            "arm": "main" if run == "a-run" else CONTROL,
        }
        assert found["config"]["_Group"] == "both"
        values = [
            (key, one["step"], one["value"])
            for key in found["metrics"]
            for one in trackio("get", "metric", "--project", "selftrain", "--run", run, "--metric", key)["values"]
        ]
        assert sorted(values) == sorted(wanted)


FAKE = """
import time
class Live:
    def __init__(self, **options):
        {init}
    def log_params(self, values): pass
    def log_metric(self, key, value): {log}
    def next_step(self): pass
    def end(self): {end}
"""
METRIC = "class Metric:\n    could_log = staticmethod(lambda value: True)\n"


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A dvclive that does not do what it should."""

    def install(init="pass", log="pass", end="pass"):
        package = tmp_path / "packages" / "dvclive"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(FAKE.format(init=init, log=log, end=end))
        (package / "plots.py").write_text(METRIC)
        monkeypatch.syspath_prepend(str(package.parent))

    return install


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"init": "raise RuntimeError('no disk')"}, "RuntimeError: no disk"),
        ({"init": "time.sleep(60)"}, "dvclive did not start within 1 s"),
        ({"log": "raise RuntimeError('no disk')"}, "RuntimeError: no disk"),
        ({"end": "raise RuntimeError('no disk')"}, "RuntimeError: no disk"),
    ],
)
def test_a_tracker_that_fails_is_one_warning_and_nothing_to_the_run(tmp_path, broken, how, why):
    broken(**how)
    warnings = []
    ledger = Ledger(tmp_path / "metrics.jsonl")
    ledger.append(rows_of(0))
    started = time.monotonic()
    mirror = AccelerateMirror(
        tmp_path,
        "dvclive",
        project="p",
        name="a-run",
        group="a-run",
        shown_config={},
        log_path=tmp_path / "dvclive.log",
        warn=warnings.append,
        start_seconds=1.0,
    )
    assert time.monotonic() - started < 1.0
    mirror.close(60.0)
    ledger.append(rows_of(1))
    mirror.check()
    mirror.close()
    (warning,) = warnings
    assert warning.startswith("the dvclive mirror ended with code ")
    assert why in warning
    assert "the run is unaffected" in warning
    assert read_rows(ledger.path) == [*rows_of(0), *rows_of(1)]
    assert not (tmp_path / "dvclive" / "mirrored.json").exists(), "the next attempt logs all of it"


def test_wandb_and_another_tracker_run_beside_each_other(tmp_path, broken):
    broken(init="raise RuntimeError('no disk')")
    warnings = []
    tracker = tracker_of(tmp_path, also=("dvclive",), warnings=warnings)
    tracker.log(rows_of(0))
    tracker.close()
    assert history(tmp_path) == points_of([0])
    assert len(warnings) == 1
    assert RUN_ID in str(list((tmp_path / "wandb").iterdir()))


def test_a_ranks_environment_does_not_reach_the_mirror(tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    tracker = tracker_of(tmp_path, mode="disabled", also=("tensorboard",))
    tracker.log(rows_of(0))
    tracker.close()
    assert in_tensorboard(tmp_path)[0] == as_logged(points_of([0]))


def test_a_package_that_is_not_installed_is_a_mistake_in_the_config(monkeypatch):
    check(TrackConfig(also=("tensorboard", "trackio")))
    check(TrackConfig())
    monkeypatch.setitem(MODULES, "aim", ("selftrain_has_no_such_module",))
    with pytest.raises(ConfigError, match=r"'aim'.*pip install 'selftrain\[aim\]'"):
        check(TrackConfig(also=("tensorboard", "aim")))


def test_every_tracker_that_can_be_named_has_its_options_and_its_modules():
    from typing import get_args

    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from selftrain.config.running import TrackerName
    from selftrain.tracking.accelerate_process import OPTIONS

    assert set(get_args(TrackerName)) == set(OPTIONS) == set(MODULES) == set(LOGGER_TYPE_TO_CLASS) - {"wandb"}


def test_names_that_mlflow_refuses_are_written_otherwise():
    from selftrain.tracking.accelerate_process import flat, values_of

    row = {**rows_of(1)[-1], "arm": "main"}
    assert values_of(row, "mlflow") == ({"evaluate/test/pass_at_1": 1.5}, 1)
    assert values_of(row, "aim") == ({"evaluate/test/pass@1": 1.5}, 1)
    assert values_of(alarm(1), "aim") == ({}, 1)
    assert flat({"a": {"b": [1, 2], "c": None}, "d": True}) == {"a.b": "[1, 2]", "a.c": "None", "d": True}
