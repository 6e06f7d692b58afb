"""The sandbox of a run: chosen by a self-test before anything is loaded, the same for the whole run, and shown wherever
the run's results are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import scoring
from selftrain.config import Config, ScoreConfig, config_of_arm
from selftrain.errors import ConfigError, SandboxRefused
from selftrain.scoring.sandbox import Chosen, Tier
from selftrain.store import RunDirectory, read_json

UNSAFE = "code that the model wrote was run WITHOUT A SANDBOX (--unsafe-no-sandbox)"
WEAK = (
    "the scorer code ran tests in the candidate's own process (weak: true), where a candidate can make them pass "
    "without solving anything"
)


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed on the command line about the sandbox. No recipe or layer can say either."""

    unsafe_no_sandbox: bool = False
    accept_sandbox_change: bool = False


NOTHING_TYPED = Typed()


def needs_sandbox(config: Config) -> bool:
    """Whether any scorer of the run, its arms, its held-out or its retention prompts runs code that a model wrote."""
    return any(scoring.needs_sandbox(one) for one in _judging(config))


def _judging(config: Config) -> Iterator[ScoreConfig]:
    """What main, each arm with knobs of its own, the held-out and the retention prompts are judged by."""
    yield config.score
    yield from (config_of_arm(config, arm).score for arm in config.arms if arm.overrides)
    yield config.judging_held_out
    yield config.score.model_copy(update={"scorers": config.evaluate.retention_scorers})


def recorded(run: Path, source: Path | None = None) -> Mapping[str, Any] | None:
    """The sandbox that the run began with, from its config.json (or, where a fork has none yet, its source's). None:
    there is none, or nothing of the run is committed."""
    for path in (run, source):
        if path is not None and RunDirectory(path).receipts():
            found: Mapping[str, Any] | None = read_json(path / "config.json").get("sandbox")
            return found
    return None


def from_now_on(before: Mapping[str, Any] | None, chosen: Chosen | None) -> dict[str, Any] | None:
    """What config.json says of the sandbox. `earlier` has the other tiers that the run has used: what was judged in
    them is in its results."""
    if chosen is None:
        return None
    used = {} if before is None else dict.fromkeys((*before.get("earlier", ()), before["tier"]))
    earlier = [tier for tier in used if tier != chosen.tier]
    return {**chosen.recorded(), "earlier": earlier} if earlier else chosen.recorded()


def choose(config: Config, typed: Typed, before: Mapping[str, Any] | None, where: Path) -> Chosen | None:
    """The sandbox of this attempt; None where nothing is executed. `before` is what the run began with.

    Raises SandboxRefused where no tier that may be used passes its self-test, ConfigError where it would be another one
    than before and `accept_sandbox_change` was not typed.
    """
    if not needs_sandbox(config):
        if typed.unsafe_no_sandbox:
            raise ConfigError(
                "--unsafe-no-sandbox: no scorer of this recipe runs code that a model wrote; leave it out"
            )
        return None
    _require_one_tier(config)
    began_with: Tier | None = None if before is None else before["tier"]
    chosen = _unconfined() if typed.unsafe_no_sandbox else _tested(config, typed, began_with, where)
    if began_with not in (None, chosen.tier) and not typed.accept_sandbox_change:
        raise ConfigError(
            f"{where} began with {_in_words(began_with)}, and this attempt would use "
            f"{_in_words(chosen.tier)}: verdicts may differ. Go on as it began, start another run with name=NEW, or "
            "type --accept-sandbox-change"
        )
    return chosen


def _unconfined() -> Chosen:
    from selftrain.scoring.sandbox.choosing import unsafe

    return unsafe()


def _tested(config: Config, typed: Typed, began_with: Tier | None, where: Path) -> Chosen:
    from selftrain.scoring.sandbox import choosing

    wanted = config.score.sandbox.tier
    keeps = wanted == "auto" and not typed.accept_sandbox_change
    if keeps and began_with == "none":
        raise ConfigError(
            f"{where} began with {_in_words('none')}: go on with --unsafe-no-sandbox, or with a sandbox from here on "
            "by --accept-sandbox-change"
        )
    if keeps and (began_with == "bubblewrap" or began_with == "landlock"):
        wanted = began_with
    try:
        return choosing.choose(wanted)
    except SandboxRefused as error:
        if not keeps or began_with is None:
            raise
        raise SandboxRefused(
            f"{error}\n{where} began with {_in_words(began_with)}; to go on with another one that works "
            "here, type --accept-sandbox-change"
        ) from None


def _require_one_tier(config: Config) -> None:
    wanted = config.score.sandbox.tier
    for arm in config.arms:
        if arm.overrides and (other := config_of_arm(config, arm).score.sandbox.tier) != wanted:
            raise ConfigError(
                f"arms.{arm.name}: score.sandbox.tier is {other!r} and main's is {wanted!r}: a run has one sandbox, or "
                "its arms could not be compared; set it for the recipe"
            )


def _in_words(tier: Tier | None) -> str:
    return "no sandbox (--unsafe-no-sandbox)" if tier == "none" else f"the sandbox {tier!r}"


def caveats(config: Config, sandbox: Mapping[str, Any] | None) -> Iterator[str]:
    """What must be said beside every result of the run. `sandbox` is what its config.json has recorded."""
    if sandbox is not None and "none" in (sandbox["tier"], *sandbox.get("earlier", ())):
        yield UNSAFE
    scorers = [one for judging in _judging(config) for one in judging.scorers]
    if sandbox is not None and any(one.name == "code" and one.params.get("weak") for one in scorers):
        yield WEAK
