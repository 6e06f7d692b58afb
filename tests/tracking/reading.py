"""Reads back what W&B wrote into the folders of a run: points, summaries, tables and alerts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.tracking.wandb_mirror import fragments

AXES = {"round", "global_step"}


def inspect(fragment: Path, *options: str) -> str:
    """What `wandb leet inspect` says of a fragment; nothing where W&B was killed before it wrote any."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json"]
    files = list(fragment.glob("*.wandb"))
    return subprocess.run([*command, *files], capture_output=True, text=True, check=False).stdout if files else ""


def shown(fragment: Path) -> dict[str, Any]:
    """Name, state, config and summary of a fragment's run."""
    read: dict[str, Any] = json.loads(inspect(fragment, "--summary"))
    return read


def records(fragment: Path) -> Iterator[dict[str, Any]]:
    for line in inspect(fragment).splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def is_of(fragment: Path, arm: str | None) -> bool:
    """Whether it is a fragment of that arm (None: of main), in runs whose id has no dash."""
    _, _, arm_of = fragment.name.partition("run-")[2].partition("-")[2].partition("-")
    return (arm_of or None) == arm


def history(run_dir: Path, arm: str | None = None) -> list[tuple[Any, ...]]:
    """Every number in every fragment of an arm, as often as it is there: (axis, its value, key, value)."""
    points = []
    for fragment in fragments(run_dir):
        if is_of(fragment, arm):
            for item in items(fragment):
                (axis,) = AXES & item.keys()
                points += [(axis, item[axis], key, item[key]) for key in item if isinstance(item[key], int | float)]
    return sorted(point for point in points if point[2] != point[0] and not point[2].startswith(("_", "tables/")))


def items(fragment: Path) -> list[dict[str, Any]]:
    """The history of a fragment, one dictionary per call of `log`."""
    return [record["history"]["item"] for record in records(fragment) if "history" in record]


def tables(run_dir: Path, arm: str | None = None) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The tables that an arm's fragments hold, each as rows by column; one that is there twice is an error."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for fragment in fragments(run_dir):
        for item in items(fragment) if is_of(fragment, arm) else ():
            for key in [key.removesuffix("._type") for key, value in item.items() if value == "table-file"]:
                table = json.loads((fragment / "files" / item[f"{key}.path"]).read_text())
                assert (key, item["round"]) not in found
                found[key, item["round"]] = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return found


def alerts(run_dir: Path, arm: str | None = None) -> list[tuple[str, str]]:
    """Title and text of every alert in an arm's fragments."""
    return [
        (record["alert"]["title"], record["alert"]["text"])
        for fragment in fragments(run_dir)
        if is_of(fragment, arm)
        for record in records(fragment)
        if "alert" in record
    ]
