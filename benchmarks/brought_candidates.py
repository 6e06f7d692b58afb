"""Selection from candidates that exist: seconds and peak memory for 100,000 and for 1,000,000, beside pandas.

    python benchmarks/brought_candidates.py [--candidates 100000 1000000] [--block-size 1000] [--out brought.json]

A Parquet file has a row per candidate: prompt, completion (40 words), value; ten of each prompt, of which 5 % repeat
another one of the prompt to the letter. From it the same rows are chosen twice: of equal texts the best value stays,
values from 0.3 on, of these the four best of each prompt.

    pandas     read_parquet, sort_values, drop_duplicates, groupby.head, to_parquet
    selection  the select phase of `selftrain curate`, from the committed blocks of candidates and scores to the
               survivors, with a reason for everybody who left, metrics and a receipt
    curate     the whole command: candidates and scores into blocks, selection, the exported data set

Each runs in a process of its own, whose peak memory is the kernel's (ru_maxrss). Ends with an error unless pandas and
selftrain chose the same rows. CPU seconds are those of all threads of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

PER_PROMPT = 10
THRESHOLD, CAP = 0.3, 4


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Write the rows, a thousand prompts at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string()), ("value", pa.float64())])
    generator = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    with pq.ParquetWriter(options.folder / "rows.parquet", schema, compression="zstd") as writer:
        for first in range(0, options.candidates[0] // PER_PROMPT, 1000):
            prompts, completions = [], []
            for prompt in range(first, min(first + 1000, options.candidates[0] // PER_PROMPT)):
                texts = [" ".join(row) for row in words[generator.integers(0, len(words), (PER_PROMPT, 40))]]
                for number in np.flatnonzero(generator.random(PER_PROMPT) < 0.05).tolist():
                    texts[number] = texts[(number + 1) % PER_PROMPT]
                prompts += [f"Question {prompt}: what would you say of {prompt}?"] * PER_PROMPT
                completions += texts
            writer.write_table(pa.table([prompts, completions, generator.random(len(prompts))], schema=schema))
    (options.folder / "recipe.yaml").write_text(
        json.dumps(
            {
                "name": "brought",
                "rounds": 1,
                "model": {"path": "none"},
                "prompts": {"train": {"path": "rows.parquet", "columns": {"reference": None}}, "format": "text"},
                "sample": {"policy": {"file": "rows.parquet"}, "block_size": options.block_size},
                "score": {"scorers": [{"name": "given", "params": {"column": "value"}}]},
                "select": {"threshold": THRESHOLD, "dedup": "exact", "max_per_prompt": CAP},
                "arms": [],
            }
        )
    )
    return {"bytes": (options.folder / "rows.parquet").stat().st_size}


def pandas(options: argparse.Namespace) -> dict[str, Any]:
    """What one would write in a notebook."""
    import pandas as pd

    started = clocks()
    rows = pd.read_parquet(options.folder / "rows.parquet")
    rows = rows.sort_values("value", ascending=False, kind="stable").drop_duplicates(["prompt", "completion"])
    rows = rows[rows["value"] >= THRESHOLD].groupby("prompt", sort=False).head(CAP)
    rows.to_parquet(options.folder / "pandas.parquet")
    return {**since(started), "kept": len(rows)}


def curate(options: argparse.Namespace) -> dict[str, Any]:
    """The whole command."""
    from selftrain.curating import curate_recipe

    started = clocks()
    curate_recipe(str(options.folder / "recipe.yaml"), layers=[], overrides=[], runs_dir=options.folder)
    receipts = options.folder / "brought/arms/main/rounds/001/receipts"
    seconds = {name: json.loads((receipts / f"{name}.json").read_text())["seconds"] for name in PHASES}
    return {**since(started), "phases": seconds}


PHASES = ("sample-wave-00", "score-wave-00", "select-improve-00")


def select(options: argparse.Namespace) -> dict[str, Any]:
    """The select phase once more, as after a kill before its receipt."""
    from selftrain.arms import arms_of
    from selftrain.compose import compose
    from selftrain.sandboxing import NOTHING_TYPED
    from selftrain.starting import joined, under_way

    receipts = options.folder / "brought/arms/main/rounds/001/receipts"
    (receipts / "select-improve-00.json").unlink()
    composed = compose(str(options.folder / "recipe.yaml"))
    with (
        joined(composed.config) as world,
        under_way(world, composed, runs_dir=options.folder, typed=NOTHING_TYPED, command="curate") as phases,
    ):
        main = next(arms_of(phases.config))
        main.policies[0] = phases.rooms.base_policy
        scored = phases.gather(main, 1, main.policies[0])
        before, started = peak(), clocks()
        receipt = phases.select(main, 1, scored)
    return {**since(started), "mebibytes_before": before, "kept": receipt.rows}


def clocks() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def since(started: tuple[float, float]) -> dict[str, float]:
    return {
        "seconds": time.monotonic() - started[0],
        "cpu_seconds": time.process_time() - started[1],
        "mebibytes": peak(),
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def is_equal(folder: Path) -> bool:
    """Whether both chose the same rows."""
    import pyarrow.parquet as pq

    keys = [("value", "ascending"), ("completion", "ascending")]
    by_pandas = pq.read_table(folder / "pandas.parquet", columns=["prompt", "completion", "value"])
    survivors = folder / "brought/arms/main/rounds/001/survivors/improve-00/survivors.parquet"
    ours = pq.read_table(survivors, columns=["prompt_text", "text", "value"])
    ours = ours.rename_columns(["prompt", "completion", "value"])
    return bool(ours.sort_by(keys).combine_chunks().equals(by_pandas.sort_by(keys).combine_chunks().cast(ours.schema)))


SIDES = {"make": make, "pandas": pandas, "curate": curate, "select": select}


def measured(side: str, candidates: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--candidates", str(candidates), "--folder", str(folder)]
    command += ["--block-size", str(options.block_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--block-size", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    found: dict[int, dict[str, Any]] = {}
    for candidates in options.candidates:
        print(f"{candidates:,} candidates, load {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory(prefix="brought-") as name:
            found[candidates] = {side: measured(side, candidates, Path(name), options) for side in SIDES}
            if not is_equal(Path(name)):
                raise SystemExit("pandas and selftrain chose different rows")
        for side in ("pandas", "select", "curate"):
            one = found[candidates][side]
            print(f"  {side:8} {one['seconds']:8.1f} s {one['cpu_seconds']:8.1f} s CPU {one['mebibytes']:8.0f} MiB")
        ours, theirs = found[candidates]["select"], found[candidates]["pandas"]
        times = {name: ours[name] / theirs[name] for name in ("seconds", "cpu_seconds", "mebibytes")}
        print(
            f"  select took {times['seconds']:.1f} times the seconds of pandas ({times['cpu_seconds']:.1f} times its "
            f"CPU seconds) in {times['mebibytes']:.2f} times the memory; {ours['mebibytes_before']:.0f} MiB of its "
            "peak were there before, with the prompts"
        )
    if len(found) > 1:
        few, many = min(found), max(found)
        times = {
            side: found[many][side]["cpu_seconds"] / found[few][side]["cpu_seconds"]
            for side in ("pandas", "select", "curate")
        }
        words = ", ".join(f"{side} x{number:.1f}" for side, number in times.items())
        print(f"{many / few:g} times as many candidates: CPU seconds {words}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
