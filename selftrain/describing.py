"""What the card of a curated data set says: from the configuration and the receipts, without secrets and paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from selftrain.compose import Composed, recipes
from selftrain.config import Config, at_round
from selftrain.exporting.card import Facts
from selftrain.exporting.data_set import Counted
from selftrain.prompts import PromptSets
from selftrain.records import Candidate, Receipt
from selftrain.reporting.plan import scalar
from selftrain.secrecy import HIDDEN, SECRET, without_secrets
from selftrain.summaries import funnel_steps

ROUND = 1
# Knobs of one rule each: they say nothing where another rule is used.
OF_RULE = {"threshold": "threshold", "top_k": "top_k", "top_fraction": "top_fraction", "count": "random"}
# Knobs of `select` that say what a round trains on, or that say nothing of which candidates are kept.
NOT_SELECTION = ("buffer", "window", "per_prompt", "min_survivors", "mix_seed_data")
SAMPLING = (
    "engine",
    "num_candidates",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_new_tokens",
    "stop_strings",
    "stop_token_ids",
)
PAIRS = {
    "best_worst": "each prompt's best survivor with its worst scored candidate",
    "correct_incorrect": "survivors that are right with candidates of the same prompt that are wrong",
}


def command_words(composed: Composed, layers: Sequence[str], overrides: Sequence[str]) -> str:
    """The command as another person could type it: no secrets, no paths of this machine."""
    path = composed.recipe
    name = path.parent.name if path.name == "recipe.yaml" or path in recipes().values() else path.name
    words = ["selftrain", "curate", name]
    words += [word for layer in layers for word in ("--with", str(without_secrets(layer)))]
    for one in overrides:
        key, _, value = one.partition("=")
        words.append(f"{key}={HIDDEN if SECRET.search(key) else _value(value)}")
    return " ".join(f'"{word}"' if any(one in " \"'\\$`{}[]()|&;<>*?" for one in word) else word for word in words)


def _value(text: str) -> str:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = text
    return scalar(without_secrets(data)) if isinstance(data, dict | list) else str(without_secrets(text))


def facts(
    config: Config,
    command: str,
    receipts: Sequence[Receipt],
    prompts: PromptSets,
    asked: int,
    caveats: Sequence[str],
    counted: Counted,
) -> Facts:
    """Everything that the card says beside its rows. `receipts`: of the sample, the score and the select phase."""
    sampled, _, selected = receipts
    curate = config.curate
    words = without_secrets(curate.model_dump(include={"title", "license_notes", "tags"}))
    counts = {"prompts asked": asked, "prompts with an example": counted.answered}
    counts |= {"prompts without any": asked - counted.answered, "examples": counted.examples}
    if curate.pairs != "none":
        counts["preference pairs"] = counted.pairs
    return Facts(
        title=words["title"] or config.name,
        command=command,
        prompts=_prompts(config, prompts, asked),
        generator=_generator(config, sampled),
        scorers=[_said(one.model_dump(mode="json", exclude_defaults=True)) for one in config.score.scorers],
        selection=_selection(config),
        funnel=[(name, int(left)) for name, left in funnel_steps(selected.metrics).items()],
        counts=counts,
        versions=selected.versions,
        pairs=_pairs(config),
        license=curate.license,
        license_notes=words["license_notes"],
        language=curate.language,
        tags=words["tags"],
        caveats=caveats,
        notes=tuple(_notes(config)),
    )


def generator_of(config: Config) -> Callable[[Candidate], str | None]:
    """Who wrote a candidate, in a word."""
    policy = config.sample.policy
    if policy is None and config.sample.engine == "scripted":
        function = _name(str(config.sample.params.get("function")))
        return lambda candidate: function
    if policy is None or policy.model is not None:
        name = _name(config.model.path if policy is None else str(policy.model))
        if policy is None and config.model.adapter is not None:
            name = f"{name} + {_name(config.model.adapter)}"
        return lambda candidate: name
    if policy.endpoint is not None:
        served = _name(policy.endpoint.model)
        return lambda candidate: served
    if policy.checkpoints:
        names = [_name(one) for one in policy.checkpoints]
        return lambda candidate: names[candidate.index % len(names)]
    return _brought


def _brought(candidate: Candidate) -> str | None:
    """What the file of brought candidates says in a column for that, if it has one."""
    found = next((candidate.metadata.get(one) for one in ("generator", "model") if candidate.metadata.get(one)), None)
    return None if found is None else str(without_secrets(str(found)))


def _name(path: str) -> str:
    return str(without_secrets(path))


def _prompts(config: Config, prompts: PromptSets, asked: int) -> dict[str, Any]:
    sources = {
        str(task or "train"): _said(one.model_dump(mode="json", exclude_defaults=True))
        for task, one in config.prompts.train.sources.items()
    }
    for one in sources.values():
        if isinstance(one.get("exclude"), list):
            one["exclude"] = f"{len(one['exclude'])} prompts"
    knobs = config.prompts.model_dump(mode="json", include={"format", "system", "template", "few_shot"})
    found = {
        "sources": sources,
        **{name: value for name, value in knobs.items() if value},
        "prompts": len(prompts.train.prompts),
        "asked": asked,
        "duplicates": prompts.train.num_duplicates,
        "dropped_for_overlap": prompts.train.num_overlapping,
        "excluded": prompts.train.num_excluded,
    }
    return {name: value for name, value in found.items() if value != 0}


def _generator(config: Config, sampled: Receipt) -> dict[str, Any]:
    """Who wrote the candidates, with which parameters, and the digests that the phase's inputs had."""
    knobs = at_round(config.sample, ROUND)
    if config.sample.policy is None:
        wanted = {"path", "revision", "adapter", "quantization", "dtype", "chat_template_kwargs", "thinking"}
        who = config.model.model_dump(mode="json", exclude_defaults=True, include=wanted)
    else:
        who = config.sample.policy.model_dump(mode="json", exclude_defaults=True)
    named = [name for name in SAMPLING if not (name == "engine" and config.sample.policy is not None)]
    sampling = {
        name: knobs[name] for name in named if knobs.get(name) not in (None, [], 0, 0.0) or name == "temperature"
    }
    if config.sample.policy is not None and config.sample.policy.file is not None:
        sampling = {}  # how they were sampled is known where they come from
    inputs = {name: value for name, value in sampled.ingredients["inputs"].items() if isinstance(value, str)}
    found = {"generator": _said(who), "sampling": _said(sampling), "seed": config.seed, "inputs": inputs}
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _selection(config: Config) -> dict[str, Any]:
    knobs = at_round(config.select, ROUND)
    rule = knobs["rule"]
    left_out = {name for name, of in OF_RULE.items() if of != rule} | set(NOT_SELECTION)
    if knobs.get("mix_seed_data"):
        left_out.discard("mix_seed_data")
    shown = {name: value for name, value in knobs.items() if name not in left_out}
    return _said({name: value for name, value in shown.items() if value not in (None, [], "none", 0, 0.0)})


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without secrets; of what is null or empty nothing is said."""
    found: dict[str, Any] = without_secrets(data)
    return {name: value for name, value in found.items() if value is not None and value not in ({}, [])}


def _pairs(config: Config) -> str | None:
    if config.curate.pairs == "none":
        return None
    limit = config.curate.pairs_per_prompt
    many = "one pair" if limit == 1 else f"at most {limit} pairs"
    return (
        f"Preference pairs (`{config.curate.pairs}`): {PAIRS[config.curate.pairs]}, {many} per prompt. Rejected "
        "answers were scored and finished; equal values and equal texts make no pair."
        + (" Those that share words with an evaluation set are left out." if config.select.decontaminate else "")
    )


def _notes(config: Config) -> list[str]:
    notes = []
    if config.prompts.few_shot:
        notes.append(f"Prompts begin with {len(config.prompts.few_shot)} worked examples, as the model was asked.")
    if config.model.thinking is not None and config.select.train_on == "completion":
        notes.append("Completions begin with the reasoning, between the model's own tags.")
    if config.prompts.format == "text":
        notes.append("The end of a text is not marked: trainers append their tokenizer's end-of-sequence token.")
    if config.select.mix_seed_data:
        notes.append("Rows without a value are demonstrations of `prompts.seed_data`, each once.")
    return notes
