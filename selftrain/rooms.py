"""The rooms of a run, opened when first needed: a finished run is replayed without loading a model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import sampling, scoring, training
from selftrain.arms import Arm
from selftrain.config import Config
from selftrain.records import Policy, digest

if TYPE_CHECKING:
    from selftrain.models import Bench
    from selftrain.scoring.combined import CombinedScorer


class Rooms:
    """Builds the sampler, scorer and trainer that the configuration names, each once per process.

    `of_arm` are the rooms of an arm with knobs of its own, which shares the loaded model.
    """

    def __init__(self, config: Config, folder: Path, main: Rooms | None = None) -> None:
        self._config = config
        self._folder = folder
        self._main = main
        self._of_arms: dict[str, Rooms] = {}

    def of_arm(self, arm: Arm) -> Rooms:
        """The rooms that work for the arm: these, unless it sets knobs of its own."""
        if arm.config == self._config:
            return self
        if arm.name not in self._of_arms:
            self._of_arms[arm.name] = Rooms(arm.config, self._folder, self)
        return self._of_arms[arm.name]

    @cached_property
    def bench(self) -> Bench:
        """The loaded base model, shared by the rooms that need one."""
        if self._main is not None:
            return self._main.bench
        from selftrain.models import Bench

        config = self._config.model
        beside = self._folder / config.path
        if beside.exists():  # like every path of a recipe, relative to its folder
            config = config.model_copy(update={"path": str(beside)})
        return Bench(config)

    def needs_model(self) -> bool:
        """Whether any room of this run loads a model at all."""
        return not (self._config.sample.engine == "scripted" and self._config.train.trainer == "scripted")

    @cached_property
    def model_digest(self) -> str:
        """Identity of the base model's content (weights, tokenizer, chat template)."""
        return self.bench.digest if self.needs_model() else digest(["scripted", self._config.model.path])

    @cached_property
    def model_inputs(self) -> dict[str, str]:
        """What of the model enters fingerprints: its content, and the kind of device and numbers it is run with."""
        on = f"{self.bench.device.type} {self.bench.dtype}" if self.needs_model() else "none"
        return {"model": self.model_digest, "runs_on": on}

    @cached_property
    def base_policy(self) -> Policy:
        """The policy of round 0: the base model without an adapter."""
        return Policy(model=self._config.model.path, adapter=None, round=0, digest=digest(["base", self.model_digest]))

    @cached_property
    def sampler(self) -> sampling.Sampler:
        """Draws candidates."""
        return sampling.build(self._config.sample, lambda: self.bench, self._folder)

    @cached_property
    def scorer(self) -> CombinedScorer:
        """Judges them."""
        return scoring.build(self._config.score, self._folder)

    @cached_property
    def retention_scorer(self) -> CombinedScorer:
        """Judges answers to retention prompts."""
        named = self._config.evaluate.retention_scorers
        if not named:
            return self.scorer
        return scoring.build(self._config.score.model_copy(update={"scorers": named}), self._folder)

    @cached_property
    def trainer(self) -> training.Trainer:
        """Fine-tunes on the survivors."""
        return training.build(self._config.train, lambda: self.bench)

    def close(self) -> None:
        """End worker processes."""
        for rooms in self._of_arms.values():
            rooms.close()
        for name in ("scorer", "retention_scorer"):
            if name in self.__dict__:
                self.__dict__[name].close()
