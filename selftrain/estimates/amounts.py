"""Tokens and training examples that the counted work comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from selftrain import controls
from selftrain.arms import Arm, arms_of
from selftrain.config import Config, SelectConfig, TrainConfig, one, resolved
from selftrain.estimates.lengths import Counter, Lengths
from selftrain.estimates.measured import Measured
from selftrain.estimates.work import Asking, Choosing, Work
from selftrain.prompts import PromptSets
from selftrain.selection import buffers
from selftrain.whereabouts import NO_MODEL


@dataclass(frozen=True)
class Amounts:
    """How much the work is. `prompts` are the lengths by set; `answers_rest_on` says where the lengths of answers are
    from; `is_bound` that they are no expectation but the most there can be."""

    config: Config
    prompts: Mapping[str, Lengths]
    written: Lengths | None
    measured: Measured | None

    @cached_property
    def _arms(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in arms_of(self.config)}

    @cached_property
    def _examples(self) -> dict[tuple[str, int], float]:
        """What was counted already, by arm and round."""
        return {}

    @cached_property
    def _selecting(self) -> dict[tuple[str, int], SelectConfig]:
        return {}

    @property
    def are_taken(self) -> bool:
        """Whether candidates are texts of a file and no model is loaded: they have no tokens."""
        policy = self.config.sample.policy
        return policy is not None and policy.file is not None and self.config.model.path == NO_MODEL

    @property
    def is_bound(self) -> bool:
        """Whether answers are taken to be as long as they may get."""
        return self.measured is None and self.written is None

    @property
    def answers_rest_on(self) -> str:
        """Where the lengths of answers are from, in words."""
        if self.measured is not None:
            cut = self.measured.truncated()
            limit = max(_values(self.config.sample.max_new_tokens))
            more = (
                f"; {cut:.0%} of them were cut at {self.measured.limit}, and are taken to be as long as they may get"
                if cut > 0.01 < limit - self.measured.limit
                else ""
            )
            return f"measured in {self.measured.path}{more}"
        if self.written is not None:
            return f"as the completions of prompts.train; {self.written.rests_on}"
        policy = self.config.sample.policy
        if policy is not None and policy.file is not None:
            return "a guess: sample.max_new_tokens; the texts of sample.policy.file are taken as they are, however long"
        return "an upper bound: sample.max_new_tokens, as no run has measured it"

    def answer_tokens(self, asking: Asking) -> float:
        """Mean tokens of an answer."""
        found, limit = None, asking.max_new_tokens
        if self.measured is not None and asking.kind == "greedy":
            found = self.measured.evaluated_tokens(asking.set_name, asking.round, limit)
        if self.measured is not None and found is None:
            found = self.measured.completion_tokens(asking.arm, asking.round, limit)
        if found is None:
            found = self.written.mean if self.written is not None else float(asking.max_new_tokens)
        return min(found, float(asking.max_new_tokens))

    def sampled_tokens(self, asking: Asking) -> float:
        """Tokens of all answers."""
        return asking.answers * self.answer_tokens(asking)

    def read_tokens(self, asking: Asking) -> float:
        """Tokens of the prompts: each is read once, however many candidates it gets."""
        return len(asking.prompts) * self.prompts[asking.set_name].mean

    def examples(self, choosing: Choosing) -> float:
        """Training examples of a round: as many as were kept of an earlier run's, else the most that can be kept.

        A control trains on as many as main, demonstrations included.
        """
        key = choosing.arm, choosing.round
        if key not in self._examples:
            self._examples[key] = self._counted_examples(choosing)
        return self._examples[key]

    def _counted_examples(self, choosing: Choosing) -> float:
        arm = self._arms[choosing.arm]
        knobs = self._knobs(arm, choosing.round)
        rounds = buffers.rounds_in_reach(knobs, choosing.round)
        survivors = sum(self._kept(arm, number, choosing) for number in rounds)
        each = choosing.candidates / max(1, choosing.prompts)
        if knobs.buffer == "latest_per_prompt":
            survivors = min(survivors, choosing.in_reach * min(each, float(one(knobs.max_per_prompt) or each)))
        if knobs.buffer == "best_per_prompt":
            survivors = min(survivors, float(choosing.in_reach * one(knobs.per_prompt)))
        return survivors / (1.0 - float(one(knobs.mix_seed_data)))

    @property
    def kept_is_bound(self) -> bool:
        """Whether examples are counted as the most that can be kept."""
        return self.measured is None or self.measured.kept("main", 1) is None

    def _kept(self, arm: Arm, number: int, choosing: Choosing) -> float:
        knobs = self._knobs(arm, number)
        most = most_kept(knobs, choosing.prompts, choosing.candidates)
        name = arm.name if arm.control is None else "main"
        rate = self.measured.kept(name, number) if self.measured is not None else None
        return min(most, rate * choosing.candidates) if rate is not None else most

    def _knobs(self, arm: Arm, number: int) -> SelectConfig:
        """How the arm selects in that round, looked up once: buffers reach over many rounds."""
        key = arm.name, number
        if key not in self._selecting:
            knobs = resolved(arm.config.select, number)
            self._selecting[key] = controls.unfiltered(knobs) if arm.control == "no_filter" else knobs
        return self._selecting[key]

    def trained_tokens(self, choosing: Choosing) -> float:
        """Tokens that training reads, over all its steps, prompts included."""
        train = self.train_knobs(choosing)
        steps = one(train.steps)
        examples = self.examples(_leading(self.config, choosing))
        passes = float(steps * train.batch_size) if steps else examples * float(one(train.epochs))
        return passes * self.example_tokens(choosing)

    def num_steps(self, choosing: Choosing) -> int:
        """Optimizer steps."""
        train = self.train_knobs(choosing)
        examples = self.examples(_leading(self.config, choosing))
        return one(train.steps) or ceil(examples / train.batch_size * float(one(train.epochs)))

    def example_tokens(self, choosing: Choosing) -> float:
        """Mean tokens of a training example, prompt and completion."""
        limit = one(resolved(self.config.sample, choosing.round).max_new_tokens)
        before, arm = self.measured, choosing.arm
        found = before.completion_tokens(arm, choosing.round, limit) if before is not None else None
        mean = found if found is not None else self.written.mean if self.written is not None else limit
        return self.prompts["train"].mean + min(mean, limit)

    def train_knobs(self, choosing: Choosing) -> TrainConfig:
        """How the round trains."""
        return resolved(self._arms[choosing.arm].config.train, choosing.round)


def most_kept(knobs: SelectConfig, prompts: int, candidates: int) -> float:
    """The most survivors that the rule and the cap leave of so many candidates."""
    each = candidates / max(1, prompts)
    if one(knobs.max_per_prompt) is not None:
        each = min(each, float(one(knobs.max_per_prompt) or each))
    if knobs.rule in ("best_of_n", "top_k"):
        each = min(each, 1.0 if knobs.rule == "best_of_n" else float(one(knobs.top_k)))
    most = each * prompts
    if knobs.rule == "random" and one(knobs.count) is not None:
        most = min(most, float(one(knobs.count) or most))
    if knobs.rule == "top_fraction" and one(knobs.top_fraction) is not None:
        most = min(most, candidates * float(one(knobs.top_fraction) or 1.0))
    return most


def _leading(config: Config, choosing: Choosing) -> Choosing:
    """The training that sets the number of updates: of a control, main's of that round."""
    controls_named = {one.name for one in config.arms if one.is_control}
    return replace(choosing, arm="main") if choosing.arm in controls_named else choosing


def lengths_by_set(counter: Counter, prompts: PromptSets, work: Work) -> dict[str, Lengths]:
    """Prompt lengths of each set that is asked, and of the training prompts."""
    asked = {asking.set_name: asking.prompts for asking in work.askings if asking.prompts}
    return {name: counter.prompts(rows) for name, rows in {**asked, "train": prompts.train.prompts}.items()}


def _values(schedule: int | tuple[int, ...]) -> tuple[int, ...]:
    return schedule if isinstance(schedule, tuple) else (schedule,)
