"""What the commands that try a recipe's scorers without a run begin with (`verify`, `audit`, `audit --unusable`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from selftrain import prompts as prompt_room
from selftrain import scoring
from selftrain.compose import Composed, compose
from selftrain.config import Config
from selftrain.errors import ConfigError
from selftrain.lending import Lender, means_of
from selftrain.preflight import columns_of_data
from selftrain.prompts import PromptSet, PromptSets
from selftrain.prompts.rows import names_of
from selftrain.sandboxing import Typed, caveats, choose
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.sandbox import Chosen


def opened(recipe: str, *, layers: Sequence[str], overrides: Sequence[str]) -> tuple[Composed, PromptSets]:
    """The recipe with its scorers checked, and its prompts. Raises SelftrainError."""
    composed = compose(recipe, layers=layers, overrides=overrides)
    scoring.check(composed.config.score, composed.folder)
    scoring.check_scorers(composed.config.evaluate.scorers, composed.folder)
    return composed, prompt_room.load(composed.config.prompts, composed.folder)


def set_of(prompts: PromptSets, name: str) -> PromptSet:
    """The set of that name. Raises ConfigError."""
    sets = {"train": prompts.train, **prompts.held_out()}
    if name not in sets:
        raise ConfigError(f"--set {name!r}: this recipe has no such set of prompts; it has: {', '.join(sets)}")
    return sets[name]


def as_judged(config: Config, set_name: str) -> Config:
    """The recipe with that as `score` which judges the set in a run: of held-out sets, `evaluate.scorers`."""
    return config if set_name == "train" else config.model_copy(update={"score": config.judging_held_out})


def require_columns(config: Config, sets: Sequence[PromptSet]) -> None:
    """DataError where a parameter of a scorer names a column that no row of a set has."""
    for one in sets:
        scoring.check_columns(as_judged(config, one.name).score.scorers, one.prompts, columns_of_data(config))


def confined(config: Config, recipe: str, *, unsafe_no_sandbox: bool, warn: Callable[[str], None]) -> Chosen | None:
    """The sandbox, where a scorer runs code; `warn` is told what must be said beside its verdicts. Raises
    SandboxRefused."""
    sandbox = choose(config, Typed(unsafe_no_sandbox=unsafe_no_sandbox), None, Path(recipe))
    for words in caveats(config, None if sandbox is None else sandbox.recorded()):
        warn(words)
    return sandbox


def one_at_a_time(composed: Composed, sandbox: Chosen | None, set_name: str = "train") -> CombinedScorer:
    """The scorer of a set for answers that are asked about in turn. Use it in a `with`."""
    config = as_judged(composed.config, set_name).score.model_copy(update={"workers": 1})
    means = means_of(composed.config.model, Lender(composed.config.model))
    return scoring.build(config, composed.folder, names_of(composed.config.prompts), sandbox, means)
