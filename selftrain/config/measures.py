"""Knobs of what is measured, and of what follows from it: evaluation, stop rules, alarms."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from selftrain.config.judging import ScorerConfig, as_scorer, require_weights
from selftrain.config.knobs import Section

RoundNames: TypeAlias = Literal["all", "none"] | tuple[Annotated[int, Field(ge=0)] | Literal["first", "last"], ...]


class EvaluateConfig(Section):
    """How the policy is measured, at round 0 and after every round."""

    sampled_rounds: RoundNames = ("first", "last")
    """Rounds with sampled pass@k beside greedy pass@1: all, none, or a list of numbers, `first` (0) and `last`."""
    num_samples: int = Field(default=8, ge=1)
    """Sampled answers per prompt in those rounds."""
    ks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8)
    """The k of pass@k; none above `num_samples`."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the sampled answers."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Null: as in `sample` in the first round."""
    block_size: int = Field(default=64, ge=1)
    """Prompts per block of evaluation."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples over prompts."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of every interval."""
    trained_prompts: int = Field(default=64, ge=0)
    """So many of the round's own prompts are asked greedily too, for the gap between trained and held out. 0: none."""
    drift_candidates: int = Field(default=256, ge=0)
    """So many sampled candidates of a round are read by the base model too, for the KL to it. 0: none."""
    scorers: tuple[Annotated[ScorerConfig, BeforeValidator(as_scorer)], ...] = ()
    """What judges held-out answers, and those to trained prompts; of all arms alike. Empty: `score.scorers`. A method
    that selects by what it cannot be measured by (a majority vote, a reward model that may be fooled) needs others
    here; one of weight 0 is only reported."""
    correct_at: float | None = None
    """A held-out answer is right when its value is at least this. Null: `score.correct_at` where `score.scorers` judge
    it, and 1 where it has scorers of its own (`scorers` here, or `retention_scorers`)."""
    decide_by: Literal["correct", "value"] = "correct"
    """What the best round, `stop.patience`, `stop.target` and `stop.max_regression` go by on validation, and the
    verdict speaks of first: the share of right greedy answers (pass@1), or their mean value, for scorers that grade."""
    retention_rounds: RoundNames = ("first", "last")
    """Rounds at which `prompts.retention` is measured."""
    retention_scorers: tuple[Annotated[ScorerConfig, BeforeValidator(as_scorer)], ...] = ()
    """What judges the answers to retention prompts; not used where retention is texts. Empty: what judges held-out
    answers."""

    @field_validator("scorers", "retention_scorers")
    @classmethod
    def _weights_make_a_mean(cls, value: tuple[ScorerConfig, ...]) -> tuple[ScorerConfig, ...]:
        return require_weights(value)

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        if self.sampled_rounds != "none" and max(self.ks, default=1) > self.num_samples:
            raise ValueError(f"ks asks for pass@{max(self.ks)} of num_samples {self.num_samples}; raise num_samples")
        return self


class StopConfig(Section):
    """When to end before `rounds` are done. But for `max_regression`, enters no fingerprint."""

    patience: int | None = Field(default=None, ge=1)
    """End after so many rounds in a row without a new best on validation."""
    min_gain: float = Field(default=0.0, ge=0)
    """What counts as a new best: at least so much above the old one."""
    target: float | None = Field(default=None, gt=0)
    """End when greedy pass@1 on validation reaches this (`evaluate.decide_by: value`: the mean value)."""
    max_hours: float | None = Field(default=None, gt=0)
    """Do not start another round once the run's phases took this long in all."""
    max_sampled_tokens: int | None = Field(default=None, ge=1)
    """Do not start another round once so many tokens were sampled for training."""
    max_regression: float | None = Field(default=None, ge=0)
    """A round whose pass@1 (or value, by `evaluate.decide_by`) on validation is more than this below the best so far is
    not built upon: the next round samples from the best policy, and starts from it where it would start from the
    previous one. Unlike the other stop rules it changes what later rounds do, so it enters their fingerprints."""


AlarmName: TypeAlias = Literal[
    "no_survivors",
    "truncation",
    "entropy_collapse",
    "diversity_falling",
    "memorising",
    "kept_precision",
    "coverage_stalled",
    "kl_jump",
    "labels_falling",
    "reward_hacking",
]
ALARM_NAMES: tuple[AlarmName, ...] = get_args(AlarmName)


class AlarmsConfig(Section):
    """What is watched in every round, and when it is worth a warning. Enters no fingerprint."""

    off: tuple[AlarmName, ...] = ()
    """Alarms that are not raised."""
    stop_on: tuple[AlarmName, ...] = ()
    """Alarms that end the run after the round, instead of only warning."""
    truncated_rate: float = Field(default=0.05, ge=0, le=1)
    """truncation: more than this share of the candidates hit `sample.max_new_tokens`."""
    entropy_share: float = Field(default=0.5, ge=0, le=1)
    """entropy_collapse: entropy below this share of the first round's, and pass@k for the largest k falling."""
    diversity_rounds: int = Field(default=2, ge=1)
    """diversity_falling: distinct right answers per solved prompt fell so many rounds in a row ..."""
    diversity_fall: float = Field(default=0.1, ge=0, le=1)
    """... by at least this share in all."""
    memorising_rise: float = Field(default=0.05, ge=0, le=1)
    """memorising: acceptance rose by at least this over a round ..."""
    memorising_flat: float = Field(default=0.01, ge=0, le=1)
    """... in which pass@1 on held-out prompts rose by less than this."""
    kept_precision: float = Field(default=0.95, ge=0, le=1)
    """kept_precision: a smaller share of the survivors is correct (rules other than `threshold` keep wrong ones)."""
    coverage_growth: float = Field(default=0.005, ge=0, le=1)
    """coverage_stalled: the share of prompts ever solved grew by less, in a round that asked no new prompts."""
    kl_ratio: float = Field(default=2.0, gt=1)
    """kl_jump: KL to the base model per token grew by this factor over a round ..."""
    kl_floor: float = Field(default=0.1, ge=0)
    """... and is above this, in nats."""
    label_fall: float = Field(default=0.05, ge=0, le=1)
    """labels_falling: of the labels that a vote gives, so much less are right than in the best round before."""
    truth_fall: float = Field(default=0.05, ge=0, le=1)
    """reward_hacking: of the candidates, so much less are right than in the best round before, and their values are no
    lower. Both are told by a scorer of weight 0 in `score.scorers`."""
