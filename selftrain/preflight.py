"""Everything about a recipe that can be checked before a model is loaded or a directory made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import advice, generating, inspection, sampling, scoring, screening, tracking, training
from selftrain import prompts as prompt_room
from selftrain.arms import Arm, arms_of
from selftrain.compose import Composed
from selftrain.config import Config, EvaluateConfig, ScoreConfig, config_of_arm
from selftrain.contents import require_within_reach
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.fingerprints import Fingerprints, models_of
from selftrain.generators import POLICY
from selftrain.prompts import PromptSet, PromptSets
from selftrain.prompts.rows import names_of
from selftrain.records import digest
from selftrain.rooms import Rooms, check_model
from selftrain.selection import filters
from selftrain.selection.demonstrations import num_without_answer

if TYPE_CHECKING:
    from selftrain.scoring.combined import CombinedScorer

OF_TRAINED = (
    "these are training prompts, which evaluate.scorers judge once they were trained on; evaluate.trained_prompts=0 "
    "leaves that out"
)


def check(composed: Composed, *, ranks: int = 1, curates: bool = False) -> tuple[PromptSets, Fingerprints]:
    """Check plug-ins, pass-through tables, shares of ranks, prompts, that rows have tests where code is judged, and
    what cannot work; return the prompts, and the fingerprints. `curates`: what nobody asks of a curated round is not
    checked (evaluation, arms, the verifier)."""
    config, whole = (of_curating(composed.config) if curates else composed.config), composed.config
    for one in (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides)):
        sampling.check(one.sample)
        scoring.check(one.score, composed.folder)
        filters.check(one.select, composed.folder)
        screening.check(one.select, composed.folder)
        training.check(one.train, ranks=ranks)
        check_model(one, composed.folder)
        sets = (one.prompts.validate_, one.prompts.test, one.prompts.retention)
        has_held_out = not curates and any(of_set is not None for of_set in sets)
        generating.check(one, composed.folder, has_held_out=has_held_out)
    if curates:
        generating.check_columns(config, composed.folder)
    if config.verifier is not None:
        training.check_verifier(config.verifier, ranks=ranks)
        if not Rooms(config, composed.folder).needs_model():
            raise ConfigError("verifier: it is an adapter on a model, and this recipe loads none; leave it out")
    scoring.check_scorers((*config.evaluate.scorers, *config.evaluate.retention_scorers), composed.folder)
    tracking.check(config.track)
    inspection.check(config, composed.folder)
    prompts = prompt_room.load(config.prompts, composed.folder)
    asked = without_held_out(prompts) if curates else prompts
    for of_set, judging, _ in _judging(config, asked):
        scoring.check_rows(judging.scorers, of_set.prompts, columns_of_data(config))
    advice.refuse(config, asked)
    for one in (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides)):
        screening.check_texts(one, prompts, composed.folder)
    wants_gold = any(arm.name == "gold" for arm in config.arms)
    if wants_gold and num_without_answer(prompts.train.prompts) == len(prompts.train.prompts):
        raise ConfigError(
            "arms: gold trains on references, and no training prompt has a completion or a reference; name their "
            "column in prompts.train.columns, or leave the arm out"
        )
    rooms = Rooms(whole, composed.folder)
    contents = digests(prompts) | screening.digests(whole, prompts, composed.folder)
    return prompts, Fingerprints(whole, composed.folder, contents, lambda: rooms.model_inputs, composed.recipe)


def for_curating(composed: Composed) -> Composed:
    """The recipe as it is curated: training prompts that are held out as well are contaminated, and leave with what
    `select.decontaminate` takes out, counted (`prompts.overlap` does it)."""
    config = composed.config
    if config.select.decontaminate is None:
        return composed
    knobs = config.prompts.model_copy(update={"overlap": "drop_from_train"})
    return replace(composed, config=config.model_copy(update={"prompts": knobs}))


def of_curating(config: Config) -> Config:
    """The recipe without what a curated round never comes to: later rounds, arms, evaluation, the verifier."""
    return config.model_copy(update={"rounds": 1, "arms": (), "evaluate": EvaluateConfig(), "verifier": None})


def without_held_out(prompts: PromptSets) -> PromptSets:
    """The sets that are asked where nothing is evaluated."""
    return replace(prompts, validate=None, test=None, retention=None)


def require_models(config: Config, folder: Path) -> None:
    """DependencyError for a model of the hub, beside the policy's, that is not here and cannot be fetched: before
    anything is sampled, rather than when it is first asked."""
    for one in (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides)):
        for scorer in (*one.score.scorers, *one.evaluate.scorers, *one.evaluate.retention_scorers):
            if scorer.name in scoring.SCORERS and scoring.SCORERS[scorer.name].learned:
                for name, revision in models_of(scorer.params):
                    what = f"score.scorers: {scorer.name}: params.model"
                    require_within_reach(name, folder, revision=revision, what=what)
        if (generator := one.sample.policy) is None:
            continue
        if generator.model is not None:
            require_within_reach(generator.model, folder, what="sample.policy.model")
        for name in generator.checkpoints:
            if name != POLICY:
                require_within_reach(name, folder, what="sample.policy.checkpoints")


def columns_of_data(config: Config) -> dict[str, str]:
    """As `names_of`, of columns that are surely in the data. With a template nothing is asked of the prompt's: where
    there is one, prompts keep it as metadata."""
    sets = (config.prompts.train, config.prompts.validate_, config.prompts.test, config.prompts.retention)
    sources = [source for one in sets if one is not None for source in one.sources.values()]
    has_template = all((source.template or config.prompts.template) is not None for source in sources)
    named = names_of(config.prompts)
    return {name: kept for name, kept in named.items() if not (has_template and kept == "prompt")}


def _judging(
    config: Config, prompts: PromptSets
) -> Iterator[tuple[PromptSet, ScoreConfig, Callable[[Rooms], CombinedScorer]]]:
    """Every set with what it will be judged by, and which of a run's rooms that is; training prompts also with that of
    arms that have their own."""
    yield prompts.train, config.score, lambda rooms: rooms.scorer
    for one in prompts.held_out().values():
        yield one, config.judging_held_out, lambda rooms: rooms.evaluation_scorer
    if config.evaluate.scorers and config.evaluate.trained_prompts and prompts.held_out():
        yield prompts.train, config.judging_held_out, lambda rooms: rooms.evaluation_scorer
    for arm in arms_of(config):
        if arm.config.score != config.score:
            yield prompts.train, arm.config.score, partial(_scorer_of_arm, arm)
    if prompts.retention is not None and prompts.retention.prompts is not None:
        yield prompts.retention.prompts, config.judging_retention, lambda rooms: rooms.retention_scorer


def _scorer_of_arm(arm: Arm, rooms: Rooms) -> CombinedScorer:
    return rooms.of_arm(arm).scorer


def prompt_sets(prompts: PromptSets) -> dict[str, PromptSet]:
    """Every set of prompts that there is, by name."""
    sets = {"train": prompts.train, **prompts.held_out()}
    if prompts.seed_data is not None:
        sets["seed_data"] = prompts.seed_data
    if prompts.retention is not None and prompts.retention.prompts is not None:
        sets["retention"] = prompts.retention.prompts
    return sets


def digests(prompts: PromptSets) -> dict[str, str]:
    """What stands for the content of each set."""
    found: dict[str, str] = {name: one.digest for name, one in prompt_sets(prompts).items()}
    found["completions"] = digest([[one.id, one.completion, one.reference] for one in prompts.train.prompts])
    return found | ({"retention": prompts.retention.digest} if prompts.retention is not None else {})


def check_references(config: Config, rooms: Rooms, prompts: PromptSets, *, curates: bool = False) -> None:
    """Raise DataError where a scorer cannot use a reference of the prompts it will judge; `curates`: in a round that
    is not evaluated."""
    if curates:
        config, prompts = of_curating(config), without_held_out(prompts)
    for one, scorer in judged(config, rooms, prompts):
        try:
            scorer.check_references(one.prompts)
        except UnusablePrompts as error:
            if one is not prompts.train or not config.evaluate.scorers or scorer is not rooms.evaluation_scorer:
                raise
            raise UnusablePrompts(f"{error}\n{OF_TRAINED}", error.why) from None


def judged(config: Config, rooms: Rooms, prompts: PromptSets) -> Iterator[tuple[PromptSet, CombinedScorer]]:
    """Every set with the scorer that will judge it; training prompts also with those of arms that have their own."""
    for one, _, scorer_of in _judging(config, prompts):
        yield one, scorer_of(rooms)
