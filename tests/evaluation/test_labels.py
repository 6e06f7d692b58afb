"""How good labels and rewards are by a true verdict beside them, against cases worked out by hand."""

from __future__ import annotations

import pytest
from groups import make_candidate, make_prompt

from selftrain.evaluation.labels import LabelTally
from selftrain.evaluation.tallies import ScoringTally, SelectionTally
from selftrain.records import Group, Score

Row = tuple[float | None, float | None]


def group(name: str, *rows: Row, label: bool = True) -> Group:
    """A prompt with candidates of (value, true verdict); with `label`, value 1 is that of the vote's winner."""
    candidates = tuple(make_candidate(name, index, f"text {index}") for index in range(len(rows)))
    scores = tuple(
        Score(
            candidate.id,
            value,
            None if value is None else value >= 1.0,
            parts={"majority" if label else "reward": value, "exact": truth},
        )
        for candidate, (value, truth) in zip(candidates, rows, strict=True)
    )
    return Group(make_prompt(name), candidates, scores)


def metrics(*groups: Group, labels: str | None = "majority") -> dict[str, float]:
    tally = LabelTally("exact", labels)
    for one in groups:
        tally.add(one)
    return tally.metrics()


def test_labels_are_judged_by_prompt_and_verdicts_by_candidate() -> None:
    right = group("a", (1.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    wrong = group("b", (1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    without = group("c", (0.0, 1.0), (0.0, 0.0))
    found = metrics(right, wrong, without)
    assert found["score/label_accuracy"] == 0.5
    assert found["score/label_accuracy_low"] < 0.5 < found["score/label_accuracy_high"]
    assert found["score/truth_share"] == 4 / 8
    assert found["score/reward_accuracy"] == (3 + 0 + 1) / 8
    # Pairs of a right and a wrong one: 2 in order, 2 the wrong way round, 1 of equal values.
    assert found["score/reward_pairs_right"] == (2 + 0 + 0.5) / 5


def test_what_has_no_value_or_no_true_verdict_is_left_out() -> None:
    one = group("a", (1.0, 1.0), (None, 1.0), (0.0, None), (0.5, 0.25))
    assert metrics(one)["score/truth_share"] == 1.0
    assert metrics(group("a", (None, 1.0), (1.0, None))) == {}
    assert LabelTally().metrics() == {}


def test_graded_rewards_without_a_vote_have_no_label_accuracy() -> None:
    found = metrics(group("a", (0.9, 1.0), (0.3, 0.0), (1.5, 0.0), label=False), labels=None)
    assert found == {
        "score/truth_share": pytest.approx(1 / 3),
        "score/reward_accuracy": pytest.approx(1 / 3),
        "score/reward_pairs_right": 0.5,
    }


def test_the_tallies_of_a_round_have_them_where_a_truth_is_named() -> None:
    one = group("a", (1.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    scoring, plain = ScoringTally(LabelTally("exact", "majority")), ScoringTally(LabelTally())
    scoring.add(one)
    plain.add(one)
    assert scoring.metrics({})["score/truth_share"] == pytest.approx(1 / 3)
    assert "score/truth_share" not in plain.metrics({})
    kept, blind = SelectionTally("exact"), SelectionTally()
    for tally in (kept, blind):
        for candidate, score in zip(one.candidates[:2], one.scores[:2], strict=True):
            tally.add(candidate, score)
    found = kept.metrics(sampled_candidates=3, sampled_tokens=9)
    assert (found["select/kept_precision"], found["select/kept_truth_share"]) == (1.0, 0.5)
    assert "select/kept_truth_share" not in blind.metrics(sampled_candidates=3, sampled_tokens=9)
