"""Rows of made-up runs, the points they are to be seen as, and trackers for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from selftrain import tables
from selftrain.config import TrackConfig, WandbConfig
from selftrain.records import Candidate, Receipt, Score, Survivor
from selftrain.store import RunDirectory, output_digest, publish_bytes, write_jsonl
from selftrain.tracking import Tracking, build

CANARY = "canary-7f3a-secret"
CONTROL = "random_selection"
RUN_ID = "abc123"


def rows_of(number: int) -> list[dict[str, Any]]:
    """One round: a phase, two optimizer steps, a phase, and a phase of a control."""

    def row(phase: str, arm: str = "main", **metrics: Any) -> dict[str, Any]:
        key = f"arms/{arm}/rounds/{number:03d}/{phase}"
        return {"arm": arm, "round": number, "phase": phase, "key": key, **metrics}

    steps = [
        row("train", global_step=2 * number + step, round_step=step, **{"train/loss": 1.0 / (step + 1)})
        for step in range(2)
    ]
    return [
        row("sample", **{"sample/tokens": 10 * number, "sample/seconds": 0.25}),
        *steps,
        row("train", **{"train/loss": 0.75}),
        row("evaluate", arm=CONTROL, **{"evaluate/test/pass@1": 0.5 + number}),
    ]


def points_of(rounds: Iterable[int]) -> list[tuple[Any, ...]]:
    """What `reading.history` finds of main."""
    points: list[tuple[Any, ...]] = []
    for number in rounds:
        points += [
            ("round", number, "sample/tokens", 10 * number),
            ("round", number, "sample/seconds", 0.25),
            ("round", number, "train/loss", 0.75),
            ("global_step", 2 * number, "train_step/loss", 1.0),
            ("global_step", 2 * number + 1, "train_step/loss", 0.5),
        ]
    return sorted(points)


def points_of_control(rounds: Iterable[int]) -> list[tuple[Any, ...]]:
    return sorted(("round", number, "evaluate/test/pass@1", 0.5 + number) for number in rounds)


def alarm(number: int, arm: str = "main", words: str = "Nothing was right.") -> dict[str, Any]:
    key = f"arms/{arm}/rounds/{number:03d}/round"
    return {"arm": arm, "round": number, "phase": "alarm", "key": key, "alarm": "no_survivors", "words": words}


def summary(best_round: int, number: int) -> dict[str, Any]:
    values = {"summary/best_round": best_round, "summary/headline_round": number, "summary/gain_over_round_0": 0.25}
    return {"arm": "main", "round": number, "phase": "summary", "key": "summary", **values}


def tracker_of(
    run_dir: Path,
    *,
    committed: Iterable[Mapping[str, Any]] = (),
    warnings: list[str] | None = None,
    also: tuple[str, ...] = (),
    group: str | None = None,
    **wandb: Any,
) -> Tracking:
    """A tracker with W&B offline, unless told otherwise; without `warnings`, any warning fails the test."""
    tracker = build(
        run_dir,
        TrackConfig(wandb=WandbConfig(**{"mode": "offline", "tags": ("a tag",), **wandb}), also=also),
        committed=committed,
        run_id=RUN_ID,
        name="a-run",
        group=group,
        mirrored_config={"train": {"learning_rate": 1e-4}, "arms": [CONTROL]},
        log_path=run_dir / "logs" / "attempt_1" / "wandb.log",
        warn=pytest.fail if warnings is None else warnings.append,
    )
    assert isinstance(tracker, Tracking)
    return tracker


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.05)


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from rows import alarm, rows_of, tracker_of
tracker = tracker_of(Path({run_dir!r}), mode={mode!r})
for number in range(2):
    tracker.log([*rows_of(number), alarm(number)])
print(tracker.mirrors[0].pid, flush=True)
time.sleep(60)
"""


def killed_attempt(
    run_dir: Path, *, mode: str, dies: Literal["the run", "the machine"], when: Callable[[], object]
) -> list[dict[str, Any]]:
    """An attempt at two rounds, with an alarm each, that is killed `when`: alone, or with its mirror. Its rows."""
    program = PARENT.format(tests=str(Path(__file__).parent), run_dir=str(run_dir), mode=mode)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        mirror_pid = int(parent.stdout.readline())
        wait_for(when)
        if dies == "the machine":
            os.kill(mirror_pid, signal.SIGKILL)
        parent.kill()
    return [row for number in range(2) for row in (*rows_of(number), alarm(number))]


class MadeRun:
    """A run directory in which rounds are committed without doing them: receipts and their files, and their rows."""

    def __init__(self, path: Path, *, name: str = "a-run") -> None:
        self.directory = RunDirectory(path)
        self.name = name
        self.rows: list[dict[str, Any]] = []

    def commit(
        self,
        arm: str,
        number: int,
        phase: str,
        files: Mapping[str, str],
        inputs: Mapping[str, str],
        **metrics: float,
    ) -> Receipt:
        name = phase if phase == "round" else f"{phase}-{'improve' if phase in ('select', 'train') else 'wave'}-00"
        receipt = Receipt(
            key=f"arms/{arm}/rounds/{number:03d}/{name}",
            phase=phase,
            arm=arm,
            round=number,
            fingerprint="0" * 64,
            ingredients={"config": {"params": {"api_key": "canary-in-the-config"}}, "inputs": dict(inputs)},
            output=output_digest(files),
            rows=1,
            files=dict(files),
            metrics=metrics,
            seconds=1.0,
            versions={},
        )
        self.directory.commit(receipt)
        names = {"arm": arm, "round": number, "phase": phase, "key": receipt.key}
        self.rows.append({**names, f"{phase}/seconds": 1.0, f"{phase}/round_of_it": float(number)})
        return receipt

    def round(self, number: int, *, arm: str = "main", shares: bool = False, candidates: int = 6) -> list[Receipt]:
        """A round of which the odd candidates survived. A control that `shares` has no candidates of its own."""
        folder = f"arms/{arm}/rounds/{number:03d}"
        drawn = [candidate(number, index, "main" if shares else arm) for index in range(candidates)]
        scored = [score(one) for one in drawn]
        if shares:
            from_main = f"arms/main/rounds/{number:03d}"
            sampled, judged = (self.directory.receipt(f"{from_main}/{one}-wave-00") for one in ("sample", "score"))
        else:
            sampled = self.commit(arm, number, "sample", self._table(f"{folder}/candidates/000.parquet", drawn), {})
            judged = self.commit(arm, number, "score", self._table(f"{folder}/scores/000.parquet", scored), {})
        assert sampled is not None
        assert judged is not None
        inputs = {"candidates": sampled.output, "scores": judged.output}
        kept = [survivor(one, number) for one in drawn if one.index % 2]
        reasons = [{"candidate_id": one.id, "why": "value 0.0 under 1.0"} for one in drawn if not one.index % 2]
        place = f"{folder}/survivors/improve-00/rejected.jsonl"
        files = self._table(f"{folder}/survivors/improve-00/survivors.parquet", kept)
        files[place] = write_jsonl(self.directory.path / place, reasons)
        selected = self.commit(arm, number, "select", files, inputs)
        before = self.directory.receipt(f"arms/{arm}/rounds/{number - 1:03d}/train-improve-00")
        start = before.output if before is not None else "the base model"
        trained = self.commit(
            arm,
            number,
            "train",
            {
                **self._file(f"{folder}/adapter/improve-00/adapter_model.safetensors", f"{arm} weights {number}"),
                **self._file(f"{folder}/adapter/improve-00/adapter_config.json", json.dumps({"r": number})),
                **self._file(f"{folder}/adapter/improve-00.steps.jsonl", ""),
            },
            {"survivors": selected.output, "start": start},
        )
        return [selected, trained]

    def _table(self, place: str, records: list[Any]) -> dict[str, str]:
        path = self.directory.path / place
        return {place: tables.write(path, records, type(records[0]), fingerprint="f")}

    def _file(self, place: str, text: str) -> dict[str, str]:
        return {place: publish_bytes(self.directory.path / place, text.encode())}


def candidate(number: int, index: int, arm: str = "main") -> Candidate:
    return Candidate(
        id=f"{arm}-{number}-{index}",
        prompt_id=f"p{index // 4}",
        index=index,
        wave=0,
        text=f"answer {index} of {arm} in round {number}",
        prompt_token_ids=(1, 2),
        completion_token_ids=tuple(range(index + 1)),
        finish_reason="stop_token",
        seed=1,
        policy_digest="d",
        logprobs=(0.0,) * (index + 1),
    )


def score(one: Candidate) -> Score:
    return Score(one.id, value=float(one.index % 2), correct=bool(one.index % 2), answer=f"a{one.index}")


def survivor(one: Candidate, number: int) -> Survivor:
    return Survivor(
        candidate_id=one.id,
        prompt_id=one.prompt_id,
        round=number,
        token_ids=one.prompt_token_ids + one.completion_token_ids,
        label_mask=(False, False) + (True,) * len(one.completion_token_ids),
        weight=1.0,
        why="value 1.0",
        prompt_text=f"the words of {one.prompt_id}",
        text=one.text,
    )
