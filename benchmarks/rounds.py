"""Pairs of rounds, by hand and by selftrain, each in a fresh process, in turn; their seconds and ratios.

A process of its own for each: neither side inherits the other's memory, thread pools or patched modules. Which side
goes first alternates, because a machine warms up and others come and go. selftrain's first round says what both train
on, so that updates and tokens are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PARTS = ("sample", "select", "train", "evaluate", "whole")
SIDES = ("handwritten", "selftrain")


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every such benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--repeats", type=int, default=3, help="pairs")
    made.add_argument("--out", type=Path, help="write every measurement to this file as JSON")
    return made


def compare(recipe: str, overrides: Sequence[str], job: dict[str, Any], *, repeats: int, out: Path | None) -> None:
    """Measure and print. `job` has what `handwritten_loop.py` needs beyond prompts and examples."""
    pairs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        pair: dict[str, Any] = {"load_before": os.getloadavg()[0]}
        for side in SIDES if repeat % 2 else SIDES[::-1]:
            pair[side] = _selftrain(recipe, overrides) if side == "selftrain" else _handwritten(job)
            if not pairs and side == "selftrain":
                job = {**job, **{name: pair[side][name] for name in ("prompts", "held_out", "examples")}}
                print(_workload(job))
        for name in ("prompts", "held_out", "examples"):
            if pair["selftrain"].pop(name) != job[name]:
                raise SystemExit(f"{name}: two runs of selftrain with one seed differ; the rounds are not comparable")
        pair["ratio"] = {
            name: pair["handwritten"]["seconds"][name] / pair["selftrain"]["seconds"][name] for name in PARTS
        }
        pairs.append(pair)
        print(_lines(repeat + 1, pair), flush=True)
        if out:
            out.write_text(json.dumps(pairs, indent=1) + "\n")
    print(_medians(pairs))


def _selftrain(recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        return _child("selftrain_round.py", recipe, *overrides, "--work", work)


def _handwritten(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "job.json"
        path.write_text(json.dumps(job))
        return _child("handwritten_loop.py", str(path))


def _child(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-4000:]}{done.stdout[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _workload(job: dict[str, Any]) -> str:
    prompts = [len(one["ids"]) for one in job["prompts"]]
    trained = [len(one["input_ids"]) for one in job["examples"]]
    answers = [sum(label >= 0 for label in one["labels"]) for one in job["examples"]]
    return (
        f"{len(prompts)} prompts ({_spread(prompts)} tokens) x {job['num_candidates']}; both train on the same "
        f"{len(trained)} examples ({_spread(trained)} tokens, of which {_spread(answers)} are trained), batches of "
        f"{job['train_batch']}; {len(job['held_out'])} held-out prompts, greedily"
    )


def _spread(lengths: Sequence[int]) -> str:
    """Minimum, quartiles and maximum."""
    if len(lengths) < 2:
        return str(list(lengths))
    quartiles = statistics.quantiles(lengths, n=4, method="inclusive")
    return "/".join(f"{one:.0f}" for one in (min(lengths), *quartiles, max(lengths)))


def _lines(number: int, pair: dict[str, Any]) -> str:
    lines = [f"pair {number} (load before {pair['load_before']:.1f})" + "".join(f"{name:>10}" for name in PARTS)]
    for side in SIDES:
        seconds = "".join(f"{pair[side]['seconds'][name]:10.2f}" for name in PARTS)
        lengths = _spread(pair[side]["lengths"])
        held_out = _spread(pair[side]["evaluated_lengths"])
        lines.append(
            f"  {side:<24}{seconds}   tokens sampled {sum(pair[side]['lengths'])} ({lengths}), "
            f"held-out {sum(pair[side]['evaluated_lengths'])} ({held_out}), accuracy {pair[side]['accuracy']:.2f}"
        )
    return "\n".join([*lines, f"  {'times as fast':<24}" + "".join(f"{pair['ratio'][name]:10.2f}" for name in PARTS)])


def _medians(pairs: Sequence[dict[str, Any]]) -> str:
    lines = [f"medians of {len(pairs):<15}" + "".join(f"{name:>10}" for name in PARTS)]
    for side in SIDES:
        seconds = [statistics.median(pair[side]["seconds"][name] for pair in pairs) for name in PARTS]
        lines.append(f"  {side:<24}" + "".join(f"{one:10.2f}" for one in seconds))
    ratios = [[pair["ratio"][name] for pair in pairs] for name in PARTS]
    lines.append(f"  {'times as fast':<24}" + "".join(f"{statistics.median(one):10.2f}" for one in ratios))
    lines.append(f"  {'from':<24}" + "".join(f"{min(one):10.2f}" for one in ratios))
    lines.append(f"  {'to':<24}" + "".join(f"{max(one):10.2f}" for one in ratios))
    return "\n".join(lines)
