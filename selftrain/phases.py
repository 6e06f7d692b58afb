"""The corridor: each phase takes committed files into a room and publishes what comes out, with a receipt.

A phase that is already committed is not done again: its receipt is read instead. So starting a run and resuming it are
the same calls, and the loop above needs no notion of where it left off.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace

from selftrain import prompts as prompt_room
from selftrain import selection, tables
from selftrain.adapters import adapter_digest
from selftrain.arms import Arm
from selftrain.commits import Commits, Made
from selftrain.config import Config, TrainConfig, one, resolved
from selftrain.drawing import Drawing, grouped
from selftrain.errors import PhaseError
from selftrain.evaluation import metrics as measured
from selftrain.evaluation import rounds as round_metrics
from selftrain.history import STEPS_FILE
from selftrain.planning import Draw, for_pass_at_k, for_training, greedy
from selftrain.prompts import PromptSet, PromptSets
from selftrain.records import (
    Candidate,
    Digest,
    Group,
    Outcome,
    Policy,
    Prompt,
    Receipt,
    Report,
    SamplingParameters,
    Score,
    Survivor,
    seed_from,
)
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.selection.survivors import buffer, to_survivors
from selftrain.store import TEMPORARY, disk_errors, file_sha256, publish_folder, write_jsonl
from selftrain.summaries import funnel_words


class Phases:
    """The five phases of a round over one run directory."""

    def __init__(
        self,
        config: Config,
        *,
        rooms: Rooms,
        prompts: PromptSets,
        commits: Commits,
    ) -> None:
        self.config = config
        self.rooms = rooms
        self.prompts = prompts
        self.commits = commits
        self.run = commits.run
        self.terminal = commits.terminal
        self._drawing = Drawing(
            rooms, commits.run.path, commits.world, seed=config.seed, max_unscored_rate=config.score.max_unscored_rate
        )
        self._training_seconds = 0.0

    # The phases

    def gather(self, arm: Arm, round_number: int, policy: Policy) -> tuple[Receipt, Receipt]:
        """Sample and score: both receipts. A control shares those of main's first round by reference."""
        if arm.control_of is not None and round_number == 1:
            return arm.control_of.at(1, "sample-wave-00"), arm.control_of.at(1, "score-wave-00")
        candidates = self.sample(arm, round_number, policy)
        return candidates, self.score(arm, round_number, candidates)

    def sample(self, arm: Arm, round_number: int, policy: Policy) -> Receipt:
        """Draw `num_candidates` per prompt of the round from the policy."""
        knobs = resolved(self.config.sample, round_number)
        draw = Draw(
            stream=f"{arm.name}/{round_number}/0",
            prompts=self._prompts_of(round_number),
            num_candidates=one(knobs.num_candidates),
            parameters=for_training(self.config, round_number),
            block_size=one(knobs.block_size),
            policy=policy,
        )

        def make(fingerprint: str, display: Phase) -> Made:
            folder = f"{arm.folder(round_number)}/candidates/wave-00"
            busy, tokens = self._drawing.busy_seconds, self._drawing.drawn_tokens
            drawn = self._drawing.draw(draw, folder, fingerprint, display)
            candidates = [one for path in drawn for one in tables.read(self.run.path / path, Candidate)]
            generating = self._drawing.busy_seconds - busy
            metrics = round_metrics.of_sampling(
                candidates, seconds=generating, tokens_drawn_now=self._drawing.drawn_tokens - tokens
            )
            display.done(f"{len(candidates):,} candidates")
            return Made(self._hashes(drawn), len(candidates), metrics)

        inputs = {"policy": policy.digest, **self.rooms.model_inputs}
        total = len(draw.prompts) * draw.num_candidates
        return self.commits.once(arm, round_number, "sample", "sample-wave-00", inputs, make, total, "candidates")

    def score(self, arm: Arm, round_number: int, candidates: Receipt) -> Receipt:
        """Judge every candidate."""

        def make(fingerprint: str, display: Phase) -> Made:
            known = by_id(self._prompts_of(round_number))
            folder = f"{arm.folder(round_number)}/scores/wave-00"
            drawn = self.run.verified(candidates)
            written, scores = self._drawing.judge(drawn, known, folder, fingerprint, display)
            prompt_of = {one.id: one.prompt_id for path in drawn for one in tables.read(path, Candidate)}
            metrics = round_metrics.of_scoring(scores, prompt_of)
            display.done(f"{metrics['score/correct_rate']:.1%} correct")
            return Made(self._hashes(written), len(scores), metrics)

        inputs = {"candidates": candidates.output}
        return self.commits.once(
            arm, round_number, "score", "score-wave-00", inputs, make, candidates.rows, "candidates"
        )

    def select(self, arm: Arm, round_number: int, scored: tuple[Receipt, Receipt]) -> Receipt:
        """Choose the exact training examples; the funnel says how many left at each step."""
        inputs = {"candidates": scored[0].output, "scores": scored[1].output}
        main = arm.control_of.at(round_number, "select-improve-00") if arm.control_of is not None else None
        if main is not None:
            inputs["main"] = main.output
        earlier = None
        if self.config.select.buffer == "append" and round_number > 1:
            earlier = arm.at(round_number - 1, "select-improve-00")
            inputs["earlier"] = earlier.output

        def make(fingerprint: str, display: Phase) -> Made:
            knobs = resolved(self.config.select, round_number)
            seed = seed_from(self.config.seed, arm.name, round_number, "select")
            groups = self._groups(round_number, *scored)
            if main is not None:
                count = int(main.metrics["select/kept"])
                knobs = knobs.model_copy(update={"rule": "random", "count": count, "min_survivors": 0})
            chosen = selection.select(groups, knobs, seed=seed)
            metrics = chosen.metrics
            if main is not None and len(chosen.kept) < count:
                metrics["select/short_of_main"] = float(count - len(chosen.kept))
                self.terminal.warn(
                    f"{arm.name} · round {round_number}: only {len(chosen.kept)} candidates to draw from, where main "
                    f"kept {count}: this control trains on less"
                )
            if len(chosen.kept) < knobs.min_survivors:
                raise PhaseError(
                    f"round {round_number} of {arm.name}: {len(chosen.kept)} survivors, and select.min_survivors is "
                    f"{knobs.min_survivors}; the funnel: {funnel_words(chosen.metrics)}. Sample more candidates, "
                    "lower the threshold, or lower min_survivors"
                )
            texts = {group.prompt.id: _words(group) for group in groups}
            new = to_survivors(chosen.kept, round_number=round_number, prompt_texts=texts)
            before = tables.read(self.run.verified(earlier)[0], Survivor) if earlier is not None else ()
            survivors = buffer(new, before, self.config.select.buffer)
            folder = f"{arm.folder(round_number)}/survivors/improve-00"
            files = {
                f"{folder}/survivors.parquet": tables.write(
                    self.run.path / folder / "survivors.parquet", survivors, Survivor, fingerprint=fingerprint
                )
            }
            rejected = [{"candidate_id": one, "why": why} for one, why in sorted(chosen.reasons.items())]
            files[f"{folder}/rejected.jsonl"] = write_jsonl(self.run.path / folder / "rejected.jsonl", rejected)
            display.done(funnel_words(chosen.metrics))
            return Made(files, len(survivors), {**metrics, "select/training_examples": float(len(survivors))})

        return self.commits.once(arm, round_number, "select", "select-improve-00", inputs, make, 0, "candidates")

    def train(self, arm: Arm, round_number: int, survivors: Receipt, start: Policy) -> Policy:
        """Fine-tune on the survivors. Without any, the round keeps the latest policy."""
        folder = f"{arm.folder(round_number)}/adapter/improve-00"
        work = self.run.path / arm.folder(round_number) / ".work-train-00"
        seed = seed_from(self.config.seed, arm.name, round_number, "train") % 2**31

        def make(fingerprint: str, display: Phase) -> Made:
            if survivors.rows == 0:
                self.terminal.warn(
                    f"{arm.name} · round {round_number}: no survivors, so no training; the policy stays as it is"
                )
                return Made({}, 0, {"train/skipped": 1.0, "train/steps": 0.0}, arm.latest().digest)
            examples = tables.read(self.run.verified(survivors)[0], Survivor)
            knobs = resolved(self.config.train, round_number)
            out = self.run.path / folder
            temporary = out.parent / f"{TEMPORARY}{out.name}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            with disk_errors(out):
                done = self.rooms.trainer.train(
                    examples,
                    start=start,
                    out=temporary,
                    work=work,
                    config=knobs,
                    seed=seed,
                    should_stop=self.commits.world.asked_to_stop,
                    on_step=lambda row: display.advance(1),
                )
            self._training_seconds += done.metrics.get("train/training_seconds", 0.0)
            steps = f"{folder}{STEPS_FILE}"
            files = {f"{folder}/{name}": sha256 for name, sha256 in publish_folder(temporary, out).items()}
            files[steps] = write_jsonl(self.run.path / steps, done.steps)
            display.done(f"{len(examples):,} examples, loss {done.metrics['train/loss']:.3f}")
            speed = _rate(done.metrics["train/tokens"], done.metrics["train/training_seconds"])
            metrics = {**done.metrics, "train/skipped": 0.0, "train/tokens_per_second": speed}
            return Made(files, len(examples), metrics, adapter_digest(out))

        inputs = {"survivors": survivors.output, "start": start.digest, **self.rooms.model_inputs}
        if survivors.rows == 0:
            inputs["kept"] = arm.latest().digest
        total = _num_steps(resolved(self.config.train, round_number), survivors.rows)
        receipt = self.commits.once(arm, round_number, "train", "train-improve-00", inputs, make, total, "steps")
        shutil.rmtree(work, ignore_errors=True)  # checkpoints, of no use once the adapter is committed
        if not receipt.files:
            return replace(arm.latest(), round=round_number)
        return Policy(start.model, str(self.run.path / folder), round_number, Digest(receipt.output))

    def evaluate(self, arm: Arm, round_number: int, policy: Policy) -> Report:
        """Greedy answers to every held-out prompt."""
        return self._measure(arm, round_number, policy, "evaluate", greedy(self.config), 1, self.prompts.held_out())

    def evaluate_sampled(self, arm: Arm, round_number: int, policy: Policy) -> Report:
        """Sampled answers for pass@k, on the test prompts (or the validation prompts, where there is no test)."""
        parameters, num_samples = for_pass_at_k(self.config), self.config.evaluate.num_samples
        held_out = self.prompts.held_out()
        name = "test" if "test" in held_out else "validate"
        sets = {name: held_out[name]} if held_out else {}
        return self._measure(arm, round_number, policy, "evaluate-sampled", parameters, num_samples, sets)

    def finish_round(self, arm: Arm, round_number: int, *, seconds: float, busy_before: float) -> bool:
        """Commit what the round cost beside generating, scoring, training and evaluating; False if it was before."""
        inputs = {"train": arm.at(round_number, "train-improve-00").output}
        if self.commits.known(arm, round_number, "round", "round", inputs) is not None:
            return False
        overhead = max(0.0, seconds - (self.busy_seconds() - busy_before))
        metrics = {"overhead/seconds": overhead, "overhead/share_of_seconds": overhead / seconds}
        self.commits.commit(arm, round_number, "round", "round", inputs, Made({}, 0, metrics), seconds=seconds)
        return True

    def busy_seconds(self) -> float:
        """Seconds of this process so far inside the sampler, the scorer and the trainer."""
        return self._drawing.busy_seconds + self._training_seconds

    # What they share

    def _measure(
        self,
        arm: Arm,
        round_number: int,
        policy: Policy,
        phase: str,
        parameters: SamplingParameters,
        num_candidates: int,
        sets: Mapping[str, PromptSet],
    ) -> Report:
        inputs = {"policy": policy.digest, **self.rooms.model_inputs}
        folder = f"{arm.folder(round_number)}/evaluation/{'sampled' if phase == 'evaluate-sampled' else 'greedy'}"

        def make(fingerprint: str, display: Phase) -> Made:
            files: dict[str, str] = {}
            metrics: dict[str, float] = {}
            busy, tokens = self._drawing.busy_seconds, self._drawing.drawn_tokens
            for name, prompts in sets.items():
                draw = Draw(
                    stream=f"{phase}/{name}/{round_number}",
                    prompts=prompts.prompts,
                    num_candidates=num_candidates,
                    parameters=parameters,
                    block_size=self.config.evaluate.block_size,
                    policy=policy,
                )
                answers = self.commits.fingerprint_of_answers(round_number, phase, inputs)
                drawn = self._drawing.draw(draw, f"{folder}/{name}/candidates", answers, display)
                paths = [self.run.path / path for path in drawn]
                known = by_id(prompts.prompts)
                written, scores = self._drawing.judge(paths, known, f"{folder}/{name}/scores", fingerprint, display)
                candidates = [one for path in paths for one in tables.read(path, Candidate)]
                groups = grouped(candidates, known, {one.candidate_id: one for one in scores})
                outcomes = round_metrics.outcomes(groups, greedy=phase == "evaluate")
                table = f"{folder}/{name}/outcomes.parquet"
                files[table] = tables.write(self.run.path / table, outcomes, Outcome, fingerprint=fingerprint)
                files |= self._hashes([*drawn, *written])
                metrics |= self._figures(phase, name, candidates, outcomes)
            speed = _rate(self._drawing.drawn_tokens - tokens, self._drawing.busy_seconds - busy)
            metrics["evaluate/tokens_per_second" if phase == "evaluate" else "evaluate/sampled/tokens_per_second"] = (
                speed
            )
            rates = [(key.removeprefix("evaluate/"), value) for key, value in metrics.items() if key.endswith("@1")]
            display.done(*(f"{key.replace('/', ' ')} {value:.1%}" for key, value in rates))
            return Made(files, sum(len(one.prompts) for one in sets.values()), metrics)

        total = sum(len(one.prompts) for one in sets.values()) * num_candidates
        receipt = self.commits.once(arm, round_number, phase, phase, inputs, make, 2 * total, "answers")
        tables_of = {name: self.run.path / folder / name / "outcomes.parquet" for name in sets}
        outcomes = {name: tuple(tables.read(path, Outcome)) for name, path in tables_of.items()}
        return Report(arm.name, round_number, receipt.metrics, outcomes)

    def _figures(self, phase: str, name: str, candidates: list[Candidate], outcomes: list[Outcome]) -> dict[str, float]:
        knobs, seed = self.config.evaluate, self.config.seed
        if phase == "evaluate-sampled":
            return round_metrics.of_sampled_answers(
                name, outcomes, knobs.ks, confidence=knobs.confidence, resamples=knobs.resamples, seed=seed
            )
        truncated = sum(one.finish_reason == "length" for one in candidates)
        return measured.summarise(
            name, outcomes, truncated=truncated, confidence=knobs.confidence, resamples=knobs.resamples, seed=seed
        )

    def _prompts_of(self, round_number: int) -> tuple[Prompt, ...]:
        return prompt_room.of_round(
            self.prompts.train, self.config.prompts, seed=self.config.seed, round_number=round_number
        )

    def _groups(self, round_number: int, candidates: Receipt, scores: Receipt) -> list[Group]:
        drawn = [one for path in self.run.verified(candidates) for one in tables.read(path, Candidate)]
        judged = {one.candidate_id: one for path in self.run.verified(scores) for one in tables.read(path, Score)}
        return grouped(drawn, by_id(self._prompts_of(round_number)), judged)

    def _hashes(self, names: list[str]) -> dict[str, str]:
        return {name: file_sha256(self.run.path / name) for name in names}


def by_id(prompts: tuple[Prompt, ...]) -> dict[str, Prompt]:
    """Prompts by their ids."""
    return {one.id: one for one in prompts}


def _words(group: Group) -> str:
    prompt = group.prompt
    return (
        prompt.text
        if prompt.text is not None
        else "\n".join(f"{one.role}: {one.content}" for one in prompt.messages or ())
    )


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _num_steps(knobs: TrainConfig, examples: int) -> int:
    return (
        knobs.steps
        if isinstance(knobs.steps, int)
        else math.ceil(examples / knobs.batch_size * float(one(knobs.epochs)))
    )
