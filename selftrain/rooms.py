"""The rooms of a run, opened when first needed: a finished run is replayed without loading a model."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import generating, generators, sampling, scoring, training
from selftrain.adapters import adapter_digest, check_lora
from selftrain.arms import Arm
from selftrain.config import Config, ScoreConfig
from selftrain.contents import require_generator
from selftrain.errors import ConfigError
from selftrain.lending import Lender, means_of
from selftrain.prompts.rows import names_of
from selftrain.records import Digest, Policy, digest
from selftrain.screening import Screening
from selftrain.selection import filters
from selftrain.training.fields import check_shape
from selftrain.whereabouts import NO_MODEL, beside, is_nowhere

if TYPE_CHECKING:
    from selftrain.models import Bench
    from selftrain.prompts import PromptSet
    from selftrain.scoring.combined import CombinedScorer
    from selftrain.scoring.sandbox import Chosen
    from selftrain.selection.filters import Filter
    from selftrain.training.dpo import VerifierTrainer


def adapter_folder(name: str, folder: Path) -> Path:
    """Where `model.adapter` is: relative to the recipe's folder, or else to where the command runs. ConfigError: there
    is no such folder."""
    for place in (folder / name, Path(name).expanduser()):
        if place.is_dir():
            return place.resolve()
    raise ConfigError(f"model.adapter: {name!r} is no folder (looked in {folder.resolve()} and here); correct the path")


def check_model(config: Config, folder: Path) -> None:
    """ConfigError for a model that is not there and cannot be on the hub, for a `model.adapter` that is no LoRA or that
    `train.lora` contradicts. Imports nothing heavy."""
    path = config.model.path
    is_scripted = config.sample.engine == "scripted" and config.train.trainer == "scripted"
    if path == NO_MODEL and not is_scripted:
        if config.sample.policy is None or config.sample.policy.kind not in ("file", "endpoint"):
            raise ConfigError(
                "model.path is none, and candidates need a model: name one, or, for `selftrain curate`, give "
                "sample.policy a file or an endpoint"
            )
        return
    if not is_scripted and is_nowhere(path, folder):
        places = dict.fromkeys(str(one.absolute()) for one in (folder / path, Path(path).expanduser()))
        looked = " and ".join(places)
        raise ConfigError(f"model.path: there is no {path!r} (looked for {looked}), and it is no hub id; correct it")
    if not is_scripted and (beside(path, folder) / "config.json").is_file():
        require_generator(path, folder, what="model.path")
    if config.model.adapter is not None:
        check_shape(config.train.lora, check_lora(adapter_folder(config.model.adapter, folder)))


def require_model(config: Config) -> None:
    """ConfigError where there is nothing to train."""
    if config.model.path == NO_MODEL and not (config.sample.engine == config.train.trainer == "scripted"):
        raise ConfigError(
            "model.path is none: there is no model to train; `selftrain curate` makes a data set of the candidates, "
            "and a run needs a model: set model.path"
        )


def notes_on_model(config: Config, folder: Path, *, trains: bool = True) -> Iterator[str]:
    """What to know about the model before a run is started, one line each; unless it `trains`, it needs none. Imports
    nothing heavy."""
    try:
        if trains:
            require_model(config)
    except ConfigError as error:
        yield str(error)
    if config.model.adapter is not None:
        base = check_lora(adapter_folder(config.model.adapter, folder)).get("base_model_name_or_path")
        if base and Path(base).name != Path(config.model.path).name:
            yield f"model.adapter was trained on {base}, and model.path is {config.model.path}"
    if config.model.quantization is not None and not _has_gpu_driver():
        yield (
            f"model.quantization {config.model.quantization} needs a GPU, and this machine has none: a run would not "
            "start here"
        )


def _has_gpu_driver() -> bool:
    for library in ("libcuda.so.1", "libamdhip64.so"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


class Rooms:
    """Builds the sampler, scorer and trainer that the configuration names, each once per process.

    `sandbox` is the run's, for scorers that run code that a model wrote; without it they choose one themselves.
    `asked` are the training prompts, for a generator that has to know them.
    `of_arm` are the rooms of an arm with knobs of its own, which shares the loaded model.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        main: Rooms | None = None,
        *,
        sandbox: Chosen | None = None,
        asked: PromptSet | None = None,
    ) -> None:
        self._config = config
        self._sandbox = sandbox
        self._folder = folder
        self._main = main
        self._asked = asked
        self._of_arms: dict[str, Rooms] = {}

    def of_arm(self, arm: Arm) -> Rooms:
        """The rooms that work for the arm: these, unless it sets knobs of its own."""
        if arm.config == self._config:
            return self
        if arm.name not in self._of_arms:
            self._of_arms[arm.name] = Rooms(arm.config, self._folder, self, sandbox=self._sandbox, asked=self._asked)
        return self._of_arms[arm.name]

    @cached_property
    def bench(self) -> Bench:
        """The loaded base model, shared by the rooms that need one."""
        if self._main is not None:
            return self._main.bench
        from selftrain.models import Bench

        config, adapter = self._config.model, self._adapter
        if (path := beside(config.path, self._folder)).exists():
            config = config.model_copy(update={"path": str(path)})
        return Bench(config.model_copy(update={"adapter": None if adapter is None else str(adapter)}))

    @cached_property
    def _adapter(self) -> Path | None:
        """The folder of `model.adapter`. A link is followed once: `runs/NAME/best` may point elsewhere tomorrow."""
        if self._main is not None:
            return self._main._adapter
        name = self._config.model.adapter
        return None if name is None else adapter_folder(name, self._folder)

    @property
    def tier(self) -> str | None:
        """The tier of the run's sandbox; None without one."""
        return None if self._sandbox is None else self._sandbox.tier

    @property
    def judged_on(self) -> str | None:
        """What scores depend on beside the configuration: the sandbox's tier, and the kind of device that models of
        scorers are on. None where there is neither."""
        judged = (self._config.score, self._config.judging_held_out)
        if not any({"model", "models"} & one.params.keys() for config in judged for one in config.scorers):
            return self.tier
        from selftrain.models.devices import device_of

        return f"{self.tier or 'no sandbox'}, {device_of(self._config.model.device).type}"

    def needs_model(self) -> bool:
        """Whether any room of this run loads the policy's model at all."""
        is_scripted = self._config.sample.engine == "scripted" and self._config.train.trainer == "scripted"
        return not (is_scripted or self._config.model.path == NO_MODEL)

    def has_policy(self) -> bool:
        """Whether there is a policy at all, in whose tokens texts can be written; else they stay texts."""
        return self._config.model.path != NO_MODEL or self._config.sample.engine == "scripted"

    @cached_property
    def model_digest(self) -> str:
        """Identity of the base model's content (weights, tokenizer, chat template)."""
        return self.bench.digest if self.needs_model() else digest(["scripted", self._config.model.path])

    @cached_property
    def model_inputs(self) -> dict[str, str]:
        """What of the model enters fingerprints: its content, and the kind of device and numbers it is run with."""
        on = f"{self.bench.device.type} {self.bench.dtype}" if self.needs_model() else "none"
        found: dict[str, str] = {"model": self.model_digest, "runs_on": on}
        return found if self._adapter is None else {**found, "adapter": adapter_digest(self._adapter)}

    @cached_property
    def base_policy(self) -> Policy:
        """The policy of round 0: the base model, with `model.adapter` on it if there is one."""
        path, adapter = self._config.model.path, self._adapter
        if adapter is None:
            return Policy(model=path, adapter=None, round=0, digest=digest(["base", self.model_digest]))
        return Policy(model=path, adapter=str(adapter), round=0, digest=adapter_digest(adapter))

    @cached_property
    def sampler(self) -> sampling.Sampler:
        """Draws candidates."""
        return sampling.build(self._config.sample, lambda: self.bench, self._folder, self._config.model.thinking)

    @property
    def generator_digest(self) -> Digest:
        """Of what `sample.policy` names, as it is at this moment."""
        return generators.generator_digest(self._config, self._folder)

    @cached_property
    def generator(self) -> sampling.Generator:
        """Draws candidates to train on: the sampler, unless `sample.policy` names another."""
        sample = self._config.sample
        if sample.policy is None:
            return self.sampler
        if self._main is not None and self._main._config.sample == sample:
            return self._main.generator
        assert self._asked is not None, "who generates has to know the prompts"
        policy = self.sampler if self.has_policy() else None
        return generating.build(generating.Given(self._config, self._folder, policy, lambda: self.bench, self._asked))

    @cached_property
    def scorer(self) -> CombinedScorer:
        """Judges them."""
        return self._built(self._config.score)

    def _built(self, judging: ScoreConfig) -> CombinedScorer:
        means = replace(self.means, one_at_a_time=judging.one_model_at_a_time)
        return scoring.build(judging, self._folder, names_of(self._config.prompts), self._sandbox, means)

    @cached_property
    def means(self) -> scoring.Means:
        """What learned scorers are lent: a model that one of them names is loaded once for all."""
        return means_of(self._config.model, Lender(self._config.model)) if self._main is None else self._main.means

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """The functions of `select.filters`, loaded."""
        return filters.load(self._config.select, self._folder)

    @cached_property
    def screening(self) -> Screening:
        """What selection asks of texts."""
        return Screening(self._config, self._folder)

    @cached_property
    def evaluation_scorer(self) -> CombinedScorer:
        """Judges answers to held-out prompts, and to trained ones once they were trained on."""
        held_out = self._config.judging_held_out
        return self.scorer if held_out is self._config.score else self._built(held_out)

    @cached_property
    def retention_scorer(self) -> CombinedScorer:
        """Judges answers to retention prompts."""
        if not self._config.evaluate.retention_scorers:
            return self.evaluation_scorer
        return self._built(self._config.judging_retention)

    @cached_property
    def trainer(self) -> training.Trainer:
        """Fine-tunes on the survivors."""
        return training.build(self._config.train, lambda: self.bench)

    @cached_property
    def verifier_trainer(self) -> VerifierTrainer:
        """Trains the verifier on pairs."""
        from selftrain.training.dpo import VerifierTrainer

        return VerifierTrainer(lambda: self.bench)

    @contextmanager
    def taking_turns(self, scorer: CombinedScorer) -> Iterator[None]:
        """Within, the policy's weights are out of the accelerator's memory (on a CPU: dropped), and afterwards those of
        the scorer's models; each is loaded again when it is needed next."""
        self.release_policy()
        yield  # what is raised there ends the run, and who judges still is not waited for
        scorer.release()
        if isinstance(self.means.generate, Lender):
            self.means.generate.release()

    def release_policy(self) -> None:
        """Let go of the policy's weights, and of what samplers keep of them."""
        if self._main is not None:
            self._main.release_policy()
            return
        for rooms in (self, *self._of_arms.values()):
            for name in ("sampler", "generator"):
                if isinstance(held := rooms.__dict__.get(name), scoring.HoldsModel):
                    held.release()
        if "bench" in self.__dict__:
            self.bench.release()

    def close(self) -> None:
        """End worker processes."""
        for rooms in self._of_arms.values():
            rooms.close()
        if self._config.sample.policy is not None and "generator" in self.__dict__:
            generating.close(self.generator)
        for name in ("scorer", "evaluation_scorer", "retention_scorer"):
            if name in self.__dict__:
                self.__dict__[name].close()
