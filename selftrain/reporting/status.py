"""`selftrain status`: how far a run directory is, as data (`--json`) and as text. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.records import Receipt, Report
from selftrain.reporting.figures import duration, percent
from selftrain.reporting.inert import inert
from selftrain.reporting.tables import aligned


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
) -> dict[str, Any]:
    """What `selftrain status --json` prints.

    `summary` is the run in a few words (name, model, recipe, ...); `planned` lists every phase in the order of work;
    `stopped` says why the run ended before all rounds, if it did. A round is done when all its planned phases are.
    """
    committed = {receipt.key for receipt in receipts}
    left = [] if stopped else [phase for phase in planned if phase.key not in committed]
    arms = list(dict.fromkeys([phase.arm for phase in planned] + [report.arm for report in reports]))
    return {
        "run": dict(summary),
        "state": _state(holder, left),
        "holder": {"pid": holder.pid, "host": holder.host} if holder else None,
        "stopped": stopped,
        "next": {"arm": left[0].arm, "round": left[0].round, "phase": left[0].phase} if left else None,
        "committed_phases": len(receipts),
        "planned_phases": len(planned),
        "seconds": sum(receipt.seconds for receipt in receipts),
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


def render(status: Mapping[str, Any]) -> str:
    """The status as text: the run, its state, the rounds of each arm, the last metrics."""
    lines = aligned([(inert(str(key)), inert(str(value))) for key, value in status["run"].items()], right=())
    lines += ["", _sentence(status)]
    for arm, of_arm in status["arms"].items():
        done = ", ".join(map(str, of_arm["done_rounds"])) or "none"
        lines.append(f"{inert(arm)}: rounds done: {done} (of {', '.join(map(str, of_arm['planned_rounds']))})")
    lines.append(f"{status['committed_phases']} phases committed, {duration(status['seconds'])} of work in all")
    for arm, of_arm in status["arms"].items():
        if of_arm["reports"]:
            last = of_arm["reports"][-1]
            lines += ["", f"last measured: {inert(arm)} · round {last['round']}", *_metric_lines(last["metrics"])]
    return "\n".join(lines)


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


def _metric_lines(metrics: Mapping[str, float]) -> list[str]:
    cells = [(inert(key), percent(value) if is_share(key) else f"{value:,.6g}") for key, value in metrics.items()]
    return [f"  {line}" for line in aligned(sorted(cells), right=(1,))]


def is_share(key: str) -> bool:
    """Whether the metric is a fraction that reads best in percent: pass@k, maj@k and rates."""
    last = key.rsplit("/", 1)[-1]
    return last.endswith("_rate") or "@" in last
