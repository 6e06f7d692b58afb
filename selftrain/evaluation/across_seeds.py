"""What was measured over several seeds, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.evaluation import wording
from selftrain.evaluation.decisions import Chosen
from selftrain.evaluation.figures import CORRECT, Values
from selftrain.evaluation.statistics import Interval
from selftrain.evaluation.wording import AT_MAINS_ROUND, IS_OF_ONE_ROUND, ONE_ROUND, in_words, named, unit


@dataclass(frozen=True, slots=True)
class AcrossSeeds:
    """One figure over the seeds: a level (pass@1 of main) or a gain (over round 0, over an arm), of `figure`: `pass@1`,
    `value` or `part/<scorer>`.

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
    figure: str = CORRECT

    @property
    def left_out(self) -> int:
        """Prompts that not every seed has, on both sides."""
        return self.over_prompts.left_out

    def shown(self, share: float) -> str:
        """A value of this figure as text: `78.5%`, or `+43.5` for a gain; `0.312` and `+0.104` of values."""
        return wording.change(self.figure, share) if self.is_gain else wording.level(self.figure, share)

    def bounds(self, interval: Interval) -> str:
        """The bounds of an interval of this figure as text: `[72.1, 84.0]`, or `[+36.0, +51.0]` for a gain."""
        bounds = wording.change_bounds if self.is_gain else wording.level_bounds
        return bounds(self.figure, interval)

    @property
    def clear(self) -> bool:
        """Whether the widest interval there is leaves out 0."""
        widest = self.over_both or self.over_prompts
        return widest.low > 0 or widest.high < 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the run of one seed measured at its headline round: a figure of greedy answers (of `pass@1`: 1 or 0, the
    unscored left out) by prompt id, of round 0, of main, and of the arms that were measured there."""

    seed: int
    round: int
    chosen: Chosen
    set_name: str
    start: Values
    main: Values
    arms: Mapping[str, Values]
    figure: str = CORRECT


def heading(runs: Sequence[Measured], decided_by: Sequence[str]) -> list[str]:
    """What the seeds were measured on, and what flatters them."""
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


def sentences(figure: AcrossSeeds, runs: Sequence[Measured], overrides: Mapping[str, Any]) -> list[str]:
    """A figure in words: its size, then the intervals that there are."""
    spread, over = figure.deviation, figure.over_prompts
    size = f"{_name(figure, runs[0].set_name, overrides)}: {figure.shown(figure.mean)}{_unit(figure)}"
    if spread is None:
        size += f" with seed {figure.seeds[0]}"
    else:
        each = ", ".join(map(figure.shown, figure.per_seed))
        deviation = _spread(figure.figure, spread)
        size += f", the mean of {len(figure.seeds)} seeds ({each}; standard deviation between seeds {deviation})"
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
        return f"{set_name} {named(figure.figure)} of {figure.what}"
    of = "" if figure.figure == CORRECT else f"{set_name} {named(figure.figure)}: "
    if overrides:
        return f"{of}main against {figure.what} ({in_words(overrides)})"
    return f"{of}gain of main over {figure.what}"


def _unit(figure: AcrossSeeds) -> str:
    return unit(figure.figure) if figure.is_gain else ""


def _spread(figure: str, deviation: float) -> str:
    return f"{100 * deviation:.1f}" if figure == CORRECT else f"{deviation:.3f}"
