"""Trying a recipe's scorers on its own data (`audit`): what must be accepted is, and what must be refused is.

    checks      the checks over the prompts of one task
    asking      an answer, and the time that it takes
    results     what they found, as data
    learned     scorers that are left out: models, and those that ask one
    progress    how far they are, on stderr

An answer is accepted where `Score.correct` is true (value >= `score.correct_at`), as in a run. A check fails where
something wrong is accepted, where an answer cannot be judged, or where a right answer is refused in the very form that
a rule looks for. For functions of the user's own that form is guessed: a refused reference is noted. Where nothing
right was accepted at all, refusals show nothing, and the audit has not passed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from selftrain.auditing.asking import Asking
from selftrain.auditing.checks import OfTask
from selftrain.auditing.learned import left_out, require_audited, why, without_learned
from selftrain.auditing.progress import Progress
from selftrain.auditing.results import Audit, Check, is_passed
from selftrain.config import Config, ScoreConfig
from selftrain.errors import ConfigError, DataError
from selftrain.opening import as_judged, confined, one_at_a_time, opened, require_columns, set_of
from selftrain.prompts import PromptSet
from selftrain.prompts.rows import names_of
from selftrain.records import Prompt
from selftrain.reporting.figures import duration
from selftrain.scoring import SCORERS
from selftrain.scoring.combined import CombinedScorer

if TYPE_CHECKING:
    from selftrain.reporting.terminal import Terminal

FAILED = DataError.exit_code
STOPPED = 130
LONG_SECONDS = 600.0


def show_audit(
    recipe: str,
    *,
    layers: Sequence[str],
    overrides: Sequence[str],
    sets: Sequence[str],
    limit: int,
    seed: int,
    unsafe_no_sandbox: bool,
    as_json: bool,
) -> int:
    """Print what the scorers of a recipe accept and refuse; return the exit code: 0, FAILED, or STOPPED
    where Ctrl-C ended it.

    Raises SelftrainError where nothing can be asked: a reference drawn that a rule cannot use, a function that is not
    there, no sandbox for the scorer `code`.
    """
    from selftrain.reporting import auditing as page
    from selftrain.reporting.terminal import Terminal

    composed, prompts = opened(recipe, layers=layers, overrides=overrides)
    whole, terminal = composed.config, Terminal()
    wanted = [set_of(prompts, name) for name in sets or ("train",)]
    require_audited(whole, wanted)
    config = without_learned(whole)
    composed = replace(composed, config=config)
    require_columns(config, wanted)
    sandbox = confined(config, recipe, unsafe_no_sandbox=unsafe_no_sandbox, warn=terminal.warn)
    found = list[Audit]()
    for sets_alike in _judged_alike(config, wanted):
        of_sets = as_judged(config, sets_alike[0].name)
        with one_at_a_time(composed, sandbox, sets_alike[0].name) as scorer:
            for one in sets_alike:
                scorer.check_references([each for _, drawn in drawn_of(one, limit, seed) for each in drawn])
            heavy = not unsafe_no_sandbox
            of_alike = _audited_all(of_sets, scorer, sets_alike, terminal, limit=limit, seed=seed, heavy=heavy)
            found += [_noted(one, left_out(whole, one.set)) for one in of_alike]
        if not all(one.complete for one in found):
            break
    passed = len(found) == len(wanted) and all(one.passed for one in found)
    if as_json:
        print(json.dumps({"passed": passed, "audits": [asdict(one) for one in found]}, indent=1))
    else:
        for done in found:
            terminal.page(page.audit_lines(asdict(done)))
    if not all(one.complete for one in found):
        return STOPPED
    return 0 if passed else FAILED


def _noted(audit: Audit, names: Sequence[str]) -> Audit:
    """The audit, with the scorers of the recipe that it says nothing of."""
    words = f"not audited: {', '.join(names)}, for {why(names)}"
    return replace(audit, notes=(*audit.notes, words)) if names else audit


def _judged_alike(config: Config, wanted: Sequence[PromptSet]) -> list[list[PromptSet]]:
    """The sets in groups, each judged by one scorer. Raises ConfigError for one that judges no answer by itself."""
    alike: list[tuple[ScoreConfig, list[PromptSet]]] = []
    for one in wanted:
        judging = as_judged(config, one.name).score
        if any(scorer.name in SCORERS and SCORERS[scorer.name].compares for scorer in judging.scorers if scorer.weight):
            raise ConfigError(
                f"--set {one.name}: majority compares the candidates of a prompt with each other, so there is nothing "
                "to try with single answers; --set test tries evaluate.scorers"
            )
        known = next((sets for other, sets in alike if other == judging), None)
        if known is None:
            alike.append((judging, [one]))
        else:
            known.append(one)
    return [sets for _, sets in alike]


def _audited_all(
    config: Config,
    scorer: CombinedScorer,
    wanted: Sequence[PromptSet],
    terminal: Terminal,
    *,
    limit: int,
    seed: int,
    heavy: bool,
) -> list[Audit]:
    """An audit of each set, until one is stopped."""
    progress, found = Progress(), list[Audit]()
    try:
        for one in wanted:
            found.append(
                audited(config, scorer, one, limit=limit, seed=seed, heavy=heavy, progress=progress, warn=terminal.warn)
            )
            if not found[-1].complete:
                break
    finally:
        progress.end()
    return found


def audited(
    config: Config,
    scorer: CombinedScorer,
    prompts: PromptSet,
    *,
    limit: int,
    seed: int,
    heavy: bool = True,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Audit:
    """Audit the scorer of a config over at most `limit` prompts of a set, drawn by `seed`, of each task alike. `warn`
    is told beforehand where that will take long. Ctrl-C ends it with what is known by then."""
    asking, asked = Asking(scorer), 0
    checks: list[Check] = []
    tasks: list[OfTask] = []
    columns = names_of(config.prompts)
    for task, drawn in drawn_of(prompts, limit, seed):
        asked += len(drawn)
        of_task = OfTask(
            asking=asking,
            task=task,
            scorers=tuple(
                one for one in config.score.scorers if (one.weight or one.gate) and (not one.tasks or task in one.tasks)
            ),
            prompts=drawn,
            pool=[one for one in prompts.prompts if one.task == task],
            thinking=config.model.thinking,
            seed=seed,
            heavy=heavy,
            columns=columns,
            progress=progress,
        )
        tasks.append(of_task)
    try:
        _warn_of_time(tasks, limit, warn)
        for of_task in tasks:
            checks += of_task.checks()
            if of_task.was_stopped:
                break
        complete = not any(one.was_stopped for one in tasks)
    except KeyboardInterrupt:
        complete = False
    notes = [] if heavy else ["without a sandbox, nothing that takes endless time or memory was asked"]
    return Audit(
        recipe=config.name,
        set=prompts.name,
        scorers=tuple(one.name for one in config.score.scorers),
        correct_at=config.score.correct_at,
        prompts=asked,
        available=len(prompts.prompts),
        seed=seed,
        checks=tuple(checks),
        speed=asking.speed(),
        passed=complete and is_passed(checks),
        notes=tuple(notes),
        complete=complete,
    )


def _warn_of_time(tasks: Sequence[OfTask], limit: int, warn: Callable[[str], None] | None) -> None:
    """Says so where the audit will take longer than LONG_SECONDS, by the time that one answer takes."""
    if warn is None:
        return
    answers, each = sum(one.expected() for one in tasks), tasks[0].seconds_of_one()
    if answers * each > LONG_SECONDS:
        warn(
            f"about {duration(answers * each)} for some {answers:,} answers at {each:.1f} s each: a lower --limit "
            f"(here {limit}) asks fewer; Ctrl-C ends it with what is known by then"
        )


def drawn_of(prompts: PromptSet, limit: int, seed: int) -> list[tuple[str | None, list[Prompt]]]:
    """The prompts that an audit of the set asks about, by task."""
    tasks = prompts.tasks or (None,)
    of_each = max(1, limit // len(tasks))
    return [(task, sample([one for one in prompts.prompts if one.task == task], of_each, seed)) for task in tasks]


def sample(pool: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    """At most `limit` of the prompts, spread over all of them: the same ones at every call."""
    return random.Random(f"audit {seed}").sample(list(pool), min(limit, len(pool)))
