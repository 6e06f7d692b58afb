from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from groups import make_candidate, make_scored
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import SelectConfig
from selftrain.records import FINISH_REASONS, FinishReason, Group
from selftrain.selection import Selection, select

ENDINGS = st.sampled_from(FINISH_REASONS)
VALUES = st.sampled_from([None, 0.0, 0.5, 1.0])


def chosen(groups: list[Group], *, seed: int = 0, **config: Any) -> Selection:
    return select(groups, SelectConfig.model_validate(config), seed=seed)


def kept(selection: Selection) -> list[str]:
    return [one.candidate.id for one in selection.kept]


def group(prompt_id: str, *rows: tuple[str, float | None], finish_reason: FinishReason = "stop_token") -> Group:
    return make_scored(
        prompt_id,
        [
            (make_candidate(prompt_id, index, text, finish_reason=finish_reason), value)
            for index, (text, value) in enumerate(rows)
        ],
    )


@st.composite
def many_groups(draw: st.DrawFn) -> list[Group]:
    groups = []
    for number in range(draw(st.integers(0, 4))):
        rows = []
        for index in range(draw(st.integers(0, 5))):
            candidate = make_candidate(
                f"p{number}",
                index,
                draw(st.sampled_from(["a", "A ", "b", "c"])),
                finish_reason=draw(ENDINGS),
                num_tokens=draw(st.integers(0, 4)),
            )
            rows.append((candidate, draw(VALUES)))
        groups.append(make_scored(f"p{number}", rows))
    return groups


@st.composite
def many_configs(draw: st.DrawFn) -> SelectConfig:
    return SelectConfig(
        rule=draw(st.sampled_from(["threshold", "best_of_n", "top_k", "top_fraction", "above_mean", "all", "random"])),
        top_fraction=draw(st.sampled_from([0.2, 0.5, 1.0])),
        above_mean=draw(st.sampled_from([-1.0, 0.0, 1.0])),
        threshold=draw(st.sampled_from([0.0, 0.5, 1.0])),
        top_k=draw(st.integers(1, 3)),
        count=draw(st.integers(1, 6)),
        dedup=draw(st.sampled_from(["none", "exact", "normalised"])),
        max_per_prompt=draw(st.one_of(st.none(), st.integers(1, 3))),
        finish_reasons=tuple(draw(st.sets(ENDINGS, min_size=1))),
        min_completion_tokens=draw(st.integers(0, 2)),
        max_completion_tokens=draw(st.one_of(st.none(), st.integers(2, 4))),
    )


@given(many_groups(), many_configs(), st.integers(0, 3))
def test_every_candidate_is_kept_or_has_left_for_one_reason(
    groups: list[Group], config: SelectConfig, seed: int
) -> None:
    selection = select(groups, config, seed=seed)
    ids = [candidate.id for one in groups for candidate in one.candidates]
    assert sorted([*kept(selection), *selection.reasons]) == sorted(ids)
    assert [one for one in ids if one in set(kept(selection))] == kept(selection)
    assert all(selection.reasons.values())
    assert all(one.why and one.score.candidate_id == one.candidate.id for one in selection.kept)


@given(many_groups(), many_configs(), st.integers(0, 3))
def test_the_funnel_never_widens_and_ends_at_what_is_kept(groups: list[Group], config: SelectConfig, seed: int) -> None:
    selection = select(groups, config, seed=seed)
    counts = [left for _, left in selection.funnel.steps]
    assert counts[0] == sum(len(one.candidates) for one in groups)
    assert all(later <= earlier for earlier, later in itertools.pairwise(counts))
    assert counts[-1] == len(selection.kept) == selection.funnel.kept == selection.metrics["select/kept"]
    assert counts[0] - counts[-1] == len(selection.reasons)


@given(many_groups(), many_configs(), st.integers(0, 3))
def test_what_is_kept_obeys_every_filter_and_cap(groups: list[Group], config: SelectConfig, seed: int) -> None:
    selection = select(groups, config, seed=seed)
    per_prompt = Counter(one.candidate.prompt_id for one in selection.kept)
    assert all(one.score.value is not None for one in selection.kept)
    assert all(one.candidate.finish_reason in config.finish_reasons for one in selection.kept)
    lengths = [len(one.candidate.completion_token_ids) for one in selection.kept]
    assert all(config.min_completion_tokens <= length <= (config.max_completion_tokens or 9) for length in lengths)
    assert all(number <= (config.max_per_prompt or 99) for number in per_prompt.values())
    if config.dedup == "exact":
        assert len({(one.candidate.prompt_id, one.candidate.text) for one in selection.kept}) == len(selection.kept)
    if config.rule == "threshold":
        assert all((one.score.value or 0.0) >= config.threshold for one in selection.kept)
    if config.rule == "best_of_n":
        assert all(number == 1 for number in per_prompt.values())
    if config.rule == "top_k":
        assert all(number <= config.top_k for number in per_prompt.values())


@given(many_groups(), many_configs(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_who_is_kept_does_not_depend_on_the_order_of_the_input(
    groups: list[Group], config: SelectConfig, seed: int, shuffler: random.Random
) -> None:
    shuffled = []
    for one in shuffler.sample(groups, len(groups)):
        order = shuffler.sample(range(len(one.candidates)), len(one.candidates))
        shuffled.append(Group(one.prompt, tuple(one.candidates[i] for i in order), tuple(one.scores[i] for i in order)))
    first, second = select(groups, config, seed=seed), select(shuffled, config, seed=seed)
    assert set(kept(first)) == set(kept(second))
    assert first.reasons == second.reasons
    assert first.funnel == second.funnel


@given(many_groups(), many_configs(), st.integers(0, 3))
def test_selection_never_looks_at_a_reference(groups: list[Group], config: SelectConfig, seed: int) -> None:
    blind = [Group(replace(one.prompt, reference=None), one.candidates, one.scores) for one in groups]
    assert select(groups, config, seed=seed) == select(blind, config, seed=seed)


@given(many_groups(), st.integers(1, 12), st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 5))
def test_a_random_draw_reaches_its_count_wherever_so_many_are_left_under_the_cap(
    groups: list[Group], count: int, cap: int | None, seed: int
) -> None:
    everything = chosen(groups, rule="all", dedup="none", max_per_prompt=cap)
    drawn = chosen(groups, rule="random", count=count, dedup="none", max_per_prompt=cap, seed=seed)
    assert len(drawn.kept) == min(count, len(everything.kept))


@given(many_groups(), st.integers(1, 6), st.integers(0, 3))
def test_values_do_not_move_a_random_draw(groups: list[Group], count: int, seed: int) -> None:
    def flipped(one: Group) -> Group:
        scores = [replace(s, value=None if s.value is None else 1.0 - s.value) for s in one.scores]
        return Group(one.prompt, one.candidates, tuple(scores))

    settings: dict[str, Any] = {"rule": "random", "count": count, "max_per_prompt": 2, "dedup": "exact", "seed": seed}
    assert kept(chosen(groups, **settings)) == kept(chosen([flipped(one) for one in groups], **settings))


def test_a_random_draw_changes_with_its_seed_and_is_fair() -> None:
    groups = [group(f"p{number}", ("a", 0.0), ("b", 1.0), ("c", 0.0)) for number in range(4)]
    draws = Counter(
        one for seed in range(600) for one in kept(chosen(groups, rule="random", count=4, max_per_prompt=2, seed=seed))
    )
    assert len(draws) == 12
    # Each of 12 is expected 200 times, with a standard deviation of about 12.
    assert all(140 < number < 260 for number in draws.values())


def test_by_default_correct_finished_distinct_candidates_survive() -> None:
    right = group("p", ("57", 1.0), ("58", 0.0), ("57", 1.0), ("?", None), ("57 ", 1.0))
    selection = chosen([right])
    assert kept(selection) == ["p/0", "p/4"]
    assert selection.reasons == {
        "p/1": "value 0.0 under threshold 1.0",
        "p/2": "duplicate of p/0",
        "p/3": "not scored: broken",
    }
    assert selection.funnel.steps == (
        ("sampled", 5),
        ("scored", 4),
        ("finished", 4),
        ("length", 4),
        ("dedup", 3),
        ("rule", 2),
    )
    assert selection.metrics == {
        "select/candidates": 5.0,
        "select/kept": 2.0,
        "select/kept_rate": 0.4,
        "select/prompts_with_survivor": 1.0,
        "select/scored": 4.0,
        "select/finished": 4.0,
        "select/length": 4.0,
        "select/dedup": 3.0,
        "select/rule": 2.0,
    }


def test_a_truncated_candidate_never_survives_unless_asked() -> None:
    cut = group("p", ("57", 1.0), finish_reason="length")
    selection = chosen([cut])
    assert kept(selection) == []
    assert selection.reasons == {"p/0": "truncated"}
    assert kept(chosen([cut], finish_reasons=("length",))) == ["p/0"]


def test_steps_that_the_config_does_not_ask_for_are_not_in_the_funnel() -> None:
    selection = chosen(
        [], rule="all", dedup="none", finish_reasons=FINISH_REASONS, min_completion_tokens=0, max_per_prompt=None
    )
    assert selection.funnel.steps == (("sampled", 0), ("scored", 0))
    assert selection.metrics["select/kept_rate"] == 0.0


def test_of_duplicates_the_best_value_stays_and_of_equals_the_first() -> None:
    same = group("p", ("a", 0.0), ("a", 1.0), ("a", 1.0))
    assert kept(chosen([same], rule="all")) == ["p/1"]
    assert kept(chosen([same], rule="random", count=1)) == ["p/0"]


def test_the_same_answer_after_other_reasoning_is_no_duplicate() -> None:
    rows = [
        (replace(make_candidate("p", index, "57"), reasoning=reasoning), 1.0)
        for index, reasoning in enumerate(["carry the one", "Carry  the one", "count on"])
    ]
    assert kept(chosen([make_scored("p", rows)])) == ["p/0", "p/1", "p/2"]
    assert kept(chosen([make_scored("p", rows)], dedup="normalised")) == ["p/0", "p/2"]


def test_normalised_dedup_forgives_case_and_white_space() -> None:
    near = group("p", ("The  end", 1.0), ("the\nEND ", 1.0), ("theend", 1.0))
    assert kept(chosen([near], dedup="normalised")) == ["p/0", "p/2"]
    assert kept(chosen([near], dedup="exact")) == ["p/0", "p/1", "p/2"]


def test_duplicates_are_those_of_one_prompt() -> None:
    assert kept(chosen([group("p", ("a", 1.0)), group("q", ("a", 1.0))])) == ["p/0", "q/0"]


def test_best_of_n_keeps_one_per_prompt_even_when_all_are_wrong() -> None:
    groups = [group("p", ("a", 0.5), ("b", 0.9), ("c", 0.9)), group("q", ("a", 0.0), ("b", 0.0))]
    assert kept(chosen(groups, rule="best_of_n")) == ["p/1", "q/0"]


def test_top_k_and_the_cap_keep_the_highest_values_in_order_of_index() -> None:
    values = group("p", ("a", 0.1), ("b", 0.9), ("c", 0.5), ("d", 0.9))
    assert kept(chosen([values], rule="top_k", top_k=3)) == ["p/1", "p/2", "p/3"]
    assert kept(chosen([values], rule="top_k", top_k=3, max_per_prompt=1)) == ["p/1"]
    assert kept(chosen([values], rule="threshold", threshold=0.5, max_per_prompt=2)) == ["p/1", "p/3"]


def test_lengths_out_of_bounds_leave_with_the_number_seen() -> None:
    candidates = [make_candidate("p", number, str(number), num_tokens=number) for number in range(4)]
    selection = chosen([make_scored("p", [(one, 1.0) for one in candidates])], max_completion_tokens=2)
    assert kept(selection) == ["p/1", "p/2"]
    unwritten = "cannot be written in the policy's tokens and context"
    assert selection.reasons == {"p/0": unwritten, "p/3": "longer than 2 tokens (3)"}
    selection = chosen([make_scored("p", [(one, 1.0) for one in candidates])], min_completion_tokens=2)
    assert selection.reasons == {"p/0": unwritten, "p/1": "shorter than 2 tokens (1)"}


def test_scores_of_other_candidates_are_refused() -> None:
    one = group("p", ("a", 1.0), ("b", 0.0))
    with pytest.raises(ValueError, match="not those of its candidates"):
        chosen([Group(one.prompt, one.candidates, one.scores[::-1])])
    with pytest.raises(ValueError, match="same prompt"):
        chosen([one, one])
