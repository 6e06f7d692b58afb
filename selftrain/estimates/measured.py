"""What the last run of the same recipe, or of the same model and prompts, measured: the best guess at the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import Config
from selftrain.errors import SelftrainError
from selftrain.records import Receipt
from selftrain.store import RunDirectory

LOOKED_AT = 200


@dataclass(frozen=True)
class Measured:
    """The receipts of one earlier run. What it did not measure is None."""

    path: Path
    config: Mapping[str, Any]
    receipts: Sequence[Receipt]

    def completion_tokens(self, arm: str, round_number: int, limit: int) -> float | None:
        """Mean length of a sampled candidate, at most `limit`: of that arm and round, or of the nearest measured one.

        What was cut at a lower limit then is taken to be as long as it may get.
        """
        of_sampling = [one for one in self.receipts if one.phase == "sample"]
        near = sorted(of_sampling, key=lambda one: (one.arm != arm, one.arm != "main", abs(one.round - round_number)))
        mean = near[0].metrics.get("sample/completion_tokens_mean") if near else None
        if mean is None:
            return None
        cut, then = near[0].metrics.get("sample/truncated_rate", 0.0), self._limit_at(near[0].round)
        return min(float(limit), mean + (cut * (limit - then) if limit > then else 0.0))

    def evaluated_tokens(self, set_name: str, round_number: int, limit: int) -> float | None:
        """The same of greedy answers to a set of prompts; None where the run did not measure it."""
        name = f"evaluate/{set_name}/completion_tokens_mean"
        found = [one for one in self.receipts if one.arm == "main" and name in one.metrics]
        near = min(found, key=lambda one: abs(one.round - round_number), default=None)
        if near is None:
            return None
        cut = near.metrics.get(f"evaluate/{set_name}/truncated_rate", 0.0)
        then = int(self.config.get("evaluate", {}).get("max_new_tokens") or self._limit_at(1))
        return min(float(limit), near.metrics[name] + (cut * (limit - then) if limit > then else 0.0))

    def _limit_at(self, round_number: int) -> int:
        limits = self.config.get("sample", {}).get("max_new_tokens", 0)
        return int(limits[min(round_number, len(limits)) - 1]) if isinstance(limits, list) else int(limits)

    @property
    def limit(self) -> int:
        """The largest `sample.max_new_tokens` of that run."""
        limits = self.config.get("sample", {}).get("max_new_tokens", 0)
        return max(limits) if isinstance(limits, list) else int(limits)

    def truncated(self) -> float:
        """The largest share of candidates in a round that ran into the limit."""
        return max((one.metrics.get("sample/truncated_rate", 0.0) for one in self.receipts), default=0.0)

    def kept(self, arm: str, round_number: int) -> float | None:
        """Survivors of a round per candidate."""
        of_choice = [one for one in self.receipts if "select/kept_rate" in one.metrics]
        near = sorted(of_choice, key=lambda one: (one.arm != arm, one.arm != "main", abs(one.round - round_number)))
        return near[0].metrics["select/kept_rate"] if near else None

    def seconds_per(self, phase: str, amount: Callable[[Receipt], float]) -> float | None:
        """Seconds that a phase took for one unit of `amount`, over all of the run."""
        done = [(one.seconds, amount(one)) for one in self.receipts if one.phase == phase and amount(one) > 0]
        seconds, units = sum(one for one, _ in done), sum(one for _, one in done)
        return seconds / units if units else None

    def overhead_seconds(self) -> float:
        """Of a round, beside its phases."""
        of_rounds = [one.metrics.get("overhead/seconds", 0.0) for one in self.receipts if one.phase == "round"]
        return sum(of_rounds) / len(of_rounds) if of_rounds else 0.0

    def peak_memory(self) -> float | None:
        """The most that its process took, in bytes, where it was recorded."""
        peaks = [
            value for one in self.receipts for key, value in one.metrics.items() if key.endswith("/peak_memory_bytes")
        ]
        return max(peaks, default=None)


def last_run(config: Config, recipe: Path, train_digest: str, runs_dir: Path) -> Measured | None:
    """The latest run in `runs_dir` of the same recipe file, else of the same training prompts; in either case of the
    same model, engine and trainer, as what a scripted one takes says nothing of a real one.

    Only runs that have sampled at least one round count. What cannot be read is passed over.
    """
    found = sorted(runs_dir.glob("*/config.json"), key=_changed, reverse=True)[:LOOKED_AT]
    matches: list[tuple[bool, Path, Mapping[str, Any]]] = []
    for path in found:
        recorded = _read(path)
        if recorded is None or _programs(recorded["config"]) != _programs(config.model_dump(mode="json")):
            continue
        of_recipe = recorded.get("recipe") == str(recipe)
        if of_recipe or recorded.get("prompts", {}).get("train", {}).get("digest") == train_digest:
            matches.append((of_recipe, path.parent, recorded["config"]))
    for _, run, old in sorted(matches, key=lambda match: not match[0]):  # stable: the latest stays first
        try:
            receipts = RunDirectory(run).receipts()
        except (SelftrainError, OSError):
            continue
        if any(one.phase == "sample" for one in receipts):
            return Measured(run, old, receipts)
    return None


def _programs(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What answers and what learns: what lengths and rates go by."""
    sections = ("model", "path"), ("sample", "engine"), ("train", "trainer")
    return tuple(config.get(section, {}).get(knob) for section, knob in sections)


def _changed(path: Path) -> float:
    journal = path.parent / "events.jsonl"
    try:
        return (journal if journal.exists() else path).stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> dict[str, Any] | None:
    try:
        recorded = json.loads(path.read_text())
        assert isinstance(recorded["config"]["model"]["path"], str)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        return None
    return recorded  # type: ignore[no-any-return]
