"""The trained verifier in the corridor: from the committed candidates of all rounds to an adapter that tells right
answers from wrong ones, and from the committed sampled answers of a round to what choosing among them by it is worth.

It chooses among answers and does nothing else: no phase takes it for a policy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from selftrain import tables
from selftrain.adapters import adapter_digest
from selftrain.arms import Arm, names_round
from selftrain.commits import Commits, Made, Task
from selftrain.config import Config, VerifierConfig
from selftrain.evaluation import best_of_k, coverage
from selftrain.evaluation.best_of_k import Ranked
from selftrain.prompts import PromptSets
from selftrain.pruning import put_back
from selftrain.records import Candidate, Digest, Outcome, Pair, Policy, Receipt, Report, Score, Training, seed_from
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.selection.demonstrations import words_of
from selftrain.store import disk_errors, publish_folder, write_jsonl
from selftrain.training.pairs import Pairing

PAIRS_FILE = "pairs.parquet"
STEPS_FILE = "steps.jsonl"  # not history.STEPS_FILE: the ledger counts the policy's steps on over the rounds
NO_PAIRS = "no prompt has both a right and a wrong candidate: no pairs, so no verifier"


class Ranking:
    """The trained verifier of one run. `busy_seconds`: what this rank spent so far training it and asking it."""

    def __init__(self, config: Config, rooms: Rooms, prompts: PromptSets, commits: Commits) -> None:
        self._config = config
        self._rooms = rooms
        self._prompts = prompts
        self._commits = commits
        self._run = commits.run
        self._world = commits.world
        self.busy_seconds = 0.0

    def after_round(self, arm: Arm, round_number: int, *, last: int) -> Iterator[Report]:
        """Train the verifier of a round and measure it, where the configuration names the round; its report, if there
        were pairs to learn from and sampled answers to choose among."""
        knobs = self._config.verifier
        is_named = knobs is not None and names_round(knobs.rounds, round_number, last=last)
        if is_named and arm.main is None and round_number > 0:
            verifier = self.train(arm, round_number)
            if verifier is not None and arm.key(round_number, "evaluate-sampled") in arm.receipts:
                yield self.evaluate(arm, round_number, verifier)

    @property
    def _knobs(self) -> VerifierConfig:
        assert self._config.verifier is not None
        return self._config.verifier

    # Training

    def train(self, arm: Arm, round_number: int) -> Policy | None:
        """Learn from pairs of main's candidates of all rounds so far; None where there are none."""
        start = arm.policies[0]
        inputs: dict[str, str] = {"start": start.digest, **self._rooms.model_inputs}
        for number in range(1, round_number + 1):
            inputs[f"candidates-{number:03d}"] = arm.at(number, "sample-wave-00").output
            inputs[f"scores-{number:03d}"] = arm.at(number, "score-wave-00").output
        folder = f"{arm.verifier(round_number)}/adapter"

        def make(fingerprint: str, display: Phase) -> Made | None:
            table, found = self._pairs(arm, round_number, fingerprint)
            if not found["verifier/pairs"]:
                display.done(NO_PAIRS)
                return Made({}, 0, {**found, "verifier/skipped": 1.0})
            done, temporary = self._fit(arm, round_number, start, table, display)
            if not self._world.is_first:
                return None
            steps, out = f"{arm.verifier(round_number)}/{STEPS_FILE}", self._run.path / folder
            files = {f"{folder}/{name}": sha256 for name, sha256 in publish_folder(temporary, out).items()}
            files[steps] = write_jsonl(self._run.path / steps, _renamed_rows(done.steps))
            files |= self._run.hashes([table])
            metrics = {**found, **_renamed(done.metrics), "verifier/skipped": 0.0}
            return Made(files, int(found["verifier/pairs"]), metrics, adapter_digest(out))

        task = Task(arm, round_number, "verifier", "verifier", inputs, unit="steps", everywhere=True, policies=(start,))
        receipt = self._commits.once(task, make)
        self._commits.drop(self._work(arm, round_number))
        if not receipt.files:
            return None
        self._register(arm, round_number, start, receipt, folder)
        return Policy(start.model, str(self._run.path / folder), round_number, Digest(receipt.output))

    def _register(self, arm: Arm, round_number: int, start: Policy, receipt: Receipt, folder: str) -> None:
        """How the adapter is trained again where it was removed, and is needed all the same."""

        def make_again() -> None:
            self._commits.bring_back(start)
            terminal = self._commits.terminal
            terminal.info(
                f"{arm.name} · round {round_number}: its verifier, removed by keep: best_and_last, is needed again: "
                "training it once more from its pairs"
            )
            table = f"{arm.verifier(round_number)}/{PAIRS_FILE}"
            with terminal.phase("verifier", None, "steps", arm=arm.name, round=round_number) as display:
                _, temporary = self._fit(arm, round_number, start, table, display)
            self._world.from_first(lambda: put_back(self._run, receipt, temporary, folder), f"putting {folder} back")
            self._commits.drop(self._work(arm, round_number))

        self._commits.remakes[str(self._run.path / folder)] = make_again

    def _pairs(self, arm: Arm, round_number: int, fingerprint: str) -> tuple[str, dict[str, float]]:
        """Draw the pairs and publish them as a table, on the first rank; its name and the counts, on every rank."""
        name = f"{arm.verifier(round_number)}/{PAIRS_FILE}"

        def draw() -> dict[str, float]:
            seed = seed_from(self._config.seed, arm.name, round_number, "verifier pairs")
            pairing = Pairing(per_prompt=self._knobs.pairs_per_prompt, seed=seed)
            for _, candidate, score in self._judged(arm, round_number):
                pairing.add(candidate, score)
            drawn = pairing.drawn()
            named = {one for pair in drawn for one in pair}
            found = {one.id: (number, one) for number, one, _ in self._judged(arm, round_number) if one.id in named}
            texts = {one.id: words_of(one) for one in self._prompts.train.prompts}
            pairs = [_pair(found[right], found[wrong], texts) for right, wrong in drawn]
            if pairs:
                tables.write(self._run.path / name, pairs, Pair, fingerprint=fingerprint)
            return {"verifier/pairs": float(len(pairs)), "verifier/prompts": float(pairing.num_prompts)}

        return name, self._world.from_first(draw, f"the pairs of {arm.key(round_number, 'verifier')}")

    def _judged(self, arm: Arm, round_number: int) -> Iterator[tuple[int, Candidate, Score]]:
        """The committed candidates of all rounds so far with their rounds and scores, a block at a time."""
        for number in range(1, round_number + 1):
            drawn = self._run.tables(arm.at(number, "sample-wave-00"))
            judged = self._run.tables(arm.at(number, "score-wave-00"))
            for candidates, scores in zip(drawn, judged, strict=True):
                yield from ((number, one, score) for one, score in _together(candidates, scores))

    def _fit(self, arm: Arm, round_number: int, start: Policy, table: str, display: Phase) -> tuple[Training, Path]:
        """Train into a hidden folder, on every rank; that folder is to be published."""
        began = time.monotonic()
        pairs = tables.read(self._run.path / table, Pair)
        out = self._run.path / arm.verifier(round_number) / "adapter"
        temporary = self._commits.hidden(out)
        with disk_errors(out):
            done = self._rooms.verifier_trainer.train(
                pairs,
                start=start,
                out=temporary,
                work=self._work(arm, round_number),
                config=self._knobs,
                seed=seed_from(self._config.seed, arm.name, round_number, "verifier") % 2**31,
                should_stop=self._world.asked_to_stop,
                on_step=lambda row: display.advance(1),
                world=self._world,
            )
        self.busy_seconds += time.monotonic() - began
        accuracy = done.metrics["train/accuracy"]
        display.done(
            f"{len(pairs):,} pairs, loss {done.metrics['train/loss']:.3f}, {accuracy:.0%} of the last in order"
        )
        return done, temporary

    def _work(self, arm: Arm, round_number: int) -> Path:
        return self._run.path / arm.folder(round_number) / ".work-verifier"

    # Measuring

    def evaluate(self, arm: Arm, round_number: int, verifier: Policy) -> Report:
        """What the verifier says of the round's sampled answers, and how good those are that it prefers."""
        answers = arm.at(round_number, "evaluate-sampled")
        drawn, judged = ([name for name in answers.files if f"/{kind}/" in name] for kind in ("candidates", "scores"))
        set_name = Path(drawn[0]).parts[-3]
        folder = f"{arm.folder(round_number)}/evaluation/verifier/{set_name}"
        names = [f"{folder}/{Path(name).name}" for name in drawn]
        start = arm.policies[0] if self._knobs.score == "implicit_reward" else None
        policies = (verifier,) if start is None else (verifier, start)
        inputs: dict[str, str] = {"verifier": verifier.digest, "answers": answers.output, **self._rooms.model_inputs}
        inputs |= {"reference": start.digest} if start is not None else {}

        def make(fingerprint: str, display: Phase) -> Made | None:
            self._run.verified(answers)
            self._ask(verifier, start, drawn, judged, names, fingerprint, display)
            if not self._world.is_first:
                return None
            ranked = list(self._ranked(drawn, judged, names))
            knobs = self._config.evaluate
            metrics = best_of_k.of_ranked(
                ranked, knobs.ks, confidence=knobs.confidence, resamples=knobs.resamples, seed=self._config.seed
            )
            display.done(f"{sum(len(one.right) for one in ranked):,} answers", *_words(metrics, knobs.ks))
            return Made(self._run.hashes(names), len(ranked), metrics)

        task = Task(
            arm,
            round_number,
            "evaluate-verifier",
            "evaluate-verifier",
            inputs,
            answers.rows * self._config.evaluate.num_samples,
            "answers",
            everywhere=True,
            policies=policies,
        )
        receipt = self._commits.once(task, make)
        return Report(arm.name, round_number, receipt.metrics, {})

    def _ask(
        self,
        verifier: Policy,
        start: Policy | None,
        drawn: Sequence[str],
        judged: Sequence[str],
        names: Sequence[str],
        fingerprint: str,
        display: Phase,
    ) -> None:
        """Publish what the verifier says of each block of answers that it was not asked about yet, every rank its share
        of them. A block's batches are the same alone and in a whole run, and so are its figures to the bit."""
        run, world = self._run, self._world

        def missing() -> list[int]:
            there = [(run.path / name).exists() for name in names]
            return [
                index
                for index, name in enumerate(names)
                if not there[index] or tables.fingerprint_of(run.path / name) != fingerprint
            ]

        began = time.monotonic()
        for index in world.from_first(missing, f"the answers that {verifier.digest[:12]} has read")[
            world.rank :: world.size
        ]:
            world.check()
            rows = list(_together(run.path / drawn[index], run.path / judged[index]))
            said = self._said([one for one, _ in rows], verifier, start)
            scores = [
                Score(one.id, value, score.correct if score.value is not None else None, parts=parts)
                for (one, score), (value, parts) in zip(rows, said, strict=True)
            ]
            tables.write(run.path / names[index], scores, Score, fingerprint=fingerprint)
            display.advance(len(rows))
        self.busy_seconds += time.monotonic() - began
        world.barrier("all answers that the verifier is to read")

    def _said(
        self, candidates: Sequence[Candidate], verifier: Policy, start: Policy | None
    ) -> list[tuple[float, dict[str, float | None]]]:
        """The score of each candidate and what it is made of, all of whole completions, in nats."""
        from selftrain.models.likelihood import token_logprobs

        sequences = [one.prompt_token_ids + one.completion_token_ids for one in candidates]
        begins = [len(one.prompt_token_ids) for one in candidates]
        likelihoods, references = (
            None
            if policy is None
            else list(map(math.fsum, token_logprobs(self._rooms.bench, policy, sequences, scored_from=begins)))
            for policy in (verifier, start)
        )
        assert likelihoods is not None
        if references is None:
            return [(one, {"likelihood": one}) for one in likelihoods]
        return [
            (self._knobs.beta * (one - other), {"likelihood": one, "reference": other})
            for one, other in zip(likelihoods, references, strict=True)
        ]

    def _ranked(self, drawn: Sequence[str], judged: Sequence[str], names: Sequence[str]) -> Iterator[Ranked]:
        """Each prompt's answers that could be judged, with what the verifier and the policy give them."""
        for candidates, scores, said in zip(drawn, judged, names, strict=True):
            given = {one.candidate_id: one.value for one in tables.read(self._run.path / said, Score)}
            of_prompt: dict[str, list[tuple[Candidate, Score]]] = {}
            for one, score in _together(self._run.path / candidates, self._run.path / scores):
                of_prompt.setdefault(one.prompt_id, [])
                if score.value is not None:
                    of_prompt[one.prompt_id].append((one, score))
            for name, rows in of_prompt.items():
                verdicts = [score for _, score in rows]
                right = tuple(bool(score.correct) for score in verdicts)
                yield Ranked(
                    Outcome(name, None, len(right), sum(right), *coverage.votes(verdicts)),
                    right,
                    tuple(float(given[one.id] or 0.0) for one, _ in rows),
                    tuple(math.fsum(one.logprobs) for one, _ in rows),
                )


def _together(candidates: Path, scores: Path) -> Iterator[tuple[Candidate, Score]]:
    """The candidates of a block with their scores."""
    found = {one.candidate_id: one for one in tables.read(scores, Score)}
    for one in tables.read(candidates, Candidate):
        yield one, found[one.id]


def _pair(right: tuple[int, Candidate], wrong: tuple[int, Candidate], texts: Mapping[str, str]) -> Pair:
    (chosen_round, chosen), (rejected_round, rejected) = right, wrong
    return Pair(
        chosen.prompt_id,
        chosen.id,
        rejected.id,
        chosen_round,
        rejected_round,
        chosen.prompt_token_ids,
        chosen.completion_token_ids,
        rejected.completion_token_ids,
        texts.get(chosen.prompt_id, ""),
        chosen.text,
        rejected.text,
    )


def _renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    """A training's metrics under the verifier's name; of the examples, which are the pairs, the count is there."""
    return {
        f"verifier/{key.removeprefix('train/')}": value for key, value in metrics.items() if key != "train/examples"
    }


def _renamed_rows(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [_renamed(row) for row in rows]


def _words(metrics: Mapping[str, float], ks: Sequence[int]) -> Iterator[str]:
    measured = [k for k in ks if f"{best_of_k.PREFIX}/best_of_k@{k}" in metrics]
    if measured:
        yield f"best of {max(measured)} right in {metrics[f'{best_of_k.PREFIX}/best_of_k@{max(measured)}']:.1%}"
    if f"{best_of_k.PREFIX}/auc" in metrics:
        yield f"AUC {metrics[f'{best_of_k.PREFIX}/auc']:.2f}"
