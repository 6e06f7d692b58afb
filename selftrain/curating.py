"""`selftrain curate`: one round of sampling, scoring and selection without training, and the data set it leaves.

A curated round is the first one of a run, in a run directory, with receipts: the same command goes on with it, and
`selftrain run` goes on with training. The data set is made from committed files, and anew where they or its description
have changed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from selftrain import describing, sandboxing
from selftrain import prompts as prompt_room
from selftrain.arms import Arm, arms_of
from selftrain.choosing import OWN_FILE
from selftrain.compose import compose
from selftrain.config import resolved
from selftrain.drawing import read_groups
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.exporting import hub, publishing
from selftrain.exporting.columns import Kinds
from selftrain.exporting.data_set import Counted, Recipe, fill
from selftrain.exporting.rows import Answered, Example, Speech
from selftrain.measuring import by_id
from selftrain.phases import Phases
from selftrain.preflight import for_curating
from selftrain.prompts import PromptSets
from selftrain.records import Candidate, Prompt, Receipt, digest
from selftrain.sandboxing import NOTHING_TYPED, Typed
from selftrain.selection.demonstrations import MIXED
from selftrain.selection.steps import written
from selftrain.starting import joined, under_way
from selftrain.store import RunDirectory, read_json
from selftrain.summaries import funnel_words, round_rows, way_on

ROUND = 1
LAYOUT = 3
"""Of the exported files: another one is another data set."""
ROWS_AT_A_TIME = 1000


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the data set goes: a folder (None: `export` in the run directory), and the hub if a name is given."""

    out: Path | None = None
    hub: str | None = None
    private: bool = False


def curate_recipe(
    recipe: str,
    *,
    layers: Sequence[str],
    overrides: Sequence[str],
    runs_dir: Path,
    destination: Destination = Destination(),
    fork: str | None = None,
    typed: Typed = NOTHING_TYPED,
) -> Path:
    """Start or go on with a curated round, export it, and return the data set's folder. `fork` is the run that takes
    over what changed knobs leave as it was.

    Raises SelftrainError for what a user can mend. Under a launcher every rank calls this; the first one exports.
    """
    if destination.private and destination.hub is None:
        raise ConfigError("--private is for --push-to-hub; leave it out, or say where to push")
    if destination.hub is not None:
        hub.require_name(destination.hub)
    composed = for_curating(compose(recipe, layers=layers, overrides=overrides))
    if destination.out is not None:
        publishing.require_place(destination.out, runs_dir / (fork or composed.config.name))
    command = describing.command_words(composed, layers, overrides)
    with (
        joined(composed.config) as world,
        under_way(world, composed, runs_dir=runs_dir, typed=typed, fork=fork, command="curate") as phases,
    ):
        main = next(arms_of(phases.config))
        main.policies[0] = phases.rooms.base_policy
        folder = destination.out or phases.run.path / publishing.FOLDER
        if dropped := phases.prompts.train.num_overlapping:
            phases.terminal.info(f"not asked, as held out too: {_many(dropped, 'training prompt')}")
        scored = phases.gather(main, ROUND, main.policies[0])
        assert scored is not None, "main samples"
        survivors = phases.select(main, ROUND, scored)
        round_ = Curated(phases.run, main, phases.prompts, scored, survivors)
        made = world.from_first(lambda: _export(phases, round_, folder, command), "the export")
        if world.is_first:
            _conclude(phases, main, folder, made)
        if destination.hub is not None:
            url = world.from_first(partial(_push, folder, destination), "the push to the hub")
            phases.terminal.info(f"pushed to {url}")
    return folder


def _push(folder: Path, destination: Destination) -> str:
    assert destination.hub is not None
    return hub.push(folder, destination.hub, private=destination.private)


@dataclass(frozen=True, slots=True)
class Curated:
    """A selected round as it is committed, read block by block."""

    run: RunDirectory
    arm: Arm
    prompts: PromptSets
    scored: tuple[Receipt, Receipt]
    survivors: Receipt

    @property
    def asked(self) -> tuple[Prompt, ...]:
        """The prompts of the round."""
        config = self.arm.config
        return prompt_room.of_round(self.prompts.train, config.prompts, seed=config.seed, round_number=ROUND)

    def answered(self, check: Callable[[], None]) -> Iterator[Answered]:
        """Every prompt that has candidates, with what was kept of them; `check` is called between blocks."""
        known, kept = by_id(self.asked), _Kept(self._survivors(mixed=False))
        candidates, scores = (self.run.tables(receipt) for receipt in self.scored)
        for drawn, judged in zip(candidates, scores, strict=True):
            check()
            groups = read_groups([drawn], [judged], known)
            why = kept.among({one.id for group in groups for one in group.candidates})
            for group in groups:
                yield Answered(group, {one.id: why[one.id] for one in group.candidates if one.id in why})
        kept.require_used_up(self.survivors)

    def columns(self, wanted: Sequence[str], check: Callable[[], None]) -> describing.Columns:
        """What the candidates of a file bring beside their texts: who wrote them, and the wanted columns."""
        writers, own = Kinds(describing.WRITERS), Kinds(wanted)
        for path in self.run.tables(self.scored[0]):
            check()
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["metadata"]):
                    for row in batch.to_pylist():
                        metadata = json.loads(row["metadata"])
                        writers.add(metadata)
                        own.add(metadata)
        return describing.Columns(bool(writers.found()), own.found())

    def demonstrations(self) -> Iterator[Example]:
        """What `select.mix_seed_data` added, each once however often it is trained on."""
        known = by_id(self.prompts.seed_data.prompts) if self.prompts.seed_data is not None else {}
        seen = set()
        for row in self._survivors(mixed=True):
            if (row["prompt_id"], row["text"]) not in seen:
                seen.add((row["prompt_id"], row["text"]))
                yield Example(known[row["prompt_id"]], row["text"], row["candidate_id"], None, row["why"], None)

    def _survivors(self, *, mixed: bool) -> Iterator[Mapping[str, Any]]:
        columns = ["candidate_id", "prompt_id", "why", "text"]
        for path in self.run.tables(self.survivors):
            if path.name != OWN_FILE:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
                        yield from (row for row in batch.to_pylist() if (row["why"] == MIXED) == mixed)


class _Kept:
    """Survivors taken block by block: they are in the order of the candidates' blocks."""

    def __init__(self, survivors: Iterable[Mapping[str, Any]]) -> None:
        self._survivors = iter(survivors)
        self._next = next(self._survivors, None)

    def among(self, candidates: Collection[str]) -> dict[str, str]:
        """Why, of each survivor among these candidates."""
        found = {}
        while self._next is not None and self._next["candidate_id"] in candidates:
            found[self._next["candidate_id"]] = self._next["why"]
            self._next = next(self._survivors, None)
        return found

    def require_used_up(self, receipt: Receipt) -> None:
        if self._next is not None:
            raise DataError(
                f"the survivors of {receipt.key} are not in the order of their candidates, from "
                f"{self._next['candidate_id']} on; delete that receipt and run the same command again"
            )


def _export(phases: Phases, curated: Curated, folder: Path, command: str) -> Mapping[str, Any]:
    """Make the data set, unless it is there and what it would be made from is the same; return its manifest."""
    config, survivors = phases.config, curated.survivors
    if not survivors.rows:
        raise PhaseError(
            f"no candidate survived, so there is nothing to export: {funnel_words(survivors.metrics)}. "
            f"`selftrain show {shlex.quote(str(phases.run.path))} --round 1` shows why; "
            f"{way_on(survivors.metrics)}"
        )
    caveats = tuple(sandboxing.caveats(config, read_json(phases.run.path / "config.json").get("sandbox")))
    prompts = curated.asked
    facts = partial(
        describing.facts, config, command, (*curated.scored, survivors), phases.prompts, len(prompts), caveats
    )
    made_from = digest(
        [
            LAYOUT,
            asdict(facts(Counted())),
            config.curate.model_dump(mode="json"),
            [[one.fingerprint, one.output] for one in (*curated.scored, survivors)],
        ]
    )
    there = publishing.found(folder, made_from)
    if there is not None:
        phases.terminal.info(f"{folder} holds this data set already")
        return there
    policy, columns = config.sample.policy, describing.Columns()
    if policy is not None and policy.file is not None:
        columns = curated.columns(config.curate.columns, phases.world.check)
    recipe = Recipe(
        config.curate,
        chat=config.prompts.format == "chat",
        tasks=config.prompts.train.mix is not None,
        speech=Speech(config.model.thinking, config.select.train_on == "answer"),
        finish_reasons=resolved(config.select, ROUND).finish_reasons,
        generator_of=describing.generator_of(config),
        is_barred=_barred(phases, curated.arm),
        generators=columns.has_generators,
        own=columns.own,
    )

    def write(into: Path) -> Mapping[str, Any]:
        with phases.terminal.phase("export", survivors.rows, "examples", arm="main", round=ROUND) as display:

            def answered() -> Iterator[Answered]:
                for one in curated.answered(phases.world.check):
                    display.advance(len(one.kept))
                    yield one

            said = fill(into, recipe, answered(), curated.demonstrations(), partial(facts, columns=columns))
            display.done(", ".join(f"{rows:,} rows of {name}" for name, rows in said["rows"].items()))
        return {"run": config.name, **said, "counts": {"asked": len(prompts), **said["counts"]}}

    return publishing.publish(folder, made_from, write)


def _barred(phases: Phases, arm: Arm) -> Callable[[Candidate], bool]:
    """Whether a candidate shares words with an evaluation set, where those are to stay out: what left at another step
    was never asked that."""
    if arm.config.select.decontaminate is None:
        return lambda candidate: False
    overlaps = phases.rooms.of_arm(arm).screening.overlaps(phases.prompts)
    return lambda candidate: overlaps.find(written(candidate)) is not None


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _conclude(phases: Phases, main: Arm, folder: Path, made: Mapping[str, Any]) -> None:
    counts = made["counts"]
    without = counts["asked"] - counts["answered"]
    lines = [
        f"{_many(counts['examples'], 'example')} of {_many(counts['answered'], 'prompt')}; {without:,} of the "
        f"{_many(counts['asked'], 'prompt')} asked have none"
    ]
    if phases.config.curate.pairs != "none":
        lines.append(f"{_many(counts['pairs'], 'preference pair')} ({phases.config.curate.pairs})")
    lines += sandboxing.caveats(phases.config, read_json(phases.run.path / "config.json").get("sandbox"))
    phases.terminal.round_table("main", ROUND, list(round_rows(main, ROUND)))
    places = [("data set", str(folder)), ("its card", str(folder / publishing.CARD)), ("the run", str(phases.run.path))]
    phases.terminal.final([], lines, places)
