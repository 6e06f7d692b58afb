"""What a run may claim: the gains of main over round 0 and over each arm, with their intervals, in numbers and words.

Pure functions of reports. A figure on prompts that chose the round, or ended the run, is labelled as such. Beside
pass@1 stand the value, where answers are graded, and the part of each scorer (`figures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.evaluation import figures
from selftrain.evaluation.decisions import Chosen, DecideBy, best_round, figure_of, headline_round, measured_level
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.spans import difference_of_values
from selftrain.evaluation.statistics import Interval, paired_difference
from selftrain.evaluation.wording import (
    AT_MAINS_ROUND,
    IS_OF_ONE_ROUND,
    ONE_ROUND,
    bounds,
    change,
    change_bounds,
    in_words,
    level,
    named,
    points,
    unit,
)
from selftrain.records import Report


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better main is than something else, on the same prompts. `before` and `after` are the levels of the
    figure (`pass@1`, `value`, `part/<scorer>`) over the prompts that both sides have."""

    over: str
    before: float
    after: float
    interval: Interval
    figure: str = figures.CORRECT

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out a gain of 0."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run may claim: `gains` of main at `round` in pass@1, measured on `set_name`, and how that round was
    chosen; `values` are the same gains in the other figures that there are. `lines` say it in words. Without held-out
    prompts `set_name` is None and there are no gains."""

    round: int
    chosen: Chosen
    set_name: str | None
    gains: tuple[Gain, ...]
    lines: tuple[str, ...]
    values: tuple[Gain, ...] = ()


def headline(
    main: Sequence[Report],
    arms: Mapping[str, Sequence[Report]],
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    retention: Mapping[int, Mapping[str, float]] | None = None,
    decided_by: Sequence[str] = (),
    by: DecideBy = "correct",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """The gain of main over round 0 and over each arm at the headline round, each with its paired interval.

    `main` starts at round 0. An arm that was not measured at the headline round is named and not compared. `overrides`
    holds, for arms that are no controls, the knobs that they set otherwise; `retention` the `evaluate/retention/...`
    metrics by round; `decided_by` what `rules_on_validation` names; `by` is `evaluate.decide_by`, and with `value` that
    is what the sentences begin with.
    """
    number, chosen = headline_round(main, by)
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
    settings = {"confidence": confidence, "resamples": resamples, "seed": seed}
    beside = figures.beside(*(report.outcomes[set_name] for report in (policy, *(of for _, of in others))))
    of_all = [
        _gain(name, policy, report, set_name, figure, settings)
        for figure in (figures.CORRECT, *beside)
        for name, report in others
    ]
    found = [one for one in of_all if one is not None]
    gains, values = ([one for one in found if (one.figure == figures.CORRECT) == is_it] for is_it in (True, False))
    sides = [policy.outcomes[set_name], *(report.outcomes[set_name] for _, report in others)]
    told = figures.told(*sides)
    ordered = sorted(
        (*gains, *(one for one in values if one.figure in told)), key=lambda one: one.figure != figure_of(by)
    )
    lines += [_sentence(gain, set_name, number, (overrides or {}).get(gain.over, {})) for gain in ordered]
    lines += _choice(main, number, set_name, gains, decided_by, by)
    lines += _retained(retention or {}, _at(main, main[0].round), policy, settings)
    return Verdict(number, chosen, set_name, tuple(gains), tuple(lines), tuple(values))


def _gain(
    over: str, policy: Report, other: Report, set_name: str, figure: str, settings: Mapping[str, Any]
) -> Gain | None:
    after, before = (figures.per_prompt(report.outcomes[set_name], figure) for report in (policy, other))
    common = sorted(after.keys() & before.keys())
    if figure != figures.CORRECT and not common:
        return None  # a part that was not asked about any prompt on both sides
    # An answer that could not be scored on one side leaves the pair; the sentence counts those.
    interval = difference_of_values(after, before, unmatched="leave_out", **settings)
    levels = [sum(side[prompt] for prompt in common) / len(common) for side in (before, after)]
    return Gain(over, levels[0], levels[1], interval, figure)


def _sentence(gain: Gain, set_name: str, number: int, overrides: Mapping[str, Any]) -> str:
    interval = gain.interval
    method = "paired bootstrap" if interval.method == "paired bootstrap" else "paired score interval"
    before, after = (level(gain.figure, one) for one in (gain.before, gain.after))
    rates = f"{before} -> {after}" if gain.over == "round 0" else f"{after} against {before}"
    what = f"main against {gain.over} ({in_words(overrides)})" if overrides else f"gain of main over {gain.over}"
    text = (
        f"{set_name} {named(gain.figure)} {rates}: {what} {change(gain.figure, interval.estimate)}"
        f"{unit(gain.figure)} {change_bounds(gain.figure, interval)} "
        f"({100 * interval.confidence:g} %, {method} over {interval.num_prompts} prompts; one training seed)"
    )
    if interval.left_out:
        why = "without it" if gain.figure.startswith(figures.PART) else "as unscored"
        text += f"; left out {why} on one side: {interval.left_out}"
    if gain.over == ONE_ROUND:
        text += f"; that arm is a diagnostic of round {number} alone: {IS_OF_ONE_ROUND}"
    return text if gain.clear else f"{text}; this includes no gain at all"


def _choice(
    main: Sequence[Report],
    number: int,
    set_name: str,
    gains: Sequence[Gain],
    decided_by: Sequence[str],
    by: DecideBy,
) -> list[str]:
    """What the choice of a round does to the figures."""
    if set_name == "test" and "validate" in main[-1].outcomes:
        over_arms = [gain.over for gain in gains if gain.over not in ("round 0", ONE_ROUND)]
        return [AT_MAINS_ROUND] if over_arms and len(main) > 2 else []
    if set_name == "test":
        return []
    best, figure = best_round(main, by=by), figure_of(by)
    value = level(figure, measured_level(_at(main, best), set_name, by))
    lines = [f"best round on validation: {best}, {figure} {value}, chosen on the same prompts and so flattering"]
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
    moved = paired_difference(
        greedy_values(last.outcomes["retention"]),
        greedy_values(first.outcomes["retention"]),
        unmatched="leave_out",
        **settings,
    )
    said = "some of it was forgotten" if moved.high < 0 else "it grew" if moved.low > 0 else "no clear change"
    rates = " -> ".join(f"{of[f'{key}pass@1']:.1%}" for of in (before, after))
    return (
        f"{where}: pass@1 on unrelated prompts {rates}, {points(moved.estimate)} points {bounds(moved)} "
        f"({100 * confidence:g} %, paired): {said}",
    )


def _at(reports: Sequence[Report], number: int) -> Report:
    return next(report for report in reports if report.round == number)
