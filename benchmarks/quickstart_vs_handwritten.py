"""Wall time of `selftrain run quickstart` against the same loop written by hand, in turn and repeatedly.

    python benchmarks/quickstart_vs_handwritten.py [--repeats 3] [--rounds 3] [--seed 0] [key.path=value ...]

Both run as whole processes, imports included, on the same model folder, sets of prompts, number of candidates, number
of prompts per round, updates and held-out sets; selftrain's control arms and what it measures beyond greedy answers to
held-out prompts are off, because the loop by hand has neither. The settings of the loop by hand are read from the
recipe, so that they cannot drift apart.
Each pair is one run of either, next to each other in time; the figure is the ratio of a pair and the median of those.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from selftrain.compose import compose
from selftrain.config import Config
from selftrain.models.sources import default_cache_dir, locate
from selftrain.prompts import load

ROOT = Path(__file__).resolve().parents[1]
PLAIN = [
    "arms=[]",
    "evaluate.sampled_rounds=none",
    "evaluate.trained_prompts=0",
    "evaluate.drift_candidates=0",
    "prompts.retention=null",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="key.path=value, for both, where the loop by hand knows the knob")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "quickstart" / "recipe.yaml"))
    parser.add_argument("--out", type=Path, help="write every measurement to this file as JSON")
    args = parser.parse_args()

    overrides = [*PLAIN, f"rounds={args.rounds}", f"seed={args.seed}", *args.overrides]
    composed = compose(args.recipe, overrides=overrides)
    config = composed.config
    sizes = {name: len(one.prompts) for name, one in load(config.prompts, composed.folder).held_out().items()}
    model = locate(config.model, default_cache_dir()).path  # converted before the clock starts
    overrides.append(f"model.path={model}")
    pairs = []
    for repeat in range(args.repeats):
        pair = {"handwritten": handwritten(config, model, sizes), "selftrain": selftrain(args.recipe, overrides)}
        pair["ratio"] = pair["selftrain"]["wall_seconds"] / pair["handwritten"]["wall_seconds"]
        pairs.append(pair)
        for name in ("handwritten", "selftrain"):
            print(f"{repeat + 1}  {line(name, pair[name])}", flush=True)
        print(f"{repeat + 1}  ratio selftrain / handwritten: {pair['ratio']:.3f}", flush=True)
        if args.out:
            args.out.write_text(json.dumps(pairs, indent=2) + "\n")
    ratios = [pair["ratio"] for pair in pairs]
    print(f"median ratio of {len(ratios)}: {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})")


def handwritten(config: Config, model: str, sizes: dict[str, int]) -> dict[str, Any]:
    """One run of the loop by hand, with the recipe's settings."""
    few_shot = "".join(
        f"{one.prompt}{one.completion}{config.prompts.few_shot_separator}" for one in config.prompts.few_shot
    )
    lora = config.train.lora
    rate = config.train.learning_rate
    rates = rate if isinstance(rate, tuple) else (rate,)
    flags: dict[str, Any] = {
        "model": model,
        "seed": config.seed,
        "rounds": config.rounds,
        "few-shot": few_shot,
        "per-round": config.prompts.per_round,
        "num-candidates": config.sample.num_candidates,
        "temperature": config.sample.temperature,
        "max-new-tokens": config.sample.max_new_tokens,
        "max-per-prompt": config.select.max_per_prompt or config.sample.num_candidates,
        "learning-rate": ",".join(map(str, rates)),
        "scheduler": config.train.sft.get("lr_scheduler_type", "linear"),
        "train-batch": config.train.batch_size,
        "epochs": config.train.epochs,
        "lora-r": lora.get("r", 16),
        "lora-alpha": lora.get("lora_alpha", 32),
        "validate-size": sizes["validate"],
        "test-size": sizes["test"],
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "handwritten_loop.py")]
    command += [f"--{name}={value}" for name, value in flags.items() if value is not None]
    command += [] if config.select.dedup == "none" else ["--dedup"]
    with tempfile.TemporaryDirectory() as folder:
        load_before = os.getloadavg()[0]
        wall, output = timed([*command, f"--out={folder}"])
    result = json.loads(output.splitlines()[-1])
    return {
        "wall_seconds": wall,
        "load_before": load_before,
        "seconds": result["seconds"],
        "survivors": [one.get("survivors", 0) for one in result["rounds"]],
        "test": [one["test"] for one in result["rounds"]],
    }


def selftrain(recipe: str, overrides: list[str]) -> dict[str, Any]:
    """One run of selftrain into a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        load_before = os.getloadavg()[0]
        wall, _ = timed([sys.executable, "-m", "selftrain", "run", recipe, *overrides, "--runs-dir", folder])
        receipts = [json.loads(path.read_text()) for path in sorted(Path(folder).rglob("receipts/*.json"))]
    seconds: dict[str, float] = defaultdict(float)
    for receipt in receipts:
        if receipt["phase"] != "round":
            seconds[receipt["phase"]] += receipt["seconds"]
    by_round = sorted(receipts, key=lambda one: one["round"])
    return {
        "wall_seconds": wall,
        "load_before": load_before,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "survivors": [0, *(one["rows"] for one in by_round if one["phase"] == "select")],
        "test": [one["metrics"].get("evaluate/test/pass@1") for one in by_round if one["phase"] == "evaluate"],
    }


def timed(command: list[str]) -> tuple[float, str]:
    """Wall seconds and standard output of a command; stops with its errors when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-4000:]}{done.stdout[-4000:]}")
    return seconds, done.stdout


def line(name: str, run: dict[str, Any]) -> str:
    phases = "  ".join(f"{phase} {seconds:.1f}" for phase, seconds in run["seconds"].items())
    accuracy = ", ".join("-" if value is None else f"{value:.3f}" for value in run["test"])
    return (
        f"{name:<12} {run['wall_seconds']:7.1f} s (load {run['load_before']:.1f})  {phases}  "
        f"survivors {run['survivors']}  test {accuracy}"
    )


if __name__ == "__main__":
    main()
