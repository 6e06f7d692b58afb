"""Buffers: which of the survivors of all rounds so far a round trains on (`select.buffer`).

    replace            this round's own (STaR, Zelikman et al. 2022, arXiv 2203.14465; ReST-EM, Singh et al. 2023,
                       arXiv 2312.06585)
    append             those of all rounds (V-STaR, Hosseini et al. 2024, arXiv 2402.06457)
    window             those of the last `window` rounds, this one among them
    latest_per_prompt  of each prompt those of its latest round that had any (the memory of TRICE, Phan et al. 2023, as
                       ReST-EM, section 4, tells it: there one per prompt)
    best_per_prompt    of each prompt the `per_prompt` best values of all rounds (Llama 2, Touvron et al. 2023, section
                       3.2.3, which pools the best samples of all earlier rounds)

A round's own survivors are those that its own selection kept. What was mixed in from `prompts.seed_data` is nobody's
own: it is drawn anew in each round and never carried over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selftrain.config import SelectConfig, one
from selftrain.records import Survivor, seed_from


def rounds_in_reach(config: SelectConfig, round_number: int) -> range:
    """The rounds, this one the last, whose own survivors the round may train on. `config` resolved for the round."""
    if config.buffer == "replace":
        return range(round_number, round_number + 1)
    if config.buffer == "window":
        assert config.window is not None
        return range(max(1, round_number - one(config.window) + 1), round_number + 1)
    return range(1, round_number + 1)


def buffered(own: Sequence[Survivor], config: SelectConfig, *, seed: int) -> tuple[Survivor, ...]:
    """What a round trains on, in the order given, each candidate once.

    `own` are the own survivors of all rounds in reach, oldest first. Of equal values `best_per_prompt` takes the latest
    round's, and of those the first. With rule `random`, which looks at no values, it draws by (`seed`, candidate id)
    instead.
    """
    once = each_once(own)
    if config.buffer == "latest_per_prompt":
        latest: dict[str, int] = {}
        for survivor in once:
            latest[survivor.prompt_id] = max(survivor.round, latest.get(survivor.prompt_id, 0))
        return tuple(survivor for survivor in once if survivor.round == latest[survivor.prompt_id])
    if config.buffer == "best_per_prompt":
        ranked = drawn_first(once, seed=seed) if config.rule == "random" else _best_first(once)
        return _first_of_each_prompt(once, ranked, one(config.per_prompt))
    return once


def as_many(chosen: Sequence[Survivor], own: Sequence[Survivor], count: int, *, seed: int) -> tuple[Survivor, ...]:
    """`count` of the survivors, for a control whose buffer came out larger or smaller than main's.

    Too many are cut, and too few filled up with others of `own`, both at random by (`seed`, candidate id). Fewer where
    `own` has no more. In the order of `own`.
    """
    taken = {survivor.candidate_id for survivor in chosen}
    if len(taken) > count:
        taken = {survivor.candidate_id for survivor in drawn_first(chosen, seed=seed)[:count]}
    else:
        others = [survivor for survivor in each_once(own) if survivor.candidate_id not in taken]
        taken |= {survivor.candidate_id for survivor in drawn_first(others, seed=seed)[: count - len(taken)]}
    return tuple(survivor for survivor in each_once(own) if survivor.candidate_id in taken)


def each_once(survivors: Iterable[Survivor]) -> tuple[Survivor, ...]:
    """Each candidate's first one."""
    unique: dict[str, Survivor] = {}
    for survivor in survivors:
        unique.setdefault(survivor.candidate_id, survivor)
    return tuple(unique.values())


def drawn_first(survivors: Sequence[Survivor], *, seed: int) -> list[Survivor]:
    """In random order, which comes from (seed, candidate id) alone."""
    return sorted(survivors, key=lambda row: (seed_from(seed, "buffer", row.candidate_id), row.candidate_id))


def _best_first(survivors: Sequence[Survivor]) -> list[Survivor]:
    def place(row: Survivor) -> tuple[float, int]:
        assert row.value is not None, "a survivor of a selection has a value"
        return -row.value, -row.round

    return sorted(survivors, key=place)


def _first_of_each_prompt(
    survivors: Sequence[Survivor], ranked: Sequence[Survivor], number: int
) -> tuple[Survivor, ...]:
    left: dict[str, int] = {}
    taken = set()
    for survivor in ranked:
        left.setdefault(survivor.prompt_id, number)
        if left[survivor.prompt_id] > 0:
            left[survivor.prompt_id] -= 1
            taken.add(survivor.candidate_id)
    return tuple(survivor for survivor in survivors if survivor.candidate_id in taken)
