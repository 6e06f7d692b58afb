"""Signs that a policy narrows or drifts: variety of right answers, duplication, lengths, KL to the base model."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from selftrain.errors import PhaseError
from selftrain.records import Candidate, Score

Judged = tuple[Candidate, Score]
"""A candidate and its score."""

MOST_NATS = 20.0
"""In k3 a token counts as at most so much likelier under the base model: one beyond that would be the whole mean, or
overflow."""
CHUNK = 1 << 20
"""So many tokens are held at a time, or one sequence, while bigrams are counted."""


def of_right_answers(groups: Iterable[Sequence[Judged]]) -> dict[str, float]:
    """`score/distinct_right_per_solved_prompt` (RFT, Yuan et al. 2023, table 2: gains follow distinct solutions, not
    accepted ones): different texts of right candidates, letter case and white space aside, per prompt with any."""
    return of_distinct_right([number for rows in groups if (number := distinct_right(rows))])


def distinct_right(rows: Iterable[Judged]) -> int:
    """Of a prompt, for `of_distinct_right`."""
    return len({" ".join(one.text.casefold().split()) for one, score in rows if score.correct})


def of_distinct_right(numbers: Sequence[int]) -> dict[str, float]:
    """As `of_right_answers`, from the number of each solved prompt."""
    return {"score/distinct_right_per_solved_prompt": sum(numbers) / len(numbers)} if numbers else {}


def of_lengths(rows: Iterable[Judged]) -> dict[str, float]:
    """Median and 95th percentile of completion tokens of right and of wrong candidates: `score/right_tokens_p50`, ...
    Where wrong ones grow longer than right ones, look at truncation. Left out where there are none."""
    lengths: dict[str, list[int]] = {"right": [], "wrong": []}
    for candidate, score in rows:
        lengths["right" if score.correct else "wrong"].append(len(candidate.completion_token_ids))
    return of_lengths_by_verdict(lengths)


def of_lengths_by_verdict(lengths: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """As `of_lengths`, from the lengths under `right` and `wrong`."""
    return {
        f"score/{name}_tokens_p{percent}": float(np.quantile(np.array(found), percent / 100))
        for name, found in lengths.items()
        if found
        for percent in (50, 95)
    }


def of_duplication(candidates: Sequence[Candidate]) -> dict[str, float]:
    """How much of what was kept repeats itself. `select/duplicate_rate` is 1 - distinct (prompt, text) / kept,
    `select/duplicate_text_rate` the same over all prompts together, `select/distinct_2` the share of distinct bigrams
    of completion tokens among all bigrams (after Li et al. 2016, arXiv 1510.03055, who divide by all tokens).

    The last falls as sets grow, so compare it between sets of one size. Undefined figures are left out.
    """
    duplication = Duplication()
    for one in sorted(candidates, key=lambda one: one.prompt_id):
        duplication.add(one)
    return duplication.metrics()


class Duplication:
    """What `of_duplication` says, from candidates that come prompt by prompt: held are the texts of the prompt in hand,
    a number for each candidate, and the distinct bigrams."""

    def __init__(self) -> None:
        self.candidates = self._distinct = 0
        self._prompt: str | None = None
        self._of_prompt: set[str] = set()
        self._texts = array("Q")
        self._bigrams = Bigrams()

    def add(self, candidate: Candidate) -> None:
        """Count one."""
        if candidate.prompt_id != self._prompt:
            self._prompt, self._of_prompt = candidate.prompt_id, set()
        self.candidates += 1
        self._distinct += candidate.text not in self._of_prompt
        self._of_prompt.add(candidate.text)
        self._texts.append(_mark(candidate.text))
        self._bigrams.add(candidate.completion_token_ids)

    def metrics(self) -> dict[str, float]:
        """Of all that were counted."""
        if not self.candidates:
            return {}
        metrics = {
            "select/duplicate_rate": 1 - self._distinct / self.candidates,
            "select/duplicate_text_rate": 1 - len(np.unique(np.array(self._texts))) / self.candidates,
        }
        distinct, total = self._bigrams.count()
        return metrics | ({"select/distinct_2": distinct / total} if total else {})


def _mark(text: str) -> int:
    """64 bits that tell the texts of a million candidates apart, but for a chance of 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Bigrams:
    """Counts distinct bigrams of tokens, and all, within sequences that come one after another."""

    def __init__(self) -> None:
        self._ids, self._ends = array("q"), array("q")
        self._parts: list[NDArray[np.int64]] = []
        self._total = 0

    def add(self, ids: Sequence[int]) -> None:
        """Count those of a sequence."""
        self._ids.extend(ids)
        self._ends.append(len(self._ids))
        if len(self._ids) >= CHUNK:
            self._count_waiting()

    def count(self) -> tuple[int, int]:
        """How many distinct bigrams, and how many in all."""
        self._count_waiting()
        self._parts = [np.unique(np.concatenate(self._parts))] if self._parts else []
        return sum(map(len, self._parts)), self._total

    def _count_waiting(self) -> None:
        ids, ends = np.array(self._ids), np.array(self._ends)
        inside = np.ones(len(ids), dtype=bool)
        inside[ends[ends > 0] - 1] = False  # the last token begins no bigram
        found = (ids[:-1] << 32 | ids[1:])[inside[:-1]]
        self._total += len(found)
        self._parts.append(np.unique(found))
        self._ids, self._ends = array("q"), array("q")
        # Together once they are as many as what is known: so each is sorted again only a few times.
        if sum(map(len, self._parts[1:])) >= len(self._parts[0]):
            self._parts = [np.unique(np.concatenate(self._parts))]


def of_words(texts: Iterable[str], prefix: str) -> dict[str, float]:
    """`<prefix>/distinct_1` and `distinct_2`: distinct words, and distinct pairs of adjacent words, of all texts
    together, over the number of all words (Li et al. 2016, arXiv 1510.03055, section 5: both are divided by the tokens
    generated). Words are what white space parts, letter case aside. They fall as sets or texts grow, so compare them
    between answers to one set, beside their lengths. Left out where there is no word."""
    words, pairs, total = set[str](), set[tuple[str, str]](), 0
    for text in texts:
        said = text.casefold().split()
        words.update(said)
        pairs.update(pairwise(said))
        total += len(said)
    return {f"{prefix}/distinct_1": len(words) / total, f"{prefix}/distinct_2": len(pairs) / total} if total else {}


def of_kl_to_base(
    policy_logprobs: Sequence[Sequence[float]], base_logprobs: Sequence[Sequence[float]], prefix: str
) -> dict[str, float]:
    """KL(policy || base) from the log-probabilities that both give to the policy's candidates, at temperature 1, in
    nats: with d = log policy - log base per token, `<prefix>/kl_to_base_k1` is the mean of d, `..._k3` the mean of
    exp(-d) - 1 + d (never negative, and of less variance), both over tokens; `..._per_sequence` is the mean over
    candidates of their sum of d. After Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html).

    Unbiased for candidates drawn at temperature 1 from the whole vocabulary; of others they say how far the policy
    moved on what it was drawn to say. Raises ValueError where the shapes differ, PhaseError for NaN or infinity.
    """
    lengths = [len(one) for one in policy_logprobs]
    if lengths != [len(one) for one in base_logprobs]:
        raise ValueError("the policy's and the base model's log-probabilities are not of the same tokens")
    metrics = {f"{prefix}/drift_candidates": float(len(lengths))}
    if not sum(lengths):
        return metrics
    policy, base = (flat(one) for one in (policy_logprobs, base_logprobs))
    difference = policy - base
    metrics[f"{prefix}/kl_to_base_k1"] = float(difference.mean())
    bounded = difference.clip(min=-MOST_NATS)
    metrics[f"{prefix}/kl_to_base_k3"] = float((np.expm1(-bounded) + bounded).mean())
    metrics[f"{prefix}/kl_to_base_per_sequence"] = float(difference.sum()) / len(lengths)
    return metrics


def flat(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """All log-probabilities in a row. Raises PhaseError where one is NaN or infinite."""
    found = np.fromiter(chain.from_iterable(logprobs), dtype=np.float64)
    if not np.isfinite(found).all():
        raise PhaseError(
            f"{int((~np.isfinite(found)).sum())} of {len(found)} log-probabilities are NaN or infinite; try "
            "model.dtype: float32, or a lower learning rate"
        )
    return found
