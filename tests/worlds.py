"""Small complete runs: a recipe folder written on the spot, run in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ANSWERS = '''
import zlib


def answer(prompt, seed, policy_round):
    """Right more often after every round. Equal seeds give equal answers; the seed of greedy answers is 0."""
    luck = (seed or zlib.crc32(prompt.id.encode())) % 10
    right = prompt.reference
    return right if luck < 3 + 2 * policy_round else str(int(right) + 1 + luck % 3)
'''


def scripted_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe without a model: 12 training, 6 validation and 6 test prompts, three rounds, a control arm."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answers.py").write_text(ANSWERS)
    for name, start, count in (("train", 0, 12), ("validate", 100, 6), ("test", 200, 6)):
        rows = [{"prompt": f"what comes after {n}?", "reference": str(n + 1)} for n in range(start, start + count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe: dict[str, Any] = {
        "name": "tiny",
        "model": {"path": "none"},
        "prompts": {"train": "train.jsonl", "validate": "validate.jsonl", "test": "test.jsonl", "format": "text"},
        "sample": {
            "engine": "scripted",
            "params": {"function": "answers.py:answer"},
            "num_candidates": 4,
            "max_new_tokens": 8,
            "block_size": 4,
        },
        "score": {"scorers": ["exact"]},
        "train": {"trainer": "scripted", "batch_size": 4, "init_from": "previous"},
        "evaluate": {"num_samples": 4, "ks": [1, 2, 4], "block_size": 4, "resamples": 200},
        "arms": ["random_selection"],
    }
    return write_recipe(folder, recipe, changes)


def model_recipe(folder: Path, model: Path, **changes: Any) -> Path:
    """The same with a tiny real model: tokens are sampled, and an adapter is trained, for real (and badly)."""
    scripted_recipe(folder)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["model"] = {"path": str(model)}
    recipe["sample"] = {"num_candidates": 4, "max_new_tokens": 6, "block_size": 4}
    recipe["score"] = {"scorers": ["verifier.py:even_length"], "max_unscored_rate": 0.5}
    recipe["select"] = {"finish_reasons": ["stop_token", "stop_string", "length"], "max_per_prompt": 2}
    recipe["train"] = {"batch_size": 4, "init_from": "previous", "learning_rate": 1e-3, "lora": {"r": 4}}
    (folder / "verifier.py").write_text(
        'def even_length(text):\n    """A random model meets it half of the time."""\n    return len(text) % 2 == 0\n'
    )
    return write_recipe(folder, recipe, changes)


def write_recipe(folder: Path, recipe: dict[str, Any], changes: dict[str, Any]) -> Path:
    """Write recipe.yaml with sections updated by `changes` (a mapping updates, None removes, the rest replaces)."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(recipe.get(key), dict):
            recipe[key] = {**recipe[key], **value}
        elif value is None:
            recipe.pop(key, None)
        else:
            recipe[key] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "selftrain", *map(str, arguments)]


def selftrain(*arguments: str | Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=env, check=False)


def results_of(run: Path) -> dict[str, Any]:
    """What two equal runs agree on: every published file's bytes, receipts and metrics without timings."""
    from selftrain.tracking.ledger import read, without_timings

    found: dict[str, Any] = {}
    for path in sorted(run.glob("arms/**/*")):
        name = str(path.relative_to(run))
        if path.is_file() and path.suffix != ".json":
            found[name] = path.read_bytes()
        elif path.is_file() and path.parent.name == "receipts":
            receipt = json.loads(path.read_text())
            found[name] = {**receipt, "seconds": None, "metrics": without_timings(receipt["metrics"])}
        elif path.is_file():
            found[name] = json.loads(path.read_text())
    # In order of commits, which differs where an arm was there before main went on (forks, extensions).
    rows = [without_timings(row) for row in read(run / "metrics.jsonl")]
    found["metrics.jsonl"] = sorted(rows, key=lambda row: (row["key"], row.get("global_step", 0)))
    found["verdict.json"] = json.loads((run / "verdict.json").read_text())
    return found


def run_here(recipe: Path, *overrides: str, runs_dir: Path) -> Path:
    """Run in this process, without a terminal's output; return the run directory."""
    from selftrain.compose import compose
    from selftrain.launch import run_recipe

    run_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir, fork=None)
    return runs_dir / compose(str(recipe), overrides=overrides).config.name


def receipt_of(run: Path, key: str) -> dict[str, Any]:
    folder, _, name = key.rpartition("/")
    receipt: dict[str, Any] = json.loads((run / "arms" / folder / "receipts" / f"{name}.json").read_text())
    return receipt


def ranks(recipe: Path, *overrides: str, runs_dir: Path, count: int = 2, **environment: str) -> subprocess.Popen[str]:
    """Start a run on several ranks, as a user would with torchrun; its output is one text."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    words = ["-m", "selftrain", "run", str(recipe), *overrides, "--runs-dir", str(runs_dir)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [*launcher, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
    )


def pid_of_rank(launcher: subprocess.Popen[str], rank: int) -> int | None:
    """The process of that rank, if it runs."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == launcher.pid and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    return None
