"""What of the configuration each phase depends on: the part that enters its fingerprint.

One home for three uses: the fingerprint itself, the check at start that no committed phase would come out differently,
and the choice of what a fork may keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain import generators, plugins
from selftrain.alterations import refusal
from selftrain.compose import differences
from selftrain.config import Config, ScoreConfig, ScorerConfig, SourceConfig, at_round, config_of_arm, fingerprinted
from selftrain.contents import model_content
from selftrain.intact import require_intact
from selftrain.records import Receipt, digest
from selftrain.store import RunDirectory, publish_bytes

GREEDY_KNOBS = ("block_size", "max_new_tokens", "resamples", "confidence")
SAMPLED_KNOBS = (*GREEDY_KNOBS, "num_samples", "ks", "temperature", "top_p", "drift_candidates")
OF_VERIFIER = ("verifier", "evaluate-verifier")
OF_MODEL = ("model", "runs_on", "adapter")
# The arms that train on demonstrations, and the digest that stands for those.
DEMONSTRATED = {"seed_only": "seed_data", "gold": "completions"}


# What stands for the texts of the run's own held-out prompts, among the digests of sets.
HELD_OUT = "evaluation_texts"


def against(source: SourceConfig) -> str:
    """What stands there for those of another evaluation set."""
    return f"evaluation_texts/{digest(source.model_dump(mode='json'))}"


class Fingerprints:
    """The parts of a run's configuration by arm and phase. `prompts` maps each set's name to its content's digest.

    Every arm is measured as main is, so evaluation has main's part in all of them. `model_inputs` says what of the
    model enters the inputs of phases, by the names in `OF_MODEL`. `recipe` is its file, which refusals name.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        prompts: dict[str, str],
        model_inputs: Callable[[], Mapping[str, str]],
        recipe: Path | None = None,
    ) -> None:
        self._recipe = recipe
        self._model_inputs = model_inputs
        self._main = Parts(config, folder, prompts)
        self._own = {
            arm.name: Parts(config_of_arm(config, arm), folder, prompts) for arm in config.arms if arm.overrides
        }
        self._has_verifier = config.verifier is not None
        self._arms = {"main", *(arm.name for arm in config.arms)}

    def part(self, phase: str, round_number: int, arm: str = "main") -> dict[str, Any]:
        """The configuration that can change the output of that phase of that arm in that round."""
        parts = self._main if phase.startswith("evaluate") else self._own.get(arm, self._main)
        part = parts.part(phase, round_number)
        if phase == "evaluate" and arm == "main" and round_number:
            part["trained"] = parts.trained(round_number)
        if phase == "select" and arm in DEMONSTRATED:
            part["demonstrations"] = parts.demonstrations(DEMONSTRATED[arm])
        return part

    def drawing(self, phase: str, round_number: int) -> dict[str, Any]:
        """The part that an evaluation's answers depend on, without what they are scored by."""
        part = self.part(phase, round_number)
        del part["scoring"]
        return part

    def changes(self, receipt: Receipt) -> list[str]:
        """One line per knob that differs from what the committed phase was made with."""
        if receipt.arm not in self._arms or (receipt.phase in OF_VERIFIER and not self._has_verifier):
            return []  # what was taken out of the recipe is not gone on with, so nothing of it can be altered
        found = differences(receipt.ingredients["config"], self.part(receipt.phase, receipt.round, receipt.arm))
        before = {name: value for name, value in receipt.ingredients["inputs"].items() if name in OF_MODEL}
        if before and not found:  # looked at last: the model must be found, and its files hashed
            found = differences(before, self._model_inputs())
        return found

    def require_unchanged(self, receipts: Sequence[Receipt], *, where: Path) -> None:
        """Raise ConfigError, with the differences and the ways on, if a committed phase would come out differently;
        DataError if a file of one is missing or cut short (`intact`)."""
        for receipt in receipts:
            if changed := self.changes(receipt):
                raise refusal(receipt.key, changed, where, self._recipe)
        require_intact(receipts, where)

    def keepable(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """The receipts, in order, whose configuration is the same and whose inputs are kept too."""
        # A skipped training hands on the policy it was given, which it did not make.
        made_here = {receipt.output for receipt in receipts if receipt.files}
        known = {receipt.key for receipt in receipts}
        products, kept = set[str](), list[Receipt]()
        decisions_stand = True
        for receipt in receipts:
            inputs = set(receipt.ingredients["inputs"].values()) & made_here
            part = receipt.ingredients["config"]
            rests_on_decisions = receipt.phase == "train" and part["train"]["init_from"] == "best"
            rests_on_decisions |= receipt.phase == "sample" and "max_regression" in part
            stays = receipt.arm in self._arms and not self.changes(receipt)
            stays &= inputs <= products and (decisions_stand or not rests_on_decisions)
            stays &= _policy_is_kept(receipt, known, {one.key for one in kept})
            decisions_stand &= stays or receipt.phase != "evaluate"
            if stays:
                products.add(receipt.output)
                kept.append(receipt)
        return kept


class Parts:
    """The parts of one configuration by phase."""

    def __init__(self, config: Config, folder: Path, prompts: dict[str, str]) -> None:
        self._config = config
        self._folder = folder
        self._prompts = prompts
        self._plugins = _sources(config.score.scorers, folder)
        self._held_out_plugins = _sources(config.judging_held_out.scorers, folder)
        self._retention_plugins = _sources(config.evaluate.retention_scorers, folder)
        self._filters = {name: plugins.source_digest(name, folder) for name in config.select.filters}
        function = config.sample.params.get("function")
        self._engine_source = plugins.source_digest(function, folder) if isinstance(function, str) else None

    def part(self, phase: str, round_number: int) -> dict[str, Any]:
        """The configuration that can change the output of that phase in that round."""
        parts: dict[str, Callable[[int], dict[str, Any]]] = {
            "sample": self._sample,
            "score": self._score,
            "select": self._select,
            "train": self._train,
            "evaluate": self._evaluate,
            "evaluate-sampled": self._evaluate_sampled,
            "evaluate-retention": self._retention,
            "verifier": self._verifier,
            "evaluate-verifier": self._evaluate_verifier,
            "round": self._nothing,
        }
        return parts[phase](max(round_number, 1))

    def _nothing(self, round_number: int) -> dict[str, Any]:
        return {}

    def _model(self) -> dict[str, Any]:
        model = self._config.model.model_dump(mode="json")
        # Not the paths: the content's digests are inputs of their own, so a moved folder changes nothing.
        names = ("dtype", "quantization", "attn_implementation", "device", "trust_remote_code")
        return {**{name: model[name] for name in names}, **self._speaking()}

    def _speaking(self) -> dict[str, Any]:
        """How messages become prompts, and where answers begin."""
        model = self._config.model.model_dump(mode="json")
        return {name: model[name] for name in ("chat_template_kwargs", "thinking")}

    def _engine(self) -> dict[str, Any]:
        sample = self._config.sample.model_dump(mode="json")
        names = ("engine", "params", "stop_strings", "stop_token_ids")
        return {"model": self._model(), "source": self._engine_source, **{name: sample[name] for name in names}}

    def _sample(self, round_number: int) -> dict[str, Any]:
        # Fresh prompts start where the earlier rounds ended, so the whole schedule up to here counts.
        per_round = [at_round(self._config.prompts, one)["per_round"] for one in range(1, round_number + 1)]
        guard = self._config.stop.max_regression
        return {
            **({"max_regression": guard, **self._deciding()} if guard is not None and round_number > 1 else {}),
            "seed": self._config.seed,
            "drift_candidates": self._config.evaluate.drift_candidates,
            "model": self._model(),
            "engine_source": self._engine_source,
            "sample": self._drawn(round_number),
            **({"base_logprob": True} if at_round(self._config.select, round_number)["kl_beta"] > 0 else {}),
            "prompts": {
                "train": self._prompts["train"],
                "format": self._config.prompts.format,
                "per_round": per_round,
                **self._mix(per_round),
            },
        }

    def _drawn(self, round_number: int) -> dict[str, Any]:
        knobs = fingerprinted(self._config.sample, round_number)
        del knobs["policy"]
        return knobs if self._generator is None else {**knobs, "policy": self._generator}

    @cached_property
    def _generator(self) -> dict[str, Any] | None:
        return generators.part(self._config, self._folder)

    def _mix(self, per_round: Sequence[Any]) -> dict[str, Any]:
        """What shares a round's prompts out among tasks: their weights, as pairs, for ties go by their order."""
        mix = self._config.prompts.train.mix
        if mix is None or all(one == "all" for one in per_round):
            return {}
        return {"weights": [[task, source.weight] for task, source in mix.items()]}

    def _score(self, round_number: int) -> dict[str, Any]:
        return {**_scoring(self._config.score, self._plugins), "prompts": {"train": self._prompts["train"]}}

    def _scoring_held_out(self, also: Iterable[ScorerConfig] = ()) -> dict[str, Any]:
        """As if these were the recipe's scorers: what judges alike has one fingerprint."""
        return _scoring(self._config.judging_held_out, self._held_out_plugins, also)

    def _select(self, round_number: int) -> dict[str, Any]:
        select = fingerprinted(self._config.select, round_number)
        part = {"seed": self._config.seed, "select": select}
        part |= {"filters": self._filters} if self._filters else {}
        part |= self._compared_with()
        # What an arm without knobs of its own demonstrates takes the place of this.
        return part | ({"demonstrations": self.demonstrations("seed_data")} if select["mix_seed_data"] else {})

    def _compared_with(self) -> dict[str, Any]:
        """The content of what texts are compared with, and by."""
        part: dict[str, Any] = {}
        if (knobs := self._config.select.decontaminate) is not None:
            part["evaluation_texts"] = {
                "held_out": self._prompts[HELD_OUT],
                **{f"against.{number}": self._prompts[against(one)] for number, one in enumerate(knobs.against)},
            }
        near = self._config.select.near_duplicates
        if near is not None and near.model is not None:
            part["embedding_model"] = model_content(near.model, self._folder, what="select.near_duplicates.model")
        return part

    def _train(self, round_number: int) -> dict[str, Any]:
        train = fingerprinted(self._config.train, round_number)
        part = {"seed": self._config.seed, "model": self._model(), "train": train}
        return part | (self._deciding() if train["init_from"] == "best" and round_number > 1 else {})

    def _deciding(self) -> dict[str, Any]:
        """What validation decides by, where that is not pass@1."""
        by = self._config.evaluate.decide_by
        return {} if by == "correct" else {"decide_by": by}

    def _evaluate(self, round_number: int) -> dict[str, Any]:
        evaluate = self._config.evaluate.model_dump(mode="json")
        return {
            "seed": self._config.seed,
            "engine": self._engine(),
            "format": self._config.prompts.format,
            "evaluate": {name: evaluate[name] for name in GREEDY_KNOBS},
            "max_new_tokens": self._config.evaluate.max_new_tokens
            or at_round(self._config.sample, 1)["max_new_tokens"],
            "prompts": {name: self._prompts[name] for name in ("validate", "test") if name in self._prompts},
            "scoring": self._scoring_held_out(),
        }

    def trained(self, round_number: int) -> dict[str, Any]:
        """What of the round's own prompts is asked once they were trained on."""
        of_round = self._sample(round_number)["prompts"]
        return {"prompts": of_round, "trained_prompts": self._config.evaluate.trained_prompts}

    def demonstrations(self, name: str) -> dict[str, Any]:
        """What an arm trains on that does not sample, and what ends an answer."""
        sample = self._config.sample
        ends = {"stop_strings": list(sample.stop_strings), "stop_token_ids": list(sample.stop_token_ids)}
        return {**ends, **self._speaking(), "format": self._config.prompts.format, name: self._prompts.get(name)}

    def _evaluate_sampled(self, round_number: int) -> dict[str, Any]:
        evaluate = self._config.evaluate.model_dump(mode="json")
        return {**self._evaluate(round_number), "evaluate": {name: evaluate[name] for name in SAMPLED_KNOBS}}

    def _verifier(self, round_number: int) -> dict[str, Any]:
        knobs = self._config.verifier
        return {"seed": self._config.seed, "model": self._model(), "verifier": knobs and knobs.of_training()}

    def _evaluate_verifier(self, round_number: int) -> dict[str, Any]:
        knobs, evaluate = self._config.verifier, self._config.evaluate.model_dump(mode="json")
        asked = {name: evaluate[name] for name in ("ks", "resamples", "confidence")}
        return {"seed": self._config.seed, "model": self._model(), "verifier": knobs and knobs.of_score(), **asked}

    def _retention(self, round_number: int) -> dict[str, Any]:
        scoring = self._scoring_held_out(self._config.evaluate.retention_scorers)
        scoring["score"]["correct_at"] = self._config.judging_retention.correct_at
        return {
            **self._evaluate(round_number),
            "scoring": scoring,
            "scorers": fingerprinted(self._config.evaluate)["retention_scorers"],
            "scorer_sources": self._retention_plugins,
            "prompts": {"retention": self._prompts.get("retention")},
        }


def _scoring(score: ScoreConfig, sources: Mapping[str, str], also: Iterable[ScorerConfig] = ()) -> dict[str, Any]:
    part = fingerprinted(score)
    if all(one.name != "code" for one in (*score.scorers, *also)):
        del part["sandbox"]
    return {"score": part, "sources": sources}


def _sources(scorers: Iterable[ScorerConfig], folder: Path) -> dict[str, str]:
    """What the scorers read beside their params: the source of functions, and the content of schemas in files and of
    models."""
    scorers = tuple(scorers)
    names = [one.name for one in scorers if plugins.is_reference(one.name)]
    of_json = [one for one in scorers if one.name == "json_schema"]
    schemas = [one.params["schema"] for one in of_json if isinstance(one.params.get("schema"), str)]
    files = {name: folder / name for name in schemas if (folder / name).is_file()}
    return {
        **{name: plugins.source_digest(name, folder) for name in names},
        **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        **{
            f"model {name}": model_content(name, folder, revision=revision)
            for one in scorers
            if not plugins.is_reference(one.name)
            for name, revision in models_of(one.params)
        },
    }


def models_of(params: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The models that a built-in scorer's params name, with their revisions."""
    for one in (params, *(params.get("models") or ())):
        named = {"model": one} if isinstance(one, str) else one
        for name in ("model", "adapter"):
            if isinstance(named.get(name), str):
                yield named[name], named.get("revision") if name == "model" else None


def _policy_is_kept(receipt: Receipt, known: Collection[str], kept: Collection[str]) -> bool:
    """Whether the training that gave this phase its policy is kept. Digests do not tell where it was skipped."""
    is_after_training = receipt.phase.startswith("evaluate") or receipt.phase == "round"
    number = receipt.round if is_after_training else receipt.round - 1
    keys = [f"arms/{arm}/rounds/{number:03d}/train-improve-00" for arm in (receipt.arm, "main")]
    return number < 1 or (keys[0] if keys[0] in known else keys[1]) in kept  # an arm may share main's training


def fork(source: RunDirectory, target: RunDirectory, receipts: Sequence[Receipt]) -> None:
    """Copy committed phases to another run directory, whose lock is held; those that are there already stay.

    An adapter that was removed on purpose is not there either, and is trained again where the fork needs it.
    """
    for receipt in receipts:
        if target.receipt(receipt.key) is None:
            for path in source.present(receipt):
                publish_bytes(target.path / path.relative_to(source.path), path.read_bytes())
            target.commit(receipt)
