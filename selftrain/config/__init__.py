"""The schema of a run: every knob, its default, and what it means. Ground floor: stdlib and pydantic only.

    knobs     what a section is; schedules (`PerRound`) and guards
    data      model, prompts
    judging   score, select
    filtering what select asks of the texts of a whole round
    method    sample, train
    generator who samples, where it is not the policy; endpoints
    measures  evaluate, stop, alarms
    verifier  the trained verifier
    curation  the data set that a single round leaves
    running   arms, track, ranks
    run       the whole

Groups are orthogonal: what data is trained on (`select.buffer`), what weights training starts from (`train.init_from`)
and who samples are independent choices. A knob typed `PerRound[...]` takes one value or a list, one value per round,
of which the last repeats. A knob changes the fingerprint of the phases its group feeds unless it is marked `GUARD`:
it decides whether a phase goes on, or how fast, never what it publishes. `rounds`, `stop` (but for
`max_regression`), `alarms`, `track`, `ranks` and `name` enter none.
"""

from __future__ import annotations

from selftrain.config.curation import CurateConfig
from selftrain.config.data import Columns, FewShot, ModelConfig, PromptsConfig, SourceConfig, ThinkingConfig
from selftrain.config.filtering import DecontaminateConfig, NearDuplicatesConfig, QualityConfig
from selftrain.config.generator import EndpointConfig, GeneratorConfig
from selftrain.config.judging import ExtractConfig, SandboxConfig, ScoreConfig, ScorerConfig, SelectConfig
from selftrain.config.knobs import GUARD, PerRound, Section, at_round, fingerprinted, is_schedule, one, resolved
from selftrain.config.measures import ALARM_NAMES, AlarmName, AlarmsConfig, EvaluateConfig, RoundNames, StopConfig
from selftrain.config.method import SampleConfig, TrainConfig
from selftrain.config.run import RUN_NAME, Config, config_of_arm
from selftrain.config.running import ARMS, ArmConfig, RanksConfig, TrackConfig, WandbConfig
from selftrain.config.verifier import VerifierConfig

__all__ = [
    "ALARM_NAMES",
    "ARMS",
    "GUARD",
    "RUN_NAME",
    "AlarmName",
    "AlarmsConfig",
    "ArmConfig",
    "Columns",
    "Config",
    "CurateConfig",
    "DecontaminateConfig",
    "EndpointConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FewShot",
    "GeneratorConfig",
    "ModelConfig",
    "NearDuplicatesConfig",
    "PerRound",
    "PromptsConfig",
    "QualityConfig",
    "RanksConfig",
    "RoundNames",
    "SampleConfig",
    "SandboxConfig",
    "ScoreConfig",
    "ScorerConfig",
    "Section",
    "SelectConfig",
    "SourceConfig",
    "StopConfig",
    "ThinkingConfig",
    "TrackConfig",
    "TrainConfig",
    "VerifierConfig",
    "WandbConfig",
    "at_round",
    "config_of_arm",
    "fingerprinted",
    "is_schedule",
    "one",
    "resolved",
]
