"""`selftrain doctor`: what this machine offers a run, what is missing, and the step that mends it.

    findings    what a check found
    libraries   Python, selftrain itself, its dependencies and extras
    devices     torch as it is built, GPUs, threads; everything imported in a process of its own
    storage     disks and file systems, by trying what a run needs of them
    outside     the hub, Weights & Biases, launchers
    isolation   the sandbox for code that a model wrote
    recipes     one recipe: its configuration, model, and what only it needs

A check never raises for what it finds and never waits without a limit: a broken installation is a line of the report.
Of keys and tokens it says whether there are any, never which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from selftrain.doctor import devices, isolation, libraries, outside, recipes, storage
from selftrain.doctor.findings import Finding, problem
from selftrain.errors import SelftrainError
from selftrain.reporting.inert import inert

__all__ = ["Finding", "examine", "exit_code", "render", "show_doctor"]


def show_doctor(recipe: str | None, *, runs_dir: Path, as_json: bool) -> int:
    """Print the findings; return the exit code."""
    if as_json:
        findings = list(examine(recipe, runs_dir))
        print(json.dumps({"findings": [asdict(one) for one in findings], "exit_code": exit_code(findings)}, indent=1))
        return exit_code(findings)
    findings = []
    for area, of_area in groupby(examine(recipe, runs_dir), key=lambda one: one.area):
        print(f"{area}", flush=True)
        for one in of_area:
            findings.append(one)
            print(render(one), flush=True)
    print(summary(findings))
    return exit_code(findings)


def examine(recipe: str | None, runs_dir: Path) -> Iterator[Finding]:
    """Every finding, area by area; those of the recipe last."""
    yield from _survived("Python", libraries.python)
    yield from _survived("dependencies", libraries.dependencies)
    yield from _survived("torch", devices.torch_and_imports)
    yield from _survived("extras", libraries.extras)
    yield from _survived("runs", lambda: storage.check(runs_dir))
    yield from _survived("hub", outside.hub)
    yield from _survived("W&B", outside.weights_and_biases)
    yield from _survived("launcher", outside.launcher)
    yield from _survived("sandbox", isolation.check)
    if recipe is not None:
        yield from _survived("recipe", lambda: recipes.check(recipe))


def _survived(area: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the check finds. One that breaks off is a line as well: the others are what the user needs then."""
    try:
        yield from check()
    except Exception as error:
        words = f"this could not be looked at to the end: {type(error).__name__}: {error}"
        yield problem(area, words, "this is a bug in selftrain: please report it", SelftrainError)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a problem; 69 where something needed is missing; else that of the first problem."""
    codes = [one.exit_code for one in findings if one.status == "problem"]
    return 69 if 69 in codes else next(iter(codes), 0)


def render(finding: Finding) -> str:
    """Two spaces, the status, the text; the remedy on a line of its own."""
    line = f"  {finding.status:<8} {inert(finding.text)}"
    return line if finding.remedy is None else f"{line}\n           -> {inert(finding.remedy)}"


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    problems, notes = (sum(one.status == status for one in findings) for status in ("problem", "note"))
    said = f"{problems} problem{'s' * (problems != 1)}" if problems else "no problem"
    return f"{said}, {notes} note{'s' * (notes != 1)}"
