"""What follows from the reports: the best round, when to stop, and the verdict on the whole run.

Pure functions of reports. Validation decides; test prompts never choose anything, so a figure on test is never the
best of several looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from selftrain.config import StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.statistics import Interval, paired_difference
from selftrain.records import Report

# 0.35 - 0.30 is a little under 0.05 in binary.
_ROUNDING = 1e-9

Chosen = Literal["chosen on validation", "the last round"]


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better main is than something else, on the same prompts. `before` and `after` are pass@1 over the
    prompts that both sides have."""

    over: str
    before: float
    after: float
    interval: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out a gain of 0."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run may claim: `gains` of main at `round`, measured on `set_name`, and how that round was chosen.
    `lines` say it in words. Without held-out prompts `set_name` is None and there are no gains."""

    round: int
    chosen: Chosen
    set_name: str | None
    gains: tuple[Gain, ...]
    lines: tuple[str, ...]


def best_round(reports: Sequence[Report], set_name: str = "validate", min_gain: float = 0.0) -> int:
    """The round with the highest greedy pass@1 on the set, round 0 included; of equals the earliest. With `min_gain`,
    a later round counts as better only where it is at least so much above the best before it."""
    values = _on_common_prompts(reports, set_name)
    best, highest = reports[0].round, values[0]
    for report, value in zip(reports[1:], values[1:], strict=True):
        if value > highest and value - highest >= min_gain - _ROUNDING:
            best, highest = report.round, value
    return best


def should_stop(reports: Sequence[Report], stop: StopConfig, *, seconds: float, sampled_tokens: float) -> str | None:
    """Why no further round should start, in plain words, or None. `reports` are main's, from round 0 on; `seconds`
    and `sampled_tokens` are totals of the run's phases."""
    if stop.target is not None:
        value = _pass_at_1(reports[-1], "validate")
        if value >= stop.target - _ROUNDING:
            return f"pass@1 on validation is {value:.1%}, at or above stop.target {stop.target:.1%}"
    if stop.patience is not None:
        best = best_round(reports, min_gain=stop.min_gain)
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


def headline_round(reports: Sequence[Report]) -> tuple[int, Chosen]:
    """The round that a run's verdict is about: the best validated one where test prompts remain to report it on,
    else the last. On prompts that chose it, a best round would flatter itself."""
    sets = reports[-1].outcomes
    if "validate" in sets and "test" in sets:
        return best_round(reports), "chosen on validation"
    return reports[-1].round, "the last round"


def headline(
    main: Sequence[Report],
    arms: Mapping[str, Sequence[Report]],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """The gain of main over round 0 and over each control arm at the headline round, each with its paired interval.
    `main` starts at round 0. An arm that was not measured at that round is named and not compared."""
    number, chosen = headline_round(main)
    sets = main[-1].outcomes
    set_name = next((name for name in ("test", "validate") if name in sets), None)
    if set_name is None:
        line = "no held-out prompts, so no gain can be claimed: give prompts.validate and prompts.test"
        return Verdict(number, chosen, None, (), (line,))
    lines = [f"headline: round {number}, {chosen}, measured on {set_name} prompts"]
    if number == main[0].round:
        lines.append("no round was better than round 0 on validation, so there is no gain to report")
        return Verdict(number, chosen, set_name, (), tuple(lines))
    others = [("round 0", main[0])]
    for name, reports in arms.items():
        at_round = [report for report in reports if report.round == number and set_name in report.outcomes]
        others += [(name, report) for report in at_round]
        if not at_round:
            lines.append(f"arm {name} was not measured on {set_name} at round {number}, so it is not compared")
    policy = _at(main, number)
    gains = tuple(
        _gain(name, policy, report, set_name, confidence=confidence, resamples=resamples, seed=seed)
        for name, report in others
    )
    lines += [_sentence(gain, set_name) for gain in gains]
    if set_name == "validate":
        best = best_round(main)
        value = f"{_pass_at_1(_at(main, best), set_name):.1%}"
        lines.append(f"best round on validation: {best}, pass@1 {value}, chosen on the same prompts and so flattering")
    return Verdict(number, chosen, set_name, gains, tuple(lines))


def _gain(
    over: str, policy: Report, other: Report, set_name: str, *, confidence: float, resamples: int, seed: int
) -> Gain:
    after, before = (greedy_values(report.outcomes[set_name]) for report in (policy, other))
    # An answer that could not be scored on one side leaves the pair; the sentence counts those.
    interval = paired_difference(
        after, before, confidence=confidence, resamples=resamples, seed=seed, unmatched="leave_out"
    )
    common = sorted(after.keys() & before.keys())
    shares = [sum(side[prompt] for prompt in common) / len(common) for side in (before, after)]
    return Gain(over, shares[0], shares[1], interval)


def _sentence(gain: Gain, set_name: str) -> str:
    interval = gain.interval
    bounds = f"[{_points(interval.low)}, {_points(interval.high)}]"
    method = "paired bootstrap" if interval.method == "paired bootstrap" else "paired score interval"
    rates = (
        f"{gain.before:.1%} -> {gain.after:.1%}"
        if gain.over == "round 0"
        else f"{gain.after:.1%} against {gain.before:.1%}"
    )
    text = (
        f"{set_name} pass@1 {rates}: gain of main over {gain.over} {_points(interval.estimate)} points {bounds} "
        f"({100 * interval.confidence:g} %, {method} over {interval.num_prompts} prompts; one training seed)"
    )
    if interval.left_out:
        text += f"; left out as unscored on one side: {interval.left_out}"
    return text if gain.clear else f"{text}; this includes no gain at all"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _at(reports: Sequence[Report], number: int) -> Report:
    return next(report for report in reports if report.round == number)


def _on_common_prompts(reports: Sequence[Report], set_name: str) -> list[float]:
    """Greedy pass@1 of each report over the prompts that all could score: a round whose hard prompts timed out must
    not look better for it."""
    scored = [greedy_values(report.outcomes.get(set_name, ())) for report in reports]
    common = set.intersection(*(set(one) for one in scored))
    if not common:
        return [_pass_at_1(report, set_name) for report in reports]
    return [sum(one[prompt] for prompt in common) / len(common) for one in scored]


def _pass_at_1(report: Report, set_name: str) -> float:
    key = f"evaluate/{set_name}/pass@1"
    if key not in report.metrics:
        raise DataError(
            f"the report of arm {report.arm}, round {report.round} has no {key}, which a decision needs; "
            f"give prompts.{set_name}"
        )
    return report.metrics[key]
