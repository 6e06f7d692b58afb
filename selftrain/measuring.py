"""Measuring a policy: greedy and sampled answers to held-out prompts, what was retained, how far it drifted.

Every arm is measured with main's knobs and scorers, so that arms differ in what they learned from alone.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from selftrain import prompts as prompt_room
from selftrain import tables
from selftrain.arms import Arm
from selftrain.commits import Commits, Made, Task
from selftrain.config import Config
from selftrain.drawing import Drawing, read_groups
from selftrain.evaluation import collapse, figures
from selftrain.evaluation import metrics as measured
from selftrain.evaluation import rounds as round_metrics
from selftrain.evaluation import tasks as task_metrics
from selftrain.planning import Draw, for_pass_at_k, greedy
from selftrain.prompts import PromptSet, PromptSets
from selftrain.records import Candidate, Group, Outcome, Policy, Prompt, Receipt, Report, SamplingParameters, digest
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.store import write_jsonl
from selftrain.streaming import Judging

if TYPE_CHECKING:
    from selftrain.scoring.combined import CombinedScorer

TEXTS_FILE = "texts.jsonl"


@dataclass(frozen=True, slots=True)
class Measuring:
    """Evaluation of one run."""

    config: Config
    rooms: Rooms
    prompts: PromptSets
    commits: Commits
    drawing: Drawing

    def evaluate(self, arm: Arm, round_number: int, policy: Policy) -> Report:
        """Greedy answers to every held-out prompt and, for main, to some of those that the round trained on."""
        sets = dict(self.prompts.held_out())
        if arm.main is None and round_number and self.config.evaluate.trained_prompts:
            sets["trained"] = self._trained(round_number)
        task = self._task(arm, round_number, "evaluate", policy, sets, 1)
        return self._answer(task, policy, greedy(self.config), sets, self.rooms.evaluation_scorer)

    def evaluate_sampled(self, arm: Arm, round_number: int, policy: Policy) -> Report:
        """Sampled answers for pass@k, on the test prompts (or the validation prompts, where there is no test)."""
        held_out = self.prompts.held_out()
        name = "test" if "test" in held_out else "validate"
        sets = {name: held_out[name]} if held_out else {}
        task = self._task(arm, round_number, "evaluate-sampled", policy, sets, self.config.evaluate.num_samples)
        return self._answer(task, policy, for_pass_at_k(self.config), sets, self.rooms.evaluation_scorer)

    def retention(self, arm: Arm, round_number: int, policy: Policy) -> Report:
        """What the policy kept of what it could: perplexity of the retention texts, or accuracy on their prompts."""
        kept = self.prompts.retention
        assert kept is not None
        if kept.prompts is not None:
            sets = {"retention": kept.prompts}
            task = self._task(arm, round_number, "evaluate-retention", policy, sets, 1)
            return self._answer(task, policy, greedy(self.config), sets, self.rooms.retention_scorer)
        inputs = {"policy": policy.digest, **self.rooms.model_inputs}
        if round_number:
            inputs["before"] = arm.at(0, "evaluate-retention").output
        name, total = "evaluate-retention", len(kept.texts)
        task = Task(arm, round_number, name, name, inputs, total, "texts", policies=(policy,))
        receipt = self.commits.once(task, lambda fingerprint, display: self._read_texts(task, policy, display))
        return Report(arm.name, round_number, receipt.metrics, {})

    def drift(self, policy: Policy, candidates: Iterable[Candidate], prefix: str) -> dict[str, float]:
        """KL to the policy of round 0 over some of the policy's own candidates; nothing where no model is loaded. All
        candidates are run through, and no more held than are looked at."""
        limit = self.config.evaluate.drift_candidates
        chosen = heapq.nsmallest(max(1, limit), candidates, key=lambda one: one.id)
        if not self.rooms.needs_model() or not limit or self.config.sample.engine == "scripted":
            return {}
        own = [one.logprobs for one in chosen]
        if policy.digest == self.rooms.base_policy.digest:
            return round_metrics.of_drift(own, own, prefix)
        from selftrain.models.likelihood import token_logprobs

        base = token_logprobs(
            self.rooms.bench,
            self.rooms.base_policy,
            [one.prompt_token_ids + one.completion_token_ids for one in chosen],
            scored_from=[len(one.prompt_token_ids) for one in chosen],
        )
        return round_metrics.of_drift(own, base, prefix)

    # What they share

    def _task(
        self,
        arm: Arm,
        round_number: int,
        phase: str,
        policy: Policy,
        sets: Mapping[str, PromptSet],
        num_candidates: int,
    ) -> Task:
        inputs = {"policy": policy.digest, **self.rooms.model_inputs}
        total = 2 * sum(len(one.prompts) for one in sets.values()) * num_candidates
        return Task(arm, round_number, phase, phase, inputs, total, "answers", everywhere=True, policies=(policy,))

    def _answer(
        self,
        task: Task,
        policy: Policy,
        parameters: SamplingParameters,
        sets: Mapping[str, PromptSet],
        scorer: CombinedScorer,
    ) -> Report:
        kind = {"evaluate": "greedy", "evaluate-sampled": "sampled"}.get(task.phase, "retention")
        folder = f"{task.arm.folder(task.round_number)}/evaluation/{kind}"

        def make(fingerprint: str, display: Phase) -> Made | None:
            files: dict[str, str] = {}
            metrics: dict[str, float] = {}
            busy, tokens = self.drawing.busy_seconds, self.drawing.drawn_tokens
            answers = self.commits.fingerprint_of_answers(task)
            ahead: dict[str, tuple[list[str], Judging]] = {}
            for name, prompts in sets.items():  # all of them first: the one's answers are judged during the next
                draw = Draw(
                    stream=f"{task.phase}/{name}/{task.round_number}",
                    prompts=prompts.prompts,
                    num_candidates=self.config.evaluate.num_samples if kind == "sampled" else 1,
                    parameters=parameters,
                    block_size=self.config.evaluate.block_size,
                    policy=policy,
                )
                known, to = by_id(prompts.prompts), f"{folder}/{name}"
                judging = self.drawing.judging(scorer, known, f"{to}/scores", fingerprint)
                meanwhile = judging if self.config.score.overlaps else None
                drawn = self.drawing.draw(draw, self.rooms, f"{to}/candidates", answers, display, meanwhile)
                ahead[name] = drawn, judging
            for name, (drawn, judging) in ahead.items():
                paths, known = [self.commits.run.path / path for path in drawn], by_id(sets[name].prompts)
                written, _ = self.drawing.judge(paths, judging, display, self.config.score)
                if not self.commits.world.is_first:
                    continue
                groups = read_groups(paths, [self.commits.run.path / path for path in written], known)
                candidates = [one for group in groups for one in group.candidates]
                outcomes = round_metrics.outcomes(groups, greedy=kind != "sampled")
                table = f"{folder}/{name}/outcomes.parquet"
                files[table] = tables.write(self.commits.run.path / table, outcomes, Outcome, fingerprint=fingerprint)
                files |= self.commits.run.hashes([*drawn, *written])
                metrics |= self._figures(kind, name, groups)
                metrics |= task_metrics.of_sets(name, groups, partial(self._figures, kind))
                if kind == "greedy":
                    metrics |= round_metrics.of_token_counts(candidates, f"evaluate/{name}")
                    metrics |= collapse.of_words([one.text for one in candidates], f"evaluate/{name}")
                metrics |= self.drift(policy, candidates, "evaluate/sampled") if kind == "sampled" else {}
            if not self.commits.world.is_first:
                return None
            part = {"greedy": "evaluate", "sampled": "evaluate/sampled"}.get(kind, "evaluate/retention")
            seconds = self.drawing.busy_seconds - busy
            metrics |= round_metrics.gap(metrics)
            metrics[f"{part}/tokens_per_second"] = (self.drawing.drawn_tokens - tokens) / seconds if seconds else 0.0
            rates = {name: metrics[key] for name in sets if (key := f"evaluate/{name}/pass@1") in metrics}
            display.done(*(f"{name} pass@1 {rate:.1%}" for name, rate in rates.items()))
            return Made(files, sum(len(one.prompts) for one in sets.values()), metrics)

        receipt = self.commits.once(task, make)
        return Report(task.arm.name, task.round_number, receipt.metrics, self._outcomes(receipt, sets))

    def _outcomes(self, receipt: Receipt, sets: Iterable[str]) -> dict[str, tuple[Outcome, ...]]:
        files = self.commits.run.verified(receipt)
        found = {name: next(one for one in files if one.match(f"{name}/outcomes.parquet")) for name in sets}
        return {name: tuple(tables.read(path, Outcome)) for name, path in found.items()}

    def _figures(self, kind: str, name: str, groups: Sequence[Group]) -> dict[str, float]:
        """The metrics of a set, or of one of its tasks."""
        outcomes = round_metrics.outcomes(groups, greedy=kind != "sampled")
        knobs = self.config.evaluate
        seed = self.config.seed
        settings: dict[str, Any] = {"confidence": knobs.confidence, "resamples": knobs.resamples, "seed": seed}
        if kind == "sampled":
            metrics = round_metrics.of_sampled_answers(name, outcomes, knobs.ks, **settings)
            return metrics | figures.of_sampled(name, groups, knobs.ks, settings)
        truncated = sum(one.finish_reason == "length" for group in groups for one in group.candidates)
        metrics = measured.summarise(name, outcomes, truncated=truncated, **settings)
        return metrics | figures.of_greedy(name, outcomes, settings)

    def _trained(self, round_number: int) -> PromptSet:
        """The first prompts of the round, by id: also those that nobody solved, or they would be the easy ones."""
        asked = prompt_room.of_round(
            self.prompts.train, self.config.prompts, seed=self.config.seed, round_number=round_number
        )
        chosen = sorted(asked, key=lambda one: one.id)[: self.config.evaluate.trained_prompts]
        return PromptSet("trained", tuple(chosen), digest([one.id for one in chosen]), 0)

    def _read_texts(self, task: Task, policy: Policy, display: Phase) -> Made:
        from selftrain.models.likelihood import encode_text, token_logprobs

        kept = self.prompts.retention
        assert kept is not None
        ids = [encode_text(self.rooms.bench, text) for text in kept.texts]
        read = token_logprobs(self.rooms.bench, policy, ids, scored_from=[1] * len(ids))
        before = None
        if task.round_number:
            path = self.commits.run.verified(task.arm.at(0, "evaluate-retention"))[0]
            before = [json.loads(line)["logprobs"] for line in path.read_text().splitlines()]
        knobs = self.config.evaluate
        metrics = round_metrics.of_texts(
            read, before, confidence=knobs.confidence, resamples=knobs.resamples, seed=self.config.seed
        )
        metrics |= task_metrics.of_texts(
            kept.tasks, read, before, confidence=knobs.confidence, resamples=knobs.resamples, seed=self.config.seed
        )
        name = f"{task.arm.folder(task.round_number)}/evaluation/retention/{TEXTS_FILE}"
        rows = [{"text": text, "logprobs": row} for text, row in zip(kept.texts, read, strict=True)]
        files = {name: write_jsonl(self.commits.run.path / name, rows)}
        display.done(f"perplexity {metrics['evaluate/retention/perplexity']:.2f}")
        return Made(files, len(rows), metrics)


def by_id(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts by their ids."""
    return {one.id: one for one in prompts}
