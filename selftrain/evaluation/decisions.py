"""What follows from the reports while a run goes on: the best round, what to build upon, when to stop, which round the
verdict is about.

Pure functions of reports. Validation decides; test prompts never choose anything, so a figure on test is never the
best of several looks at it. `by` is `evaluate.decide_by`: the share of right greedy answers, or their mean value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from selftrain.config import Config, StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.figures import CORRECT, VALUE, per_prompt
from selftrain.evaluation.wording import level
from selftrain.records import Report

# 0.35 - 0.30 is a little under 0.05 in binary.
_ROUNDING = 1e-9

Chosen: TypeAlias = Literal["chosen on validation", "the last round"]
DecideBy: TypeAlias = Literal["correct", "value"]


def best_round(
    reports: Sequence[Report], set_name: str = "validate", min_gain: float = 0.0, by: DecideBy = "correct"
) -> int:
    """The round with the highest greedy pass@1 (or mean value) on the set, round 0 included; of equals the earliest.
    With `min_gain`, a later round counts as better only where it is at least so much above the best before it."""
    values = _on_common_prompts(reports, set_name, by)
    best, highest = reports[0].round, values[0]
    for report, value in zip(reports[1:], values[1:], strict=True):
        if value > highest and value - highest >= min_gain - _ROUNDING:
            best, highest = report.round, value
    return best


def current_round(reports: Sequence[Report], max_regression: float | None, by: DecideBy = "correct") -> int:
    """The round whose policy is built upon next, by the regression guard: the last one, or the best on validation
    where the last is more than `max_regression` below it. `reports` are main's, from round 0 on; None: no guard."""
    if max_regression is None:
        return reports[-1].round
    values = dict(zip((report.round for report in reports), _on_common_prompts(reports, "validate", by), strict=True))
    best, last = best_round(reports, by=by), reports[-1].round
    return best if values[best] - values[last] > max_regression + _ROUNDING else last


def rules_on_validation(config: Config) -> tuple[str, ...]:
    """The knobs in use by which validation steers a run or ends it, beside choosing its best round."""
    init_from = config.train.init_from
    in_use = {
        "stop.patience": config.stop.patience is not None,
        "stop.target": config.stop.target is not None,
        "stop.max_regression": config.stop.max_regression is not None,
        "alarms.stop_on": bool({"memorising", "entropy_collapse"} & set(config.alarms.stop_on)),
        "train.init_from: best": "best" in (init_from if isinstance(init_from, tuple) else (init_from,)),
    }
    return tuple(name for name, is_used in in_use.items() if is_used)


def should_stop(
    reports: Sequence[Report], stop: StopConfig, *, seconds: float, sampled_tokens: float, by: DecideBy = "correct"
) -> str | None:
    """Why no further round should start, in plain words, or None. `reports` are main's, from round 0 on; `seconds`
    and `sampled_tokens` are totals of the run's phases."""
    if stop.target is not None:
        figure, value = figure_of(by), measured_level(reports[-1], "validate", by)
        if value >= stop.target - _ROUNDING:
            bar = level(figure, stop.target)
            return f"{figure} on validation is {level(figure, value)}, at or above stop.target {bar}"
    if stop.patience is not None:
        best = best_round(reports, min_gain=stop.min_gain, by=by)
        since = sum(1 for report in reports if report.round > best)
        if since >= stop.patience:
            return f"{since} rounds without a new best on validation since round {best} (stop.patience {stop.patience})"
    if stop.max_hours is not None and seconds >= stop.max_hours * 3600:
        return f"the run's phases took {seconds / 3600:.2f} hours, at or above stop.max_hours {stop.max_hours:g}"
    if stop.max_sampled_tokens is not None and sampled_tokens >= stop.max_sampled_tokens:
        return (
            f"{sampled_tokens:,} tokens were sampled, at or above stop.max_sampled_tokens {stop.max_sampled_tokens:,}"
        )
    return None


def headline_round(reports: Sequence[Report], by: DecideBy = "correct") -> tuple[int, Chosen]:
    """The round that a run's verdict is about: the best validated one where test prompts remain to report it on,
    else the last. On prompts that chose it, a best round would flatter itself."""
    sets = reports[-1].outcomes
    if "validate" in sets and "test" in sets:
        return best_round(reports, by=by), "chosen on validation"
    return reports[-1].round, "the last round"


def figure_of(by: DecideBy) -> str:
    """The figure that validation decides by."""
    return VALUE if by == "value" else CORRECT


def measured_level(report: Report, set_name: str, by: DecideBy) -> float:
    """The level of the figure in a report. Raises DataError where the set was not measured."""
    if by == "value":
        values = per_prompt(report.outcomes.get(set_name, ()), VALUE)
        if values:
            return sum(values.values()) / len(values)
    elif (key := f"evaluate/{set_name}/{CORRECT}") in report.metrics:
        return report.metrics[key]
    raise DataError(
        f"the report of arm {report.arm}, round {report.round} has no evaluate/{set_name}/{figure_of(by)}, which a "
        f"decision needs; give prompts.{set_name}"
    )


def _on_common_prompts(reports: Sequence[Report], set_name: str, by: DecideBy) -> list[float]:
    """The figure of each report over the prompts that all could score: a round whose hard prompts timed out must not
    look better for it."""
    scored = [per_prompt(report.outcomes.get(set_name, ()), figure_of(by)) for report in reports]
    common = set.intersection(*(set(one) for one in scored))
    if not common:
        return [measured_level(report, set_name, by) for report in reports]
    return [sum(one[prompt] for prompt in common) / len(common) for one in scored]
