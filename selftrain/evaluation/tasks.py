"""The metrics of a mix by task: those of a set or of a round again, over the prompts of one task alone.

Their keys have the task after the set or the phase (`evaluate/test/logic/pass@1`, `score/logic/correct_rate`). Prompts
without a task, which are all of a set that is no mix, give none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from selftrain.evaluation import retention
from selftrain.records import Group, Prompt


def by_task(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """The groups of each task, in order; empty where no prompt has one."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if group.prompt.task is not None:
            found.setdefault(group.prompt.task, []).append(group)
    return found


def of_sets(
    set_name: str, groups: Sequence[Group], figures: Callable[[str, Sequence[Group]], dict[str, float]]
) -> dict[str, float]:
    """What `figures` gives for `<set>/<task>` and the groups of each task.

    A task of which nothing was scored has no figure but `evaluate/<set>/<task>/prompts` and `.../unscored`: the set as
    a whole may well have one.
    """
    metrics: dict[str, float] = {}
    for task, ones in by_task(groups).items():
        name = f"{set_name}/{task}"
        if any(score.value is not None for group in ones for score in group.scores):
            metrics |= figures(name, ones)
        else:
            metrics |= dict.fromkeys((f"evaluate/{name}/prompts", f"evaluate/{name}/unscored"), float(len(ones)))
    return metrics


class Count(NamedTuple):
    """Of a prompt: its task, its candidates, how many of them were scored, and how many are right."""

    task: str | None
    candidates: int
    scored: int
    right: int


def count(group: Group) -> Count:
    """Of a prompt's candidates."""
    verdicts = [bool(one.correct) for one in group.scores if one.value is not None]
    return Count(group.prompt.task, len(group.candidates), len(verdicts), sum(verdicts))


def of_scoring(groups: Iterable[Group]) -> dict[str, float]:
    """Of each task `score/<task>/candidates`; over those that were scored, `correct_rate`; over the prompts that have
    any of these, `prompts_solved_rate`. The rates are left out where nothing was scored."""
    return of_counts(map(count, groups))


def of_counts(counts: Iterable[Count]) -> dict[str, float]:
    """As `of_scoring`, from the count of each prompt."""
    by_task: dict[str, list[Count]] = {}
    for one in counts:
        if one.task is not None:
            by_task.setdefault(one.task, []).append(one)
    metrics: dict[str, float] = {}
    for task, ones in by_task.items():
        metrics[f"score/{task}/candidates"] = float(sum(one.candidates for one in ones))
        judged = [one for one in ones if one.scored]
        if judged:
            right, scored = sum(one.right for one in judged), sum(one.scored for one in judged)
            metrics[f"score/{task}/correct_rate"] = right / scored
            metrics[f"score/{task}/prompts_solved_rate"] = sum(one.right > 0 for one in judged) / len(judged)
    return metrics


def of_selection(kept: Iterable[str], prompts: Iterable[Prompt]) -> dict[str, float]:
    """`select/<task>/kept`: how many of the kept belong to each task of the prompts. `kept` has the prompt's id of each
    candidate, or demonstration, that was kept."""
    task_of = {one.id: one.task for one in prompts if one.task is not None}
    counts = Counter(task_of.get(name) for name in kept)
    return {f"select/{task}/kept": float(counts[task]) for task in dict.fromkeys(task_of.values())}


def of_texts(
    tasks: Sequence[str],
    logprobs: Sequence[Sequence[float]],
    base: Sequence[Sequence[float]] | None,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """Retention on the texts of each task, as `retention` says: `evaluate/retention/<task>/nll` and the others.
    `tasks` has the task of each text, or is empty."""
    metrics: dict[str, float] = {}
    for task in dict.fromkeys(tasks):
        chosen = [number for number, one in enumerate(tasks) if one == task]
        own = [logprobs[number] for number in chosen]
        if not any(own):
            continue  # not a token that follows another: nothing to measure of this task
        found = retention.of_logprobs(own)
        if base is not None:
            before = [base[number] for number in chosen]
            found |= retention.of_change(own, before, confidence=confidence, resamples=resamples, seed=seed)
        prefix = "evaluate/retention/"
        metrics |= {f"{prefix}{task}/{key.removeprefix(prefix)}": value for key, value in found.items()}
    return metrics
