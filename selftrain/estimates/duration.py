"""Seconds of a run, by the rates of an earlier one; nothing without one."""

from __future__ import annotations

from selftrain.config import Config
from selftrain.estimates.amounts import Amounts
from selftrain.estimates.measured import Measured
from selftrain.estimates.work import Work

PHASE_OF = {"greedy": "evaluate", "sampled": "evaluate-sampled", "retention": "evaluate-retention"}


def seconds(config: Config, work: Work, amounts: Amounts) -> dict[str, float | None]:
    """Seconds by phase; None for what the earlier run has not done either."""
    before = amounts.measured
    found: dict[str, float | None] = dict.fromkeys(("sample", "score", "select", "train", "evaluate"))
    if before is None:
        return found
    candidates = [one for one in work.askings if one.kind == "candidates"]
    answers = sum(one.answers for one in candidates)
    rates = {
        "sample": (
            before.seconds_per("sample", lambda one: one.metrics.get("sample/tokens", 0.0)),
            sum(amounts.sampled_tokens(one) for one in candidates if one.is_drawn_here),
        ),
        "score": (before.seconds_per("score", lambda one: float(one.rows)), float(answers)),
        "select": (
            before.seconds_per("select", lambda one: one.metrics.get("select/candidates", 0.0)),
            float(sum(one.candidates for one in work.trainings if one.has_selection)),
        ),
        "train": (
            before.seconds_per("train", lambda one: one.metrics.get("train/input_tokens", 0.0)),
            sum(map(amounts.trained_tokens, work.trainings)),
        ),
    }
    found |= {name: rate * amount if rate is not None else None for name, (rate, amount) in rates.items()}
    found["evaluate"] = _evaluation(work, before)
    rounds = len({(one.arm, one.round) for one in work.trainings})
    return {**found, "overhead": rounds * before.overhead_seconds()}


def _evaluation(work: Work, before: Measured) -> float | None:
    """By the answer; of sampled ones, by as many per prompt as then."""
    total = 0.0
    for asking in work.askings:
        if asking.kind == "candidates":
            continue
        per_prompt = before.seconds_per(PHASE_OF[asking.kind], lambda one: float(one.rows))
        if per_prompt is None:
            return None
        then = int(before.config.get("evaluate", {}).get("num_samples") or 1) if asking.kind == "sampled" else 1
        total += per_prompt / then * asking.answers
    if work.texts:
        per_text = before.seconds_per("evaluate-retention", lambda one: float(one.rows))
        if per_text is None:
            return None
        total += per_text * len(work.texts) * len(work.text_rounds)
    return total
