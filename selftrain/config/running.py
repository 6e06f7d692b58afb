"""Knobs of a run beside its method: arms, trackers, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from selftrain.config.knobs import Section
from selftrain.config.measures import RoundNames

ARMS: dict[str, str] = {
    "random_selection": "survivors drawn at random, in the same number as main's, whatever their score",
    "random_selection_shared": "a one-round diagnostic: main's own candidates and start, survivors drawn at random",
    "no_filter": "every finished candidate, in as many updates as main's",
    "seed_only": "demonstrations of prompts.seed_data, in as many examples and updates as main's",
    "gold": "the references of the round's prompts, in as many examples and updates as main's",
}
ARM_SECTIONS = ("sample", "score", "select", "train", "prompts.per_round")


class ArmConfig(Section):
    """A loop of its own beside main: a control (a name of `ARMS`), or main with some knobs set otherwise.

    In a recipe: `random_selection`, or `{high_temp: {sample.temperature: 1.2}}`.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,40}$")
    overrides: Mapping[str, Any] = Field(default_factory=dict)
    """Knobs of sample, score, select, train or prompts.per_round that differ from main's, by dotted key."""
    evaluate_rounds: RoundNames = ("last",)
    """Rounds at which the arm is measured; the main arm's headline round is always among them."""

    @property
    def is_control(self) -> bool:
        """Whether it does as many updates as main in every round, rather than what its knobs say."""
        return self.name in ARMS

    @model_validator(mode="after")
    def _is_a_control_or_has_overrides(self) -> ArmConfig:
        if self.is_control and self.overrides:
            key = next(iter(self.overrides))
            raise ValueError(
                f"{self.name} is a control and does what main does with other data; it takes evaluate_rounds, not "
                f"{key!r}: give the arm with other knobs a name of its own"
            )
        if not self.is_control and not self.overrides:
            raise ValueError(
                f"unknown arm {self.name!r}; known: {', '.join(ARMS)}; or an arm of your own: "
                f"{{{self.name}: {{sample.temperature: 1.2}}}}"
            )
        if self.name == "main":
            raise ValueError("main is the name of the method's own arm; call this one something else")
        return self


def as_arms(value: Any) -> Any:
    """`a`, `[a, {b: {knob: value}}]` and `{a: {}, b: {knob: value}}` as a list of ArmConfig's data."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = [{name: of_arm} for name, of_arm in value.items()]
    if not isinstance(value, list | tuple):
        return value
    return [_as_arm(one) for one in value]


def _as_arm(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and "name" not in value and len(value) == 1:
        name, given = next(iter(value.items()))
        if given is None or isinstance(given, Mapping):
            knobs = dict(given or {})
            own = {"evaluate_rounds": knobs.pop("evaluate_rounds")} if "evaluate_rounds" in knobs else {}
            return {"name": name, "overrides": dict(_flat(knobs)), **own}
    return value


def _flat(knobs: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in knobs.items():
        path = f"{prefix}{key}"
        # Below a section everything is a knob's value, also where that is a table (train.lora).
        is_section = isinstance(value, Mapping) and path in {one.partition(".")[0] for one in ARM_SECTIONS}
        found += _flat(value, f"{path}.") if is_section else [(path, value)]
    return found


TrackerName: TypeAlias = Literal["tensorboard", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]


class WandbConfig(Section):
    """Weights & Biases: a mirror of metrics.jsonl, written by a process of its own."""

    mode: Literal["online", "offline", "disabled"] = "disabled"
    """The environment's WANDB_MODE can turn this down, never up."""
    project: str = "selftrain"
    entity: str | None = None
    group: str | None = None
    """What the arms and seeds of one experiment are shown together under; null: the run's name."""
    tags: tuple[str, ...] = ()
    table_rows: int = Field(default=100, ge=0, le=10_000)
    """So many kept and as many rejected candidates of a round go into its tables. 0: no tables."""
    artifacts: tuple[Literal["survivors", "adapters"], ...] = ("survivors", "adapters")
    """Uploaded as artifacts when online; offline, their hashes stand in the run's summary."""


class TrackConfig(Section):
    """Where metrics go besides metrics.jsonl: `[wandb, tensorboard]`, or with settings. Enters no fingerprint."""

    wandb: WandbConfig = WandbConfig()
    """Weights & Biases."""
    also: tuple[TrackerName, ...] = ()
    """Other trackers, by Accelerate's names; each needs its own package."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_short_for_settings(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            return value
        for one in value:
            if one not in ("wandb", *get_args(TrackerName)):
                known = ", ".join(("wandb", *get_args(TrackerName)))
                raise ValueError(f"there is no tracker {one!r}; known: {known}")
        online = {"wandb": {"mode": "online"}} if "wandb" in value else {}
        return {**online, "also": [one for one in value if one != "wandb"]}


class RanksConfig(Section):
    """How the processes of a run wait for each other. Enters no fingerprint."""

    dead_after_seconds: float = Field(default=30.0, ge=5, le=600)
    """A process that gave no sign of life for so long is taken for dead; the others end, and can be resumed."""
    wait_seconds: float = Field(default=7200.0, ge=10)
    """The longest that live processes wait for each other at one point."""
