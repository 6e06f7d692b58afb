"""The whole configuration of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from selftrain.config.curation import CurateConfig
from selftrain.config.data import ModelConfig, PromptsConfig
from selftrain.config.judging import ScoreConfig, ScorerConfig, SelectConfig
from selftrain.config.knobs import Section
from selftrain.config.measures import AlarmsConfig, EvaluateConfig, StopConfig
from selftrain.config.method import SampleConfig, TrainConfig
from selftrain.config.running import ARM_SECTIONS, ArmConfig, RanksConfig, TrackConfig, as_arms
from selftrain.config.verifier import VerifierConfig

RUN_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,64}(?<!\.)")


class Config(Section):
    """One run, whole."""

    name: str
    """Of the run and its directory under `runs/`."""
    seed: int = Field(default=0, ge=0)
    """Of everything random: prompts, candidates, selection, training."""
    rounds: int = Field(default=3, ge=1)
    """How many; raise it to go on with a finished run. Enters no fingerprint."""
    model: ModelConfig
    prompts: PromptsConfig
    sample: SampleConfig = SampleConfig()
    score: ScoreConfig
    select: SelectConfig = SelectConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    verifier: VerifierConfig | None = None
    curate: CurateConfig = CurateConfig()
    stop: StopConfig = StopConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    arms: Annotated[tuple[ArmConfig, ...], BeforeValidator(as_arms)] = ()
    track: TrackConfig = TrackConfig()
    ranks: RanksConfig = RanksConfig()
    keep: Literal["all", "best_and_last"] = "all"
    """Which adapters stay on disk: all, or of each arm the best and the last round's. The rest always stays:
    candidates, scores, survivors, metrics. Enters no fingerprint."""

    @field_validator("name")
    @classmethod
    def _name_is_a_safe_folder(cls, value: str) -> str:
        if not RUN_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot name a folder; use letters, digits, '.', '_', '-' (at most 64)")
        return value

    @property
    def judging_held_out(self) -> ScoreConfig:
        """`score` with the scorers that judge held-out answers, and from when on these are right."""
        return self._judging(self.score, self.evaluate.scorers)

    @property
    def judging_retention(self) -> ScoreConfig:
        """`score` with the scorers that judge answers to retention prompts."""
        return self._judging(self.judging_held_out, self.evaluate.retention_scorers)

    def _judging(self, others: ScoreConfig, named: tuple[ScorerConfig, ...]) -> ScoreConfig:
        """`others` with the scorers that are named, if any are. These take over no `correct_at`: a bar for rewards, as
        0, would make every answer right that a rule finds wrong."""
        bar = self.evaluate.correct_at
        own = {"scorers": named, "correct_at": ScoreConfig.model_fields["correct_at"].default} if named else {}
        own |= {} if bar is None else {"correct_at": bar}
        return others.model_copy(update=own) if own else others

    @model_validator(mode="after")
    def _arms_can_run(self) -> Config:
        names = [arm.name for arm in self.arms]
        for arm in self.arms:
            if names.count(arm.name) > 1:
                raise ValueError(f"arms: {arm.name!r} is named twice")
            if arm.name == "seed_only" and self.prompts.seed_data is None:
                raise ValueError("arms: seed_only trains on prompts.seed_data; give that, or leave the arm out")
            if arm.overrides:
                config_of_arm(self, arm)
        return self

    @model_validator(mode="after")
    def _parts_are_there(self) -> Config:
        if any(_values(self.select.mix_seed_data)) and self.prompts.seed_data is None:
            raise ValueError("select.mix_seed_data mixes in prompts.seed_data; give that, or leave it out")
        if self.select.train_on == "answer" and self.model.thinking is None:
            raise ValueError("select.train_on: answer needs model.thinking, which says where the reasoning ends")
        if self.select.min_completion_tokens == 0 and self.sample.policy is not None:
            raise ValueError(
                "select.min_completion_tokens: 0 would keep what sample.policy wrote and the policy's tokens cannot "
                "write, which has no tokens; set it to 1"
            )
        tasks = set(self.prompts.train.mix or ())
        for name in sorted(tasks):
            if not any(one.weight and (not one.tasks or name in one.tasks) for one in self.score.scorers):
                raise ValueError(f"score.scorers: none with a weight above 0 judges the task {name!r}; add one")
        for one in self.score.scorers:
            for task in one.tasks:
                if task not in tasks:
                    known = f"its tasks: {', '.join(sorted(tasks))}" if tasks else "prompts.train is no mix"
                    raise ValueError(f"score.scorers: {one.name} judges the task {task!r}, which is not there; {known}")
        return self

    @model_validator(mode="after")
    def _scorers_of_held_out_prompts_have_tasks(self) -> Config:
        sets = (self.prompts.train, self.prompts.validate_, self.prompts.test)
        tasks = {task for one in sets if one is not None for task in one.mix or ()}
        for one in self.evaluate.scorers:
            for task in one.tasks:
                if task not in tasks:
                    known = f"the tasks: {', '.join(sorted(tasks))}" if tasks else "no set of prompts is a mix"
                    raise ValueError(
                        f"evaluate.scorers: {one.name} judges the task {task!r}, which no set has; {known}"
                    )
        return self

    @model_validator(mode="after")
    def _ratios_have_log_probabilities(self) -> Config:
        if not any(_values(self.select.kl_beta)):
            return self
        takes = "select.kl_beta compares the policy's log-probabilities with those of round 0"
        if self.sample.policy is not None:
            raise ValueError(
                f"{takes}, and with sample.policy: {self.sample.policy.kind} another writes the candidates; set "
                "select.kl_beta: 0"
            )
        if self.sample.engine == "scripted":
            raise ValueError(f"{takes}, and sample.engine: scripted has no model; set select.kl_beta: 0")
        return self

    @model_validator(mode="after")
    def _shares_are_shares(self) -> Config:
        if self.evaluate.decide_by == "value":
            return self
        for name in ("target", "max_regression"):
            bound = getattr(self.stop, name)
            if bound is not None and (bound > 1 or (bound == 1 and name == "max_regression")):
                limit = "at most 1" if name == "target" else "under 1"
                raise ValueError(
                    f"stop.{name} is {bound:g}, and it is a share of right answers, {limit}; correct it, or set "
                    "evaluate.decide_by: value"
                )
        return self

    @model_validator(mode="after")
    def _decisions_have_validation(self) -> Config:
        stop = self.stop
        needs = {
            "train.init_from: best": "best" in _values(self.train.init_from),
            "stop.patience": stop.patience is not None,
            "stop.target": stop.target is not None,
            "stop.max_regression": stop.max_regression is not None,
            "evaluate.decide_by: value": self.evaluate.decide_by == "value",
            "alarms.stop_on: memorising": "memorising" in self.alarms.stop_on,
            "alarms.stop_on: entropy_collapse": "entropy_collapse" in self.alarms.stop_on,
        }
        if self.prompts.validate_ is None and any(needs.values()):
            what = ", ".join(name for name, needed in needs.items() if needed)
            raise ValueError(f"{what} needs prompts.validate: test prompts are only reported, they decide nothing")
        return self


def _values(schedule: Any) -> tuple[Any, ...]:
    return schedule if isinstance(schedule, tuple) else (schedule,)


def _merged(old: Any, new: Any) -> Any:
    """Tables are laid over each other, as layers of a recipe are; anything else replaces."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def config_of_arm(config: Config, arm: ArmConfig) -> Config:
    """Main's configuration with the arm's overrides. Raises ValueError naming the arm and the knob."""
    data = config.model_dump(mode="json", by_alias=True)
    data["arms"] = []
    for path, value in arm.overrides.items():
        if not any(path == one or path.startswith(f"{one}.") for one in ARM_SECTIONS):
            raise ValueError(
                f"arms.{arm.name}: {path} must be the same in all arms; set one of {', '.join(ARM_SECTIONS)}"
            )
        *sections, knob = path.split(".")
        place: Any = data
        for name in sections:
            place = place[name] if isinstance(place, Mapping) and name in place else None
        if not isinstance(place, dict):
            raise ValueError(f"arms.{arm.name}: there is no such key as {path}")
        place[knob] = _merged(place.get(knob), value)
    try:
        changed = Config.model_validate(data)
        if changed == config.model_copy(update={"arms": ()}):
            raise ValueError(f"arms.{arm.name} sets nothing otherwise than main; leave it out, or set another value")
        return changed
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = (
            "there is no such key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        )
        raise ValueError(f"arms.{arm.name}: {where}: {message}") from None
