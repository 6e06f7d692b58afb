"""`selftrain status`: how far a run directory is, as data (`--json`) and as text. Reads nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.records import Receipt, Report
from selftrain.reporting.figures import duration, interval, size
from selftrain.reporting.inert import inert
from selftrain.reporting.tables import Line, RoundRow, aligned, rounds_lines

VALUE = re.compile(r"evaluate/([a-z]+)/value")
PASS_AT = re.compile(r"evaluate/([a-z]+)/((?:sampled_)?pass)@(\d+)")


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """A phase that the config plans; `key` is its receipt's."""

    key: str
    arm: str
    round: int
    phase: str


@dataclass(frozen=True, slots=True)
class Holder:
    """The live process that holds the run directory."""

    pid: int
    host: str


def status(
    summary: Mapping[str, Any],
    planned: Sequence[PlannedPhase],
    receipts: Sequence[Receipt],
    reports: Sequence[Report],
    *,
    holder: Holder | None,
    stopped: str | None = None,
    disk: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What `selftrain status --json` prints.

    `summary` is the run in a few words (name, model, recipe, ...); `planned` lists every phase in the order of work;
    `stopped` says why main ended before all rounds, if it did, of which then none is planned; `disk` is its weight in
    bytes by kind. A round is done when all its planned phases are.
    """
    committed = {receipt.key for receipt in receipts}
    left = [phase for phase in planned if phase.key not in committed]
    arms = list(dict.fromkeys([phase.arm for phase in planned] + [report.arm for report in reports]))
    return {
        "run": dict(summary),
        "state": _state(holder, left),
        "holder": {"pid": holder.pid, "host": holder.host} if holder else None,
        "stopped": stopped,
        "next": {"arm": left[0].arm, "round": left[0].round, "phase": left[0].phase} if left else None,
        "committed_phases": len(receipts),
        "planned_phases": len(planned),
        "seconds": sum(receipt.seconds for receipt in receipts if receipt.phase != "round"),
        "disk": dict(disk or {}),
        "arms": {arm: _arm(arm, planned, committed, reports) for arm in arms},
    }


def _state(holder: Holder | None, left: Sequence[PlannedPhase]) -> str:
    if holder:
        return "running"
    return "waiting" if left else "finished"


def _arm(arm: str, planned: Sequence[PlannedPhase], committed: set[str], reports: Sequence[Report]) -> dict[str, Any]:
    rounds = {phase.round for phase in planned if phase.arm == arm}
    open_rounds = {phase.round for phase in planned if phase.arm == arm and phase.key not in committed}
    measured = sorted((report for report in reports if report.arm == arm), key=lambda report: report.round)
    return {
        "planned_rounds": sorted(rounds),
        "done_rounds": sorted(rounds - open_rounds),
        "reports": [{"round": report.round, "metrics": dict(report.metrics)} for report in measured],
    }


def render(status: Mapping[str, Any], rounds: Sequence[RoundRow] = ()) -> list[Line]:
    """The status as lines: its state, the table of rounds, then what is done, what was measured last, what it weighs.

    Of the metrics only those that people ask for first; all of them are in the data.
    """
    name = inert(str(status["run"].get("name", "")))
    lines = [Line(f"{name}: {_sentence(status)}" if name else _sentence(status), "head")]
    if rounds:
        lines += [Line(""), *rounds_lines(rounds)]
    lines.append(Line(""))
    for arm, of_arm in status["arms"].items():
        done = ", ".join(map(str, of_arm["done_rounds"])) or "none"
        lines.append(Line(f"{inert(arm)}: rounds done: {done} (of {', '.join(map(str, of_arm['planned_rounds']))})"))
    for arm, of_arm in status["arms"].items():
        lines += [Line(text) for text in _headline(arm, of_arm["reports"])]
    lines.append(Line(f"{status['committed_phases']} phases committed, {duration(status['seconds'])} of work in all"))
    if status["disk"]:
        lines.append(Line(weight_words(status["disk"])))
    rest = [(inert(str(key)), inert(str(value))) for key, value in status["run"].items() if key != "name"]
    return [*lines, *(Line(text) for text in aligned(rest, right=()))]


def weight_words(disk: Mapping[str, int]) -> str:
    """`1.2 MB on disk: adapters 1.0 MB, candidates 150.0 kB`: the kinds by weight, heaviest first."""
    kinds = sorted(((value, kind) for kind, value in disk.items() if kind != "total" and value), reverse=True)
    return f"{size(disk['total'])} on disk: {', '.join(f'{inert(kind)} {size(value)}' for value, kind in kinds)}"


def _sentence(status: Mapping[str, Any]) -> str:
    following = status["next"]
    where = f"{inert(following['arm'])} · round {following['round']} · {following['phase']}" if following else ""
    if status["state"] == "running":
        holder = status["holder"]
        at = f": {where}" if where else ""
        return f"running (pid {holder['pid']} on {inert(holder['host'])}){at}"
    if following:
        return f"not running; next: {where} (start the same command again)"
    return f"finished{': ' + inert(status['stopped']) if status['stopped'] else ''}"


def _headline(arm: str, reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The last round that was measured, in a line: greedy pass@1, sampled pass@k for the largest k, retention."""
    found: dict[str, tuple[int, str]] = {}
    for report in reports:
        for what, text in _figures(report["metrics"]):
            found[what] = report["round"], text  # of the latest round that has it
    if not found:
        return
    last = max(number for number, _ in found.values())
    words = [
        f"{what} {text}" + (f" (round {number})" if number < last else "") for what, (number, text) in found.items()
    ]
    yield f"last measured: {inert(arm)} · round {last}: {', '.join(words)}"


def _figures(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    largest: dict[tuple[str, str], int] = {}
    for key in metrics:
        if match := PASS_AT.fullmatch(key):
            found = match[1], match[2]
            largest[found] = max(largest.get(found, 0), int(match[3]))
    for (name, kind), k in largest.items():
        key = f"evaluate/{name}/{kind}@{k}"
        what = f"{inert(name)} {kind.replace('_', ' ')}@{k}"
        yield what, interval(metrics[key], metrics.get(f"{key}_low"), metrics.get(f"{key}_high"))
    for key in metrics:
        if match := VALUE.fullmatch(key):
            bounds = (metrics.get(f"{key}{end}") for end in ("_low", "_high"))
            low, high = (None if one is None else f"{one:.3f}" for one in bounds)
            yield f"{inert(match[1])} value", f"{metrics[key]:.3f}" + (f" [{low}, {high}]" if low and high else "")
    if "evaluate/retention/perplexity" in metrics:
        yield "retention perplexity", f"{metrics['evaluate/retention/perplexity']:.2f}"
