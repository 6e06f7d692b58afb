"""From histories to the tables and sentences that people read: the round's table, the last table, the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selftrain.arms import Arm
from selftrain.config import ScoreConfig
from selftrain.evaluation import best_of_k
from selftrain.evaluation.figures import keys_of
from selftrain.evaluation.verdicts import Verdict
from selftrain.records import Receipt, Report
from selftrain.reporting.figures import count, duration, interval, is_graded, percent, verdict
from selftrain.reporting.tables import RoundRow, Share
from selftrain.scoring import truth_of
from selftrain.tracking import Row

FUNNEL = (
    *("scored", "finished", "answered", "length", "quality", "decontaminate", "dedup", "near_duplicates"),
    *("rule", "max_per_prompt"),
)


def round_rows(arm: Arm, round_number: int) -> Iterator[tuple[str, str, str]]:
    """The table of one round: (phase, what, value)."""
    of_phase, metrics = arm.of_round(round_number), arm.metrics(round_number)
    if "sample" in of_phase:
        yield "sample", "candidates", count(metrics["sample/candidates"])
        yield "sample", "truncated", percent(metrics["sample/truncated_rate"])
    if "score" in of_phase and is_unscored(metrics):
        yield "score", "scored", "none of them"
    elif "score" in of_phase:
        yield "score", _correct_words(arm, metrics), percent(metrics["score/correct_rate"])
        if any(map(is_graded, values := _values(metrics))):
            low, middle, high = values
            yield "score", "value", f"median {middle:.3g}, 10th to 90th percentile {low:.3g} to {high:.3g}"
        yield "score", "prompts solved", percent(metrics["score/prompts_solved_rate"])
        if "score/truth_share" in metrics:
            yield "score", "right in truth", percent(metrics["score/truth_share"])
        if "score/label_accuracy" in metrics:
            yield "score", "labels right", percent(metrics["score/label_accuracy"])
    yield "select", "funnel", funnel_words(metrics)
    if "train" not in of_phase:  # a round that is only curated
        yield from _times(of_phase)
        return
    yield "train", "examples", count(metrics.get("select/training_examples", 0.0))
    if metrics.get("train/skipped"):
        yield "train", "skipped", "nothing to train on"
    else:
        yield "train", "steps", count(metrics["train/steps"])
        yield "train", "loss", f"{metrics['train/loss']:.4f}"
    report = arm.reports.get(round_number)
    for name in report.outcomes if report is not None else ():
        assert report is not None
        share = share_of(report, name)
        if share is not None:
            yield "evaluate", f"{name} pass@1", interval(*share)
        if (value := report.metrics.get(f"evaluate/{name}/value")) is not None:
            low, high = (report.metrics[f"evaluate/{name}/value_{end}"] for end in ("low", "high"))
            yield "evaluate", f"{name} value", f"{value:.3f} [{low:.3f}, {high:.3f}]"
    yield from _times(of_phase)


def is_unscored(metrics: Mapping[str, float]) -> bool:
    """Whether not one candidate of the round has a value, so that no share of them is right or wrong."""
    return metrics.get("score/unscored_rate") == 1.0


def way_on(metrics: Mapping[str, float]) -> str:
    """What to do where a selection keeps too little, by its metrics."""
    if metrics.get("select/scored") == 0.0:
        return "none of the candidates could be scored: mend what judges them (score.scorers)"
    return "lower the threshold, or sample more candidates"


def _values(metrics: Mapping[str, float]) -> list[float]:
    names = ("score/value_p10", "score/value_p50", "score/value_p90")
    return [metrics[name] for name in names] if all(name in metrics for name in names) else []


def _correct_words(arm: Arm, metrics: Mapping[str, float]) -> str:
    """What the share of candidates is that count as correct: of graded values, those from a bound up; of a vote's,
    those that agree with it."""
    config = arm.config.score
    if any(map(is_graded, _values(metrics))):
        return f"value of {config.correct_at:g} or more"
    return "correct" if truth_of(config)[1] is None else "agree with vote"


def scored_words(config: ScoreConfig, metrics: Mapping[str, float]) -> str:
    """What scoring found, on one line: `61.4% correct`; of graded values, which need not be right or wrong, `median
    value 0.91`."""
    if is_unscored(metrics):
        return "none could be scored"
    if any(map(is_graded, values := _values(metrics))):
        return f"median value {values[1]:.3g}"
    agreeing = "correct" if truth_of(config)[1] is None else "agree with the vote"
    return f"{metrics['score/correct_rate']:.1%} {agreeing}"


def right_words(config: ScoreConfig, candidates: Iterable[Mapping[str, Any]]) -> str:
    """What candidates are that count as correct, in words."""
    if any(is_graded(one["value"]) for one in candidates):
        return f"correct (score.correct_at {config.correct_at:g})"
    return "right" if truth_of(config)[1] is None else "voted for"


def verdict_of(config: ScoreConfig, score: Mapping[str, Any]) -> str:
    """What is said of a candidate, a row of the table of scores, with what a scorer that is only looked at says against
    it; nothing of one without a score."""
    name, labels = truth_of(config)
    value, correct = score.get("value"), score.get("correct")
    known = json.loads(score["parts"]).get(name) if name is not None and score.get("parts") else None
    truth = ""
    if known in (0.0, 1.0) and correct is not None and (is_graded(value) or bool(known) != correct):
        truth = f"{'right' if known else 'wrong'} by {name}"
    return verdict(value, correct, config.correct_at, truth, by_vote=labels is not None)


def _times(of_phase: Mapping[str, Receipt]) -> Iterator[tuple[str, str, str]]:
    for one in of_phase.values():
        yield "time", one.phase, duration(one.seconds)


def funnel_steps(metrics: Mapping[str, float]) -> dict[str, float]:
    """How many candidates were left after each step of a selection, in the order of the steps, `sampled` first."""
    left = {"sampled": metrics["select/candidates"]}
    names = [key.removeprefix("select/") for key in metrics]  # in the order of the steps, which is not always the same
    of_filters = [name for name in names if name.startswith("filter/")]
    steps = [name for name in names if name in (*FUNNEL, *of_filters)]
    return left | {name.removeprefix("filter/"): metrics[f"select/{name}"] for name in steps}


def funnel_words(metrics: Mapping[str, float]) -> str:
    """`512 sampled > 480 scored > 170 rule`: how many were left after each step, and what of the data was added."""
    if "select/candidates" not in metrics:
        return f"{count(metrics['select/kept'])} demonstrations"
    mixed = metrics.get("select/from_seed_data", 0.0)
    steps = " > ".join(f"{count(value)} {name}" for name, value in funnel_steps(metrics).items())
    return steps + (f", and {count(mixed)} of seed_data" if mixed else "")


def share_of(report: Report | None, name: str) -> Share | None:
    """Greedy pass@1 with its bounds."""
    key = f"evaluate/{name}/pass@1"
    if report is None or key not in report.metrics:
        return None
    return report.metrics[key], report.metrics[f"{key}_low"], report.metrics[f"{key}_high"]


def final_rows(arms: Sequence[Arm], best: int) -> list[RoundRow]:
    """The table of all rounds of all arms; `best` is main's promoted round, which is marked where it was
    chosen."""
    return [round_row(arm, number, best) for arm in arms for number in sorted(arm.policies)]


def round_row(arm: Arm, number: int, best: int) -> RoundRow:
    """A round of an arm in the table of all rounds."""
    metrics: dict[str, float] = {}
    seconds = 0.0
    for key, receipt in arm.receipts.items():
        if key.startswith(arm.folder(number) + "/") and receipt.phase != "round":
            metrics |= receipt.metrics
            seconds += receipt.seconds if receipt.key == key else 0.0  # what main did is in main's row
    report = arm.reports.get(number)
    return RoundRow(
        arm=arm.name,
        round=number,
        validate=share_of(report, "validate"),
        test=share_of(report, "test"),
        acceptance=None if is_unscored(metrics) else metrics.get("score/correct_rate"),
        kept=int(metrics["select/kept"]) if "select/kept" in metrics else None,
        steps=int(metrics["train/steps"]) if "train/steps" in metrics else None,
        seconds=seconds,
        is_best=chooses(arm) and number == best and (best == 0 or has_trained(arm, best)),
    )


def chooses(arm: Arm) -> bool:
    """Whether a best round is chosen: only among main's, and only on prompts.validate."""
    return arm.main is None and arm.config.prompts.validate_ is not None


def has_trained(arm: Arm, last: int) -> bool:
    """Whether any round up to that one has trained: without any, its policy is the one that the run began with."""
    return any(one.phase == "train" and bool(one.files) and one.round <= last for one in arm.receipts.values())


def retention_of(arm: Arm) -> dict[int, Mapping[str, float]]:
    """The metrics of the rounds at which retention was measured."""
    key = "evaluate/retention/"
    return {
        number: report.metrics
        for number, report in arm.reports.items()
        if any(name.startswith(key) for name in report.metrics)
    }


def verdict_data(verdict: Verdict, best: int) -> dict[str, Any]:
    """verdict.json: what the run may claim, as data and in words. `best` is the promoted round."""
    return {"best_round": best, **asdict(verdict)}


def summary_row(arm: Arm, best: int, verdict: Verdict) -> Row:
    """The last row of the ledger: the best round and the gains with their bounds."""
    row: dict[str, Any] = {"arm": arm.name, "round": max(arm.policies), "phase": "summary", "key": "summary"}
    row["summary/best_round"] = best
    row["summary/headline_round"] = verdict.round
    for gain in verdict.gains:
        name = f"summary/gain_over_{gain.over.replace(' ', '_')}"
        row |= {name: gain.interval.estimate, f"{name}_low": gain.interval.low, f"{name}_high": gain.interval.high}
    keys = keys_of(dict.fromkeys(gain.figure for gain in verdict.values))
    for gain in verdict.values:
        name = f"summary/{keys[gain.figure]}_gain_over_{gain.over.replace(' ', '_')}"
        row |= {name: gain.interval.estimate, f"{name}_low": gain.interval.low, f"{name}_high": gain.interval.high}
    return row


def verifier_lines(arm: Arm, confidence: float) -> tuple[str, ...]:
    """What the last verifier that was measured is worth, in words."""
    for report in reversed(arm.reports_in_order()):
        set_name = "test" if "test" in report.outcomes else "validate"
        if lines := best_of_k.sentences(report.metrics, report.round, set_name, confidence=confidence):
            return lines
    return ()


def places(run: Path, arm: Arm, best: int) -> list[tuple[str, str]]:
    """Where everything is, as (what, path)."""
    adapter = arm.policies[best].adapter
    none = f"none: nothing was trained up to round {best}, so that its policy is the base model"
    if not best and any(has_trained(arm, number) for number in arm.policies):
        none = "none: no round was better than the base model"
    which = "best adapter" if chooses(arm) else "last adapter"
    found = [(which, adapter if adapter is not None else none)]
    if adapter is not None and Path(adapter).is_relative_to(run):
        made_in = Path(adapter).parent.parent  # of an earlier round, where this one had no survivors
        learned = made_in / "survivors" / "improve-00" / "survivors.parquet"
        found.append(("what it learned from", str(learned)))
    verifiers = sorted(one for one, receipt in arm.receipts.items() if receipt.phase == "verifier" and receipt.files)
    found += [("verifier", str(run / name / "adapter")) for name in verifiers[-1:]]
    return [*found, ("every metric", str(run / "metrics.jsonl")), ("verdict", str(run / "verdict.json"))]
