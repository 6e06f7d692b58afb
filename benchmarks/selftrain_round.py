"""One round by selftrain in a warm process; prints its seconds as JSON.

Imports, the model's loading and round 0 (greedy answers to the held-out prompts) come before the clock, as they do in
`handwritten_loop.py`. What is timed is what a user gets: receipts, published files, metrics, the scorer's process.

    python benchmarks/selftrain_round.py RECIPE --work FOLDER [key.path=value ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import selftrain.training.sft  # noqa: F401  imports TRL, which would otherwise be part of the training's seconds
from selftrain import tables
from selftrain.compose import compose
from selftrain.launch import run_recipe
from selftrain.prompts import load
from selftrain.records import Candidate, Survivor

# What the loop by hand has not: arms, and measures beyond greedy answers to one held-out set.
PLAIN = (
    "rounds=1",
    "arms=[]",
    "evaluate.sampled_rounds=none",
    "evaluate.trained_prompts=0",
    "evaluate.drift_candidates=0",
    "prompts.retention=null",
    "prompts.test=null",
    "name=round",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the run")
    args = parser.parse_args()
    overrides = [*PLAIN, *args.overrides]
    with contextlib.redirect_stdout(sys.stderr):
        run_recipe(args.recipe, layers=(), overrides=overrides, runs_dir=args.work, fork=None)
    print(json.dumps(measured(args.work / "round", args.recipe, overrides)))


def measured(run: Path, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Seconds by part, and what the loop by hand needs to do the same: prompts, and the examples that were chosen."""
    folder = run / "arms" / "main" / "rounds" / "001"
    receipts = [json.loads(path.read_text()) for path in (folder / "receipts").glob("*.json")]
    seconds = {one["phase"]: one["seconds"] for one in receipts}
    answers = _read(folder / "evaluation" / "greedy" / "validate" / "candidates", Candidate)
    candidates = _read(folder / "candidates", Candidate)
    survivors = _read(folder / "survivors", Survivor)
    composed = compose(recipe, overrides=overrides)
    sets = load(composed.config.prompts, composed.folder)
    references = {one.id: one.reference for one in (*sets.train.prompts, *sets.held_out()["validate"].prompts)}
    (evaluated,) = (one["metrics"] for one in receipts if one["phase"] == "evaluate")
    return {
        "seconds": {
            "sample": seconds["sample"],
            "select": seconds["score"] + seconds["select"],
            "train": seconds["train"],
            "evaluate": seconds["evaluate"],
            "whole": seconds["round"],
        },
        "lengths": [len(one.completion_token_ids) for one in candidates],
        "evaluated_lengths": [len(one.completion_token_ids) for one in answers],
        "accuracy": evaluated["evaluate/validate/pass@1"],
        "prompts": _prompts(candidates, references),
        "held_out": _prompts(answers, references),
        "examples": [
            {
                "input_ids": list(one.token_ids),
                "labels": [
                    token if trained else -100 for token, trained in zip(one.token_ids, one.label_mask, strict=True)
                ],
            }
            for one in survivors
        ],
    }


def _read(folder: Path, kind: Any) -> list[Any]:
    return [one for path in sorted(folder.rglob("*.parquet")) for one in tables.read(path, kind)]


def _prompts(candidates: list[Candidate], references: dict[str, str | None]) -> list[dict[str, Any]]:
    first = {one.prompt_id: one for one in reversed(candidates)}
    order = dict.fromkeys(one.prompt_id for one in candidates)
    return [{"ids": list(first[name].prompt_token_ids), "reference": references[name]} for name in order]


if __name__ == "__main__":
    main()
