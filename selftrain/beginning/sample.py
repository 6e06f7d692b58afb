"""The example that is written where no data are given: additions of two-digit numbers, as the quick start has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain.compose import shipped
from selftrain.plugins import load_function

SIZES = {"train": 1000, "validate": 100, "test": 200}
# In none of the sets.
SHOWN = {"prompt": "28 + 57 =", "completion": " 85"}
# Of recipes/quickstart, where they are measured; with SmolLM2-135M-Instruct alone.
MEASURED: dict[str, dict[str, Any]] = {
    "sample": {"num_candidates": 4, "temperature": 0.7},
    "select": {"rule": "threshold", "dedup": "none", "max_per_prompt": 2},
    "train": {"init_from": "previous", "learning_rate": [1e-3, 5e-4, 2.5e-4], "batch_size": 8, "lora": {"r": 16}},
    "evaluate": {"num_samples": 4, "ks": [1, 4]},
    "alarms": {"truncated_rate": 0.1},
}
PER_ROUND = 128
TOKENS = 8


def rows() -> dict[str, list[dict[str, str]]]:
    """The sets by name, as {question, answer}. No problem is in two of them, in either order of its numbers."""
    problems = shipped("recipes") / "quickstart" / "problems.py"
    found = {name: load_function(f"{problems}:{name}", Path())(size=size) for name, size in SIZES.items()}
    return {
        name: [{"question": f"{one['a']} + {one['b']} =", "answer": one["reference"]} for one in of_set]
        for name, of_set in found.items()
    }
