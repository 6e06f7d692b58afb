"""Selection in the corridor: from committed candidates and scores, or from demonstrations, to training examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain import controls, selection, tables
from selftrain import prompts as prompt_room
from selftrain.arms import Arm
from selftrain.commits import Commits, Made, Task
from selftrain.config import SelectConfig, one, resolved
from selftrain.drawing import read_groups
from selftrain.errors import PhaseError
from selftrain.evaluation import rounds as round_metrics
from selftrain.measuring import by_id
from selftrain.prompts import PromptSets
from selftrain.records import Group, Prompt, Receipt, Survivor, seed_from
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.selection.demonstrations import demonstrations, words_of
from selftrain.selection.survivors import buffer, to_survivors
from selftrain.store import RunDirectory, write_jsonl
from selftrain.summaries import funnel_words


@dataclass(frozen=True, slots=True)
class Choosing:
    """The select phase of one run."""

    rooms: Rooms
    prompts: PromptSets
    commits: Commits

    @property
    def run(self) -> RunDirectory:
        """Where everything is."""
        return self.commits.run

    def select(self, arm: Arm, round_number: int, scored: tuple[Receipt, Receipt] | None) -> Receipt:
        """Choose the exact training examples; the funnel says how many left at each step."""
        main = controls.of_main(arm, round_number, "select-improve-00")
        earlier = None
        if scored is not None and arm.config.select.buffer == "append" and round_number > 1:
            earlier = arm.source.at(round_number - 1, "select-improve-00")
        inputs = {"candidates": scored[0].output, "scores": scored[1].output} if scored is not None else {}
        inputs |= {"control": str(arm.control), "main": main.output} if main is not None else {}
        inputs |= {"earlier": earlier.output} if earlier is not None else {}
        if scored is None:
            inputs |= self.rooms.model_inputs

        def make(fingerprint: str, display: Phase) -> Made:
            if scored is None:
                assert main is not None
                return self._demonstrate(arm, round_number, main, fingerprint, display)
            knobs = controls.select_knobs(arm, resolved(arm.config.select, round_number), main)
            groups = self.groups(arm, round_number, scored[0], self.run.tables(scored[1]))
            chosen = selection.select(groups, knobs, seed=seed_from(arm.config.seed, arm.name, round_number, "select"))
            self._warn_of_too_few(arm, round_number, knobs, chosen, main)
            before = tables.read(self.run.tables(earlier)[0], Survivor) if earlier is not None else ()
            texts = {group.prompt.id: words_of(group.prompt) for group in groups}
            new = to_survivors(chosen.kept, round_number=round_number, prompt_texts=texts)
            survivors = buffer(new, before, arm.config.select.buffer)
            rejected = [{"candidate_id": one, "why": why} for one, why in sorted(chosen.reasons.items())]
            files = self._publish_survivors(arm, round_number, survivors, rejected, fingerprint)
            asked = f"{arm.folder(round_number)}/survivors/improve-00/prompts.jsonl"  # for who reads what was rejected
            rows = [{"prompt_id": name, "text": text} for name, text in sorted(texts.items())]
            files[asked] = write_jsonl(self.run.path / asked, rows)
            sampled = scored[0].metrics
            metrics = chosen.metrics | round_metrics.of_selection(
                [(one.candidate, one.score) for one in chosen.kept],
                sampled_candidates=int(sampled["sample/candidates"]),
                sampled_tokens=int(sampled["sample/tokens"]),
            )
            metrics["select/from_references"] = 0.0
            if main is not None and knobs.count is not None and len(chosen.kept) < one(knobs.count):
                metrics["select/short_of_main"] = float(one(knobs.count) - len(chosen.kept))
            display.done(funnel_words(metrics))
            return Made(files, len(survivors), {**metrics, "select/training_examples": float(len(survivors))})

        return self.commits.once(Task(arm, round_number, "select", "select-improve-00", inputs), make)

    def prompts_of(self, arm: Arm, round_number: int) -> tuple[Prompt, ...]:
        """The prompts that the arm asks in that round."""
        return prompt_room.of_round(
            self.prompts.train, arm.config.prompts, seed=arm.config.seed, round_number=round_number
        )

    def groups(self, arm: Arm, round_number: int, candidates: Receipt, scores: Sequence[Path]) -> list[Group]:
        """The round's candidates with their scores, by prompt."""
        return read_groups(self.run.tables(candidates), scores, by_id(self.prompts_of(arm, round_number)))

    def _asked(self, arm: Arm, round_number: int) -> Sequence[Prompt]:
        """The prompts that main's examples of the round come from: with a growing buffer, of all rounds."""
        first = 1 if arm.config.select.buffer == "append" else round_number
        rounds = [self.prompts_of(arm, number) for number in range(first, round_number + 1)]
        return list({one.id: one for of_round in rounds for one in of_round}.values())

    def _seed_data(self) -> Sequence[Prompt]:
        assert self.prompts.seed_data is not None
        return self.prompts.seed_data.prompts

    def _demonstrate(self, arm: Arm, round_number: int, main: Receipt, fingerprint: str, display: Phase) -> Made:
        """As many demonstrations as main had training examples."""
        sampler, count = self.rooms.of_arm(arm).sampler, main.rows
        shown = self._asked(arm, round_number) if arm.control == "gold" else self._seed_data()
        survivors = demonstrations(
            shown,
            count=count,
            seed=arm.config.seed,
            round_number=round_number,
            encode=lambda prompt, text: (sampler.render(prompt), sampler.encode_completion(prompt, text)),
            why=str(arm.control),
        )
        files = self._publish_survivors(arm, round_number, survivors, [], fingerprint)
        source = "references" if arm.control == "gold" else "seed_data"
        metrics = {"select/kept": float(count), f"select/from_{source}": float(count)}
        display.done(f"{count:,} examples from {source}")
        return Made(files, len(survivors), {**metrics, "select/training_examples": float(len(survivors))})

    def _publish_survivors(
        self,
        arm: Arm,
        round_number: int,
        survivors: Sequence[Survivor],
        rejected: Sequence[dict[str, str]],
        fingerprint: str,
    ) -> dict[str, str]:
        folder = f"{arm.folder(round_number)}/survivors/improve-00"
        table, reasons = f"{folder}/survivors.parquet", f"{folder}/rejected.jsonl"
        return {
            table: tables.write(self.run.path / table, survivors, Survivor, fingerprint=fingerprint),
            reasons: write_jsonl(self.run.path / reasons, rejected),
        }

    def _warn_of_too_few(
        self, arm: Arm, round_number: int, knobs: SelectConfig, chosen: selection.Selection, main: Receipt | None
    ) -> None:
        kept = len(chosen.kept)
        if main is not None and knobs.count is not None and kept < one(knobs.count):
            self.commits.terminal.warn(
                f"{arm.name} · round {round_number}: only {kept} candidates to draw from, where main kept "
                f"{one(knobs.count)}: this control trains on less, in as many steps"
            )
        if kept < knobs.min_survivors:
            raise PhaseError(
                f"round {round_number} of {arm.name}: {kept} survivors, and select.min_survivors is "
                f"{knobs.min_survivors}; the funnel: {funnel_words(chosen.metrics)}. Sample more candidates, "
                "lower the threshold, or lower min_survivors"
            )
