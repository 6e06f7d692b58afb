"""Runs as `compare` reads them: what their directories hold of evaluations. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftrain import tables
from selftrain.config import Config, config_of_arm
from selftrain.errors import ConfigError, DataError
from selftrain.evaluation.decisions import Chosen, headline_round
from selftrain.parsing import parse
from selftrain.records import Outcome, Receipt, Report
from selftrain.store import RunDirectory

HELD_OUT = ("test", "validate")


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
        return headline_round(self.reports["main"], self.config.evaluate.decide_by)

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
