"""Runs against each other (`compare`), and the seeds of one recipe together. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from selftrain import tables
from selftrain.compose import differences
from selftrain.errors import ConfigError
from selftrain.evaluation import comparison, figures, seeds
from selftrain.evaluation.across_seeds import Measured
from selftrain.evaluation.decisions import rules_on_validation
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.evaluation.wording import IS_OF_ONE_ROUND, ONE_ROUND
from selftrain.measured_runs import HELD_OUT, Entry, read_run
from selftrain.records import Candidate, Score
from selftrain.sandboxing import caveats
from selftrain.store import RunDirectory

# Two runs that differ in nothing else are of one recipe.
BESIDE_THE_RECIPE = ("name", "seed", "track", "ranks")


def show_comparison(runs: Sequence[str], *, set_name: str | None, unpaired: bool, as_json: bool) -> None:
    """Print how runs compare; each is a run directory, or `DIRECTORY:ARM`. Raises ConfigError or DataError."""
    from selftrain.reporting.comparisons import render

    data = compare(runs, set_name=set_name, unpaired=unpaired)
    print(json.dumps(data, indent=1) if as_json else render(data))


def compare(runs: Sequence[str], *, set_name: str | None = None, unpaired: bool = False) -> dict[str, Any]:
    """How runs compare, as plain data: a row for each, its difference to the first and what differs in the knobs, what
    they say together where they are seeds of one recipe, and notes. Intervals are as the first run's config says."""
    if len(runs) < 2:
        raise ConfigError("compare takes two runs or more; `selftrain status RUN` shows a single one")
    entries = _entries(runs)
    name = _set_of(entries, set_name)
    settings = entries[0].run.settings()
    found, *beside = (
        comparison.against_first(sides, name, unpaired=unpaired, **settings)
        for sides in _sides(entries, name, unpaired=unpaired)
    )
    first = entries[0]
    return {
        "set": name,
        "runs": [_row(one, name, settings) for one in entries],
        "differences": [
            {
                **asdict(one),
                "values": [asdict(of_figure[place]) for of_figure in beside],
                "knobs": differences(first.knobs(), other.knobs()),
                "warnings": _warnings(first, other, name),
            }
            for place, (one, other) in enumerate(zip(found, entries[1:], strict=True))
        ],
        "seeds": asdict(_together(entries, name)) if _are_seeds(entries) and all(one.common for one in found) else None,
        "notes": list(_notes(entries, name)),
    }


def _sides(entries: Sequence[Entry], set_name: str, *, unpaired: bool) -> Iterator[list[comparison.Side]]:
    """The runs by pass@1, then by each other figure that all of them have, on common prompts unless `unpaired`."""
    outcomes = [one.report(set_name).outcomes[set_name] for one in entries]
    for figure in (figures.CORRECT, *figures.told(*outcomes)):
        values = [figures.per_prompt(of, figure) for of in outcomes]
        common = [values[0].keys() & of.keys() for of in values]
        if figure == figures.CORRECT or (all(values) and (unpaired or all(common))):
            yield [
                comparison.Side(one.name, one.run.headline[0], of, figure)
                for one, of in zip(entries, values, strict=True)
            ]


def verdict_of_seeds(paths: Sequence[Path], set_name: str | None = None) -> seeds.SeedsVerdict:
    """What the runs of one recipe with several seeds say together. Raises ConfigError or DataError."""
    entries = [Entry(path.name, read_run(path), "main") for path in paths]
    return _together(entries, _set_of(entries, set_name))


def _together(entries: Sequence[Entry], set_name: str) -> seeds.SeedsVerdict:
    first = entries[0].run
    by = first.config.evaluate.decide_by

    def measured(figure: str) -> list[Measured]:
        return [
            seeds.measured(
                one.run.config.seed,
                one.run.reports["main"],
                {arm: reports for arm, reports in one.run.reports.items() if arm != "main"},
                set_name,
                figure=figure,
                by=by,
            )
            for one in entries
        ]

    reports = [one for entry in entries for one in (entry.run.reports["main"][0], entry.report(set_name))]
    beside = figures.told(*(one.outcomes.get(set_name, ()) for one in reports))
    return seeds.verdict(
        measured(figures.CORRECT),
        overrides=first.overrides,
        decided_by=rules_on_validation(first.config),
        beside=[measured(one) for one in beside],
        by=by,
        **first.settings(),
    )


# Reading


def _entries(texts: Sequence[str]) -> list[Entry]:
    named = [(text, "main") if Path(text).exists() or ":" not in text else text.rpartition(":")[::2] for text in texts]
    runs = {folder: read_run(Path(folder)) for folder, _ in named}
    names = {folder: Path(folder).resolve().name for folder in runs}
    entries = []
    for folder, arm in named:
        if arm not in runs[folder].reports:
            raise ConfigError(f"{folder} has no arm {arm!r}; its arms: {', '.join(runs[folder].reports)}")
        is_unique = list(names.values()).count(names[folder]) == 1
        run_name = names[folder] if is_unique else folder
        entries.append(Entry(run_name if arm == "main" else f"{run_name}:{arm}", runs[folder], arm))
    return entries


def _set_of(entries: Sequence[Entry], wanted: str | None) -> str:
    """The held-out set to compare on: the one asked for, or the first that every run was measured on."""
    for name in HELD_OUT if wanted is None else (wanted,):
        if all(name in one.run.sets for one in entries):
            return name
    sets = "; ".join(f"{one.name}: {', '.join(one.run.sets)}" for one in entries)
    raise ConfigError(f"--set {wanted or 'test'}: not every run was measured on it ({sets}); choose one that all have")


# Saying


def _row(entry: Entry, set_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    number, chosen = entry.run.headline
    own = [one for one in entry.run.receipts if one.arm == entry.arm]
    arms = [arm for arm in entry.run.reports if arm != "main"] if entry.arm == "main" else []
    there = [arm for arm in arms if number in entry.run.evaluations[arm]]
    return {
        "name": entry.name,
        "path": str(entry.run.path),
        "arm": entry.arm,
        "seed": entry.run.config.seed,
        "round": number,
        "chosen": chosen,
        "is_finished": entry.run.is_finished,
        "pass@1": _level(entry, set_name, settings),
        "arms": {arm: _level(replace(entry, arm=arm), set_name, settings) for arm in there},
        "seconds": sum(one.seconds for one in own if one.phase != "round"),
        "sampled_tokens": int(sum(one.metrics["sample/tokens"] for one in own if one.phase == "sample")),
    }


def _level(entry: Entry, set_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = entry.report(set_name).outcomes[set_name]
    values = greedy_values(outcomes)
    return {**asdict(interval_of_mean(values.values(), **settings)), "unscored": len(outcomes) - len(values)}


def _are_seeds(entries: Sequence[Entry]) -> bool:
    """Whether the runs are of one recipe and differ in nothing but the seed."""
    numbers = [one.run.config.seed for one in entries]
    return (
        all(one.arm == "main" for one in entries)
        and len(set(numbers)) == len(numbers)
        and all(_same_recipe(one, other) for one, other in pairwise(entries))
    )


def _same_recipe(first: Entry, second: Entry) -> bool:
    knobs = [{key: of for key, of in one.knobs().items() if key not in BESIDE_THE_RECIPE} for one in (first, second)]
    # The sources of plug-ins are no knobs; what was asked of trained prompts depends on the headline round.
    beside = ("seed", "prompts", "trained")
    asked = [{key: of for key, of in one.ingredients().items() if key not in beside} for one in (first, second)]
    data = [one.run.recorded["prompts"]["train"]["digest"] for one in (first, second)]
    return knobs[0] == knobs[1] and asked[0] == asked[1] and data[0] == data[1]


def _warnings(first: Entry, other: Entry, set_name: str) -> list[str]:
    digests = {one.ingredients()["prompts"][set_name] for one in (first, other)}
    scoring = differences(first.ingredients()["scoring"], other.ingredients()["scoring"])
    if not scoring and len(digests) == 1:
        return []
    return comparison.warnings(
        first.name,
        other.name,
        set_name,
        scoring=scoring,
        same_set=len(digests) == 1,
        judged_otherwise=comparison.judged_otherwise(_judged(first, set_name), _judged(other, set_name)),
    )


def _judged(entry: Entry, set_name: str) -> comparison.Judged:
    receipt, directory = entry.evaluation(), RunDirectory(entry.run.path)
    kept = {name: sha256 for name, sha256 in receipt.files.items() if f"/greedy/{set_name}/" in name}
    paths: dict[str, list[Path]] = {"candidates": [], "scores": [], set_name: []}
    for path in directory.verified(replace(receipt, files=kept)):
        paths[path.parent.name].append(path)
    verdicts = {one.candidate_id: one.correct for path in paths["scores"] for one in tables.read(path, Score)}
    candidates = [one for path in paths["candidates"] for one in tables.read(path, Candidate)]
    return {one.prompt_id: (one.text, bool(verdicts[one.id])) for one in candidates if verdicts[one.id] is not None}


def _notes(entries: Sequence[Entry], set_name: str) -> Iterator[str]:
    runs = {one.run.path: one.run for one in entries}
    for path, run in runs.items():
        if not run.is_finished:
            last = run.reports["main"][-1].round
            yield f"{path} is not finished: this is its headline as of round {last}, of {run.config.rounds} planned"
        yield from (f"{path}: {said}" for said in caveats(run.config, run.recorded.get("sandbox")))
    if set_name == "validate":
        if any(run.headline[1] == "chosen on validation" for run in runs.values()):
            yield "validation chose headline rounds, so figures on these prompts flatter them; --set test does not"
        decided_by = sorted({rule for run in runs.values() for rule in rules_on_validation(run.config)})
        if decided_by:
            yield f"validation decided how runs went ({', '.join(decided_by)}), so figures on it flatter them"
    for first, second in pairwise(entries):
        if changed := differences(first.run.recorded["versions"], second.run.recorded["versions"]):
            yield f"{second.name} ran with other versions than {first.name}: {', '.join(changed)}"
    if any(one.arm == ONE_ROUND for one in entries):
        yield f"{ONE_ROUND} is a diagnostic of one round: {IS_OF_ONE_ROUND}"
    if _are_seeds(entries):
        yield "these runs differ in nothing but the seed"
    elif len(runs) > 1:
        yield "these intervals are over prompts: how far each recipe moves with its training seed is not in them"
