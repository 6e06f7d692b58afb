"""What a run will do (`plan`) and how far it is (`status`): read from the recipe and the run directory, no torch."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain import advice, controls, screening, trained_verifier
from selftrain import prompts as prompt_room
from selftrain.advice.note import distinct_rounds
from selftrain.arms import Arm, arms_of, names_round
from selftrain.compose import compose, leaves
from selftrain.config import ARMS, ArmConfig, Config, CurateConfig, at_round
from selftrain.disk import weight
from selftrain.errors import ConfigError
from selftrain.estimates.whole import estimate, work_rows
from selftrain.estimates.whole import rows as estimate_rows
from selftrain.generators import candidates_words, words_of
from selftrain.parsing import parse
from selftrain.preflight import check, for_curating, of_curating, prompt_sets, without_held_out
from selftrain.prompts import PromptSets
from selftrain.records import Receipt, Report
from selftrain.reporting.inert import inert
from selftrain.rooms import notes_on_model
from selftrain.sandboxing import caveats, needs_sandbox
from selftrain.store import RunDirectory, read_json

if TYPE_CHECKING:
    from selftrain.reporting.tables import Line, RoundRow

PHASE_FILES = {
    "sample": "sample-wave-00",
    "score": "score-wave-00",
    "select": "select-improve-00",
    "train": "train-improve-00",
}


def show_plan(
    recipe: str, *, layers: Sequence[str], overrides: Sequence[str], runs_dir: Path, curates: bool = False
) -> None:
    """Print the resolved configuration with origins, what each round will do, and what the run will take; `curates`:
    what `selftrain curate` will."""
    from selftrain.reporting import estimates as page
    from selftrain.reporting.plan import render

    composed = compose(recipe, layers=layers, overrides=overrides)
    composed = for_curating(composed) if curates else composed
    prompts, _ = check(composed, curates=curates)
    config = composed.config
    values = config.model_dump(mode="json", by_alias=True)
    rows = [(key, value, composed.origin(key)) for key, value in leaves(values)]
    said = list(curated_steps(config, prompts) if curates else steps(config, prompts))
    notes = list(screening.notes(config, prompts, composed.folder))
    if curates:
        composed, prompts = replace(composed, config=of_curating(config)), without_held_out(prompts)
    found = estimate(composed, prompts, runs_dir, trains=not curates)
    notes = [*notes_on_model(composed.config, composed.folder, trains=not curates), *notes]
    notes = [*(one.words for one in advice.notes(composed.config, prompts)), *found.notes(), *notes]
    print(render(rows, [*said, *(f"note: {words}" for words in notes)]))
    print(f"\n{page.render(work_rows(found), list(estimate_rows(found)), list(found.does_not_fit()))}")


def curated_steps(config: Config, prompts: PromptSets) -> Iterator[str]:
    """What a curated round does, in words."""
    yield from _sets(config, prompts)
    yield f"round 1: {_chosen(config, prompts, 1, {})}; nothing is trained or evaluated"
    yield _curation_words(config)


def _sets(config: Config, prompts: PromptSets) -> Iterator[str]:
    for one in prompt_sets(prompts).values():
        notes = [f"{one.num_duplicates} duplicates collapsed"] * bool(one.num_duplicates)
        notes += [f"{one.num_overlapping} dropped as held out"] * bool(one.num_overlapping)
        notes += [f"{one.num_excluded:,} excluded"] * bool(one.num_excluded)
        yield f"{one.name}: {len(one.prompts):,} prompts" + (f" ({', '.join(notes)})" if notes else "")
    if needs_sandbox(config):
        yield _sandbox_words(config.score.sandbox.tier)


def steps(config: Config, prompts: PromptSets) -> Iterator[str]:
    """One line per set, round and arm, in words."""
    yield from _sets(config, prompts)
    if config.evaluate.scorers and prompts.held_out():
        named = ", ".join(one.name + " (only reported)" * (not one.weight) for one in config.evaluate.scorers)
        bars = [one.correct_at for one in (config.judging_held_out, config.score)]
        apart = f", right from {bars[0]:g} up" * (bars[0] != bars[1])
        yield f"held-out answers are judged by {named} (evaluate.scorers){apart}, candidates by score.scorers"
    yield f"round 0: {_evaluation(config, prompts, 0)}"
    asked: dict[Any, int] = {}
    starts = _starts(config)
    rounds = [
        (number, (_round(config, prompts, number, asked), _evaluation(config, prompts, number))) for number in starts
    ]
    ends = {number: following - 1 for number, following in zip(starts, [*starts[1:], config.rounds + 1], strict=True)}
    for (what, evaluation), same in groupby(rounds, key=lambda item: item[1]):
        numbers = [number for number, _ in same]
        first, last = numbers[0], ends[numbers[-1]]
        yield f"{f'round {first}' if first == last else f'rounds {first} to {last}, each'}: {what}; {evaluation}"
    for arm in config.arms:
        yield _arm_words(arm)
    if "validate" in prompts.held_out():
        yield "validate decides which round is best; test is only reported"
    elif prompts.held_out():
        yield "no prompts.validate: the last round is the headline, and nothing is chosen"
    else:
        yield "no held-out prompts: nothing is evaluated, and the last round's policy is the result"
    if config.curate != CurateConfig():
        yield _curation_words(config)


def _curation_words(config: Config) -> str:
    whole = "messages" if config.prompts.format == "chat" else "text"
    pairs = f" and preference ({config.curate.pairs})" if config.curate.pairs != "none" else ""
    exports = f"prompt_completion, {whole}{pairs}"
    return f"selftrain curate ends once round 1 has selected, trains nothing, and exports {exports}"


def _sandbox_words(tier: str) -> str:
    if tier == "auto":
        return (
            "sandbox: chosen when the run starts, the first of bubblewrap and landlock that passes its self-test there "
            "(score.sandbox.tier: auto)"
        )
    return f"sandbox: {tier}, which must pass its self-test when the run starts (score.sandbox.tier)"


def _starts(config: Config) -> list[int]:
    """The rounds that may differ from the one before, in order; the first among them."""
    named = config.evaluate.sampled_rounds
    after = [*distinct_rounds(config), distinct_rounds(config)[-1] + 1, config.rounds]
    named = (*named, *(config.verifier.rounds if config.verifier is not None else ()))
    after += [number + more for number in named if isinstance(number, int) for more in (0, 1)]
    return sorted({number for number in after if 1 <= number <= config.rounds})


def _arm_words(arm: ArmConfig) -> str:
    named = arm.evaluate_rounds if isinstance(arm.evaluate_rounds, str) else ", ".join(map(str, arm.evaluate_rounds))
    knobs = ", ".join(f"{key} {value}" for key, value in arm.overrides.items())
    what = ARMS[arm.name] if arm.is_control else f"main's method with {knobs}"
    return f"arm {arm.name}: {what}; shares with main what is the same; evaluated at main's headline round and: {named}"


def _round(config: Config, prompts: PromptSets, number: int, asked: dict[Any, int]) -> str:
    """A round in words; `asked` as in `_chosen`."""
    train = at_round(config.train, number)
    amount = f"{train['steps']} steps" if train["steps"] else f"{train['epochs']:g} epoch{'s' * (train['epochs'] != 1)}"
    new = "a new adapter" if config.model.adapter is None else "a copy of model.adapter"
    start = {"base": new, "previous": "the previous adapter", "best": "the best adapter so far"}
    begin = start["base" if number == 1 else train["init_from"]]
    return (
        f"{_chosen(config, prompts, number, asked)}, train {begin} for {amount} "
        f"(batch {train['batch_size']}, learning rate {train['learning_rate']:g})"
    )


def _chosen(config: Config, prompts: PromptSets, number: int, asked: dict[Any, int]) -> str:
    """A round up to its survivors, in words. `asked` holds how many prompts are asked, by `prompts.per_round`: each
    shuffle takes time."""
    sample, select = at_round(config.sample, number), at_round(config.select, number)
    size = at_round(config.prompts, number)["per_round"]
    if size not in asked:
        of_round = prompt_room.of_round(prompts.train, config.prompts, seed=config.seed, round_number=number)
        asked[size] = len(of_round)
    cap = f", at most {select['max_per_prompt']} per prompt" if select["max_per_prompt"] else ""
    return (
        f"{candidates_words(config, asked[size], sample)}, "
        f"select by {select['rule']}{cap}{screening.in_words(config.select)}"
    )


def _evaluation(config: Config, prompts: PromptSets, number: int) -> str:
    held_out = prompts.held_out()
    if not held_out:
        return "no evaluation" + trained_verifier.in_words(config, number)
    text = "evaluate greedily on " + " and ".join(f"{len(one.prompts):,} {one.name}" for one in held_out.values())
    if names_round(config.evaluate.sampled_rounds, number, last=config.rounds):
        target = held_out.get("test") or held_out["validate"]
        text += f", and {config.evaluate.num_samples} samples for each {target.name} prompt"
    return text + trained_verifier.in_words(config, number)


def show_status(path: Path, *, as_json: bool, every: float | None = None) -> None:
    """Print how far a run is; with `every`, again after so many seconds for as long as a process works on it.

    On a terminal the page is refreshed in place; elsewhere, and as JSON (then one line each), it is printed whenever
    something changed. Raises ConfigError if the folder is no run.
    """
    from selftrain.reporting.terminal import Terminal

    terminal = Terminal()
    if every is None:
        print(json.dumps(status_of(path), indent=1)) if as_json else terminal.page(_page(path, status_of(path)))
        return
    shown = None
    with suppress(KeyboardInterrupt), terminal.in_place() as show:
        while True:
            data = status_of(path)
            # What a run weighs grows all the time; a change is a phase, a holder, an end.
            seen = {key: value for key, value in data.items() if key != "disk"}
            if as_json and seen != shown:
                print(json.dumps(data), flush=True)
            elif not as_json and (terminal.is_tty or seen != shown):
                show(_page(path, data))
            shown = seen
            if data["state"] != "running":
                return
            time.sleep(every)


def _page(path: Path, data: Mapping[str, Any]) -> list[Line]:
    from selftrain.reporting.status import render
    from selftrain.reporting.tables import Line

    said: list[str] = read_json(path / "verdict.json").get("lines", [])
    lines = render(data, round_rows_of(path))
    lines += [Line("")] * bool(said) + [Line(inert(sentence), "head") for sentence in said]
    return lines + [Line(sentence, "warning") for sentence in data["caveats"]]


def round_rows_of(path: Path) -> list[RoundRow]:
    """The table of rounds as far as they are committed, with the best one marked once the run has its verdict."""
    from selftrain.summaries import round_row

    verdict = read_json(path / "verdict.json")
    receipts = RunDirectory(path).receipts()
    rows = []
    for arm in arms_of(config_of(path)):
        arm.receipts |= {one.key: one for one in receipts if one.arm == arm.name}
        if arm.main is not None and arm.receipts:
            arm.receipts |= _shared_with_main(arm, {one.key: one for one in receipts}, verdict.get("round"))
        measured = {key: one for key, one in arm.receipts.items() if one.phase == "evaluate"}
        arm.reports |= {one.round: Report(arm.name, one.round, one.metrics, {}) for one in measured.values()}
        numbers = sorted({one.round for one in arm.receipts.values()})
        rows += [round_row(arm, number, verdict.get("best_round", -1)) for number in numbers]
    return rows


def _shared_with_main(arm: Arm, committed: Mapping[str, Receipt], headline: int | None) -> dict[str, Receipt]:
    """Main's receipts that stand for the arm's, by the arm's keys: of round 0, and of each round that is over what the
    arm does there and has no receipt of. `headline` is main's headline round, once there is a verdict."""
    assert arm.main is not None
    assert arm.settings is not None
    last = max((one.round for one in committed.values() if one.arm == "main"), default=0)
    found = {arm.key(0, "evaluate"): committed.get(arm.main.key(0, "evaluate"))}
    for number in range(1, last + 1):
        if arm.key(number, "round") not in committed:
            continue
        names = [name for phase, name in PHASE_FILES.items() if controls.samples(arm) or phase in ("select", "train")]
        is_mains = arm.key(number, PHASE_FILES["train"]) not in committed  # then its policy is main's, and measured so
        if is_mains and (number == headline or names_round(arm.settings.evaluate_rounds, number, last=last)):
            names.append("evaluate")
        for name in names:
            if arm.key(number, name) not in committed:
                found[arm.key(number, name)] = committed.get(arm.main.key(number, name))
    return {key: one for key, one in found.items() if one is not None}


def config_of(path: Path) -> Config:
    """The configuration that a run has recorded. ConfigError if the folder is no run, DataError if it is damaged."""
    recorded = read_json(path / "config.json")
    if "config" not in recorded:
        raise ConfigError(f"{path} is no run directory (it has no config.json); runs are kept under runs/NAME")
    return parse(recorded["config"])


def status_of(path: Path) -> dict[str, Any]:
    """How far a run is, as data."""
    from selftrain.reporting.status import Holder, status

    config, run = config_of(path), RunDirectory(path)
    receipts = run.receipts()
    reports = [Report(one.arm, one.round, one.metrics, {}) for one in receipts if one.phase.startswith("evaluate")]
    held = re.fullmatch(r"pid (\d+) on (.*)", run.holder() or "")
    last = max((one.round for one in receipts if one.arm == "main" and one.phase == "round"), default=0)
    is_stopped = last < config.rounds and _is_stopped(run, last)
    recorded = read_json(path / "config.json")
    to_do = config.model_copy(update={"rounds": last}) if is_stopped else config
    found = status(
        {
            "name": config.name,
            "path": str(path),
            "recipe": recorded.get("recipe"),
            "model": config.model.path,
            **({"generator": words_of(config.sample.policy)} if config.sample.policy else {}),
            **({"sandbox": recorded["sandbox"]["tier"]} if recorded.get("sandbox") else {}),
        },
        list(_planned(to_do, {one.key: one for one in receipts}, curated=recorded.get("command") == "curate")),
        receipts,
        reports,
        holder=Holder(int(held[1]), held[2]) if held else None,
        stopped=f"a stop rule ended it after round {last}" if is_stopped else None,
        disk=weight(path),
    )
    return {**found, "caveats": list(caveats(config, recorded.get("sandbox")))}


def _is_stopped(run: RunDirectory, last: int) -> bool:
    """Whether a stop rule has ended main after its last round, under the configuration that is recorded."""
    said = None
    for event in run.journal():
        if event.get("event") in ("config", "stopped"):  # other knobs may let it go on
            said = event.get("round")
    return said == last


def _planned(config: Config, committed: Mapping[str, Receipt], *, curated: bool) -> Iterator[Any]:
    """Every phase in order of work. Beside main, what is measured and what is shared is known once main is done.
    `curated`: only a data set is made of the first round."""
    from selftrain.reporting.status import PlannedPhase

    if curated:
        main = next(arms_of(config))
        for phase in ("sample", "score", "select"):
            yield PlannedPhase(main.key(1, PHASE_FILES[phase]), "main", 1, phase)
        return
    for arm in arms_of(config):
        for number in range(config.rounds + 1):
            for phase, name in _phases_of(config, arm, number, committed):
                yield PlannedPhase(arm.key(number, name), arm.name, number, phase)


def _phases_of(config: Config, arm: Arm, number: int, committed: Mapping[str, Receipt]) -> Iterator[tuple[str, str]]:
    """(phase, receipt's name) of one round of one arm. What another arm shares with main has no receipt of its own."""
    is_main = arm.main is None
    in_round = [*PHASE_FILES.items(), ("round", "round")] if number else []
    if arm.control is not None and (number == 1 or not controls.samples(arm)):
        in_round = [one for one in in_round if one[0] not in ("sample", "score")]
    if arm.control == "random_selection_shared" and number < config.rounds:
        in_round = []
    is_over = arm.key(number, "round") in committed
    for phase, name in in_round:
        if is_main or not is_over or arm.key(number, name) in committed:
            yield phase, name
    names: dict[str, Any] = {}
    if config.prompts.validate_ is not None or config.prompts.test is not None:
        names |= {"evaluate": "all", "evaluate-sampled": config.evaluate.sampled_rounds}
    if config.prompts.retention is not None:
        names["evaluate-retention"] = config.evaluate.retention_rounds
    names |= trained_verifier.phases(config, arm, number, committed)
    for phase, rounds in names.items():
        if names_round(rounds, number, last=config.rounds) if is_main else arm.key(number, phase) in committed:
            yield phase, phase
