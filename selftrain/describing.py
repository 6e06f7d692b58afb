"""What the card of a curated data set says: from the configuration and the receipts, without secrets and paths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from selftrain.compose import Composed, recipes
from selftrain.config import Config, at_round
from selftrain.exporting.card import Facts
from selftrain.exporting.columns import Kind
from selftrain.exporting.data_set import Counted
from selftrain.prompts import PromptSets
from selftrain.records import Candidate, Receipt
from selftrain.reporting.plan import scalar
from selftrain.secrecy import HIDDEN, SECRET, without_secrets
from selftrain.summaries import funnel_steps
from selftrain.whereabouts import NO_MODEL

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


UPWARDS = re.compile(r"^(\.\.?/)+")
# Columns of a candidate file that say who wrote the candidate.
WRITERS = ("generator", "model")
ROW_FILES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Columns:
    """What the rows beside the trainers' columns have: who wrote them, where that is known, and a file's `own`."""

    has_generators: bool = True
    own: Mapping[str, Kind] = field(default_factory=dict)


def command_words(composed: Composed, layers: Sequence[str], overrides: Sequence[str]) -> str:
    """The command as another person could type it into a shell: no secrets, no paths of this machine."""
    path = composed.recipe
    name = path.parent.name if path.name == "recipe.yaml" or path in recipes().values() else path.name
    words = ["selftrain", "curate", name]
    words += [word for layer in layers for word in ("--with", str(_shown(layer)))]
    for one in overrides:
        key, _, value = one.partition("=")
        words.append(f"{key}={HIDDEN if SECRET.search(key) else _value(value)}")
    return shlex.join(words)


def _value(text: str) -> str:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = text
    return scalar(_shown(data)) if isinstance(data, dict | list) else str(_shown(text))


def facts(
    config: Config,
    command: str,
    receipts: Sequence[Receipt],
    prompts: PromptSets,
    asked: int,
    caveats: Sequence[str],
    counted: Counted,
    columns: Columns = Columns(),
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
        selection=_selection(config, prompts),
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
        opening=_opening(config),
        has_generators=columns.has_generators,
        has_tasks=config.prompts.train.mix is not None,
        own_columns=tuple(columns.own),
    )


def _opening(config: Config) -> str:
    policy = config.sample.policy
    if policy is None or policy.file is None:
        return "Answers of a language model, sampled, scored and selected in one round by selftrain"
    names = ", ".join(_of_file(str(one.path)) for one in policy.file.sources.values())
    return f"Answers that were there before, in {names}; selftrain wrote none: it scored and selected them in one round"


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
    found = next((candidate.metadata.get(one) for one in WRITERS if candidate.metadata.get(one)), None)
    return None if found is None else str(without_secrets(str(found)))


def _name(path: str) -> str:
    return str(_shown(path))


def _of_file(path: str) -> str:
    """A source's name without its folders; the id of a data set on the hub as it is."""
    is_here = path.endswith(ROW_FILES) or path.startswith((".", "/", "~")) or ":" in path
    return _name(PurePosixPath(path).name if is_here and "://" not in path else path)


def _shown(value: Any) -> Any:
    """Without secrets and paths of this machine; of relative ones, without the way up."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if SECRET.search(str(key)) else _shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value]
    return UPWARDS.sub("", without_secrets(value)) if isinstance(value, str) else value


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
    if config.sample.policy is not None and config.sample.policy.file is not None:
        return _brought_from(config, sampled)
    if config.sample.policy is None:
        wanted = {"path", "revision", "adapter", "quantization", "dtype", "chat_template_kwargs", "thinking"}
        who = config.model.model_dump(mode="json", exclude_defaults=True, include=wanted)
    else:
        who = config.sample.policy.model_dump(mode="json", exclude_defaults=True)
    named = [name for name in SAMPLING if not (name == "engine" and config.sample.policy is not None)]
    sampling = {
        name: knobs[name] for name in named if knobs.get(name) not in (None, [], 0, 0.0) or name == "temperature"
    }
    inputs = {name: value for name, value in sampled.ingredients["inputs"].items() if isinstance(value, str)}
    if config.sample.policy is not None and not config.sample.policy.checkpoints:
        content = sampled.ingredients["config"]["sample"]["policy"].get("model")  # not that of a model that wrote none
        inputs = {} if content is None else {"model": content}
    found = {"generator": _said(who), "sampling": _said(sampling), "seed": config.seed, "inputs": inputs}
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _brought_from(config: Config, sampled: Receipt) -> dict[str, Any]:
    """Which files the candidates were read from; how they were sampled is known where they come from."""
    policy, knobs = config.sample.policy, at_round(config.sample, ROUND)
    assert policy is not None
    assert policy.file is not None
    contents = sampled.ingredients["config"]["sample"]["policy"]["file"]
    files = []
    for task, one in policy.file.sources.items():
        said = one.model_dump(mode="json", exclude_defaults=True, exclude={"path"})
        files.append({"candidates": _of_file(str(one.path)), **_said(said), "digest": contents[task or ""]["content"]})
    found: dict[str, Any] = {"files": files}
    if knobs["num_candidates"] != "all":
        found["num_candidates"] = knobs["num_candidates"]
    if config.model.path != NO_MODEL:
        found["tokenizer"] = f"of {_name(config.model.path)}: lengths are in its tokens; the model wrote nothing"
    return found


def _selection(config: Config, prompts: PromptSets) -> dict[str, Any]:
    knobs = at_round(config.select, ROUND)
    rule = knobs["rule"]
    left_out = {name for name, of in OF_RULE.items() if of != rule} | set(NOT_SELECTION)
    if knobs.get("mix_seed_data"):
        left_out.discard("mix_seed_data")
    shown = {name: value for name, value in knobs.items() if name not in left_out}
    if (decontaminate := config.select.decontaminate) is not None:
        others = [source.model_dump(mode="json", exclude_defaults=True) for source in decontaminate.against]
        held_out = [f"prompts.{name}" for name in prompts.held_out()]
        shown["decontaminate"] = {**decontaminate.model_dump(mode="json"), "against": [*held_out, *others]}
    return _said({name: value for name, value in shown.items() if value not in (None, [], "none", 0, 0.0)})


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without secrets; of what is null or empty nothing is said."""
    found: dict[str, Any] = _shown(data)
    return {name: value for name, value in found.items() if value is not None and value not in ({}, [])}


def _pairs(config: Config) -> str | None:
    if config.curate.pairs == "none":
        return None
    limit = config.curate.pairs_per_prompt
    many = "one pair" if limit == 1 else f"at most {limit} pairs"
    return (
        f"Preference pairs (`{config.curate.pairs}`): {PAIRS[config.curate.pairs]}, {many} per prompt. Rejected "
        "answers were scored and finished; equal values and equal texts make no pair, and no text is in two of a "
        "prompt's pairs, kept or not."
        + (" Those that share words with an evaluation set are left out." if config.select.decontaminate else "")
        + _rejected_at(config)
    )


def _rejected_at(config: Config) -> str:
    """Of which steps of selection rejected answers did not have to come through."""
    names = [name for name in ("quality", "filters", "near_duplicates") if getattr(config.select, name)]
    if not names:
        return ""
    named = " or ".join(f"`{name}`" for name in names)
    return f" They did not have to pass {named}: what left there may be the rejected side of a pair."


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
