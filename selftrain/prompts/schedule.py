"""Which prompts a round asks: all of them, or the next K, shared out among the tasks of a mix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from selftrain.config import PromptsConfig
from selftrain.prompts.sets import PromptSet
from selftrain.records import Prompt, seed_from


def of_round(prompts: PromptSet, config: PromptsConfig, *, seed: int, round_number: int) -> tuple[Prompt, ...]:
    """The prompts of a round (1-based): all of them, or the next K of a seeded shuffle that starts again when used up.

    In a mix each task has its share of K, and a shuffle of its own; where `shares` has a tie, the tasks take turns from
    round to round, so that none of equal tasks is left out for good when K is smaller than their number. A task with
    fewer prompts than its share gives all it has. Depends on the seed and on the prompts' content, not on the order of
    the files.
    """
    schedule = config.per_round if isinstance(config.per_round, tuple) else (config.per_round,)
    sizes = [schedule[min(number, len(schedule)) - 1] for number in range(1, round_number + 1)]
    if sizes[-1] == "all":
        return prompts.prompts
    numbers = [size for size in sizes if size != "all"]
    weights = weights_of(config)
    if weights is None:
        return _window(prompts.prompts, sum(numbers[:-1]), numbers[-1], seed)
    by_task: dict[str, list[Prompt]] = {task: [] for task in weights}
    for one in prompts.prompts:
        assert one.task is not None
        by_task[one.task].append(one)
    shared = [shares(weights, number, turn) for turn, number in enumerate(numbers)]
    windows = [
        _window(ones, sum(share[task] for share in shared[:-1]), shared[-1][task], seed)
        for task, ones in by_task.items()
    ]
    return tuple(prompt for window in windows for prompt in window)


def weights_of(config: PromptsConfig) -> dict[str, float] | None:
    """The tasks' weights in the order of the mix; None where the training prompts are no mix."""
    mix = config.train.mix
    return None if mix is None else {task: source.weight for task, source in mix.items()}


def shares(weights: Mapping[str, float], number: int, turn: int = 0) -> dict[str, int]:
    """`number` prompts among the tasks, by weight: each gets its exact share rounded down, and those with the largest
    remainders one more (Hamilton's method); of equal remainders the first in the mix, counted from the `turn`-th and
    around. They sum to `number`."""
    # Of the decimals as they are written: three weights of 0.1 are equal thirds.
    written = {task: Fraction(str(weight)) for task, weight in weights.items()}
    total = sum(written.values())
    exact = {task: number * weight / total for task, weight in written.items()}
    found = {task: int(share) for task, share in exact.items()}
    equal: dict[Fraction, list[str]] = {}
    for task, share in found.items():
        equal.setdefault(exact[task] - share, []).append(task)
    by_remainder = [
        task
        for remainder in sorted(equal, reverse=True)
        for ones in (equal[remainder],)
        for task in ones[turn % len(ones) :] + ones[: turn % len(ones)]
    ]
    for task in by_remainder[: number - sum(found.values())]:
        found[task] += 1
    return found


def _window(prompts: Sequence[Prompt], start: int, size: int, seed: int) -> tuple[Prompt, ...]:
    """The next `size` prompts after the first `start` of endless shuffles, each one once."""
    wanted = min(size, len(prompts))
    chosen: dict[str, Prompt] = {}
    if not wanted:
        return ()
    for prompt in _shuffled_from(prompts, start, seed):
        chosen.setdefault(prompt.id, prompt)  # a window over the end of a shuffle may meet a prompt twice
        if len(chosen) == wanted:
            break
    return tuple(chosen.values())


def _shuffled_from(prompts: Sequence[Prompt], start: int, seed: int) -> Iterator[Prompt]:
    epoch, offset = divmod(start, len(prompts))
    while True:
        yield from sorted(prompts, key=lambda one: seed_from(seed, "prompts", epoch, one.id))[offset:]
        epoch, offset = epoch + 1, 0
