"""Knobs of what is trained and what it is asked: the model, and the sets of prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selftrain.config.knobs import PerRound, Section


class ModelConfig(Section):
    """The base model. Its weights never change during a LoRA run."""

    path: str
    """Hub id, local folder, a `.gguf` file, or `package:NAME/FILE` for a file inside an installed Python package."""
    revision: str | None = None
    """Hub revision; pin a commit for a run that others should repeat."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights. `auto`: float32 on CPU, the checkpoint's own elsewhere."""
    attn_implementation: str = "sdpa"
    """As transformers names it: sdpa, eager, flash_attention_2, ..."""
    device: str = "auto"
    """`auto` (a CUDA device if there is one), `cpu`, `cuda`, `cuda:1`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never on by default."""


class Columns(Section):
    """Which column of a row holds what."""

    prompt: str = "prompt"
    """The text asked. Not used where `prompts.template` or a `messages` column makes the prompt."""
    messages: str = "messages"
    """A list of {role, content}; used instead of the prompt column where a row has it."""
    reference: str | None = "reference"
    """The known answer, as text. Null: there is none."""
    completion: str = "completion"
    """A known good answer in full, as the policy would write it (in format text, with the space before it). Only
    `prompts.seed_data` and the arm `gold` train on it; a row without it gives its reference instead."""
    text: str = "text"
    """Of retention rows: a text whose perplexity is measured."""
    identity: str | None = None
    """What makes two rows the same problem across sets; null: their content."""


class SourceConfig(Section):
    """Where a set of prompts comes from."""

    path: str
    """A `.jsonl` file, or `path/to/file.py:function` (relative to the recipe) that yields rows as dicts."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first rows only."""
    columns: Columns = Columns()
    """Which column of a row holds what."""


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Source = Annotated[SourceConfig, BeforeValidator(_source)]


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
    """`all`, or K prompts per round: fresh ones until the set is used up, then it is shuffled again."""
    overlap: Literal["error", "drop_from_train"] = "error"
    """What to do when a training prompt is the same problem as a held-out one."""
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
