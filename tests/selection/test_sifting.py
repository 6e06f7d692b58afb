"""Selection over a stream equals its definition over all candidates at once, whatever the blocks."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from groups import make_candidate, make_scored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftrain import tables
from selftrain.config import SelectConfig
from selftrain.drawing import stream_groups
from selftrain.records import FINISH_REASONS, Candidate, Group, Score, seed_from
from selftrain.selection import Entry, select
from selftrain.selection.sifting import Sifting
from selftrain.selection.steps import Row

RULES = ["threshold", "best_of_n", "top_k", "top_fraction", "above_mean", "all", "random"]
VALUES = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0, -2.0])


class FirstOfItsKind:
    """Of entries of one text the best stays, whatever their prompts: knows all before it rules."""

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        held = [(entry.text, entry.value) for entry in entries]
        best: dict[str, int] = {}
        for number, (text, value) in enumerate(held):
            if text not in best or value > held[best[text]][1]:
                best[text] = number
        yield from ((number, "said before") for number, (text, _) in enumerate(held) if best[text] != number)


class NoText:
    """Rules on each entry before the next one is read."""

    def __init__(self, unwanted: str) -> None:
        self.unwanted = unwanted

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        for number, entry in enumerate(entries):
            if entry.text == self.unwanted and entry.prompt_text.endswith(entry.prompt_id):
                yield number, f"says {self.unwanted}"


def no_a(rows: Sequence[Row]) -> Mapping[str, str]:
    return {candidate.id: "says a" for candidate, _ in rows if candidate.text == "a"}


@st.composite
def rounds(draw: st.DrawFn) -> list[Group]:
    groups = []
    for number in range(draw(st.integers(0, 5))):
        rows = []
        for index in range(draw(st.integers(0, 5))):
            text = draw(st.sampled_from(["a", "A ", "b", "c", "d", "e"]))
            ending, num_tokens = draw(st.sampled_from(FINISH_REASONS)), draw(st.integers(0, 4))
            made = make_candidate(f"p{number}", index, text, finish_reason=ending, num_tokens=num_tokens)
            rows.append((replace(made, base_logprob=draw(st.sampled_from([-4.0, -1.0, 0.0]))), draw(VALUES)))
        groups.append(make_scored(f"p{number}", rows))
    return groups


@st.composite
def configs(draw: st.DrawFn) -> SelectConfig:
    return SelectConfig(
        rule=draw(st.sampled_from(RULES)),
        normalise=draw(st.sampled_from(["none", "global_minmax", "per_prompt_minmax", "zscore"])),
        kl_beta=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        top_fraction=draw(st.sampled_from([0.2, 0.5, 1.0])),
        above_mean=draw(st.sampled_from([-1.0, 0.0, 1.0])),
        threshold=draw(st.sampled_from([0.0, 0.5, 1.0])),
        top_k=draw(st.integers(1, 3)),
        count=draw(st.integers(1, 6)),
        dedup=draw(st.sampled_from(["none", "exact", "normalised"])),
        max_per_prompt=draw(st.one_of(st.none(), st.integers(1, 3))),
        finish_reasons=tuple(draw(st.sets(st.sampled_from(FINISH_REASONS), min_size=1))),
        min_completion_tokens=draw(st.integers(0, 2)),
    )


def shaped_by_definition(groups: list[Group], config: SelectConfig) -> dict[str, float]:
    """What rules see of each scored candidate, by its id."""
    rows = [row for one in groups for row in zip(one.candidates, one.scores, strict=True) if row[1].value is not None]
    values = {}
    for candidate, score in rows:
        ratio = math.fsum(candidate.logprobs) - (candidate.base_logprob or 0.0)
        values[candidate.id] = float(score.value or 0.0) - (config.kl_beta * ratio if config.kl_beta else 0.0)
    if config.normalise == "none" or config.rule == "random":
        return values
    everywhere = list(values.values())
    found = {}
    for candidate, _ in rows:
        value = values[candidate.id]
        among = everywhere
        if config.normalise == "per_prompt_minmax":
            among = [values[one.id] for one, _ in rows if one.prompt_id == candidate.prompt_id]
        low, high = min(among), max(among)
        if config.normalise == "zscore":
            mean = math.fsum(among) / len(among)
            deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in among) / len(among))
            found[candidate.id] = 0.0 if low == high else (value - mean) / deviation
        else:
            found[candidate.id] = 0.5 if low == high else (value - low) / (high - low)
    return found


def survivors_by_definition(
    groups: list[Group], config: SelectConfig, seed: int, *, with_steps: bool
) -> tuple[list[str], dict[str, int]]:
    """Who survives and how many were left after each step, with all candidates in one list."""
    value = shaped_by_definition(groups, config)
    every = [row for one in groups for row in zip(one.candidates, one.scores, strict=True)]
    of_prompt = {one.prompt.id: [value[each.id] for each in one.candidates if each.id in value] for one in groups}
    left = [one for one, score in every if score.value is not None]
    counts = {"sampled": len(every), "scored": len(left)}
    is_random = config.rule == "random"

    def rank(ones: list[Candidate]) -> list[Candidate]:
        return list(ones) if is_random else sorted(ones, key=lambda one: -value[one.id])

    def by_prompt() -> dict[str, list[Candidate]]:
        found: dict[str, list[Candidate]] = {one.prompt.id: [] for one in groups}
        for one in left:
            found[one.prompt_id].append(one)
        return found

    def keep(name: str, ids: set[str]) -> None:
        nonlocal left
        left = [one for one in left if one.id in ids]
        counts[name] = len(left)

    if len(config.finish_reasons) < 3:
        keep("finished", {one.id for one in left if one.finish_reason in config.finish_reasons})
    if config.min_completion_tokens:
        keep("length", {one.id for one in left if len(one.completion_token_ids) >= config.min_completion_tokens})
    if with_steps:
        keep("quality", {one.id for one in left if one.text != "a"})
        keep("decontaminate", {one.id for one in left if one.text != "b"})
    if config.dedup != "none":
        stays: dict[tuple[str, str], str] = {}
        for one in rank(left):
            text = " ".join(one.text.casefold().split()) if config.dedup == "normalised" else one.text
            stays.setdefault((one.prompt_id, text), one.id)
        keep("dedup", set(stays.values()))
    if with_steps:
        best: dict[str, str] = {}
        for one in rank(left):
            best.setdefault(one.text, one.id)
        keep("near_duplicates", set(best.values()))
    drawn = sorted(left, key=lambda one: (seed_from(seed, "draw", one.id), one.id))
    if is_random and isinstance(config.max_per_prompt, int):
        taken: Counter[str] = Counter()
        under = set()
        for one in drawn:
            taken[one.prompt_id] += 1
            if taken[one.prompt_id] <= config.max_per_prompt:
                under.add(one.id)
        keep("max_per_prompt", under)
        drawn = [one for one in drawn if one.id in under]
    stay: set[str] = set()
    if is_random:
        assert isinstance(config.count, int)
        stay = {one.id for one in drawn[: config.count]}
    elif config.rule == "threshold":
        stay = {one.id for one in left if value[one.id] >= config.threshold}
    elif config.rule == "above_mean":
        for prompt, ones in by_prompt().items():
            if ones and min(of_prompt[prompt]) < max(of_prompt[prompt]):
                bar = fmean(of_prompt[prompt]) + config.above_mean * pstdev(of_prompt[prompt])
                spread = max(of_prompt[prompt]) - min(of_prompt[prompt])
                stay |= {one.id for one in ones if value[one.id] - bar > 1e-9 * spread}
    elif config.rule == "top_fraction":
        seen: Counter[tuple[str, float]] = Counter()
        places = {}
        for one in left:
            key = one.prompt_id, value[one.id]
            places[one.id] = -value[one.id], seen[key], seed_from(seed, "tie", one.prompt_id)
            seen[key] += 1
        stay = set(sorted(places, key=places.__getitem__)[: math.ceil(Fraction(str(config.top_fraction)) * len(left))])
    elif config.rule == "all":
        stay = {one.id for one in left}
    else:
        number = 1 if config.rule == "best_of_n" else config.top_k
        assert isinstance(number, int)
        stay = {one.id for ones in by_prompt().values() for one in rank(ones)[:number]}
    if config.rule != "all":
        keep("rule", stay)
    if not is_random and isinstance(config.max_per_prompt, int):
        capped = {one.id for ones in by_prompt().values() for one in rank(ones)[: config.max_per_prompt]}
        keep("max_per_prompt", capped)
    return [one.id for one in left], counts


@settings(max_examples=400, deadline=None)
@given(rounds(), configs(), st.integers(0, 3), st.booleans())
def test_a_stream_gives_the_survivors_and_the_funnel_of_the_definition(
    groups: list[Group], config: SelectConfig, seed: int, with_steps: bool
) -> None:
    steps = {"quality": no_a, "decontaminate": NoText("b"), "near_duplicates": FirstOfItsKind()}
    selection = select(groups, config, seed=seed, given=steps if with_steps else None)
    kept, counts = survivors_by_definition(groups, config, seed, with_steps=with_steps)
    assert [one.candidate.id for one in selection.kept] == kept
    assert dict(selection.funnel.steps) == counts
    ids = sorted(one.id for group in groups for one in group.candidates)
    assert sorted([*kept, *selection.reasons]) == ids
    raw = {score.candidate_id: score for group in groups for score in group.scores}
    assert all(one.score is raw[one.candidate.id] for one in selection.kept)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds(), configs(), st.integers(1, 6), st.integers(1, 6))
def test_the_size_of_blocks_does_not_matter(
    tmp_path: Path, groups: list[Group], config: SelectConfig, size: int, other: int
) -> None:
    def chosen(size: int) -> tuple[list[tuple[str, float | None, str]], list[tuple[str, str]], object]:
        drawn, judged = [], []
        for first in range(0, len(groups), size):
            name, block = f"block-{first:05d}.parquet", groups[first : first + size]
            drawn.append(tmp_path / f"candidates-{size}" / name)
            judged.append(tmp_path / f"scores-{size}" / name)
            candidates = [one for group in block for one in group.candidates]
            tables.write(drawn[-1], candidates, Candidate, fingerprint="f")
            tables.write(judged[-1], [one for group in block for one in group.scores], Score, fingerprint="f")
        prompts = {one.prompt.id: one.prompt for one in groups}
        left: list[tuple[str, str]] = []
        sifting = Sifting(
            lambda: stream_groups(drawn, reversed(judged), prompts),
            config,
            seed=1,
            reject=lambda name, why: left.append((name, why)),
            given={"near_duplicates": FirstOfItsKind()},
        )
        kept = [(one.candidate.id, one.score.value, one.why) for one in sifting.kept()]
        return kept, left, sifting.funnel

    assert chosen(size) == chosen(other)


def test_the_rules_words_have_the_raw_value_beside_the_one_that_it_saw() -> None:
    rows = [(make_candidate("p", index, f"answer {index}"), value) for index, value in enumerate([10.0, 20.0, 30.0])]
    selection = select([make_scored("p", rows)], SelectConfig(normalise="global_minmax", threshold=0.5), seed=0)
    assert [(one.score.value, one.why) for one in selection.kept] == [
        (20.0, "value 0.5 reaches threshold 0.5; raw value 20.0"),
        (30.0, "value 1.0 reaches threshold 0.5; raw value 30.0"),
    ]
    assert selection.reasons == {"p/0": "value 0.0 under threshold 0.5; raw value 10.0"}
    config = SelectConfig(normalise="global_minmax", rule="top_fraction", top_fraction=0.5)
    of_the_round = select([make_scored("p", rows)], config, seed=0)
    among = "among the best 2 of the 3 left (top_fraction 0.5)"
    assert of_the_round.kept[0].why == f"value 0.5 is {among}; raw value 20.0"
    assert of_the_round.reasons == {"p/0": f"value 0.0 not {among}; raw value 10.0"}


def test_a_step_over_the_round_that_names_no_entry_or_goes_back_is_a_mistake() -> None:
    class Wrong:
        def __init__(self, *numbers: int) -> None:
            self.numbers = numbers

        def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
            list(entries)
            yield from ((number, "gone") for number in self.numbers)

    group = make_scored("p", [(make_candidate("p", index, f"{index}"), 1.0) for index in range(3)])
    assert len(select([group], SelectConfig(), seed=0, given={"near_duplicates": Wrong(0, 2)}).kept) == 1
    for numbers in [(3,), (2, 1), (1, 1)]:
        with pytest.raises(ValueError, match="a step over the round names entry"):
            select([group], SelectConfig(), seed=0, given={"near_duplicates": Wrong(*numbers)})


def test_with_rule_random_a_step_over_the_round_sees_no_values() -> None:
    seen = []

    class Looks:
        def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
            seen.extend(entry.value for entry in entries)
            return iter(())

    group = make_scored("p", [(make_candidate("p", index, f"{index}"), float(index)) for index in range(3)])
    select([group], SelectConfig(rule="random", count=2), seed=0, given={"near_duplicates": Looks()})
    select([group], SelectConfig(rule="all"), seed=0, given={"near_duplicates": Looks()})
    assert seen == [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]


def test_groups_that_are_others_at_the_second_reading_are_a_mistake() -> None:
    groups = [make_scored(f"p{number}", [(make_candidate(f"p{number}", 0, "x"), 1.0)]) for number in range(3)]
    readings = [groups, groups[:2]]
    sifting = Sifting(
        lambda: readings.pop(0), SelectConfig(rule="random", count=1), seed=0, reject=lambda name, why: None
    )
    with pytest.raises(ValueError, match="others in the second pass"):
        list(sifting.kept())


GROWS = """
import resource, sys
from dataclasses import replace
sys.path.insert(0, {tests!r})
from groups import make_candidate, make_scored
from selftrain.config import SelectConfig
from selftrain.evaluation.tallies import SelectionTally
from selftrain.selection.sifting import Sifting

def groups():
    for number in range(int(sys.argv[1]) // 10):
        name = f"p{{number}}"
        texts = [f"answer {{number}} {{index % 9}} " * 20 for index in range(10)]
        rows = [(make_candidate(name, index, text), (number * 7 + index) % 13 / 13) for index, text in enumerate(texts)]
        yield make_scored(name, rows)

left = [0]
def reject(name, why):
    left[0] += 1

config = SelectConfig(rule="top_fraction", top_fraction=0.5, normalise="zscore", max_per_prompt=3)
sifting, tally = Sifting(groups, config, seed=0, reject=reject), SelectionTally()
for one in sifting.kept():
    tally.add(one.candidate, one.score)
assert tally.kept + left[0] == int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_grows_by_a_few_numbers_a_candidate_and_by_the_prompts_not_by_the_texts() -> None:
    """A candidate with its score takes some 2,000 bytes in memory here; a tenth of a prompt some 100."""
    program = GROWS.format(tests=str(Path(__file__).parent.parent))

    def peak(number: int) -> float:
        done = subprocess.run([sys.executable, "-c", program, str(number)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    few, many = peak(20_000), peak(220_000)
    assert (many - few) * 2**20 / 200_000 < 300, f"{few:.0f} MiB for 20,000 candidates, {many:.0f} for 220,000"


def test_who_is_kept_is_the_same_in_shuffled_order_also_where_values_are_normalised() -> None:
    generator = random.Random(0)
    groups = []
    for number in range(20):
        rows = [(make_candidate(f"p{number}", index, f"{index}"), generator.gauss(0, 1)) for index in range(8)]
        groups.append(make_scored(f"p{number}", rows))
    for normalise in ("global_minmax", "per_prompt_minmax", "zscore"):
        config = SelectConfig.model_validate({"rule": "top_fraction", "top_fraction": 0.3, "normalise": normalise})
        first = select(groups, config, seed=0)
        second = select(generator.sample(groups, len(groups)), config, seed=0)
        assert {one.why for one in first.kept} == {one.why for one in second.kept}
        assert first.reasons == second.reasons
