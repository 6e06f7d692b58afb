"""What several seeds of one recipe say together: how far a figure moves with the seed, with the prompts, and with both.

Seeds and prompts are crossed: every seed answers every prompt. Three intervals are kept apart, because they answer
three questions: would other seeds show this on these prompts (Student's t over the seeds' figures); would these seeds
show it on other prompts (bootstrap over prompts of the mean over seeds); and would other seeds show it on other
prompts. The last is of a two-way random effects model, with the mean squares of seeds, of prompts and of what is
left, as for several readers of the same cases (Hillis 2007, Statistics in Medicine 26:596). Its quantile is not
Satterthwaite's, which for 95 % holds the truth only 92 times in 100 with three seeds and 87 with two where the seeds
differ much, but the weighted mean of the t and the normal one (Cochran 1964, Biometrics 20:191), and it is never
narrower than one of the other two intervals. It holds the truth 95 to 98 times in 100, and errs on the wide side where
seeds and prompts matter alike, as so few seeds leave open which of them matters more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from selftrain.errors import DataError
from selftrain.evaluation import across_seeds
from selftrain.evaluation.across_seeds import AcrossSeeds, Measured
from selftrain.evaluation.decisions import Chosen, DecideBy, figure_of, headline_round
from selftrain.evaluation.figures import CORRECT, Values, per_prompt
from selftrain.evaluation.spans import UNIT, Span, span_of
from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference
from selftrain.records import Report

# Rewards that other seeds reach may be beyond all that were seen.
_ENDLESS = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class SeedsVerdict:
    """What the seeds of one recipe may claim together: `levels` and `gains` of main at each seed's headline round
    (`rounds` follows `seeds`) in pass@1, `values` both in the other figures that there are; `lines` say it in words."""

    seeds: tuple[int, ...]
    rounds: tuple[int, ...]
    chosen: Chosen
    set_name: str
    levels: tuple[AcrossSeeds, ...]
    gains: tuple[AcrossSeeds, ...]
    lines: tuple[str, ...]
    values: tuple[AcrossSeeds, ...] = ()


def measured(
    seed: int,
    main: Sequence[Report],
    arms: Mapping[str, Sequence[Report]],
    set_name: str | None = None,
    *,
    figure: str = CORRECT,
    by: DecideBy = "correct",
) -> Measured:
    """What a run measured of a figure at its headline round on `set_name` (None: test, or validate where there is no
    test). `by` is `evaluate.decide_by`.

    `main` starts at round 0. Raises DataError where main was not measured on the set.
    """
    number, chosen = headline_round(main, by)
    held_out = [name for name in ("test", "validate") if name in main[-1].outcomes]
    name = set_name or next(iter(held_out), None)
    if name not in held_out:
        there = " and ".join(held_out) or "none"
        raise DataError(
            f"seed {seed} was not measured on {name or 'held-out'} prompts (held-out sets that were: {there}); "
            "give prompts.validate and prompts.test"
        )

    def at_round(reports: Sequence[Report], wanted: int) -> Values | None:
        found = [report for report in reports if report.round == wanted and name in report.outcomes]
        return per_prompt(found[0].outcomes[name], figure) if found else None

    of_arms = {arm: values for arm, reports in arms.items() if (values := at_round(reports, number)) is not None}
    start, of_main = at_round(main, main[0].round), at_round(main, number)
    if start is None or of_main is None:
        raise DataError(f"seed {seed}: round 0 and round {number} were not both measured on {name} prompts")
    return Measured(seed, number, chosen, name, start, of_main, of_arms, figure)


def verdict(
    runs: Sequence[Measured],
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    decided_by: Sequence[str] = (),
    beside: Sequence[Sequence[Measured]] = (),
    by: DecideBy = "correct",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> SeedsVerdict:
    """All figures of one recipe over its seeds. `overrides`, `decided_by` and `by` are as in `verdicts.headline`;
    `beside` are the runs again for each other figure, of which one that not all seeds have is left out.

    Raises DataError where a seed comes twice, the runs were measured on different sets, or no prompt is common.
    """
    seeds, names = [run.seed for run in runs], sorted({run.set_name for run in runs})
    if len(set(seeds)) < len(seeds):
        raise DataError(f"seeds {', '.join(map(str, seeds))}: a seed comes twice; leave out the repetition")
    if len(names) != 1:
        raise DataError(f"the seeds were measured on different sets ({', '.join(names)}); choose one that all have")
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    levels, gains = _of_figure(runs, settings)
    values = [_of_figure(other, settings) for other in beside if _has_common_prompts(other)]
    of_all = [(gains, levels), *((gained, reached) for reached, gained in values)]
    lines = across_seeds.heading(runs, decided_by)
    for gained, reached in sorted(of_all, key=lambda one: one[0][0].figure != figure_of(by)):
        for one in (*gained, *reached):
            lines += across_seeds.sentences(one, runs, (overrides or {}).get(one.what, {}))
    return SeedsVerdict(
        seeds=tuple(seeds),
        rounds=tuple(run.round for run in runs),
        chosen=runs[0].chosen,
        set_name=names[0],
        levels=tuple(levels),
        gains=tuple(gains),
        lines=tuple(lines),
        values=tuple(one for reached, gained in values for one in (*reached, *gained)),
    )


def _of_figure(runs: Sequence[Measured], settings: Mapping[str, Any]) -> tuple[list[AcrossSeeds], list[AcrossSeeds]]:
    """The levels and the gains of a figure."""
    given = {**settings, "figure": runs[0].figure}
    start, main = {run.seed: run.start for run in runs}, {run.seed: run.main for run in runs}
    arms = {
        arm: {run.seed: run.arms[arm] for run in runs if run.arms.get(arm)}
        for arm in dict.fromkeys(arm for run in runs for arm in run.arms)
    }
    levels = [level("round 0", start, **given), level("main", main, **given)]
    gains = [gain("round 0", main, start, **given)]
    for arm, values in arms.items():
        levels.append(level(arm, values, **given))
        gains.append(gain(arm, {number: main[number] for number in values}, values, **given))
    return levels, gains


def _has_common_prompts(runs: Sequence[Measured]) -> bool:
    """Whether any prompt has the figure in all runs, at every side: a part is not asked about every answer."""
    sides = [side for run in runs for side in (run.start, run.main, *run.arms.values())]
    return bool(set.intersection(*(set(side) for side in sides)))


def level(
    what: str,
    values: Mapping[int, Values],
    *,
    figure: str = CORRECT,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> AcrossSeeds:
    """A level over seeds; `values` by seed. Raises DataError where the seeds have no prompt in common."""
    matrix, left_out = _crossed(values)
    matrix, span = _scaled(matrix)
    over_prompts = interval_of_mean(matrix.mean(axis=0), confidence=confidence, resamples=resamples, seed=seed)
    ends = (0.0, 1.0) if span == UNIT else _ENDLESS
    found = _across(what, matrix, tuple(values), replace(over_prompts, left_out=left_out), is_gain=False, ends=ends)
    return _moved(found, span, figure)


def gain(
    what: str,
    after: Mapping[int, Values],
    before: Mapping[int, Values],
    *,
    figure: str = CORRECT,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> AcrossSeeds:
    """A gain over seeds, paired by seed and prompt. Raises DataError where the seeds have no prompt in common, or
    where a seed has one side only."""
    if after.keys() != before.keys():
        alone = sorted(after.keys() ^ before.keys())
        raise DataError(f"{what}: a gain needs both sides of every seed; seed {alone[0]} has one side only")
    both, left_out = _crossed(
        {(number, side): of[number] for number in after for side, of in enumerate((before, after))}
    )
    both, span = _scaled(both)
    sides = both.reshape(len(after), 2, -1)
    names = [str(number) for number in range(sides.shape[2])]
    second, first = (dict(zip(names, one, strict=True)) for one in sides.mean(axis=0))
    over_prompts = paired_difference(first, second, confidence=confidence, resamples=resamples, seed=seed)
    differences = sides[:, 1] - sides[:, 0]
    ends = (-1.0, 1.0) if span == UNIT else _ENDLESS
    found = _across(what, differences, tuple(after), replace(over_prompts, left_out=left_out), is_gain=True, ends=ends)
    return _moved(found, span, figure)


def _scaled(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], Span]:
    """Values of any size in [0, 1], where the intervals are made, and what moves these back."""
    span = span_of(matrix.ravel().tolist())
    return (matrix if span == UNIT else ((matrix - span.low) / span.width).clip(0, 1)), span


def _moved(found: AcrossSeeds, span: Span, figure: str) -> AcrossSeeds:
    """The figure on the scale that its values came from."""
    if span == UNIT:
        return replace(found, figure=figure)
    by = 0.0 if found.is_gain else span.low
    moved = span.difference if found.is_gain else span.level
    return replace(
        found,
        figure=figure,
        per_seed=tuple(by + span.width * one for one in found.per_seed),
        mean=by + span.width * found.mean,
        deviation=None if found.deviation is None else span.width * found.deviation,
        over_seeds=None if found.over_seeds is None else moved(found.over_seeds),
        over_prompts=moved(found.over_prompts),
        over_both=None if found.over_both is None else moved(found.over_both),
    )


def _crossed(values: Mapping[Any, Values]) -> tuple[NDArray[np.float64], int]:
    """The values as (sides, common prompts), prompts by id, and how many prompts not all sides have."""
    if not values:
        raise DataError("a figure over seeds needs at least one seed, and there is none")
    common = set.intersection(*(set(one) for one in values.values()))
    if not common:
        raise DataError(
            "the seeds have no prompt in common that all of them could score, so their figures are of different "
            "things; evaluate every seed on the same prompts"
        )
    matrix = np.array([[one[prompt] for prompt in sorted(common)] for one in values.values()], dtype=np.float64)
    return matrix, len(set[str]().union(*values.values()) - common)


def _across(
    what: str,
    matrix: NDArray[np.float64],
    seeds: tuple[int, ...],
    over_prompts: Interval,
    *,
    is_gain: bool,
    ends: tuple[float, float],
) -> AcrossSeeds:
    per_seed = matrix.mean(axis=1)
    over_seeds, over_both = None, None
    if len(seeds) > 1 and not (matrix == matrix[0]).all():
        over_seeds, over_both = _with_seeds(matrix, over_prompts, *ends)
    return AcrossSeeds(
        what=what,
        is_gain=is_gain,
        seeds=seeds,
        per_seed=tuple(float(one) for one in per_seed),
        mean=float(matrix.mean()),
        deviation=float(per_seed.std(ddof=1)) if len(seeds) > 1 else None,
        over_seeds=over_seeds,
        over_prompts=over_prompts,
        over_both=over_both,
    )


def _with_seeds(
    matrix: NDArray[np.float64], over_prompts: Interval, lowest: float, highest: float
) -> tuple[Interval, Interval]:
    """The interval over seeds, and over seeds and prompts, within what the figure can be. `matrix` is (seeds, prompts),
    its rows not all equal."""
    (num_seeds, num_prompts), confidence = matrix.shape, over_prompts.confidence
    mean = float(matrix.mean())
    of_seeds, of_prompts, of_rest = _mean_squares(matrix)
    t, z = float(stdtrit(num_seeds - 1, (1 + confidence) / 2)), float(ndtri((1 + confidence) / 2))
    if of_seeds < 1e-12:
        # Seeds that differ on prompts and not in their figures met by chance, and no width would call that certainty.
        # What single prompts vary by is a spread too, which has degrees of freedom in plenty.
        of_seeds, t = of_rest, z
    by_prompts = max(of_prompts - of_rest, 0.0)
    total = of_seeds + by_prompts
    half_of_seeds = t * math.sqrt(of_seeds / matrix.size)
    half = max(half_of_seeds, (t * of_seeds + z * by_prompts) / total * math.sqrt(total / matrix.size))

    def bounded(low: float, high: float, method: Any) -> Interval:
        return Interval(
            mean, max(lowest, low), min(highest, high), confidence, method, num_prompts, over_prompts.left_out
        )

    return (
        bounded(mean - half_of_seeds, mean + half_of_seeds, "t"),
        bounded(min(mean - half, over_prompts.low), max(mean + half, over_prompts.high), "t and normal"),
    )


def _mean_squares(matrix: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of seeds, of prompts, and of what is left, in the two-way table without repetitions (seeds, prompts)."""
    num_seeds, num_prompts = matrix.shape
    rows, columns, mean = matrix.mean(axis=1), matrix.mean(axis=0), matrix.mean()
    of_seeds = float(num_prompts * rows.var(ddof=1))
    if num_prompts == 1:
        return of_seeds, 0.0, 0.0
    rest = matrix - rows[:, None] - columns + mean
    of_rest = float((rest**2).sum() / ((num_seeds - 1) * (num_prompts - 1)))
    return of_seeds, float(num_seeds * columns.var(ddof=1)), of_rest
