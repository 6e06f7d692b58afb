"""What W&B costs a run in wall time, with a server that answers and with one that hangs at the worst moments."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from reading import history
from rows import CONTROL, wait_for
from test_run_read_back import numbers_in
from wandb_server import WandbServer
from worlds import command, scripted_recipe, selftrain

from selftrain.tracking import read_rows

SECONDS_PER_ANSWER = 0.4
MOST = 0.02


def slow_recipe(folder):
    """The scripted recipe, in which each answer takes its time as a model's does, without using a core."""
    recipe = scripted_recipe(folder, track={"wandb": {"mode": "online", "project": "tests"}})
    answers = folder / "answers.py"
    slow = f"    __import__('time').sleep({SECONDS_PER_ANSWER})\n    luck ="
    answers.write_text(answers.read_text().replace("    luck =", slow))
    return recipe


def after(run, arm, number, phase):
    """Whether that is in the ledger."""
    path = run / "metrics.jsonl"
    return any((row["arm"], row["round"], row["phase"]) == (arm, number, phase) for row in read_rows(path))


def no_mirror_works(run):
    """Whether the mirrors of all attempts have ended: one may go on for a while after its run."""
    with (run / "wandb" / "mirror.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def timed(recipe, runs, environment):
    """Wall seconds of a whole run, in a process of its own."""
    started = time.monotonic()
    arguments = command("run", recipe, "--runs-dir", runs)
    with (runs.parent / f"{runs.name}.txt").open("w") as log:
        done = subprocess.run(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, (runs.parent / f"{runs.name}.txt").read_text()
    return time.monotonic() - started


@pytest.mark.slow
def test_an_outage_at_any_time_costs_less_than_two_percent_of_the_run_and_no_row(tmp_path):
    hangs = {"start": None, "middle": ("main", 2, "score"), "end": (CONTROL, 3, "train")}
    recipe = slow_recipe(tmp_path / "recipe")
    servers = {name: WandbServer() for name in ("never", *hangs)}
    seconds, threads = {}, []
    for name in ("disabled", *servers):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_API_KEY": "0" * 40}
        environment |= {"WANDB_MODE": "disabled"} if name == "disabled" else {"WANDB_BASE_URL": servers[name].url}
        if name == "start":
            servers[name].hang()

        def measure(name=name, environment=environment):
            seconds[name] = timed(recipe, tmp_path / name, environment)

        threads.append(threading.Thread(target=measure))
        threads[-1].start()
        time.sleep(3)  # not all at once: loading takes a core for a second or two
    for name in ("middle", "end"):
        wait_for(lambda name=name: after(tmp_path / name / "tiny", *hangs[name]), seconds=900)
        servers[name].hang()
    for thread in threads:
        thread.join()
    growth = {name: value / seconds["disabled"] - 1 for name, value in seconds.items()}
    print(json.dumps({"seconds": seconds, "growth": growth}, indent=1), file=sys.stderr)
    assert max(growth.values()) < MOST, growth
    for name, server in servers.items():
        run = tmp_path / name / "tiny"
        wait_for(lambda run=run: no_mirror_works(run), seconds=90)
        server.revive()
        again = selftrain(
            "run", recipe, "--runs-dir", run.parent, WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40, timeout=600
        )
        assert again.returncode == 0, again.stderr
        rows = read_rows(run / "metrics.jsonl")
        (main_id,) = {json.loads((run / "config.json").read_text())["wandb_run_id"]}
        for arm, run_id in (("main", main_id), (CONTROL, f"{main_id}-{CONTROL}")):
            wanted = sorted(numbers_in(rows, arm))
            found = history(run, None if arm == "main" else arm) if name == "start" else server.points(run_id)
            assert found == wanted, (name, arm)
        server.die()
