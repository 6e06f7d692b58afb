"""Selection in the corridor: from committed candidates and scores, or from demonstrations, to training examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from selftrain.evaluation import tasks as task_metrics
from selftrain.measuring import by_id
from selftrain.prompts import PromptSets
from selftrain.records import Group, Prompt, Receipt, Survivor, seed_from
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.selection import buffers
from selftrain.selection.demonstrations import MIXED, demonstrations, num_to_mix, words_of
from selftrain.selection.survivors import to_survivors
from selftrain.store import RunDirectory, write_jsonl
from selftrain.summaries import funnel_words

FROM_SEED_DATA = "select/from_seed_data"
OWN_FILE = "own.parquet"


@dataclass(frozen=True, slots=True)
class Turn:
    """A round's selection from candidates. `knobs` are what the arm selects by there, `main` is main's selection of the
    round where the arm is a control."""

    arm: Arm
    round_number: int
    knobs: SelectConfig
    main: Receipt | None
    fingerprint: str

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return seed_from(self.arm.config.seed, self.arm.name, self.round_number, "select")


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
        knobs = controls.select_knobs(arm, resolved(arm.config.select, round_number), main)
        earlier = self._earlier(arm, round_number, knobs) if scored is not None else {}
        inputs = {"candidates": scored[0].output, "scores": scored[1].output} if scored is not None else {}
        inputs |= {"control": str(arm.control), "main": main.output} if main is not None else {}
        inputs |= {name: receipt.output for name, receipt in earlier.items()}
        if scored is None or one(knobs.mix_seed_data):
            inputs |= self.rooms.model_inputs

        def make(fingerprint: str, display: Phase) -> Made:
            if scored is None:
                assert main is not None
                return self._demonstrate(arm, round_number, main, fingerprint, display)
            turn = Turn(arm, round_number, knobs, main, fingerprint)
            return self._choose(turn, scored, list(earlier.values()), display)

        return self.commits.once(Task(arm, round_number, "select", "select-improve-00", inputs), make)

    def _choose(self, turn: Turn, scored: tuple[Receipt, Receipt], earlier: Sequence[Receipt], display: Phase) -> Made:
        """The survivors of the round's own candidates, and with them what the buffer and the seed data add."""
        arm, round_number, knobs = turn.arm, turn.round_number, turn.knobs
        groups = self.groups(arm, round_number, scored[0], self.run.tables(scored[1]))
        filters = self.rooms.of_arm(arm).filters if knobs.filters else ()
        chosen = selection.select(groups, knobs, seed=turn.seed, filters=filters)
        _require_enough(turn, chosen)
        texts = {group.prompt.id: words_of(group.prompt) for group in groups}
        new = to_survivors(
            chosen.kept, round_number=round_number, prompt_texts=texts, train_on=arm.config.select.train_on
        )
        carried = self._carried(turn, new, earlier)
        survivors = [*carried, *self._mixed_in(turn, len(carried))]
        rejected = [{"candidate_id": one, "why": why} for one, why in sorted(chosen.reasons.items())]
        files = self._publish_survivors(arm, round_number, survivors, rejected, turn.fingerprint)
        files |= self._publish_own(turn, new, survivors)
        asked = f"{arm.folder(round_number)}/survivors/improve-00/prompts.jsonl"  # for who reads what was rejected
        rows = [{"prompt_id": name, "text": text} for name, text in sorted(texts.items())]
        files[asked] = write_jsonl(self.run.path / asked, rows)
        sampled = scored[0].metrics
        metrics = chosen.metrics | round_metrics.of_selection(
            [(one.candidate, one.score) for one in chosen.kept],
            sampled_candidates=int(sampled["sample/candidates"]),
            sampled_tokens=int(sampled["sample/tokens"]),
        )
        kept = (one.candidate.prompt_id for one in chosen.kept)
        metrics |= task_metrics.of_selection(kept, (group.prompt for group in groups))
        metrics |= self._of_examples(turn, survivors)
        display.done(funnel_words(metrics))
        return Made(files, len(survivors), metrics)

    # What a round trains on beside its own survivors

    def _earlier(self, arm: Arm, round_number: int, knobs: SelectConfig) -> dict[str, Receipt]:
        """The earlier selections that the round's buffer reads, by the names they have among its inputs."""
        rounds = buffers.rounds_in_reach(knobs, round_number)[:-1]
        if knobs.buffer == "append":  # the last one has those before it
            return {"earlier": arm.source.at(rounds[-1], "select-improve-00")} if rounds else {}
        return {f"earlier-{number:03d}": arm.source.at(number, "select-improve-00") for number in rounds}

    def _carried(self, turn: Turn, new: Sequence[Survivor], earlier: Sequence[Receipt]) -> tuple[Survivor, ...]:
        """What the buffer makes of all that it reaches; a control that draws comes to as many as main."""
        own = [*(one for receipt in earlier for one in self._own(receipt, turn.knobs)), *new]
        carried = buffers.buffered(own, turn.knobs, seed=turn.seed)
        if turn.main is None or turn.knobs.rule != "random":
            return carried
        of_main = turn.main.rows - int(turn.main.metrics.get(FROM_SEED_DATA, 0))
        return buffers.as_many(carried, own, of_main, seed=turn.seed)

    def _own(self, receipt: Receipt, knobs: SelectConfig) -> Iterator[Survivor]:
        """The survivors of an earlier round's own candidates; for buffer `append` those of the rounds before it too."""
        paths = {path.name: path for path in self.run.tables(receipt)}
        if knobs.buffer != "append" and OWN_FILE in paths:
            paths = {OWN_FILE: paths[OWN_FILE]}
        for path in paths.values():
            for survivor in tables.read(path, Survivor):
                is_own = survivor.round == receipt.round or knobs.buffer == "append"
                if is_own and survivor.why != MIXED:
                    yield survivor

    def _mixed_in(self, turn: Turn, num_survivors: int) -> list[Survivor]:
        count = num_to_mix(one(turn.knobs.mix_seed_data), num_survivors)
        return self._shown(turn.arm, turn.round_number, self._seed_data(), count, MIXED) if count else []

    def _publish_own(self, turn: Turn, new: Sequence[Survivor], survivors: Sequence[Survivor]) -> dict[str, str]:
        """The round's own survivors, where it does not train on all of them: a later round's buffer may take them."""
        if {one.candidate_id for one in new} <= {one.candidate_id for one in survivors}:
            return {}
        name = f"{turn.arm.folder(turn.round_number)}/survivors/improve-00/{OWN_FILE}"
        return {name: tables.write(self.run.path / name, new, Survivor, fingerprint=turn.fingerprint)}

    def _of_examples(self, turn: Turn, survivors: Sequence[Survivor]) -> dict[str, float]:
        """Where the training examples come from, and how many a control that draws lacks to main's number."""
        mixed = sum(one.why == MIXED for one in survivors)
        metrics = {"select/from_references": 0.0, "select/training_examples": float(len(survivors))}
        if turn.knobs.buffer != "replace":
            metrics["select/from_earlier_rounds"] = float(sum(one.round < turn.round_number for one in survivors))
        if one(turn.knobs.mix_seed_data):
            metrics[FROM_SEED_DATA] = float(mixed)
        if turn.main is not None and turn.knobs.rule == "random" and len(survivors) < turn.main.rows:
            metrics["select/short_of_main"] = float(turn.main.rows - len(survivors))
            self.commits.terminal.warn(
                f"{turn.arm.name} · round {turn.round_number}: only {len(survivors)} training examples, where main has "
                f"{turn.main.rows}, for want of candidates to draw from: this control trains on less, in as many steps"
            )
        return metrics

    def prompts_of(self, arm: Arm, round_number: int) -> tuple[Prompt, ...]:
        """The prompts that the arm asks in that round."""
        return prompt_room.of_round(
            self.prompts.train, arm.config.prompts, seed=arm.config.seed, round_number=round_number
        )

    def groups(self, arm: Arm, round_number: int, candidates: Receipt, scores: Sequence[Path]) -> list[Group]:
        """The round's candidates with their scores, by prompt."""
        return read_groups(self.run.tables(candidates), scores, by_id(self.prompts_of(arm, round_number)))

    def _asked(self, arm: Arm, round_number: int) -> Sequence[Prompt]:
        """The prompts that main's examples of the round come from: of all rounds that its buffer reaches."""
        reach = buffers.rounds_in_reach(resolved(arm.config.select, round_number), round_number)
        rounds = [self.prompts_of(arm, number) for number in reach]
        return list({one.id: one for of_round in rounds for one in of_round}.values())

    def _seed_data(self) -> Sequence[Prompt]:
        assert self.prompts.seed_data is not None
        return self.prompts.seed_data.prompts

    def _demonstrate(self, arm: Arm, round_number: int, main: Receipt, fingerprint: str, display: Phase) -> Made:
        """As many demonstrations as main had training examples."""
        count = main.rows
        shown = self._asked(arm, round_number) if arm.control == "gold" else self._seed_data()
        survivors = self._shown(arm, round_number, shown, count, str(arm.control))
        files = self._publish_survivors(arm, round_number, survivors, [], fingerprint)
        source = "references" if arm.control == "gold" else "seed_data"
        metrics = {"select/kept": float(count), f"select/from_{source}": float(count)}
        metrics |= task_metrics.of_selection((one.prompt_id for one in survivors), shown)
        display.done(f"{count:,} examples from {source}")
        return Made(files, len(survivors), {**metrics, "select/training_examples": float(len(survivors))})

    def _shown(self, arm: Arm, round_number: int, prompts: Sequence[Prompt], count: int, why: str) -> list[Survivor]:
        """So many demonstrations of the prompts, as the arm's policy is asked them."""
        sampler = self.rooms.of_arm(arm).sampler
        return demonstrations(
            prompts,
            count=count,
            seed=arm.config.seed,
            round_number=round_number,
            encode=lambda prompt, text: (sampler.render(prompt), sampler.encode_completion(prompt, text)),
            why=why,
        )

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


def _require_enough(turn: Turn, chosen: selection.Selection) -> None:
    if len(chosen.kept) < turn.knobs.min_survivors:
        raise PhaseError(
            f"round {turn.round_number} of {turn.arm.name}: {len(chosen.kept)} survivors, and select.min_survivors is "
            f"{turn.knobs.min_survivors}; the funnel: {funnel_words(chosen.metrics)}. Sample more candidates, "
            "lower the threshold, or lower min_survivors"
        )
