"""How good the labels are that a round learns from, where a scorer of weight 0 that reads references stands beside.

A majority vote and a reward model can be sure and wrong. With `{name: exact, weight: 0}` in the list, each candidate
has two verdicts: the one that selection goes by, and the true one, which decides nothing. Comparing them needs
references, learning does not.
"""

from __future__ import annotations

from array import array

from selftrain.evaluation.statistics import interval_of_mean
from selftrain.records import Group, Score


class LabelTally:
    """Counts, a prompt after another. `truth` names the part of weight 0 whose values 1 and 0 are the true verdicts;
    `labels` the part that labels by a vote among a prompt's candidates, if there is one: 1 for the label's candidates.

    Without `truth` nothing is counted. Candidates without a value, or without a true verdict of 0 or 1, are left out.
    """

    def __init__(self, truth: str | None = None, labels: str | None = None) -> None:
        self._truth, self._labels = truth, labels
        self._candidates = self._right = self._agreeing = 0
        self._pairs, self._ordered = 0, 0.0
        self._labelled_right = array("b")

    def add(self, group: Group) -> None:
        """Count a prompt with all its candidates."""
        if self._truth is None:
            return
        known = [(one, truth) for one in group.scores if (truth := true_verdict(one, self._truth)) is not None]
        self._candidates += len(known)
        self._right += sum(truth for _, truth in known)
        self._agreeing += sum(bool(one.correct) == truth for one, truth in known)
        right = [one.value for one, truth in known if truth and one.value is not None]
        wrong = [one.value for one, truth in known if not truth and one.value is not None]
        self._pairs += len(right) * len(wrong)
        self._ordered += sum((high > low) + 0.5 * (high == low) for high in right for low in wrong)
        labelled = [truth for one, truth in known if self._labels and one.parts.get(self._labels) == 1.0]
        if labelled:
            self._labelled_right.append(2 * sum(labelled) > len(labelled))

    def metrics(self) -> dict[str, float]:
        """Of all that were counted; what is not defined is left out.

        `score/truth_share`: right candidates, by the true verdict. `score/reward_accuracy`: candidates on which what
        selection goes by (value >= `score.correct_at`) and truth agree, as TTRL calls it (Zuo et al. 2025, arXiv
        2504.16084). `score/reward_pairs_right`: of all pairs of a right and a wrong candidate of one prompt, those in
        which the right one has the greater value; equal values count half (the accuracy of a reward model on pairs).
        `score/label_accuracy`, with 95 % bounds: prompts with a label whose label is right (that is, most of the
        candidates that gave it are).
        """
        metrics: dict[str, float] = {}
        if self._candidates:
            metrics["score/truth_share"] = self._right / self._candidates
            metrics["score/reward_accuracy"] = self._agreeing / self._candidates
        if self._pairs:
            metrics["score/reward_pairs_right"] = self._ordered / self._pairs
        if self._labelled_right:
            found = interval_of_mean(map(float, self._labelled_right))
            bounds = {"": found.estimate, "_low": found.low, "_high": found.high}
            metrics |= {f"score/label_accuracy{end}": value for end, value in bounds.items()}
        return metrics


def true_verdict(score: Score, truth: str) -> bool | None:
    """What the part says of a scored candidate; None where it says nothing, or gives another value than 0 and 1."""
    value = None if score.value is None else score.parts.get(truth)
    return bool(value) if value in (0.0, 1.0) else None
