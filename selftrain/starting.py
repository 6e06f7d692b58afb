"""What `run` and `curate` begin with: checks, the run directory and its lock, what it says of itself, its rooms.

Starting a run and going on with it are the same, and so are the commands: what one has committed the other takes over.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from selftrain import sandboxing, tracking
from selftrain.commits import Commits
from selftrain.compose import Composed
from selftrain.config import RUN_NAME, Config
from selftrain.errors import ConfigError
from selftrain.fingerprints import Fingerprints
from selftrain.fingerprints import fork as copy_fork
from selftrain.history import History
from selftrain.phases import Phases
from selftrain.preflight import check, check_references, digests, of_curating, require_models
from selftrain.recording import described, record, shown
from selftrain.records import digest
from selftrain.reporting.terminal import Terminal
from selftrain.rooms import Rooms, require_model
from selftrain.sandboxing import Typed
from selftrain.scoring.sandbox import Chosen
from selftrain.store import RunDirectory, disk_errors, publish_bytes, read_json
from selftrain.world import World, imposed_single_thread

Command = Literal["run", "curate"]
CURATED = ("sample", "score", "select")
"""The phases of a curated round."""


@contextmanager
def joined(config: Config) -> Iterator[World]:
    """This process among its ranks, listening to the signals that ask to stop, for as long as the block lasts."""
    world = World()
    with world.listening(), world.connected(config.ranks):
        if world.is_first and (warning := imposed_single_thread(config.model.device)) is not None:
            Terminal().warn(warning)
        yield world


@contextmanager
def under_way(
    world: World,
    composed: Composed,
    *,
    runs_dir: Path,
    typed: Typed,
    fork: str | None = None,
    group: str | None = None,
    command: Command = "run",
) -> Iterator[Phases]:
    """The phases of a run that is started or gone on with, for as long as the block lasts.

    Within it this process holds the run's lock, its log is written, and its tracker works. Every rank does the same.
    `group` is what its seeds have in common; `command` is recorded. Raises SelftrainError for what a user can mend.
    """
    composed = _of_trial(composed, group)
    before, sandbox = _sandbox(world, composed.config, runs_dir, fork, typed)
    prompts, fingerprints = check(composed, ranks=world.size, curates=command == "curate")
    if command == "run":
        require_model(composed.config)
    asked_of = of_curating(composed.config) if command == "curate" else composed.config
    require_models(asked_of, composed.folder)
    terminal = Terminal() if world.is_first else Terminal(open(os.devnull, "w"), open(os.devnull, "w"))  # noqa: SIM115
    config = composed.config
    if fork is not None:
        config = world.from_first(lambda: _fork(composed, fingerprints, runs_dir, fork, terminal), "the fork")
    seen = digest([config.model_dump(mode="json"), digests(prompts)])
    world.require_agreement("the configuration and its prompts", seen)
    run = RunDirectory(runs_dir / config.name)
    world.from_first(run.lock, "the run's lock")
    try:
        world.from_first(lambda: fingerprints.require_unchanged(run.receipts(), where=run.path), "the fingerprints")
        world.from_first(lambda: _require_rounds(run, config), "the rounds")
        about = {**described(composed, config, prompts), "sandbox": sandboxing.from_now_on(before, sandbox)}
        about["command"] = _recorded_command(run, command)
        recorded = world.from_first(lambda: record(run, about, terminal, before), "config.json")
        _tell(terminal, config, sandbox)
        with (
            closing(Rooms(config, composed.folder, sandbox=sandbox, asked=prompts.train)) as rooms,
            _attempt_log(run, world) as log_path,
        ):
            check_references(config, rooms, prompts, curates=command == "curate")
            if rooms.needs_model():
                world.from_first(lambda: str(rooms.bench.source), "finding the model")  # a GGUF file is converted once
            history = History(run)
            tracker = _tracker(run, config, history, recorded, log_path, terminal, world, group)
            with closing(tracker):
                commits = Commits(run, fingerprints, world, terminal, tracker, history)
                yield Phases(config, rooms=rooms, prompts=prompts, commits=commits)
    finally:
        run.unlock()


def _recorded_command(run: RunDirectory, command: Command) -> Command:
    """A run stays one when a data set is made from its first round; what was only curated may become one."""
    receipts = run.receipts()
    if not receipts:
        return command
    # A fork has no configuration yet: what it has taken over says it.
    made = "curate" if all(one.phase in CURATED for one in receipts) else "run"
    recorded = read_json(run.path / "config.json")
    was = recorded.get("command", "run") if recorded else made
    return "run" if was == "run" else command


def _of_trial(composed: Composed, group: str | None) -> Composed:
    """Within a sweep, the run is named after its trial."""
    trial = tracking.sweep_trial(os.environ)
    if trial is None or group is not None:
        return composed
    name = f"{composed.config.name}-{trial}"
    require_name(name, "a sweep's trial")
    return replace(composed, config=composed.config.model_copy(update={"name": name}))


def require_name(name: str, what: str) -> None:
    """Raise ConfigError for a run's name that cannot name a folder."""
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(f"{name!r}, for {what}, cannot name a folder (at most 64 characters); set a shorter name=")


def _sandbox(
    world: World, config: Config, runs_dir: Path, fork: str | None, typed: Typed
) -> tuple[Mapping[str, Any] | None, Chosen | None]:
    """What the run began with, and the sandbox of this attempt, the same on every host; before anything is loaded or
    written."""
    where, source = runs_dir / (fork or config.name), runs_dir / config.name
    before = world.from_first(lambda: sandboxing.recorded(where, source if fork else None), "the sandbox so far")
    chosen = sandboxing.choose(config, typed, before, where)
    what = "the tier of the sandbox (score.sandbox.tier names one for all of them)"
    world.require_agreement(what, "not needed" if chosen is None else chosen.tier)
    return before, chosen


def _tell(terminal: Terminal, config: Config, sandbox: Chosen | None) -> None:
    if sandbox is None:
        return
    from selftrain.scoring.sandbox.choosing import describe

    terminal.info(f"sandbox · {describe(sandbox)}")
    for caveat in sandboxing.caveats(config, sandbox.recorded()):
        terminal.warn(caveat)


def _require_rounds(run: RunDirectory, config: Config) -> None:
    done = max((one.round for one in run.receipts()), default=0)
    if done > config.rounds:
        raise ConfigError(
            f"rounds is {config.rounds}, but {run.path} has phases of round {done} committed, and a run is not made "
            f"shorter: set rounds to {done} or more, or start a run of its own with name=NEW"
        )


def _tracker(
    run: RunDirectory,
    config: Config,
    history: History,
    recorded: Mapping[str, Any],
    log_path: Path,
    terminal: Terminal,
    world: World,
    group: str | None,
) -> tracking.Tracker:
    if not world.is_first:
        return tracking.Elsewhere()
    return tracking.build(
        run.path,
        config.track,
        committed=history.rows(run.receipts()),
        run_id=recorded["wandb_run_id"],
        name=config.name,
        group=group or config.name,
        mirrored_config={**shown(config), "sandbox": (recorded["sandbox"] or {}).get("tier")},
        log_path=log_path.with_name("wandb.log"),
        warn=terminal.warn,
    )


@contextmanager
def _attempt_log(run: RunDirectory, world: World) -> Iterator[Path]:
    """Keep the log of this attempt, for as long as the block lasts, in logs/attempt_N/selftrain.log (rank-R.log)."""
    logs = run.path / "logs"
    last = max((int(one.name.partition("_")[2]) for one in logs.glob("attempt_*")), default=0)
    attempt = world.from_first(lambda: last + 1, "the number of this attempt")
    path = logs / f"attempt_{attempt}" / ("selftrain.log" if world.is_first else f"rank-{world.rank}.log")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("selftrain")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    if world.is_first:
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        run.note("attempt", number=attempt, pid=os.getpid(), ranks=world.size, started=started)
    try:
        yield path
    finally:
        logger.removeHandler(handler)
        handler.close()


def _fork(composed: Composed, fingerprints: Fingerprints, runs_dir: Path, name: str, terminal: Terminal) -> Config:
    """Copy what the changes leave untouched to a new run, and return the configuration under its name."""
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(f"--fork {name!r} cannot name a folder; use letters, digits, '.', '_', '-' (at most 64)")
    source, target = RunDirectory(runs_dir / composed.config.name), RunDirectory(runs_dir / name)
    if not source.receipts():
        raise ConfigError(f"--fork: {source.path} holds nothing committed to fork from")
    origin = {"forked_from": str(source.path.resolve())}
    marker = target.path / "fork.json"
    if target.path.exists() and not (marker.exists() and json.loads(marker.read_text()) == origin):
        raise ConfigError(f"--fork: {target.path} exists and is no fork of {source.path}; choose another name")
    known = {one.key: one.output for one in source.receipts()}
    if any(known.get(one.key) != one.output for one in target.receipts()):
        terminal.info(f"{target.path} has been gone on with since it was forked: nothing is copied into it")
        return composed.config.model_copy(update={"name": name})
    kept = fingerprints.keepable(source.receipts())
    target.lock()
    try:
        publish_bytes(marker, (json.dumps(origin) + "\n").encode())
        copy_fork(source, target, kept)
    finally:
        target.unlock()
    terminal.info(f"forked {source.path} to {target.path}: {len(kept)} of {len(known)} committed phases kept")
    return composed.config.model_copy(update={"name": name})
