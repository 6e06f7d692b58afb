"""The shipped sweep, as W&B's own agent starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from reading import fragments, history, records, shown
from rows import CONTROL, RUN_ID, points_of, points_of_control, rows_of, tracker_of
from worlds import receipt_of, scripted_recipe

from selftrain.tracking import read_rows, sweep_trial

SWEEP = Path(__file__).parents[2] / "configs" / "sweeps" / "quickstart.yaml"

# The agent itself expands the command and starts it; only the server that hands out trials is missing.
AGENT = """
import json, os, sys, yaml
from wandb.wandb_agent import Agent

sweep, recipe, runs, *trials = sys.argv[1:]
command = yaml.safe_load(open(sweep))["command"]
at = command.index("quickstart")
command[at : at + 1] = [recipe, "--runs-dir", runs]
os.environ["WANDB_SWEEP_ID"] = "sweep1"  # as `wandb agent` does before it makes an Agent
agent = Agent(None, None, sweep_id="sweep1")
agent._sweep_command = command
for trial in trials:
    agent._process_command({"type": "run", "program": "selftrain", **json.loads(trial)})
print(json.dumps({name: process.wait() for name, process in agent._run_processes.items()}))
"""


def test_a_trial_is_told_by_the_id_that_the_agent_gave_it():
    assert sweep_trial({}) is None
    assert sweep_trial({"WANDB_RUN_ID": "mine"}) is None, "a user's own id is no trial"
    assert sweep_trial({"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "abc"}) == "abc"
    assert sweep_trial({"WANDB_SWEEP_ID": "s"}) is None


def test_the_shipped_sweep_maximises_validation_over_knobs_that_there_are():
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["metric"] == {"name": "evaluate/validate/pass@1", "goal": "maximize"}
    assert set(sweep["parameters"]) == {"train.learning_rate", "sample.temperature"}
    for one in sweep["parameters"].values():
        assert 0 < one["min"] < one["max"]


def run_record(fragment):
    """How a fragment's run was announced."""
    return next(record["run"] for record in records(fragment) if "run" in record)


def test_a_trials_controls_stand_beside_the_sweep_under_the_trials_name(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", RUN_ID)
    tracker = tracker_of(tmp_path)
    tracker.log(rows_of(1))
    tracker.close()
    main, control = (run_record(fragment) for fragment in fragments(tmp_path))
    assert (main["run_id"], main["sweep_id"], main.get("run_group")) == (RUN_ID, "sweep1", None)
    assert (control["run_id"], control.get("sweep_id")) == (f"{RUN_ID}-{CONTROL}", None)
    assert control["run_group"] == "a-run"
    assert history(tmp_path) == points_of([1])
    assert history(tmp_path, CONTROL) == points_of_control([1])


@pytest.mark.slow
def test_each_trial_of_the_shipped_sweep_becomes_a_run_of_its_own_under_the_agents_id(tmp_path):
    recipe = scripted_recipe(tmp_path / "recipe", track={"wandb": {"project": "ignored in a sweep"}})
    parameters = yaml.safe_load(SWEEP.read_text())["parameters"]
    settings = {
        f"trial{number}": {name: one[bound] for name, one in parameters.items()}
        for number, bound in enumerate(("min", "max"))
    }
    trials = [
        json.dumps({"run_id": trial, "args": {name: {"value": value} for name, value in values.items()}})
        for trial, values in settings.items()
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the agent starts `python`
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": "of-the-sweep",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", AGENT, str(SWEEP), str(recipe), str(tmp_path / "runs"), *trials],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"trial0": 0, "trial1": 0}, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny-trial0", "tiny-trial1"]
    for trial, values in settings.items():
        run = tmp_path / "runs" / f"tiny-{trial}"
        (fragment,) = fragments(run)
        found = shown(fragment)
        assert (found["run_id"], found["name"], found["project"]) == (trial, f"tiny-{trial}", "of-the-sweep")
        assert found["config"]["train"]["learning_rate"] == values["train.learning_rate"]
        assert found["config"]["sample"]["temperature"] == values["sample.temperature"]
        assert {name: found["config"][name] for name in values} == values, "what the sweep itself calls them"
        last = [row for row in read_rows(run / "metrics.jsonl") if "evaluate/validate/pass@1" in row][-1]
        assert found["summary"]["evaluate/validate/pass@1"] == last["evaluate/validate/pass@1"]
        assert str(values["sample.temperature"]) in str(receipt_of(run, "main/rounds/001/sample-wave-00"))
        started = run_record(fragment)
        assert (started["sweep_id"], started.get("run_group")) == ("sweep1", None)
