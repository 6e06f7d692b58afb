"""Knobs of what is trained and what it is asked: the model, and the sets of prompts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selftrain.config.knobs import PerRound, Section


class ThinkingConfig(Section):
    """How a model marks its reasoning. What follows it is the answer, and the answer alone is scored."""

    open: Annotated[str, Field(min_length=1)] = "<think>"
    """Begins the reasoning: first in the completion, or last in the rendered prompt."""
    close: Annotated[str, Field(min_length=1)] = "</think>"
    """Ends it. Reasoning that never ends leaves an empty answer."""


# What transformers' apply_chat_template takes beside variables of the template.
RENDERING = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "truncation",
}


class ModelConfig(Section):
    """The base model. Its weights never change during a LoRA run."""

    path: str
    """Hub id, local folder, a `.gguf` file, or `package:NAME/FILE` for a file inside an installed Python package."""
    revision: str | None = None
    """Hub revision; pin a commit for a run that others should repeat."""
    adapter: str | None = None
    """A folder with a LoRA adapter of this model (by PEFT, or `runs/NAME/best`): the policy of round 0, which
    `train.init_from: base` starts from a copy of. It is never written to."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the base weights in so many bits by bitsandbytes (`4bit`: QLoRA). Needs a GPU."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template: {enable_thinking: false}."""
    thinking: ThinkingConfig | None = None
    """For models that reason before they answer: {} for <think>...</think>, or other tags."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights. `auto`: float32 on CPU, the checkpoint's own elsewhere."""
    attn_implementation: str = "sdpa"
    """As transformers names it: sdpa, eager, flash_attention_2, ..."""
    device: str = "auto"
    """`auto` (a CUDA device if there is one), `cpu`, `cuda`, `cuda:1`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never on by default."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if self.quantization is not None and self.device == "cpu":
            raise ValueError(f"quantization {self.quantization} needs a GPU, and device is cpu; take one of them out")
        if owned := sorted(RENDERING & set(self.chat_template_kwargs)):
            raise ValueError(f"chat_template_kwargs: {owned[0]} is no variable of a template, and selftrain sets it")
        return self


class Columns(Section):
    """Which column of a row holds what. A name with dots also looks into a column: `answer.text`, `answers.0`."""

    prompt: str = "prompt"
    """The text asked, or a conversation: a list of {role, content} or {from, value}. Not used where a template or a
    `messages` column makes the prompt."""
    messages: str = "messages"
    """A conversation; used instead of the prompt column where a row has it. One that ends with the assistant's turn is
    asked without it: that is the completion, if no column is, and the reference, if no column is named for that."""
    reference: str | None = "reference"
    """The known answer: text, a number in its digits, a boolean as `True` or `False`, or an object or list as its JSON.
    Null: there is none."""
    completion: str = "completion"
    """A known good answer in full, as the policy would write it (in format text, with the space before it). Only
    `prompts.seed_data` and the arm `gold` train on it; a row without it gives its reference instead."""
    completions: str = "completions"
    """Several candidates of the prompt in one row: a list of texts. Only `sample.policy.file` reads it; prompts do not
    keep it."""
    text: str = "text"
    """Of retention rows: a text whose perplexity is measured."""
    identity: str | None = None
    """What makes two rows the same problem across sets; null: their content."""


TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def as_source(value: Any) -> Any:
    """A path alone is a source by its path."""
    return {"path": value} if isinstance(value, str) else value


def _ids(value: Any) -> Any:
    found = value if isinstance(value, list | tuple) else ()
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise ValueError(f"{wrong[0]!r} is a {type(wrong[0]).__name__}, and ids are texts; put it in quotes")
    return value


class SourceConfig(Section):
    """Where a set of prompts comes from: one `path`, or a `mix` of several tasks."""

    path: str | None = None
    """A `.jsonl`, `.json`, `.csv` or `.parquet` file, a folder or hub id that `datasets` loads, `reasoning_gym:TASK`,
    or `path/to/file.py:function` (relative to the recipe) that yields rows as dicts."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function; of reasoning_gym, `size` (500), `seed` (0; other seeds share no item) and the
    task's own parameters."""
    subset: str | None = None
    """Of a hub data set or folder: its configuration, where it has several (`main` of openai/gsm8k)."""
    split: str | None = None
    """Of a hub data set or folder: train, test, ... Null: the only one, or `train`."""
    revision: str | None = None
    """Of a hub data set; pin a commit for a run that others should repeat."""
    stream: bool = False
    """Of a hub data set or folder: read only as many rows as `skip` and `limit` ask for, without loading the rest."""
    skip: int = Field(default=0, ge=0)
    """Leave out the first rows: with `limit`, one file makes several sets."""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many rows, after `skip`."""
    exclude: Annotated[str | tuple[str, ...], BeforeValidator(_ids)] = ()
    """Prompts that leave the set: a list of their ids, or the path of a text file with one per line (relative to the
    recipe; `#` begins a comment). `selftrain audit RECIPE --unusable FOLDER` writes such files of what a run would
    refuse. Ids are of the words that are asked: another template gives others."""
    columns: Columns = Columns()
    """Which column of a row holds what."""
    template: str | None = None
    """Instead of `prompts.template`, for this source."""
    mix: dict[str, Annotated[SourceConfig, BeforeValidator(as_source)]] | None = None
    """Several sources by the name of their task: {arithmetic: {path: a.jsonl}, logic: {path: b.jsonl, weight: 2}}.
    Every metric of a set is also given by task."""
    weight: float = Field(default=1.0, gt=0)
    """In a `mix` of training prompts: the task's share of `prompts.per_round`, relative to the others'."""

    @model_validator(mode="after")
    def _is_one_source_or_a_mix(self) -> SourceConfig:
        if (self.path is None) == (self.mix is None):
            raise ValueError("give either path, or mix: {TASK: {path: ...}, ...}")
        if self.mix is None:
            return self
        if not self.mix:
            raise ValueError("mix is empty; name at least one task")
        # By value: what a config is written out as names every knob, and must be read again.
        own = SourceConfig.model_construct(mix=self.mix)
        beside = [name for name in type(self).model_fields if getattr(self, name) != getattr(own, name)]
        if beside:
            raise ValueError(f"{beside[0]} stands beside mix; set it in the sources of the mix")
        for name, source in self.mix.items():
            if source.mix is not None:
                raise ValueError(f"mix.{name} is itself a mix; name all tasks in one")
            if not TASK_NAME.fullmatch(name):
                raise ValueError(f"mix: {name!r} cannot name a task; use letters, digits, '_' and '-' (at most 40)")
        return self

    @property
    def sources(self) -> dict[str | None, SourceConfig]:
        """The single sources by task; of one without tasks, itself by None."""
        if self.mix is None:
            return {None: self}
        return dict[str | None, SourceConfig](self.mix.items())


Source = Annotated[SourceConfig, BeforeValidator(as_source)]


class FewShot(Section):
    """One worked example shown before every prompt."""

    prompt: str
    """As it is asked; `prompts.template` is not applied."""
    completion: str
    """As it is answered; in format text, with the space before it."""


class PromptsConfig(Section):
    """What the policy is asked. `validate` decides (best round, stopping); `test` is only reported."""

    train: Source
    """Asked in the rounds."""
    validate_: Source | None = Field(default=None, alias="validate")
    """Held out, to decide with."""
    test: Source | None = None
    """Held out, to report on."""
    seed_data: Source | None = None
    """Demonstrations: prompts with their completions. The arm `seed_only` trains on them."""
    retention: Source | None = None
    """Unrelated texts (perplexity) or prompts with references (accuracy), measured to see what is forgotten."""
    per_round: PerRound[Literal["all"] | Annotated[int, Field(ge=1)]] = "all"
    """`all`, or K prompts per round: fresh ones until the set is used up, then it is shuffled again. In a `mix`, K are
    shared out by weight, tasks with equal claims to what is left over taking turns, and every task is gone through on
    its own."""
    overlap: Literal["error", "drop_from_train"] = "error"
    """What to do when a training prompt is the same problem as one of validate, test or retention."""
    format: Literal["chat", "text"] = "chat"
    """`chat`: rendered by the model's chat template. `text`: plain text, for base models."""
    system: str | None = None
    """System message, before everything else (chat only)."""
    template: str | None = None
    """Makes the prompt from a row's columns: `"{question}\\nAnswer:"`. Null: the prompt column as it is."""
    few_shot: tuple[FewShot, ...] = ()
    """Worked examples shown before every prompt: earlier turns (chat), or text before it."""
    few_shot_separator: str = "\n"
    """Between worked examples, and before the prompt (text only)."""

    @model_validator(mode="after")
    def _system_needs_chat(self) -> PromptsConfig:
        if self.system is not None and self.format == "text":
            raise ValueError('system needs format: chat; with format: text put the words into "template" or "few_shot"')
        return self

    @model_validator(mode="after")
    def _weights_have_an_effect(self) -> PromptsConfig:
        for name in ("train", "validate_", "test", "seed_data", "retention"):
            source = getattr(self, name)
            weighted = [task for task, one in source.sources.items() if one.weight != 1.0] if source is not None else []
            is_share = name == "train" and self.per_round != "all" and source.mix is not None
            if weighted and not is_share:
                where = f"{name.removesuffix('_')}{f'.mix.{weighted[0]}' if weighted[0] else ''}.weight"
                raise ValueError(
                    f"{where} has no effect: weights share out prompts.per_round, a number, among the tasks of "
                    "prompts.train.mix; take it out, or set per_round"
                )
        return self
