"""The scorers `reward_model` and `process_reward_model`: parameters, and mistakes in them.

A reward has no bounds and no zero of its own, so that "right" means little: a candidate counts as correct from
`score.correct_at` up, as everywhere. To select by rewards take `select.rule: best_of_n`, `top_k`, `top_fraction` or
`above_mean`, which ask only which is better.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from selftrain.contents import base_of_adapter, place, require_tokenizer, saved_config, task_of_adapter
from selftrain.errors import ConfigError
from selftrain.scoring import Means
from selftrain.scoring.reward_models.members import PAIR, Member, Output, Settings
from selftrain.scoring.reward_models.outcome import Combine, RewardModels
from selftrain.scoring.reward_models.rendering import Reads
from selftrain.scoring.reward_models.steps import ProcessRewardModel, Reduce, StepSettings
from selftrain.whereabouts import snapshot

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Size = Annotated[int, Field(ge=1)]
Label = Annotated[int, Field(ge=0)]

# By how their class is called, models that a scorer cannot read, and what to do. Their heads have the same names in
# many architectures, so that they would load, and give numbers that mean nothing.
_OF_TOKENS, _OF_WHOLE = "ForTokenClassification", "ForSequenceClassification"
_OF_LANGUAGE = ("ForCausalLM", "LMHeadModel")
_NO_HEAD = "has no head for this; give a model that was trained as one"
_OF_REWARDS = {
    **dict.fromkeys(_OF_LANGUAGE, _NO_HEAD),
    _OF_TOKENS: "judges the steps of an answer, by its tokens: that is the scorer process_reward_model; name that one",
}
_STEPLESS = "judges an answer as a whole: that is the scorer reward_model; name that one"
_OF_STEPS = {
    **dict.fromkeys(_OF_LANGUAGE, f"{_NO_HEAD}, or set good_token and bad_token, by which it is read"),
    _OF_WHOLE: _STEPLESS,
}
_OF_STEP_TOKENS = {
    _OF_WHOLE: _STEPLESS,
    _OF_TOKENS: "is read by its labels, and writes no tokens; leave good_token and bad_token out",
}


class OneOf(TypedDict, total=False):
    """A model of an ensemble. Its number is `scale * (output + shift)`, so that models of different scales can be
    mixed: shift by minus its mean, scale by one over its standard deviation, on answers like those to be judged."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    model: str
    adapter: str
    revision: str
    scale: float
    shift: float


def reward_model(
    base: Path,
    means: Means,
    *,
    model: str | None = None,
    models: list[str | OneOf] | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    combine: Combine = "mean",
    penalty: Annotated[float, Field(ge=0)] = 1.0,
    pairwise: bool = False,
    template: str | None = None,
    reads: Reads = "auto",
    system: str | None = None,
    output: Output = "raw",
    good_label: Label | None = None,
    max_batch_tokens: Size | None = None,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> RewardModels:
    """The reward of a sequence classifier (AutoModelForSequenceClassification) for prompt and answer.

    `model`: hub id, folder (also of a PEFT adapter, as it names its base), or package:NAME/FOLDER; `adapter`: a PEFT
    folder on it; `revision`: of the hub. Or `models`, several of these, combined by `mean`, `min` or `uncertainty`: the
    mean minus `penalty` times their standard deviation.

    `output`: of one label its logit as it is, of several the log-odds of `good_label` against the others (of two labels
    the difference of their logits); `probability` is the sigmoid of that. `good_label`: null is 1 of two labels; of
    more it must be named.

    `reads`: how the model is shown prompt and answer (`rendering.render`); `system` in place of the prompt's own
    system message. A text longer than the model's context leaves its candidate unscored; nothing is cut.

    `pairwise`: the model reads two answers by `template` (with {prompt}, {first}, {second}) and says by how much the
    first is better; the value is the mean probability of being better than the prompt's other distinct answers, both
    orders read. It tells nothing of a prompt's only answer, which gets 0.5.

    `max_batch_tokens`: of one batch, padding included (null: 256 on a CPU, 16,384 elsewhere); halved where memory
    runs out. Values depend on it in their last bits. `dtype`: `auto` is float32 on a CPU and bfloat16 elsewhere.
    `device`: null is the policy's.
    """
    settings = Settings(
        reads, system, output, good_label, max_batch_tokens, device or means.device or "auto", dtype, template or PAIR
    )
    listed = [_own(model, adapter, revision)] if model is not None else models or []
    members = []
    for one in listed:
        knobs = {"model": one} if isinstance(one, str) else dict(one)
        members.append(Member(str(knobs.pop("model")), base, settings, **knobs))
    _import_now()
    return RewardModels(members, combine, penalty, pairwise=pairwise, one_at_a_time=means.one_at_a_time)


def _import_now() -> None:
    """On the thread that builds: of two that import transformers at the same time, one gets half of it."""
    importlib.import_module("selftrain.scoring.reward_models.reading")


def check_reward_model(base: Path | None, **params: Any) -> None:
    """Raise ConfigError for parameters that contradict each other or a model that is not there or has no head;
    DependencyError for a package that is not installed."""
    model, models = params.get("model"), params.get("models")
    if (model is None) == (not models):
        raise ConfigError(
            "score.scorers: reward_model: params takes model (a hub id or folder) or models (a list of them); give one"
        )
    if model is None and (given := [name for name in ("adapter", "revision") if params.get(name) is not None]):
        raise ConfigError(
            f"score.scorers: reward_model: params.{given[0]} goes with params.model; in models it stands beside each "
            "one: {model: ..., " + given[0] + ": ...}"
        )
    listed: Sequence[str | OneOf] = models or [_own(str(model), params.get("adapter"), params.get("revision"))]
    nameless = [one for one in listed if not isinstance(one, str) and not one.get("model")]
    if nameless:
        raise ConfigError(f"score.scorers: reward_model: params.models: {nameless[0]!r} does not name its model")
    _check_company(params, len(listed))
    _check_distinct(listed)
    if base is not None:
        for one in listed:
            knobs: Mapping[str, Any] = {"model": one} if isinstance(one, str) else one
            _check_place("reward_model", knobs, base, _OF_REWARDS, params.get("good_label"))


def _check_company(params: Mapping[str, Any], count: int) -> None:
    """Parameters that have no effect, or no sense, beside the others."""
    where = "score.scorers: reward_model: params"
    if count == 1 and "combine" in params:
        raise ConfigError(f"{where}.combine has no effect with one model; give several in models, or leave it out")
    if "penalty" in params and params.get("combine") != "uncertainty":
        raise ConfigError(f"{where}.penalty goes with combine: uncertainty; give both, or leave it out")
    if params.get("pairwise"):
        if params.get("output", "raw") != "raw":
            raise ConfigError(
                f"{where}.output has no effect with pairwise, whose values are probabilities; leave it out"
            )
        template = params.get("template")
        lacking = [one for one in ("{first}", "{second}") if template is not None and one not in template]
        if lacking:
            raise ConfigError(f"{where}.template lacks {' and '.join(lacking)}, where the two answers go; add them")
    elif params.get("template") is not None:
        raise ConfigError(f"{where}.template is how a pairwise model is asked; set pairwise: true, or leave it out")


def _check_distinct(listed: Sequence[str | OneOf]) -> None:
    """Members that are one: they agree with themselves, so that an ensemble of them is less than it looks."""
    seen: list[dict[str, Any]] = []
    for one in listed:
        whole = {"scale": 1.0, "shift": 0.0, **({"model": one} if isinstance(one, str) else one)}
        if whole in seen:
            raise ConfigError(
                f"score.scorers: reward_model: params.models names {whole['model']!r} twice, with all else equal: two "
                "that always agree are one; leave one out, or name another model"
            )
        seen.append(whole)


def process_reward_model(
    base: Path,
    means: Means,
    *,
    model: str,
    adapter: str | None = None,
    revision: str | None = None,
    split: Annotated[str, Field(min_length=1)] = "\n",
    step_separator: str = "\n",
    good_token: str | None = None,
    bad_token: str | None = None,
    good_label: Label | None = None,
    reads: Literal["chat", "text"] = "text",
    system: str | None = None,
    reduce: Reduce = "min",
    max_batch_tokens: Size | None = None,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> ProcessRewardModel:
    """The probabilities that the steps of an answer are right, reduced to their `min`, `prod`uct, `mean` or `last`.

    An answer's steps are what stands between `split`s; one without any has value 0. After each the model is shown
    `step_separator`, and read at its last token: a token classifier (AutoModelForTokenClassification, as TRL's
    PRMTrainer makes) for the log-odds of `good_label`; with `good_token` and `bad_token`, a causal model for the first
    token against the second, as Math-Shepherd is read (step_separator " ки", good_token "+", bad_token "-").

    `reads`: `text` shows the prompt as text, `chat` by the model's chat template. The rest as for `reward_model`.
    """
    settings = StepSettings(
        model=model,
        adapter=adapter,
        revision=revision,
        split=split,
        step_separator=step_separator,
        good_token=good_token,
        bad_token=bad_token,
        good_label=good_label,
        reads=reads,
        system=system,
        reduce=reduce,
        max_batch_tokens=max_batch_tokens,
        device=device or means.device or "auto",
        dtype=dtype,
    )
    _import_now()
    return ProcessRewardModel(base, settings)


def check_process_reward_model(base: Path | None, **params: Any) -> None:
    """As `check_reward_model`."""
    where = "score.scorers: process_reward_model: params"
    if (params.get("good_token") is None) != (params.get("bad_token") is None):
        raise ConfigError(f"{where}: good_token and bad_token go together; give both, or neither")
    is_causal = params.get("good_token") is not None
    if is_causal and not params.get("step_separator", "\n").strip():
        raise ConfigError(f"{where}.step_separator must be a mark of its own for a causal model, as ' ки'; set it")
    if not params.get("step_separator", "\n"):
        raise ConfigError(f"{where}.step_separator is empty, and its last token is where the model is read; set it")
    if base is not None:
        others = _OF_STEP_TOKENS if is_causal else _OF_STEPS
        _check_place("process_reward_model", params, base, others, params.get("good_label"))


def _own(model: str, adapter: str | None, revision: str | None) -> OneOf:
    one: OneOf = {"model": model}
    if adapter is not None:
        one["adapter"] = adapter
    if revision is not None:
        one["revision"] = revision
    return one


def _check_place(
    scorer: str,
    knobs: Mapping[str, Any],
    base: Path,
    others: Mapping[str, str],
    good_label: int | None,
) -> None:
    """ConfigError where there is no such model, or where its config says that it has another head: one of `others`,
    each with what to do."""
    what = f"score.scorers: {scorer}: params.model"
    name = knobs["model"]
    found = place(name, base, revision=knobs.get("revision"), what=what)
    if knobs.get("adapter") is not None:
        of_adapter = place(knobs["adapter"], base, what=f"{what}: adapter").on_disk
        if of_adapter is not None:
            _check_task(f"{what}: adapter", knobs["adapter"], of_adapter, others)
        return
    folder = found.on_disk or snapshot(name, found.revision)
    if folder.is_file():
        raise ConfigError(f"{what}: {name} is a GGUF file, which keeps no reward head; give a folder with safetensors")
    if found.on_disk is not None and (under := base_of_adapter(folder)) is not None:
        _check_task(what, name, folder, others)
        base_folder = place(under, folder, what=f"{what}: the base of {name}").on_disk
        if base_folder is not None:
            saved_config(base_folder, f"{what}: the base of {name}")
        return
    config = saved_config(folder, what)
    if config is None:
        return  # a model of the hub that was not fetched yet
    require_tokenizer(folder, what)
    heads = config.get("architectures") or []
    if heads and all(one.endswith(tuple(others)) for one in heads):
        remedy = next(text for ending, text in others.items() if heads[0].endswith(ending))
        raise ConfigError(f"{what}: {name} is a {heads[0]}, which {remedy}")
    if heads and not any(one.endswith(_OF_LANGUAGE) for one in heads):
        _check_labels(what, name, config, good_label)


def _check_task(what: str, name: str, folder: Path, others: Mapping[str, str]) -> None:
    """ConfigError for a PEFT folder whose config says that its head tells tokens apart, where that is another's."""
    if task_of_adapter(folder) == "TOKEN_CLS" and _OF_TOKENS in others:
        raise ConfigError(f"{what}: {name} is an adapter of a token classifier, which {others[_OF_TOKENS]}")


def _check_labels(what: str, name: str, config: Mapping[str, Any], good_label: int | None) -> None:
    """ConfigError where there is no such label, or where none is named and there are more than two."""
    labels = config.get("id2label")  # transformers writes it unless there are two of its own names
    if not isinstance(labels, Mapping) or len(labels) < 2:
        return
    if good_label is None and len(labels) > 2:
        named = ", ".join(f"{number} ({label})" for number, label in labels.items())
        raise ConfigError(
            f"{what}: {name} has {len(labels)} labels: {named}; set params.good_label to the one that good answers have"
        )
