"""What follows from the reports: the best round, what to build upon, when to stop, and the verdict on the whole run.

Pure functions of reports. Validation decides; test prompts never choose anything, so a figure on test is never the
best of several looks at it. A figure on prompts that chose the round, or ended the run, is labelled as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selftrain.config import Config, StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.statistics import Interval, paired_difference
from selftrain.records import Report

# 0.35 - 0.30 is a little under 0.05 in binary.
_ROUNDING = 1e-9

Chosen = Literal["chosen on validation", "the last round"]
ONE_ROUND = "random_selection_shared"
IS_OF_ONE_ROUND = (
    "it starts where main started in that round and draws from main's own candidates, so it does not control for "
    "earlier rounds"
)
AT_MAINS_ROUND = (
    "arms are measured at main's round, which validation chose among main's rounds and not among the arms' own"
)


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


def current_round(reports: Sequence[Report], max_regression: float | None) -> int:
    """The round whose policy is built upon next, by the regression guard: the last one, or the best on validation
    where the last is more than `max_regression` below it. `reports` are main's, from round 0 on; None: no guard."""
    if max_regression is None:
        return reports[-1].round
    values = dict(zip((report.round for report in reports), _on_common_prompts(reports, "validate"), strict=True))
    best, last = best_round(reports), reports[-1].round
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
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    retention: Mapping[int, Mapping[str, float]] | None = None,
    decided_by: Sequence[str] = (),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """The gain of main over round 0 and over each arm at the headline round, each with its paired interval.

    `main` starts at round 0. An arm that was not measured at the headline round is named and not compared. `overrides`
    holds, for arms that are no controls, the knobs that they set otherwise; `retention` the `evaluate/retention/...`
    metrics by round; `decided_by` what `rules_on_validation` names.
    """
    number, chosen = headline_round(main)
    sets = main[-1].outcomes
    set_name = next((name for name in ("test", "validate") if name in sets), None)
    if set_name is None:
        line = "no held-out prompts, so no gain can be claimed: give prompts.validate and prompts.test"
        return Verdict(number, chosen, None, (), (line,))
    lines = [f"headline: round {number}, {chosen}, measured on {set_name} prompts"]
    if number == main[0].round:
        why = (
            "no round was better than round 0 on validation"
            if chosen == "chosen on validation"
            else "nothing but round 0 was measured"
        )
        return Verdict(number, chosen, set_name, (), (*lines, f"{why}, so there is no gain to report"))
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
    lines += [_sentence(gain, set_name, number, (overrides or {}).get(gain.over, {})) for gain in gains]
    lines += _choice(main, number, set_name, gains, decided_by)
    settings = {"confidence": confidence, "resamples": resamples, "seed": seed}
    lines += _retained(retention or {}, _at(main, main[0].round), policy, settings)
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


def _sentence(gain: Gain, set_name: str, number: int, overrides: Mapping[str, Any]) -> str:
    interval = gain.interval
    method = "paired bootstrap" if interval.method == "paired bootstrap" else "paired score interval"
    rates = (
        f"{gain.before:.1%} -> {gain.after:.1%}"
        if gain.over == "round 0"
        else f"{gain.after:.1%} against {gain.before:.1%}"
    )
    what = f"main against {gain.over} ({in_words(overrides)})" if overrides else f"gain of main over {gain.over}"
    text = (
        f"{set_name} pass@1 {rates}: {what} {points(interval.estimate)} points {bounds(interval)} "
        f"({100 * interval.confidence:g} %, {method} over {interval.num_prompts} prompts; one training seed)"
    )
    if interval.left_out:
        text += f"; left out as unscored on one side: {interval.left_out}"
    if gain.over == ONE_ROUND:
        text += f"; that arm is a diagnostic of round {number} alone: {IS_OF_ONE_ROUND}"
    return text if gain.clear else f"{text}; this includes no gain at all"


def _choice(
    main: Sequence[Report], number: int, set_name: str, gains: Sequence[Gain], decided_by: Sequence[str]
) -> list[str]:
    """What the choice of a round does to the figures."""
    if set_name == "test" and "validate" in main[-1].outcomes:
        over_arms = [gain.over for gain in gains if gain.over not in ("round 0", ONE_ROUND)]
        return [AT_MAINS_ROUND] if over_arms and len(main) > 2 else []
    if set_name == "test":
        return []
    best = best_round(main)
    value = f"{_pass_at_1(_at(main, best), set_name):.1%}"
    lines = [f"best round on validation: {best}, pass@1 {value}, chosen on the same prompts and so flattering"]
    if decided_by:
        lines.append(
            f"the same prompts decided how the run went ({', '.join(decided_by)}), so the figures of round {number} "
            "flatter it too; prompts.test would not"
        )
    return lines


def _retained(
    retention: Mapping[int, Mapping[str, float]], first: Report, last: Report, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """What of unrelated abilities was forgotten between two rounds, in words."""
    if not retention:
        return ()
    start, number, confidence = first.round, last.round, settings["confidence"]
    if start not in retention or number not in retention:
        missing = number if start in retention else start
        return (
            f"retention was not measured at round {missing}, so what was forgotten by round {number} is not known "
            "(evaluate.retention_rounds)",
        )
    before, after = retention[start], retention[number]
    where, key = f"retention, round {start} -> {number}", "evaluate/retention/"
    if f"{key}perplexity" in after:
        perplexities = " -> ".join(f"{of[f'{key}perplexity']:.2f}" for of in (before, after))
        text = f"{where}: perplexity of unrelated texts {perplexities}, {after[f'{key}nll_change']:+.3f} nats per token"
        if f"{key}nll_change_low" not in after:
            return (f"{text}; one text alone cannot say how sure that is",)
        low, high = after[f"{key}nll_change_low"], after[f"{key}nll_change_high"]
        said = "some of it was forgotten" if low > 0 else "nothing was forgotten" if high < 0 else "no clear change"
        return (f"{text} [{low:+.3f}, {high:+.3f}] ({100 * confidence:g} %): {said}",)
    change = paired_difference(
        greedy_values(last.outcomes["retention"]),
        greedy_values(first.outcomes["retention"]),
        unmatched="leave_out",
        **settings,
    )
    said = "some of it was forgotten" if change.high < 0 else "it grew" if change.low > 0 else "no clear change"
    rates = " -> ".join(f"{of[f'{key}pass@1']:.1%}" for of in (before, after))
    return (
        f"{where}: pass@1 on unrelated prompts {rates}, {points(change.estimate)} points {bounds(change)} "
        f"({100 * confidence:g} %, paired): {said}",
    )


def in_words(overrides: Mapping[str, Any]) -> str:
    """Knobs with their values: `sample.temperature 1.2, select.top_k 4`."""
    shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def points(share: float) -> str:
    """A difference of shares in points with its sign: 0.435 -> `+43.5`."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def bounds(interval: Interval) -> str:
    """The bounds of a difference of shares in points: `[+36.0, +51.0]`."""
    return f"[{points(interval.low)}, {points(interval.high)}]"


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
