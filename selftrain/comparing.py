"""Runs against each other (`compare`), and the seeds of one recipe together: read from run directories, no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from selftrain import tables
from selftrain.compose import differences
from selftrain.config import Config, config_of_arm
from selftrain.errors import ConfigError, DataError
from selftrain.evaluation import comparison, seeds
from selftrain.evaluation.decisions import IS_OF_ONE_ROUND, ONE_ROUND, Chosen, headline_round, rules_on_validation
from selftrain.evaluation.metrics import greedy_values
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.parsing import parse
from selftrain.records import Candidate, Outcome, Receipt, Report, Score
from selftrain.sandboxing import caveats
from selftrain.store import RunDirectory

HELD_OUT = ("test", "validate")
# Two runs that differ in nothing else are of one recipe.
BESIDE_THE_RECIPE = ("name", "seed", "track", "ranks")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run directory holds of its evaluations: `evaluations[arm][round]` are receipts, and `reports[arm]` what
    they stand for in the order of rounds, main first. A finished run has come to a verdict."""

    path: Path
    config: Config
    recorded: Mapping[str, Any]
    receipts: Sequence[Receipt]
    evaluations: Mapping[str, Mapping[int, Receipt]]
    reports: Mapping[str, Sequence[Report]]
    is_finished: bool

    @property
    def headline(self) -> tuple[int, Chosen]:
        """Main's headline round, of those measured so far, and how it was chosen."""
        return headline_round(self.reports["main"])

    @property
    def sets(self) -> list[str]:
        """The held-out sets that main was measured on."""
        return [name for name in HELD_OUT if name in self.reports["main"][-1].outcomes]

    @property
    def overrides(self) -> dict[str, Mapping[str, Any]]:
        """The knobs that arms set otherwise than main, by arm."""
        return {arm.name: arm.overrides for arm in self.config.arms if arm.overrides}

    def settings(self) -> dict[str, Any]:
        """Of intervals."""
        knobs = self.config.evaluate
        return {"confidence": knobs.confidence, "resamples": knobs.resamples, "seed": self.config.seed}


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, or one arm of it, as it was named on the command line; `name` is what it is called in the output."""

    name: str
    run: Run
    arm: str

    def report(self, set_name: str) -> Report:
        """At the run's headline round. Raises DataError where the arm was not measured there."""
        number, _ = self.run.headline
        for one in self.run.reports[self.arm]:
            if one.round == number and set_name in one.outcomes:
                return one
        raise DataError(
            f"arm {self.arm} of {self.run.path} was not measured on {set_name} at round {number}, which is main's "
            "headline round; wait until the run is finished, or compare another arm"
        )

    def evaluation(self) -> Receipt:
        """The receipt behind `report`."""
        return self.run.evaluations[self.arm][self.run.headline[0]]

    def ingredients(self) -> Mapping[str, Any]:
        """What of the configuration the evaluation was made with."""
        part: Mapping[str, Any] = self.evaluation().ingredients["config"]
        return part

    def knobs(self) -> dict[str, Any]:
        """The arm's configuration, but for the run's name and seed; `arm` says which control it is."""
        settings = {arm.name: arm for arm in self.run.config.arms}.get(self.arm)
        has_own = settings is not None and settings.overrides
        config = config_of_arm(self.run.config, settings) if settings is not None and has_own else self.run.config
        values = config.model_dump(mode="json", by_alias=True)
        values["arms"] = self.run.config.model_dump(mode="json")["arms"]
        kept = {key: value for key, value in values.items() if key not in ("name", "seed")}
        return {**kept, "arm": "main" if has_own else self.arm}


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
    sides = [
        comparison.Side(one.name, one.run.headline[0], greedy_values(one.report(name).outcomes[name]))
        for one in entries
    ]
    found = comparison.against_first(sides, name, unpaired=unpaired, **settings)
    first = entries[0]
    return {
        "set": name,
        "runs": [_row(one, name, settings) for one in entries],
        "differences": [
            {
                **asdict(one),
                "knobs": differences(first.knobs(), other.knobs()),
                "warnings": _warnings(first, other, name),
            }
            for one, other in zip(found, entries[1:], strict=True)
        ],
        "seeds": asdict(_together(entries, name)) if _are_seeds(entries) and all(one.common for one in found) else None,
        "notes": list(_notes(entries, name)),
    }


def verdict_of_seeds(paths: Sequence[Path], set_name: str | None = None) -> seeds.SeedsVerdict:
    """What the runs of one recipe with several seeds say together. Raises ConfigError or DataError."""
    entries = [Entry(path.name, read_run(path), "main") for path in paths]
    return _together(entries, _set_of(entries, set_name))


def _together(entries: Sequence[Entry], set_name: str) -> seeds.SeedsVerdict:
    first = entries[0].run
    measured = [
        seeds.measured(
            one.run.config.seed,
            one.run.reports["main"],
            {arm: reports for arm, reports in one.run.reports.items() if arm != "main"},
            set_name,
        )
        for one in entries
    ]
    decided_by = rules_on_validation(first.config)
    return seeds.verdict(measured, overrides=first.overrides, decided_by=decided_by, **first.settings())


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


def read_run(path: Path) -> Run:
    """The evaluations in a run directory. Raises ConfigError where it is none or has no held-out prompts, DataError
    where a file in it cannot be used."""
    recorded = _recorded(path)
    try:
        config = parse(recorded["config"])
    except ConfigError as error:
        raise ConfigError(f"{path / 'config.json'} is of another version of selftrain: {error}") from None
    directory = RunDirectory(path)
    receipts = [one for one in directory.receipts() if one.round <= config.rounds]  # as its verdict does
    if config.prompts.validate_ is None and config.prompts.test is None:
        raise ConfigError(
            f"{path} was run without held-out prompts, so there is nothing to compare; give its recipe prompts.test"
        )
    evaluations = _evaluations(receipts, config, path / "verdict.json")
    if not evaluations["main"]:
        raise ConfigError(f"{path} has no evaluated round yet; start its command again, and compare it then")
    reports = {
        arm: [_report(directory, arm, number, receipt) for number, receipt in sorted(of_arm.items())]
        for arm, of_arm in evaluations.items()
    }
    is_finished = (path / "verdict.json").is_file()
    return Run(path, config, recorded, receipts, evaluations, reports, is_finished)


def _recorded(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}; compare takes run directories: runs/NAME, or runs/NAME:ARM")
    file = path / "config.json"
    if not file.is_file():
        raise ConfigError(f"{path} is no run directory (it has no config.json); runs are kept under runs/NAME")
    return _json(file, "config", "prompts", "versions")


def _json(file: Path, *keys: str) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}); the run's command writes it again") from error
    if not isinstance(data, dict) or not all(key in data for key in keys):
        raise DataError(f"{file} lacks {' or '.join(keys)}; the run's command writes it again")
    return data


def _evaluations(receipts: Sequence[Receipt], config: Config, verdict: Path) -> dict[str, dict[int, Receipt]]:
    """Receipts of evaluation by arm and round. What an arm shares with main has no receipt of its own: round 0, and the
    headline round where its policy came out as main's, which the verdict then compares all the same."""
    found: dict[str, dict[int, Receipt]] = {"main": {}, **{arm.name: {} for arm in config.arms}}
    for one in receipts:
        if one.phase == "evaluate" and one.arm in found:
            found[one.arm][one.round] = one
    main = found["main"]
    said: Mapping[str, Any] = _json(verdict, "round", "gains") if verdict.is_file() else {"round": 0, "gains": []}
    compared = {gain["over"] for gain in said["gains"]}
    for arm in config.arms:
        shared = (0, *[said["round"]] * (arm.name in compared))
        found[arm.name] = {number: main[number] for number in shared if number in main} | found[arm.name]
    return found


def _report(directory: RunDirectory, arm: str, number: int, receipt: Receipt) -> Report:
    endings = tuple(f"/greedy/{name}/outcomes.parquet" for name in HELD_OUT)
    kept = {name: sha256 for name, sha256 in receipt.files.items() if name.endswith(endings)}
    paths = directory.verified(replace(receipt, files=kept))
    return Report(arm, number, receipt.metrics, {path.parent.name: tuple(tables.read(path, Outcome)) for path in paths})


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
