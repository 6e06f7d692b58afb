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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from selftrain.errors import DataError
from selftrain.evaluation.decisions import (
    AT_MAINS_ROUND,
    IS_OF_ONE_ROUND,
    ONE_ROUND,
    Chosen,
    bounds,
    headline_round,
    in_words,
    points,
)
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference
from selftrain.records import Report

Values: TypeAlias = Mapping[str, float]
"""A per-prompt statistic in [0, 1], such as greedy correctness, by prompt id."""


@dataclass(frozen=True, slots=True)
class AcrossSeeds:
    """One figure over the seeds: a level (pass@1 of main) or a gain (over round 0, over an arm).

    `per_seed` follows `seeds`; `mean` is theirs, `deviation` their standard deviation. All are over the prompts that
    every seed has; `left_out` counts the others. `over_seeds` takes these prompts as given, `over_prompts` these seeds,
    `over_both` neither. Without a second seed, or where all seeds agree on every prompt, there is no spread between
    seeds to judge by, and `over_seeds` and `over_both` are None.
    """

    what: str
    is_gain: bool
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    mean: float
    deviation: float | None
    over_seeds: Interval | None
    over_prompts: Interval
    over_both: Interval | None

    @property
    def left_out(self) -> int:
        """Prompts that not every seed has, on both sides."""
        return self.over_prompts.left_out

    def shown(self, share: float) -> str:
        """A value of this figure as text: `78.5%`, or `+43.5` for a gain."""
        return points(share) if self.is_gain else f"{share:.1%}"

    def bounds(self, interval: Interval) -> str:
        """The bounds of an interval of this figure as text, in points: `[72.1, 84.0]`, or `[+36.0, +51.0]`."""
        return bounds(interval) if self.is_gain else f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"

    @property
    def clear(self) -> bool:
        """Whether the widest interval there is leaves out 0."""
        widest = self.over_both or self.over_prompts
        return widest.low > 0 or widest.high < 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the run of one seed measured at its headline round: greedy outcomes (1 or 0, the unscored left out) by
    prompt id, of round 0, of main, and of the arms that were measured there."""

    seed: int
    round: int
    chosen: Chosen
    set_name: str
    start: Values
    main: Values
    arms: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class SeedsVerdict:
    """What the seeds of one recipe may claim together: `levels` and `gains` of main at each seed's headline round
    (`rounds` follows `seeds`); `lines` say it in words."""

    seeds: tuple[int, ...]
    rounds: tuple[int, ...]
    chosen: Chosen
    set_name: str
    levels: tuple[AcrossSeeds, ...]
    gains: tuple[AcrossSeeds, ...]
    lines: tuple[str, ...]


def measured(
    seed: int, main: Sequence[Report], arms: Mapping[str, Sequence[Report]], set_name: str | None = None
) -> Measured:
    """What a run measured at its headline round on `set_name` (None: test, or validate where there is no test).

    `main` starts at round 0. Raises DataError where main was not measured on the set.
    """
    number, chosen = headline_round(main)
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
        return greedy_values(found[0].outcomes[name]) if found else None

    of_arms = {arm: values for arm, reports in arms.items() if (values := at_round(reports, number)) is not None}
    start, of_main = at_round(main, main[0].round), at_round(main, number)
    if start is None or of_main is None:
        raise DataError(f"seed {seed}: round 0 and round {number} were not both measured on {name} prompts")
    return Measured(seed, number, chosen, name, start, of_main, of_arms)


def verdict(
    runs: Sequence[Measured],
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    decided_by: Sequence[str] = (),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> SeedsVerdict:
    """All figures of one recipe over its seeds. `overrides` and `decided_by` are as in `decisions.headline`.

    Raises DataError where a seed comes twice, the runs were measured on different sets, or no prompt is common.
    """
    seeds, names = [run.seed for run in runs], sorted({run.set_name for run in runs})
    if len(set(seeds)) < len(seeds):
        raise DataError(f"seeds {', '.join(map(str, seeds))}: a seed comes twice; leave out the repetition")
    if len(names) != 1:
        raise DataError(f"the seeds were measured on different sets ({', '.join(names)}); choose one that all have")
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    start, main = {run.seed: run.start for run in runs}, {run.seed: run.main for run in runs}
    arms = {
        arm: {run.seed: run.arms[arm] for run in runs if arm in run.arms}
        for arm in dict.fromkeys(arm for run in runs for arm in run.arms)
    }
    levels = [level("round 0", start, **settings), level("main", main, **settings)]
    gains = [gain("round 0", main, start, **settings)]
    for arm, values in arms.items():
        levels.append(level(arm, values, **settings))
        gains.append(gain(arm, {number: main[number] for number in values}, values, **settings))
    lines = _heading(runs, decided_by)
    for one in (*gains, *levels):
        lines += _sentences(one, runs, (overrides or {}).get(one.what, {}))
    rounds = tuple(run.round for run in runs)
    return SeedsVerdict(tuple(seeds), rounds, runs[0].chosen, names[0], tuple(levels), tuple(gains), tuple(lines))


def level(
    what: str, values: Mapping[int, Values], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> AcrossSeeds:
    """A level over seeds; `values` by seed. Raises DataError where the seeds have no prompt in common."""
    matrix, left_out = _crossed(values)
    over_prompts = interval_of_mean(matrix.mean(axis=0), confidence=confidence, resamples=resamples, seed=seed)
    return _across(what, matrix, tuple(values), replace(over_prompts, left_out=left_out), is_gain=False)


def gain(
    what: str,
    after: Mapping[int, Values],
    before: Mapping[int, Values],
    *,
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
    sides = both.reshape(len(after), 2, -1)
    names = [str(number) for number in range(sides.shape[2])]
    second, first = (dict(zip(names, one, strict=True)) for one in sides.mean(axis=0))
    over_prompts = paired_difference(first, second, confidence=confidence, resamples=resamples, seed=seed)
    differences = sides[:, 1] - sides[:, 0]
    return _across(what, differences, tuple(after), replace(over_prompts, left_out=left_out), is_gain=True)


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
    what: str, matrix: NDArray[np.float64], seeds: tuple[int, ...], over_prompts: Interval, *, is_gain: bool
) -> AcrossSeeds:
    per_seed = matrix.mean(axis=1)
    over_seeds, over_both = None, None
    if len(seeds) > 1 and not (matrix == matrix[0]).all():
        lowest = -1.0 if is_gain else 0.0
        over_seeds, over_both = _with_seeds(matrix, over_prompts, lowest)
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


def _with_seeds(matrix: NDArray[np.float64], over_prompts: Interval, lowest: float) -> tuple[Interval, Interval]:
    """The interval over seeds, and over seeds and prompts. `matrix` is (seeds, prompts), its rows not all equal."""
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
        return Interval(mean, max(lowest, low), min(1.0, high), confidence, method, num_prompts, over_prompts.left_out)

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


def _heading(runs: Sequence[Measured], decided_by: Sequence[str]) -> list[str]:
    first, several = runs[0], "s" * (len(runs) > 1)
    numbers, rounds = (
        ", ".join(map(str, of_runs)) for of_runs in zip(*((run.seed, run.round) for run in runs), strict=True)
    )
    headline = f"headline round{several} {rounds}, {first.chosen}, measured on {first.set_name} prompts"
    lines = [f"seed{several} {numbers}: {headline}"]
    if first.set_name == "validate" and first.chosen == "chosen on validation":
        lines.append("these prompts chose the rounds, and so flatter them: what is said of main here is too high")
    elif first.set_name == "validate" and decided_by:
        lines.append(f"these prompts decided how the runs went ({', '.join(decided_by)}), and so flatter main too")
    elif first.chosen == "chosen on validation" and any(arm != ONE_ROUND for run in runs for arm in run.arms):
        lines.append(AT_MAINS_ROUND)
    if unmoved := [str(run.seed) for run in runs if run.round == 0]:
        lines.append(f"no round was better than round 0 for seed {', '.join(unmoved)}, which counts as a gain of 0")
    return lines


def _sentences(figure: AcrossSeeds, runs: Sequence[Measured], overrides: Mapping[str, Any]) -> list[str]:
    """A figure in words: its size, then the intervals that there are."""
    spread, over = figure.deviation, figure.over_prompts
    size = f"{_name(figure, runs[0].set_name, overrides)}: {figure.shown(figure.mean)}{' points' * figure.is_gain}"
    if spread is None:
        size += f" with seed {figure.seeds[0]}"
    else:
        each = ", ".join(map(figure.shown, figure.per_seed))
        size += f", the mean of {len(figure.seeds)} seeds ({each}; standard deviation between seeds {100 * spread:.1f})"
    if missing := [str(run.seed) for run in runs if run.seed not in figure.seeds]:
        size += f"; not measured for seed {', '.join(missing)}"
    if figure.is_gain and figure.what == ONE_ROUND:
        size += f"; that arm is a diagnostic of the headline round alone: {IS_OF_ONE_ROUND}"
    method = over.method if "bootstrap" in over.method else f"{over.method} interval"
    prompts = f"these seeds, other prompts {figure.bounds(over)} ({method} over {over.num_prompts} prompts)"
    if over.left_out:
        prompts += f", {over.left_out} prompts left out that not all seeds have or could score"
    doubt = "; this includes no gain at all" if figure.is_gain and not figure.clear else ""
    share = f"{100 * over.confidence:g} %"
    if figure.over_seeds is None or figure.over_both is None:
        why = (
            "one seed says nothing of other seeds: run more of them"
            if spread is None
            else "all seeds gave the same outcome on every prompt, so no spread between seeds can be told"
        )
        return [size, f"  {share}: {prompts}; {why}{doubt}"]
    return [
        size,
        f"  {share}: other seeds, these prompts {figure.bounds(figure.over_seeds)} (t, {len(figure.seeds) - 1} degrees "
        f"of freedom); {prompts}; other seeds and other prompts {figure.bounds(figure.over_both)}{doubt}",
    ]


def _name(figure: AcrossSeeds, set_name: str, overrides: Mapping[str, Any]) -> str:
    if not figure.is_gain:
        return f"{set_name} pass@1 of {figure.what}"
    return f"main against {figure.what} ({in_words(overrides)})" if overrides else f"gain of main over {figure.what}"
