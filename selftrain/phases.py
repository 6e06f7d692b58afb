"""The corridor: each phase takes committed files into a room and publishes what comes out, with a receipt.

A phase that is already committed is not done again: its receipt is read instead. So starting a run and resuming it are
the same calls, and the loop above needs no notion of where it left off. Every rank makes the same calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from selftrain import controls, generating, generators, tables
from selftrain.adapters import adapter_digest
from selftrain.arms import Arm
from selftrain.choosing import Choosing
from selftrain.commits import Commits, Made, Task
from selftrain.config import Config, TrainConfig, one, resolved
from selftrain.drawing import Drawing
from selftrain.evaluation.alarms import Alarm, raised
from selftrain.evaluation.labels import LabelTally
from selftrain.evaluation.tallies import SamplingTally, ScoringTally
from selftrain.history import ALARMS_FILE, STEPS_FILE
from selftrain.keeping import Keeping
from selftrain.measuring import Measuring, by_id
from selftrain.planning import Draw, of_round
from selftrain.prompts import PromptSets
from selftrain.pruning import put_back
from selftrain.ranking import Ranking
from selftrain.records import Candidate, Digest, Policy, Receipt, Survivor, Training, digest, seed_from
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.scoring import logged_metrics, truth_of
from selftrain.store import disk_errors, publish_folder, read_jsonl, write_jsonl
from selftrain.streaming import Judging
from selftrain.summaries import scored_words

SOLVED_FILE = "solved.jsonl"
# Columns that no metric of these phases looks at.
UNMEASURED = ("metadata", "explanation")


class Phases:
    """The five phases of a round over one run directory."""

    def __init__(self, config: Config, *, rooms: Rooms, prompts: PromptSets, commits: Commits) -> None:
        self.config = config
        self.rooms = rooms
        self.prompts = prompts
        self.commits = commits
        self.run = commits.run
        self.world = commits.world
        self.terminal = commits.terminal
        self._drawing = Drawing(
            commits.run.path, commits.world, seed=config.seed, judged_on=rooms.judged_on, rooms=rooms
        )
        self._choosing = Choosing(rooms, prompts, commits)
        self.measuring = Measuring(config, rooms, prompts, commits, self._drawing)
        self.ranking = Ranking(config, rooms, prompts, commits)
        self.keeping = Keeping(config, commits)
        self._training_seconds = 0.0

    # The phases

    def gather(self, arm: Arm, round_number: int, policy: Policy) -> tuple[Receipt, Receipt] | None:
        """Sample and score: both receipts. None for an arm that trains on demonstrations."""
        if arm.source is arm.main:
            return arm.source.at(round_number, "sample-wave-00"), arm.source.at(round_number, "score-wave-00")
        if not controls.samples(arm):
            return None
        candidates = self.sample(arm, round_number, policy)
        return candidates, self.score(arm, round_number, candidates)

    def sample(self, arm: Arm, round_number: int, policy: Policy) -> Receipt:
        """Draw `num_candidates` per prompt of the round from the policy."""
        planned = of_round(arm.config, arm.name, round_number, self._choosing.prompts_of(arm, round_number), policy)
        is_own = generators.draws_from_policy(arm.config.sample)

        def make(fingerprint: str, display: Phase) -> Made | None:
            folder = f"{arm.folder(round_number)}/candidates/wave-00"
            busy, tokens = self._drawing.busy_seconds, self._drawing.drawn_tokens
            judging = self._judging(arm, round_number) if arm.config.score.overlaps else None
            draw, unmet = self._met(planned, arm, round_number)
            drawn = self._drawing.draw(draw, self.rooms.of_arm(arm), folder, fingerprint, display, judging)
            if not self.world.is_first:
                return None
            tally, metrics, paths = SamplingTally(), dict[str, float](), [self.run.path / name for name in drawn]
            candidates = tally.through(
                one for path in paths for one in tables.read(path, Candidate, without=["metadata"])
            )
            if arm.config.sample.policy is None:
                metrics |= {"sample/policy_round": float(policy.round)}
                metrics |= self.measuring.drift(policy, candidates, "sample")
            deque(candidates, maxlen=0)  # those that nobody asked for
            seconds = self._drawing.busy_seconds - busy
            drawn_now = self._drawing.drawn_tokens - tokens
            metrics |= tally.metrics(seconds=seconds, tokens_drawn_now=drawn_now) | unmet
            display.done(f"{tally.candidates:,} candidates")
            return Made(self.run.hashes(drawn), tally.candidates, metrics)

        policies = (policy,) if is_own else ()
        inputs = {**({"policy": policy.digest} if is_own else {}), **self.rooms.model_inputs}
        total = len(planned.prompts) * (planned.num_candidates or 0)
        task = Task(arm, round_number, "sample", "sample-wave-00", inputs, total, everywhere=True, policies=policies)
        return self.commits.once(task, make)

    def score(self, arm: Arm, round_number: int, candidates: Receipt) -> Receipt:
        """Judge every candidate."""
        inputs = {"candidates": candidates.output}
        earlier = [arm.at(number, "score-wave-00") for number in range(1, round_number)]
        if earlier:
            inputs["earlier"] = earlier[-1].output

        def make(fingerprint: str, display: Phase) -> Made | None:
            judging = self._judging(arm, round_number)
            written, tally = self._drawing.judge(self.run.tables(candidates), judging, display, arm.config.score)
            if not self.world.is_first:
                return None
            paths = [self.run.path / name for name in written]
            groups = self._choosing.groups(arm, round_number, candidates, paths, without=UNMEASURED)
            of_round = ScoringTally(LabelTally(*truth_of(arm.config.score)))
            metrics = logged_metrics(of_round.through(groups())) | of_round.metrics(self._solved_before(earlier))
            metrics |= tally.metrics()
            solved = [{"prompt_id": key, "solved": value} for key, value in of_round.solved.items()]
            files = self.run.hashes(written)
            name = f"{judging.folder}/{SOLVED_FILE}"
            files[name] = write_jsonl(self.run.path / name, solved)
            display.done(scored_words(arm.config.score, metrics))
            return Made(files, of_round.candidates, metrics)

        task = Task(arm, round_number, "score", "score-wave-00", inputs, candidates.rows, everywhere=True)
        return self.commits.once(task, make)

    def select(self, arm: Arm, round_number: int, scored: tuple[Receipt, Receipt] | None) -> Receipt:
        """Choose the exact training examples."""
        return self._choosing.select(arm, round_number, scored)

    def train(self, arm: Arm, round_number: int, survivors: Receipt, *, start: Policy, otherwise: Policy) -> Policy:
        """Fine-tune on the survivors from `start`. Without any, the round's policy is `otherwise`."""
        folder = arm.adapter(round_number)
        main = controls.of_main(arm, round_number, "train-improve-00")
        knobs = controls.train_knobs(arm, resolved(arm.config.train, round_number), main)
        skipped = survivors.rows == 0 or knobs.steps == 0

        def make(fingerprint: str, display: Phase) -> Made:
            if skipped:
                why = "main trained on nothing" if survivors.rows else "no survivors"
                display.done(f"{why}, so no training; the policy stays as it is")
                return Made({}, 0, {"train/skipped": 1.0, "train/steps": 0.0}, otherwise.digest)
            done, temporary = self._fit(arm, round_number, survivors, start, knobs, display)
            speed = _rate(done.metrics["train/tokens"], done.metrics["train/training_seconds"])
            metrics = {**done.metrics, "train/skipped": 0.0, "train/tokens_per_second": speed}
            if not self.world.is_first:
                return Made({}, survivors.rows, metrics)
            steps, out = f"{folder}{STEPS_FILE}", self.run.path / folder
            files = {f"{folder}/{name}": sha256 for name, sha256 in publish_folder(temporary, out).items()}
            files[steps] = write_jsonl(self.run.path / steps, done.steps)
            return Made(files, survivors.rows, metrics, adapter_digest(out))

        inputs = {"survivors": survivors.output, "start": start.digest, **self.rooms.model_inputs}
        inputs |= {"steps": str(knobs.steps)} if main is not None else {}
        inputs |= {"kept": otherwise.digest} if skipped else {}
        total = _num_steps(knobs, survivors.rows)
        task = Task(
            arm, round_number, "train", "train-improve-00", inputs, total, "steps", everywhere=True, policies=(start,)
        )
        receipt = self.commits.once(task, make)
        self.commits.drop(self._work(arm, round_number))
        if not receipt.files:
            return replace(otherwise, round=round_number)

        def make_again() -> None:
            self.commits.bring_back(start)
            self.terminal.info(
                f"{arm.name} · round {round_number}: its adapter, removed by keep: best_and_last, is needed again: "
                "training it once more from its survivors"
            )
            with self.terminal.phase("train", total, "steps", arm=arm.name, round=round_number) as display:
                _, temporary = self._fit(arm, round_number, survivors, start, knobs, display)
            self.world.from_first(lambda: put_back(self.run, receipt, temporary, folder), f"putting {folder} back")
            self.commits.drop(self._work(arm, round_number))

        if receipt.arm == arm.name:
            self.commits.remakes[str(self.run.path / folder)] = make_again
        adapter = next(name for name in receipt.files if name.endswith(STEPS_FILE)).removesuffix(STEPS_FILE)
        return Policy(start.model, str(self.run.path / adapter), round_number, Digest(receipt.output))

    def _fit(
        self, arm: Arm, round_number: int, survivors: Receipt, start: Policy, knobs: TrainConfig, display: Phase
    ) -> tuple[Training, Path]:
        """Train into a hidden folder, on every rank; that folder is to be published."""
        examples = tables.read(self.run.tables(survivors)[0], Survivor)
        out = self.run.path / arm.adapter(round_number)
        temporary = self.commits.hidden(out)
        with disk_errors(out):
            done = self.rooms.of_arm(arm).trainer.train(
                examples,
                start=start,
                out=temporary,
                work=self._work(arm, round_number),
                config=knobs,
                seed=seed_from(self.config.seed, arm.name, round_number, "train") % 2**31,
                should_stop=self.world.asked_to_stop,
                on_step=lambda row: display.advance(1),
                world=self.world,
            )
        self._training_seconds += done.metrics.get("train/training_seconds", 0.0)
        display.done(f"{len(examples):,} examples, loss {done.metrics['train/loss']:.3f}")
        return done, temporary

    def _work(self, arm: Arm, round_number: int) -> Path:
        return self.run.path / arm.folder(round_number) / ".work-train-00"

    def finish_round(self, arm: Arm, round_number: int, *, seconds: float, busy_before: float) -> bool:
        """Commit the round's alarms and what it cost beside the phases' work; False if that was done before."""
        inputs = {"arm": arm.name, "train": arm.at(round_number, "train-improve-00").output}
        task = Task(arm, round_number, "round", "round", inputs)
        if self.commits.known(task) is not None:
            return False
        overhead = max(0.0, seconds - (self.busy_seconds() - busy_before))
        metrics = {"overhead/seconds": overhead, "overhead/share_of_seconds": overhead / seconds}
        alarms = self.alarms(arm, round_number)
        files = {}
        if alarms and self.world.is_first:
            name = f"{arm.folder(round_number)}/{ALARMS_FILE}"
            files[name] = write_jsonl(self.run.path / name, [asdict(one) for one in alarms])
        for alarm in alarms:
            self.terminal.warn(f"{arm.name} · round {round_number} · {alarm.name}: {alarm.words}")
        self.commits.commit(task, Made(files, 0, {**metrics, "overhead/alarms": float(len(alarms))}), seconds=seconds)
        return True

    def alarms(self, arm: Arm, round_number: int) -> list[Alarm]:
        """What is worth a warning about that round. A control is as it is on purpose, and warned of nothing."""
        if arm.control is not None:
            return []
        so_far = {number: arm.metrics(number) for number in range(round_number + 1)}
        return raised(so_far, self.config.alarms, arm_is_main=arm.main is None)

    def busy_seconds(self) -> float:
        """Seconds of this process so far inside the sampler, the scorer and the trainers."""
        return self._drawing.busy_seconds + self._training_seconds + self.ranking.busy_seconds

    # What they share

    def _met(self, planned: Draw, arm: Arm, round_number: int) -> tuple[Draw, dict[str, float]]:
        """The draw as far as there are candidates, where they exist already."""
        policy, rooms = arm.config.sample.policy, self.rooms.of_arm(arm)
        if policy is None or policy.file is None:
            return planned, {}
        part = self.commits.fingerprints.part("sample", round_number, arm.name)["sample"]["policy"]
        return generating.met(planned, rooms.generator, part, rooms.generator_digest, self.terminal)

    def _judging(self, arm: Arm, round_number: int) -> Judging:
        """Into the score phase's folder. Its files do not carry that phase's fingerprint, which is only known when all
        candidates are."""
        known = by_id(self._choosing.prompts_of(arm, round_number))
        part = digest(self.commits.fingerprints.part("score", round_number, arm.name))
        folder = f"{arm.folder(round_number)}/scores/wave-00"
        return self._drawing.judging(self.rooms.of_arm(arm).scorer, known, folder, part)

    def _solved_before(self, earlier: Sequence[Receipt]) -> dict[str, bool]:
        """The prompts asked in earlier rounds, and whether they were ever solved."""
        before: dict[str, bool] = {}
        for receipt in earlier:
            path = next(path for path in self.run.verified(receipt) if path.name == SOLVED_FILE)
            for row in read_jsonl(path):
                before[row["prompt_id"]] = row["solved"] or before.get(row["prompt_id"], False)
        return before


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _num_steps(knobs: TrainConfig, examples: int) -> int:
    if isinstance(knobs.steps, int):
        return knobs.steps
    return math.ceil(examples / knobs.batch_size * float(one(knobs.epochs)))
