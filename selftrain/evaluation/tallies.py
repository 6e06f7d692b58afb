"""The metrics of a round's phases from its candidates one after another: what is held of each is a few numbers.

A prompt's candidates must come together, as they do in the files of a draw. Figures are those of all candidates at
once, to the last bit: quantiles and means are taken over arrays of numbers, in the order of the candidates.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean, median

import numpy as np

from selftrain.evaluation import collapse, coverage, tasks
from selftrain.evaluation.labels import LabelTally, true_verdict
from selftrain.records import Candidate, Group, Score


class SamplingTally:
    """Counts, lengths in tokens, truncation, duplication, entropy, as `rounds.of_sampling` says."""

    def __init__(self) -> None:
        self._lengths, self._entropies, self._logprobs = array("q"), array("d"), array("d")
        self._reasoning, self._reasons = array("q"), False
        self._num_logprobs = self._truncated = self._prompts = self._distinct = 0
        self._prompt: str | None = None
        self._texts: set[tuple[int, ...] | str] = set()

    def through(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """The same candidates, each counted when it is asked for."""
        for one in candidates:
            self.add(one)
            yield one

    @property
    def candidates(self) -> int:
        """How many were counted."""
        return len(self._lengths)

    def add(self, one: Candidate) -> None:
        """Count a candidate."""
        if one.prompt_id != self._prompt:
            self._end_prompt()
            self._prompt, self._prompts = one.prompt_id, self._prompts + 1
        self._texts.add(one.completion_token_ids or one.text)
        self._lengths.append(len(one.completion_token_ids))
        self._entropies.append(one.entropy)
        self._logprobs.append(sum(one.logprobs))
        self._num_logprobs += len(one.logprobs)
        self._truncated += one.finish_reason == "length"
        self._reasoning.append(one.reasoning_tokens)
        self._reasons |= one.reasoning is not None

    def metrics(self, *, seconds: float, tokens_drawn_now: int) -> dict[str, float]:
        """Of all that were counted."""
        self._end_prompt()
        lengths, number = np.array(self._lengths), len(self._lengths)
        metrics = {
            "sample/prompts": float(self._prompts),
            "sample/candidates": float(number),
            "sample/tokens": float(lengths.sum()),
            "sample/completion_tokens_p50": float(np.quantile(lengths, 0.5)),
            "sample/completion_tokens_p95": float(np.quantile(lengths, 0.95)),
            "sample/truncated_rate": self._truncated / number,
            "sample/distinct_rate": self._distinct / number,
            "sample/generating_seconds": seconds,
            "sample/tokens_per_second": tokens_drawn_now / seconds if seconds > 0 else 0.0,
        }
        if self._num_logprobs:  # of candidates that others wrote they are not known
            metrics["sample/token_logprob_mean"] = sum(self._logprobs) / self._num_logprobs
            metrics["sample/entropy"] = float(lengths @ np.array(self._entropies) / lengths.sum())
        metrics["sample/completion_tokens_mean"] = fmean(self._lengths)
        if self._reasons:
            metrics["sample/reasoning_tokens_mean"] = fmean(self._reasoning)
        return metrics

    def _end_prompt(self) -> None:
        self._distinct += len(self._texts)
        self._texts = set()


class ScoringTally:
    """What a round's candidates got right, by candidate and by prompt, as `rounds.of_scoring` says. `labels` counts how
    good the labels are, where there is something to tell that by."""

    def __init__(self, labels: LabelTally | None = None) -> None:
        self._labels = labels
        self.solved: dict[str, bool] = {}
        """By prompt id: whether a candidate of the prompt is right. An unscored one is not."""
        self.candidates = 0
        """How many were counted, scored or not."""
        self._values, self._best, self._gaps = array("d"), array("d"), array("d")
        self._lengths = {"right": array("q"), "wrong": array("q")}
        self._counts: list[tuple[int, int]] = []
        self._by_task: list[tasks.Count] = []
        self._tallies: Counter[coverage.Tally] = Counter()
        self._distinct_right = array("q")

    def through(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The same groups, each counted when it is asked for."""
        for group in groups:
            self.add(group)
            yield group

    def add(self, group: Group) -> None:
        """Count a prompt with all its candidates."""
        judged = judged_of(group)
        if self._labels is not None:
            self._labels.add(group)
        self.candidates += len(group.candidates)
        self.solved[group.prompt.id] = any(score.correct for _, score in judged)
        if group.prompt.task is not None:
            self._by_task.append(tasks.count(group))
        if not judged:
            return
        right = sum(bool(score.correct) for _, score in judged)
        values = [score.value for _, score in judged if score.value is not None]
        self._counts.append((len(judged), right))
        self._tallies[coverage.tally([score for _, score in judged])] += 1
        self._values.extend(values)
        self._best.append(max(values))
        self._gaps.append(max(values) - median(values))
        if right:
            self._distinct_right.append(collapse.distinct_right(judged))
        for candidate, score in judged:
            self._lengths["right" if score.correct else "wrong"].append(len(candidate.completion_token_ids))

    def metrics(self, before: Mapping[str, bool]) -> dict[str, float]:
        """Of all that were counted; `before` as `rounds.of_scoring` has it."""
        scored, num_prompts, counts = len(self._values), max(1, len(self._counts)), self._counts
        return {
            "score/candidates": float(self.candidates),
            "score/unscored_rate": 1.0 - scored / self.candidates if self.candidates else 0.0,
            "score/value_mean": float(np.mean(np.array(self._values))) if scored else 0.0,
            "score/correct_rate": sum(right for _, right in counts) / scored if scored else 0.0,
            "score/prompts_solved_rate": sum(right > 0 for _, right in counts) / num_prompts,
            "score/prompts_all_right_rate": sum(right == number for number, right in counts) / num_prompts,
            "score/prompts_all_wrong_rate": sum(right == 0 for _, right in counts) / num_prompts,
            **coverage.of_solved(self.solved, before),
            **coverage.of_difficulty(counts),
            **coverage.of_tallies(self._tallies),
            **self._of_values(),
            **collapse.of_distinct_right(self._distinct_right),
            **collapse.of_lengths_by_verdict(self._lengths),
            **tasks.of_counts(self._by_task),
            **(self._labels.metrics() if self._labels is not None else {}),
        }

    def _of_values(self) -> dict[str, float]:
        """Values by prompt: quantiles over all candidates; and the best of each prompt, `value_best_of_n`, with what it
        is above the median, `value_gap`, means over prompts: the gain that choosing can bring (Llama 2, Touvron et al.
        2023, figure 7)."""
        if not self._values:
            return {}
        tenth, half, nine_tenths = np.quantile(np.array(self._values), [0.1, 0.5, 0.9])
        return {
            "score/value_p10": float(tenth),
            "score/value_p50": float(half),
            "score/value_p90": float(nine_tenths),
            "score/value_best_of_n": fmean(self._best),
            "score/value_gap": fmean(self._gaps),
        }


class SelectionTally:
    """The quality and the price of what was kept, as `rounds.of_selection` says; with `truth`, the part of weight 0
    that tells right from wrong, also `select/kept_truth_share`: the share of right ones by that, where selection goes
    by something else."""

    def __init__(self, truth: str | None = None) -> None:
        self._truth, self._true_verdicts, self._truly_right = truth, 0, 0
        self.of_prompts: Counter[str] = Counter()
        """How many were kept of each prompt, by its id."""
        self._duplication = collapse.Duplication()
        self._verdicts = self._right = self._tokens = 0

    def add(self, candidate: Candidate, score: Score) -> None:
        """Count a candidate that was kept."""
        self.of_prompts[candidate.prompt_id] += 1
        self._duplication.add(candidate)
        self._tokens += len(candidate.completion_token_ids)
        verdict = None if self._truth is None else true_verdict(score, self._truth)
        if verdict is not None:
            self._true_verdicts += 1
            self._truly_right += verdict
        if score.correct is not None:
            self._verdicts += 1
            self._right += score.correct

    @property
    def kept(self) -> int:
        """How many were counted."""
        return self._duplication.candidates

    def metrics(self, *, sampled_candidates: int, sampled_tokens: int) -> dict[str, float]:
        """Of all that were counted; nothing where nothing was."""
        if not self.kept:
            return {}
        return {
            **self._duplication.metrics(),
            "select/tokens_per_kept": sampled_tokens / self.kept,
            "select/candidates_per_kept": sampled_candidates / self.kept,
            "select/kept_tokens_mean": self._tokens / self.kept,
            **({"select/kept_precision": self._right / self._verdicts} if self._verdicts else {}),
            **({"select/kept_truth_share": self._truly_right / self._true_verdicts} if self._true_verdicts else {}),
        }


def judged_of(group: Group) -> list[collapse.Judged]:
    """The candidates that were scored, with their scores."""
    rows = zip(group.candidates, group.scores, strict=True)
    return [(candidate, score) for candidate, score in rows if score.value is not None]
