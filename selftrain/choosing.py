"""Selection in the corridor: from committed candidates and scores, or from demonstrations, to training examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain import controls, selection, tables
from selftrain import prompts as prompt_room
from selftrain.arms import Arm
from selftrain.commits import Commits, Made, Task
from selftrain.config import SelectConfig, one, resolved
from selftrain.drawing import stream_groups
from selftrain.errors import PhaseError
from selftrain.evaluation import tasks as task_metrics
from selftrain.evaluation.tallies import SelectionTally
from selftrain.measuring import by_id
from selftrain.prompts import PromptSets
from selftrain.publishing import Lines
from selftrain.records import Prompt, Receipt, Survivor, seed_from
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.scoring import truth_of
from selftrain.selection import buffers, shaping
from selftrain.selection.contamination import Tally
from selftrain.selection.demonstrations import MIXED, demonstrations, num_to_mix, words_of
from selftrain.selection.sifting import Sifting, Source
from selftrain.selection.survivors import to_survivor
from selftrain.store import RunDirectory, write_jsonl
from selftrain.summaries import funnel_words, way_on

FROM_SEED_DATA = "select/from_seed_data"
SURVIVORS_FILE = "survivors.parquet"
OWN_FILE = "own.parquet"
CONTAMINATION_FILE = "contamination.jsonl"


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


@dataclass(slots=True)
class Examples:
    """How many training examples there are, and how many of them are of earlier rounds, or of the seed data."""

    all: int = 0
    earlier: int = 0
    mixed: int = 0


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
        """The survivors of the round's own candidates, and with them what the buffer and the seed data add. Files are
        written as the candidates are read, and published once all are."""
        knobs, folder, sampled = turn.knobs, _folder(turn.arm, turn.round_number), scored[0].metrics
        truth = truth_of(turn.arm.config.score)[0]
        with (
            Lines(self.run.path / folder / "rejected.jsonl") as rejected,
            Lines(self.run.path / folder / CONTAMINATION_FILE) as overlaps,
            tables.Writer(self.run.path / folder / SURVIVORS_FILE, Survivor, fingerprint=turn.fingerprint) as table,
        ):
            contaminated = Tally(overlaps.add)
            rooms = self.rooms.of_arm(turn.arm)
            sifting = Sifting(
                self.groups(
                    turn.arm, turn.round_number, scored[0], self.run.tables(scored[1]), without=_unread(knobs, truth)
                ),
                knobs,
                seed=turn.seed,
                reject=lambda name, why: rejected.add({"candidate_id": name, "why": why}),
                loaded=rooms.filters if knobs.filters else (),
                given=rooms.screening.steps(knobs, self.prompts, contaminated.add),
            )
            tally = SelectionTally(truth)
            counts, files = self._write(turn, self._new(turn, sifting, tally), earlier, table)
            metrics = selection.metrics_of(sifting.funnel, len(tally.of_prompts))
            _require_enough(turn, metrics)
            files |= {f"{folder}/{SURVIVORS_FILE}": table.publish(), f"{folder}/rejected.jsonl": rejected.publish()}
            if knobs.decontaminate is not None:
                files[f"{folder}/{CONTAMINATION_FILE}"] = overlaps.publish()
                metrics |= contaminated.metrics()
        asked = f"{folder}/prompts.jsonl"  # for who reads what was rejected
        rows = [{"prompt_id": name, "text": words_of(one)} for name, one in sorted(sifting.prompts.items())]
        files[asked] = write_jsonl(self.run.path / asked, rows)
        metrics |= tally.metrics(
            sampled_candidates=int(sampled["sample/candidates"]), sampled_tokens=int(sampled["sample/tokens"])
        )
        metrics |= task_metrics.of_selection(tally.of_prompts.elements(), sifting.prompts.values())
        metrics |= self._of_examples(turn, counts)
        display.done(funnel_words(metrics))
        return Made(files, counts.all, metrics)

    def _new(self, turn: Turn, sifting: Sifting, tally: SelectionTally) -> Iterator[Survivor]:
        """The round's own survivors, each counted."""
        for kept in sifting.kept():
            tally.add(kept.candidate, kept.score)
            yield to_survivor(
                kept,
                round_number=turn.round_number,
                prompt_text=words_of(sifting.prompts[kept.candidate.prompt_id]),
                train_on=turn.arm.config.select.train_on,
            )

    def _write(
        self, turn: Turn, new: Iterator[Survivor], earlier: Sequence[Receipt], table: tables.Writer[Survivor]
    ) -> tuple[Examples, dict[str, str]]:
        """Fill the table of training examples; how many they are, and the file of those that are left out of it, if
        there are any. Only where a buffer reaches over rounds, or a control must come to main's number, are all
        survivors in memory at once."""
        counts, files = Examples(), dict[str, str]()
        carried: Iterable[Survivor] = new
        if turn.knobs.buffer != "replace" or (turn.main is not None and turn.knobs.rule == "random"):
            own = list(new)
            carried = self._carried(turn, own, earlier)
            files = self._publish_own(turn, own, carried)
        for survivor in carried:
            table.add(survivor)
            counts.earlier += survivor.round < turn.round_number
        for shown in self._mixed_in(turn, table.rows):
            table.add(shown)
            counts.mixed += 1
        counts.all = table.rows
        return counts, files

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
        name = f"{_folder(turn.arm, turn.round_number)}/{OWN_FILE}"
        return {name: tables.write(self.run.path / name, new, Survivor, fingerprint=turn.fingerprint)}

    def _of_examples(self, turn: Turn, counts: Examples) -> dict[str, float]:
        """Where the training examples come from, and how many a control that draws lacks to main's number."""
        metrics = {"select/from_references": 0.0, "select/training_examples": float(counts.all)}
        if turn.knobs.buffer != "replace":
            metrics["select/from_earlier_rounds"] = float(counts.earlier)
        if one(turn.knobs.mix_seed_data):
            metrics[FROM_SEED_DATA] = float(counts.mixed)
        if turn.main is not None and turn.knobs.rule == "random" and counts.all < turn.main.rows:
            metrics["select/short_of_main"] = float(turn.main.rows - counts.all)
            self.commits.terminal.warn(
                f"{turn.arm.name} · round {turn.round_number}: only {counts.all} training examples, where main has "
                f"{turn.main.rows}, for want of candidates to draw from: this control trains on less, in as many steps"
            )
        return metrics

    def prompts_of(self, arm: Arm, round_number: int) -> tuple[Prompt, ...]:
        """The prompts that the arm asks in that round."""
        return prompt_room.of_round(
            self.prompts.train, arm.config.prompts, seed=arm.config.seed, round_number=round_number
        )

    def groups(
        self, arm: Arm, round_number: int, candidates: Receipt, scores: Sequence[Path], *, without: Collection[str]
    ) -> Source:
        """Reads the round's candidates with their scores, by prompt, a block at a time; `without` columns that nobody
        will look at."""
        drawn, known = self.run.tables(candidates), by_id(self.prompts_of(arm, round_number))
        return lambda: stream_groups(drawn, scores, known, without=without)

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
        table, rejected = (f"{_folder(arm, round_number)}/{name}" for name in (SURVIVORS_FILE, "rejected.jsonl"))
        files = {
            table: tables.write(self.run.path / table, survivors, Survivor, fingerprint=fingerprint),
            rejected: write_jsonl(self.run.path / rejected, []),
        }
        source = "references" if arm.control == "gold" else "seed_data"
        metrics = {"select/kept": float(count), f"select/from_{source}": float(count)}
        metrics |= task_metrics.of_selection((one.prompt_id for one in survivors), shown)
        display.done(f"{count:,} examples from {source}")
        return Made(files, len(survivors), {**metrics, "select/training_examples": float(len(survivors))})

    def _shown(self, arm: Arm, round_number: int, prompts: Sequence[Prompt], count: int, why: str) -> list[Survivor]:
        """So many demonstrations of the prompts, as the arm's policy is asked them; without tokens where there is no
        policy."""
        rooms = self.rooms.of_arm(arm)
        return demonstrations(
            prompts,
            count=count,
            seed=arm.config.seed,
            round_number=round_number,
            encode=lambda prompt, text: (
                (rooms.sampler.render(prompt), rooms.sampler.encode_completion(prompt, text))
                if rooms.has_policy()
                else ((), ())
            ),
            why=why,
        )


def _folder(arm: Arm, round_number: int) -> str:
    return f"{arm.folder(round_number)}/survivors/improve-00"


def _unread(knobs: SelectConfig, truth: str | None) -> tuple[str, ...]:
    """Columns of candidates and scores that this selection does not look at; filters are offered nearly all."""
    parts = () if knobs.filters or truth is not None else ("parts",)
    logprobs = () if knobs.filters or shaping.shapes(knobs) else ("logprobs",)
    return "metadata", "explanation", "extras", *parts, *logprobs


def _require_enough(turn: Turn, metrics: Mapping[str, float]) -> None:
    if metrics["select/kept"] < turn.knobs.min_survivors:
        raise PhaseError(
            f"round {turn.round_number} of {turn.arm.name}: {metrics['select/kept']:.0f} survivors, and "
            f"select.min_survivors is {turn.knobs.min_survivors}; the funnel: {funnel_words(metrics)}. The way on: "
            f"{way_on(metrics)}, or lower min_survivors"
        )
