"""Survivors and adapters as W&B artifacts: what is uploaded, under which name, and what it was made from.

Everything is known from receipts. Uploads are made by the mirror's process alone, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, Literal

from selftrain.records import Receipt
from selftrain.store import RunDirectory, is_pruned
from selftrain.tracking.axes import MAIN_ARM
from selftrain.tracking.following import say, words_of

Kind = Literal["survivors", "adapter"]
KIND_OF_PHASE: dict[str, Kind] = {"select": "survivors", "train": "adapter"}
ENABLED_BY = {"survivors": "survivors", "adapter": "adapters"}
MAIN_FILE = {"survivors": "survivors.parquet", "adapter": "adapter_model.safetensors"}
UPLOAD_SECONDS = 60
SLOWEST_BYTES_PER_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Payload:
    """One artifact to be: `files` by their names in it, `parents` as (name:alias, type)."""

    key: str
    kind: Kind
    name: str
    round: int
    aliases: tuple[str, ...]
    files: Mapping[str, Path]
    metadata: Mapping[str, Any]
    parents: tuple[tuple[str, str], ...]

    @property
    def hash(self) -> str:
        """Sha256 of the file that it is about, or the receipt's digest of all of them."""
        hashes: Mapping[str, str] = self.metadata["sha256"]
        return hashes.get(MAIN_FILE[self.kind]) or str(self.metadata["digest"])

    @property
    def place(self) -> str:
        """Its key in the run's summary."""
        return f"artifacts/{self.kind}/round-{self.round}"


def payload_of(run: RunDirectory, key: str, run_name: str, wanted: tuple[str, ...]) -> Payload | None:
    """What the receipt's phase made, or None where it made nothing to upload. Raises DataError for a broken receipt.

    `wanted` names the kinds that are uploaded; only those can be parents.
    """
    receipt = run.receipt(key)
    kind = KIND_OF_PHASE.get(receipt.phase) if receipt is not None else None
    if receipt is None or kind is None or ENABLED_BY[kind] not in wanted:
        return None
    # Beside the adapter's folder lie its steps, which are rows of the ledger.
    inside = f"/{'survivors' if kind == 'survivors' else 'adapter'}/"
    files = {
        name: sha256 for name, sha256 in receipt.files.items() if inside in name and "/" in name.partition(inside)[2]
    }
    if not files:
        return None
    inputs: Mapping[str, str] = receipt.ingredients.get("inputs", {})
    return Payload(
        key=key,
        kind=kind,
        name=artifact_name(run_name, receipt.arm, kind),
        round=receipt.round,
        aliases=(f"round-{receipt.round}",),
        files={Path(name).name: run.path / name for name in files},
        metadata={
            "receipt": key,
            "digest": receipt.output,
            "sha256": {Path(name).name: sha256 for name, sha256 in files.items()},
            "parents": dict(inputs),
        },
        parents=_parents(run, receipt, run_name, wanted) if kind == "adapter" else (),
    )


def artifact_name(run_name: str, arm: str, kind: str) -> str:
    """What an arm's artifacts of a kind are called; their versions are the rounds."""
    return f"{run_name}-{arm}-{kind}"


def best_of(run: RunDirectory, best_round: int, run_name: str, wanted: tuple[str, ...]) -> list[Payload]:
    """The artifacts of main that the best policy is of: of its round, or of the last before it that trained."""
    for number in range(best_round, 0, -1):
        keys = [f"arms/{MAIN_ARM}/rounds/{number:03d}/{name}" for name in ("train-improve-00", "select-improve-00")]
        trained = run.receipt(keys[0])
        if trained is not None and trained.files:
            found = [payload_of(run, key, run_name, wanted) for key in reversed(keys)]
            # The server knows them by their content: only the alias is new.
            return [replace(one, aliases=(*one.aliases, "best"), parents=()) for one in found if one is not None]
    return []


def _parents(
    run: RunDirectory, receipt: Receipt, run_name: str, wanted: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """The survivors it was trained on and the adapter it started from, found by their digests."""
    inputs = receipt.ingredients.get("inputs", {})
    found: dict[str, tuple[str, str]] = {}
    for arm in dict.fromkeys((receipt.arm, MAIN_ARM)):
        for number in range(receipt.round, 0, -1):
            for name in ("select-improve-00", "train-improve-00"):
                one = run.receipt(f"arms/{arm}/rounds/{number:03d}/{name}")
                if one is None or one.key == receipt.key or not one.files:
                    continue
                kind, role = KIND_OF_PHASE[one.phase], "survivors" if one.phase == "select" else "start"
                if inputs.get(role) == one.output and ENABLED_BY[kind] in wanted:
                    place = f"{artifact_name(run_name, arm, kind)}:round-{number}"
                    found.setdefault(role, (place, kind))
    return tuple(found[role] for role in ("survivors", "start") if role in found)


class Upload:
    """One artifact on its way. `advance` is called until it returns True: the server has committed it."""

    def __init__(self, wandb: ModuleType, payload: Payload, open_run: Callable[[], Any]) -> None:
        self._wandb = wandb
        self._payload = payload
        self._open_run = open_run
        self._waiting: Thread | None = None
        self._error: Exception | None = None

    def advance(self) -> bool:
        """Start it, or wait a second for it.

        What the run has removed on purpose is not waited for. Raises FileNotFoundError where another file is gone, and
        what wandb raises when the server does not take it, or takes longer than a slow line would; after that it can be
        started again.
        """
        if self._waiting is None:
            if any(is_pruned(path.parent) for path in self._payload.files.values()):
                place = f"{self._payload.name}:{self._payload.aliases[0]}"
                say(f"{place} is not uploaded: the run has removed it meanwhile (keep: best_and_last)")
                return True
            self._waiting = self._start()
        self._waiting.join(1.0)
        if self._error is not None:
            error, self._error, self._waiting = self._error, None, None
            raise error
        return not self._waiting.is_alive()

    def _start(self) -> Thread:
        payload = self._payload
        run = self._open_run()
        size = sum(path.stat().st_size for path in payload.files.values())
        for parent, kind in payload.parents:
            self._use(run, parent, kind)
        artifact = self._wandb.Artifact(payload.name, type=payload.kind, metadata=dict(payload.metadata))
        for name, path in payload.files.items():
            # Committed files never change, so nothing needs a copy of them.
            artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        logged = run.log_artifact(artifact, aliases=list(payload.aliases))

        def wait() -> None:
            try:
                logged.wait(timeout=UPLOAD_SECONDS + size // SLOWEST_BYTES_PER_SECOND)
            except Exception as error:  # raised again where the job is advanced
                self._error = error

        # A thread, as wandb lets nobody wait a second time for an artifact that was not there at first.
        waiting = Thread(target=wait, daemon=True)
        waiting.start()
        return waiting

    def _use(self, run: Any, parent: str, kind: str) -> None:
        try:
            run.use_artifact(parent, type=kind)
        except Exception as error:  # its parents' digests are in the metadata in any case
            say(f"{self._payload.name}:{self._payload.aliases[0]} is shown without {parent}: {words_of(error)}")
