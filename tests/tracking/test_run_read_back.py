"""A whole run mirrored offline, killed and resumed: read back, it holds every round's metrics on the round axis."""

import json
import subprocess
import sys
from pathlib import Path

from worlds import scripted_recipe, selftrain

from selftrain.tracking import read_rows


def inspect(fragment, *options):
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json", str(fragment)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def points_of(fragment):
    """(axis, its value, key) of every point in a fragment's history."""
    for line in inspect(fragment).splitlines():
        item = json.loads(line).get("history", {}).get("item", {})
        for axis in {"round", "global_step"} & item.keys():
            yield from ((axis, item[axis], key) for key in item if key != axis and not key.startswith("_"))


def test_a_killed_and_resumed_run_holds_every_round_on_the_round_axis(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    recipe = scripted_recipe(tmp_path / "recipe", track={"wandb": {"mode": "offline", "project": "tests"}})
    selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT="150")
    done = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "tiny"
    fragments = sorted(run.glob("wandb/*run-*/*.wandb"))
    assert len(fragments) == 2
    assert len({path.stem.removeprefix("run-") for path in fragments}) == 1, "one run id across resumes"
    found = {point for fragment in fragments for point in points_of(fragment)}
    wanted = set()
    for row in read_rows(run / "metrics.jsonl"):
        if row["arm"] == "main" and row["phase"] != "summary" and "global_step" not in row:
            names = ("arm", "round", "phase", "key")
            wanted |= {("round", row["round"], key) for key in row if key not in names}
    assert {number for _, number, _ in wanted} == {0, 1, 2, 3}
    assert wanted <= found
    steps = {point for point in found if point[0] == "global_step"}
    assert {("global_step", 1, "train_step/loss"), ("global_step", 8, "train_step/loss")} <= steps
    assert "best_round" in inspect(fragments[-1], "--summary")
