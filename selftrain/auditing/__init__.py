"""Trying a recipe's scorers on its own data (`audit`): what must be accepted is, and what must be refused is.

    checks      the checks over the prompts of one task
    results     what they found, as data

An answer is accepted where `Score.correct` is true (value >= `score.correct_at`), as in a run. A check fails where
something wrong is accepted, where an answer cannot be judged, or where a right answer is refused in the very form that
a rule looks for. For functions of the user's own that form is guessed: a refused reference is noted. Where nothing
right was accepted at all, refusals show nothing, and the audit has not passed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import prompts as prompt_room
from selftrain import scoring
from selftrain.auditing.checks import Asking, OfTask
from selftrain.auditing.results import Audit, Check, is_passed
from selftrain.compose import compose
from selftrain.config import Config
from selftrain.errors import ConfigError, DataError
from selftrain.prompts import PromptSet, PromptSets
from selftrain.prompts.rows import names_of
from selftrain.records import Prompt
from selftrain.sandboxing import Typed, caveats, choose
from selftrain.scoring.combined import CombinedScorer

if TYPE_CHECKING:
    from selftrain.reporting.terminal import Terminal

FAILED = DataError.exit_code


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
    """Print what the scorers of a recipe accept and refuse; return the exit code, 0 or FAILED.

    Raises SelftrainError where nothing can be asked: a reference drawn that a rule cannot use, a function that is not
    there, no sandbox for the scorer `code`.
    """
    from selftrain.reporting import auditing as page
    from selftrain.reporting.terminal import Terminal

    composed = compose(recipe, layers=layers, overrides=overrides)
    config, terminal = composed.config, Terminal()
    scoring.check(config.score, composed.folder)
    prompts = prompt_room.load(config.prompts, composed.folder)
    wanted = [set_of(prompts, name) for name in sets or ("train",)]
    one_at_a_time = config.score.model_copy(update={"workers": 1})
    sandbox = choose(config, Typed(unsafe_no_sandbox=unsafe_no_sandbox), None, Path(recipe))
    for words in caveats(config, None if sandbox is None else sandbox.recorded()):
        terminal.warn(words)
    heavy = not unsafe_no_sandbox
    with scoring.build(one_at_a_time, composed.folder, names_of(config.prompts), sandbox=sandbox) as scorer:
        for one in wanted:
            scorer.check_references([each for _, drawn in drawn_of(one, limit, seed) for each in drawn])
        with _progress(terminal, is_shown=not as_json) as told:
            found = [audited(config, scorer, one, limit=limit, seed=seed, heavy=heavy, told=told) for one in wanted]
    passed = all(one.passed for one in found)
    if as_json:
        print(json.dumps({"passed": passed, "audits": [asdict(one) for one in found]}, indent=1))
    else:
        for done in found:
            terminal.page(page.audit_lines(asdict(done)))
    return 0 if passed else FAILED


@contextmanager
def _progress(terminal: Terminal, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """On a terminal, a bar with the number of answers so far."""
    if is_shown:
        terminal.open_bar("audit", None)
    try:
        yield lambda answers: terminal.show_progress(f"{answers:,} answers", answers)
    finally:
        terminal.close_bar("audit")


def set_of(prompts: PromptSets, name: str) -> PromptSet:
    """The set of that name. Raises ConfigError."""
    sets = {"train": prompts.train, **prompts.held_out()}
    if name not in sets:
        raise ConfigError(f"--set {name!r}: this recipe has no such set of prompts; it has: {', '.join(sets)}")
    return sets[name]


def audited(
    config: Config,
    scorer: CombinedScorer,
    prompts: PromptSet,
    *,
    limit: int,
    seed: int,
    heavy: bool = True,
    told: Callable[[int], None] | None = None,
) -> Audit:
    """Audit the scorer of a config over at most `limit` prompts of a set, drawn by `seed`, of each task alike. `told`
    is told how many answers were judged so far."""
    asking, asked = Asking(scorer, told=told), 0
    checks: list[Check] = []
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
        )
        checks += of_task.checks()
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
        passed=is_passed(checks),
        notes=tuple(notes),
    )


def drawn_of(prompts: PromptSet, limit: int, seed: int) -> list[tuple[str | None, list[Prompt]]]:
    """The prompts that an audit of the set asks about, by task."""
    tasks = prompts.tasks or (None,)
    of_each = max(1, limit // len(tasks))
    return [(task, sample([one for one in prompts.prompts if one.task == task], of_each, seed)) for task in tasks]


def sample(pool: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    """At most `limit` of the prompts, spread over all of them: the same ones at every call."""
    return random.Random(f"audit {seed}").sample(list(pool), min(limit, len(pool)))
