"""A run from the command line's words to its last table: checks, directory, loop, verdict."""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from selftrain import sandboxing, tracking
from selftrain.arms import Arm
from selftrain.commits import Commits
from selftrain.compose import Composed, compose
from selftrain.config import RUN_NAME, Config
from selftrain.errors import ConfigError
from selftrain.evaluation import decisions
from selftrain.fingerprints import Fingerprints
from selftrain.fingerprints import fork as copy_fork
from selftrain.history import History
from selftrain.loop import best_policy, run_arms
from selftrain.phases import Phases
from selftrain.preflight import check, check_references, digests
from selftrain.recording import described, record, shown
from selftrain.records import digest
from selftrain.reporting.terminal import Terminal
from selftrain.rooms import Rooms
from selftrain.sandboxing import NOTHING_TYPED, Typed
from selftrain.scoring.sandbox import Chosen
from selftrain.store import RunDirectory, disk_errors, publish_bytes, read_json
from selftrain.summaries import final_rows, places, retention_of, summary_row, verdict_data
from selftrain.world import World, imposed_single_thread


def run_recipe(
    recipe: str,
    *,
    layers: Sequence[str],
    overrides: Sequence[str],
    runs_dir: Path,
    fork: str | None,
    seeds: Sequence[int] = (),
    typed: Typed = NOTHING_TYPED,
) -> None:
    """Start or resume the run of a recipe, or one run per seed. Raises SelftrainError for what a user can mend.

    Under a launcher every rank calls this; the first one writes.
    """
    composed = compose(recipe, layers=layers, overrides=overrides)
    world = World()
    with world.listening(), world.connected(composed.config.ranks):
        if world.is_first and (warning := imposed_single_thread(composed.config.model.device)) is not None:
            Terminal().warn(warning)
        if not seeds:
            one_run(world, composed, runs_dir=runs_dir, fork=fork, typed=typed)
            return
        if tracking.sweep_trial(os.environ) is not None:
            raise ConfigError("a trial of a sweep is one run; make seed a parameter of the sweep instead of --seeds")
        if composed.origins.get("seed") == "command line":
            raise ConfigError("seed= and --seeds say different things; leave one of them out")
        if fork is not None:
            raise ConfigError("--fork is for one run; leave out --seeds, or fork each seed's run by its name")
        run_seeds(world, composed, seeds, runs_dir=runs_dir, typed=typed)


def run_seeds(world: World, composed: Composed, seeds: Sequence[int], *, runs_dir: Path, typed: Typed) -> None:
    """One run per seed, one after the other, then what they say together. Done ones are not done again."""
    name = composed.config.name
    for seed in seeds:
        _require_name(f"{name}-seed-{seed}", "a seed's run")
    paths = []
    for seed in seeds:
        changes = {"seed": seed, "name": f"{name}-seed-{seed}"}
        of_seed = replace(composed, config=composed.config.model_copy(update=changes))
        paths.append(one_run(world, of_seed, runs_dir=runs_dir, fork=None, typed=typed, group=name))
        gc.collect()  # rooms and their loaded model hold each other: the next run's would be loaded beside them
    if world.is_first and (composed.config.prompts.validate_ or composed.config.prompts.test):
        _conclude_seeds(name, paths, runs_dir, composed.config)


def _require_name(name: str, what: str) -> None:
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(f"{name!r}, for {what}, cannot name a folder (at most 64 characters); set a shorter name=")


def _conclude_seeds(name: str, paths: Sequence[Path], runs_dir: Path, config: Config) -> None:
    from selftrain.comparing import verdict_of_seeds
    from selftrain.reporting.seeds import seeds_lines

    verdict = asdict(verdict_of_seeds(paths))
    path = runs_dir / f"{name}.seeds-{'-'.join(map(str, verdict['seeds']))}.json"
    sandboxes = [read_json(one / "config.json").get("sandbox") for one in paths]
    said = list(dict.fromkeys(words for one in sandboxes for words in sandboxing.caveats(config, one)))
    data = {"runs": [str(one) for one in paths], **verdict, "caveats": said}
    publish_bytes(path, (json.dumps(data, indent=1) + "\n").encode())
    terminal = Terminal()
    terminal.table(seeds_lines(verdict))
    terminal.final([], [*verdict["lines"], *said], [("all of this as data", str(path))])


def one_run(
    world: World, composed: Composed, *, runs_dir: Path, fork: str | None, typed: Typed, group: str | None = None
) -> Path:
    """Start or resume one run; return its directory."""
    trial = tracking.sweep_trial(os.environ)
    if trial is not None and group is None:
        changes = {"name": f"{composed.config.name}-{trial}"}
        _require_name(changes["name"], "a sweep's trial")
        composed = replace(composed, config=composed.config.model_copy(update=changes))
    before, sandbox = _sandbox(world, composed.config, runs_dir, fork, typed)
    prompts, fingerprints = check(composed, ranks=world.size)
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
        recorded = world.from_first(lambda: record(run, about, terminal, before), "config.json")
        _tell(terminal, config, sandbox)
        with closing(Rooms(config, composed.folder, sandbox=sandbox)) as rooms, _attempt_log(run, world) as log_path:
            check_references(config, rooms, prompts)
            if rooms.needs_model():
                world.from_first(lambda: str(rooms.bench.source), "finding the model")  # a GGUF file is converted once
            history = History(run)
            tracker = _tracker(run, config, history, recorded, log_path, terminal, world, group)
            commits = Commits(run, fingerprints, world, terminal, tracker, history)
            phases = Phases(config, rooms=rooms, prompts=prompts, commits=commits)
            _run(config, phases)
    finally:
        run.unlock()
    return run.path


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


def _run(config: Config, phases: Phases) -> None:
    run, world, tracker = phases.run, phases.world, phases.commits.tracker
    try:
        if world.is_first:
            (run.path / "verdict.json").unlink(missing_ok=True)  # until this attempt has come to its own
        arms = run_arms(config, phases)
        if world.is_first:
            _conclude(run, config, arms, phases.terminal, tracker)
        world.barrier("the verdict")
    finally:
        tracker.close()


def _conclude(
    run: RunDirectory, config: Config, arms: Sequence[Arm], terminal: Terminal, tracker: tracking.Tracker
) -> None:
    main = arms[0]
    best = best_policy(main)
    _link_best(run, best.adapter)
    said = list(sandboxing.caveats(config, read_json(run.path / "config.json").get("sandbox")))
    lines: Sequence[str] = ("nothing was held out, so no gain can be claimed: give prompts.validate and prompts.test",)
    if main.reports:
        verdict = decisions.headline(
            main.reports_in_order(),
            {arm.name: arm.reports_in_order() for arm in arms[1:]},
            overrides={arm.name: arm.overrides for arm in config.arms if arm.overrides},
            retention=retention_of(main),
            decided_by=decisions.rules_on_validation(config),
            confidence=config.evaluate.confidence,
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        data = {**verdict_data(verdict, best.round), "caveats": said}
        publish_bytes(run.path / "verdict.json", (json.dumps(data, indent=1) + "\n").encode())
        tracker.log([summary_row(main, best.round, verdict)])
        lines = verdict.lines
    terminal.final(final_rows(arms, best.round), [*lines, *said], places(run.path, main, best.round))


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


def _link_best(run: RunDirectory, adapter: str | None) -> None:
    """Point `best` at the best policy's adapter; a convenience, made again at every end."""
    link = run.path / "best"
    with disk_errors(link):
        link.unlink(missing_ok=True)
        if adapter is not None and Path(adapter).resolve().is_relative_to(run.path.resolve()):  # else model.adapter
            link.symlink_to(Path(adapter).resolve().relative_to(run.path.resolve()))


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
