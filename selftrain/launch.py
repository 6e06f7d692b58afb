"""A run from the command line's words to its last table: loop and verdict, once for each seed."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from selftrain import sandboxing, tracking
from selftrain.arms import Arm
from selftrain.compose import Composed, compose
from selftrain.config import Config
from selftrain.errors import ConfigError
from selftrain.evaluation.decisions import rules_on_validation
from selftrain.evaluation.verdicts import headline
from selftrain.loop import best_policy, run_arms
from selftrain.phases import Phases
from selftrain.reporting.terminal import Terminal
from selftrain.sandboxing import NOTHING_TYPED, Typed
from selftrain.starting import joined, require_name, under_way
from selftrain.store import RunDirectory, disk_errors, publish_bytes, read_json
from selftrain.summaries import final_rows, places, retention_of, summary_row, verdict_data, verifier_lines
from selftrain.world import World


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
    with joined(composed.config) as world:
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
        require_name(f"{name}-seed-{seed}", "a seed's run")
    paths = []
    for seed in seeds:
        changes = {"seed": seed, "name": f"{name}-seed-{seed}"}
        of_seed = replace(composed, config=composed.config.model_copy(update=changes))
        paths.append(one_run(world, of_seed, runs_dir=runs_dir, fork=None, typed=typed, group=name))
        gc.collect()  # rooms and their loaded model hold each other: the next run's would be loaded beside them
    if world.is_first and (composed.config.prompts.validate_ or composed.config.prompts.test):
        _conclude_seeds(name, paths, runs_dir, composed.config)


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
    with under_way(world, composed, runs_dir=runs_dir, fork=fork, typed=typed, group=group) as phases:
        _run(phases.config, phases)
        return phases.run.path


def _run(config: Config, phases: Phases) -> None:
    run, world = phases.run, phases.world
    if world.is_first:
        (run.path / "verdict.json").unlink(missing_ok=True)  # until this attempt has come to its own
    arms = run_arms(config, phases)
    if world.is_first:
        _conclude(run, config, arms, phases.terminal, phases.commits.tracker)
    world.barrier("the verdict")


def _conclude(
    run: RunDirectory, config: Config, arms: Sequence[Arm], terminal: Terminal, tracker: tracking.Tracker
) -> None:
    main = arms[0]
    best = best_policy(main)
    _link_best(run, best.adapter)
    said = list(sandboxing.caveats(config, read_json(run.path / "config.json").get("sandbox")))
    lines: Sequence[str] = ("nothing was held out, so no gain can be claimed: give prompts.validate and prompts.test",)
    if main.reports:
        verdict = headline(
            main.reports_in_order(),
            {arm.name: arm.reports_in_order() for arm in arms[1:]},
            overrides={arm.name: arm.overrides for arm in config.arms if arm.overrides},
            retention=retention_of(main),
            decided_by=rules_on_validation(config),
            by=config.evaluate.decide_by,
            confidence=config.evaluate.confidence,
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        verdict = replace(verdict, lines=(*verdict.lines, *verifier_lines(main, config.evaluate.confidence)))
        data = {**verdict_data(verdict, best.round), "caveats": said}
        publish_bytes(run.path / "verdict.json", (json.dumps(data, indent=1) + "\n").encode())
        tracker.log([summary_row(main, best.round, verdict)])
        lines = verdict.lines
    terminal.final(final_rows(arms, best.round), [*lines, *said], places(run.path, main, best.round))


def _link_best(run: RunDirectory, adapter: str | None) -> None:
    """Point `best` at the best policy's adapter; a convenience, made again at every end."""
    link = run.path / "best"
    with disk_errors(link):
        link.unlink(missing_ok=True)
        if adapter is not None and Path(adapter).resolve().is_relative_to(run.path.resolve()):  # else model.adapter
            link.symlink_to(Path(adapter).resolve().relative_to(run.path.resolve()))
