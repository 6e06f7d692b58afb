"""How many tokens prompts and answers have, counted by the model's own tokenizer where its files are on this machine.

Chat templates are rendered by jinja2 in a sandbox, as transformers does it, which itself would import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from selftrain.config import ModelConfig
from selftrain.estimates.saved import SavedModel
from selftrain.records import Prompt

T = TypeVar("T")

# Of English text in the tokenizers of Llama 3, Qwen 2.5 and SmolLM2, code and numbers among it: 3 to 4.2.
CHARACTERS_PER_TOKEN = 3.5
# What a chat template puts around a message: 4 to 6 tokens in ChatML, Llama 3, Gemma and Mistral.
TOKENS_PER_MESSAGE = 5
# Counting takes about 0.1 ms a prompt. The mean over so many differs from that of all by a per cent or two.
COUNTED = 512
LONGEST = 32


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of some texts: their mean, and the longest. `rests_on` says how they were counted."""

    mean: float
    longest: int
    rests_on: str


@dataclass(frozen=True)
class Counter:
    """Counts tokens of one model. `tokenizer` is None where its files are not there: then characters are counted."""

    config: ModelConfig
    folder: Path | None
    tokenizer: Any
    in_bytes: str = ""
    """Why bytes are counted, where no model is loaded at all."""

    def prompts(self, prompts: Sequence[Prompt]) -> Lengths:
        """Of prompts as they are asked; at least one must be given."""
        some = _spread(prompts, COUNTED)
        longest = sorted(prompts, key=_characters)[-LONGEST:]
        counts = [self._of_prompt(prompt) for prompt in some]
        most = max(counts + [self._of_prompt(prompt) for prompt in longest])
        about = "" if len(some) == len(prompts) else f", in {len(some)} of {len(prompts):,} prompts"
        return Lengths(fmean(counts), most, f"{self._how(prompts[0])}{about}")

    def texts(self, texts: Sequence[str], *, ended: bool = False) -> Lengths:
        """Of plain texts, with the token that ends an answer if asked for."""
        counts = [self._of_text(text) + ended for text in _spread(texts, COUNTED)]
        return Lengths(fmean(counts), max(counts), self._how(None))

    def _how(self, prompt: Prompt | None) -> str:
        if self.in_bytes:
            return self.in_bytes
        if self.tokenizer is None:
            return f"a guess: characters / {CHARACTERS_PER_TOKEN}; the model's tokenizer is not on this machine yet"
        if prompt is not None and prompt.messages is not None and self._rendered(prompt) is None:
            return f"about: counted with the model's tokenizer, with {TOKENS_PER_MESSAGE} tokens around each message"
        return "counted with the model's tokenizer"

    def _of_prompt(self, prompt: Prompt) -> int:
        if prompt.messages is None:
            return self._of_text(prompt.text or "")
        rendered = self._rendered(prompt) if self.tokenizer is not None else None
        if rendered is not None:
            return len(self.tokenizer.encode(rendered, add_special_tokens=False).ids)
        texts = sum(self._of_text(message.content) for message in prompt.messages)
        return texts + TOKENS_PER_MESSAGE * (len(prompt.messages) + 1)

    def _of_text(self, text: str) -> int:
        if self.in_bytes:
            return len(text.encode("utf-8", "surrogatepass"))
        if self.tokenizer is None:
            return round(len(text) / CHARACTERS_PER_TOKEN)
        return len(self.tokenizer.encode(text).ids)

    def _rendered(self, prompt: Prompt) -> str | None:
        if self._template is None or prompt.messages is None:
            return None
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        try:
            text: str = self._template.render(
                messages=messages, add_generation_prompt=True, **self._special, **self.config.chat_template_kwargs
            )
        except Exception:  # a template is a program of somebody else's; without it the count is only about right
            return None
        return text

    @cached_property
    def _settings(self) -> Mapping[str, Any]:
        try:
            assert self.folder is not None
            found = json.loads((self.folder / "tokenizer_config.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def _special(self) -> dict[str, str]:
        named = {key: value for key, value in self._settings.items() if key.endswith("_token")}
        texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
        return {key: value for key, value in texts.items() if isinstance(value, str)}

    @cached_property
    def _template(self) -> Any:
        source = self._settings.get("chat_template")
        if isinstance(source, list):
            source = {one["name"]: one["template"] for one in source}.get("default")
        beside = self.folder / "chat_template.jinja" if self.folder is not None else None
        if beside is not None and beside.is_file():
            source = beside.read_text(encoding="utf-8")
        return _compiled(source) if isinstance(source, str) else None


def counter(config: ModelConfig, model: SavedModel | None) -> Counter:
    """Counts with the model's tokenizer if its folder has a readable tokenizer.json, else by characters."""
    file = model.folder / "tokenizer.json" if model is not None else None
    if model is None or file is None or not file.is_file():
        return Counter(config, None, None)
    from tokenizers import Tokenizer

    try:
        return Counter(config, model.folder, Tokenizer.from_file(str(file)))
    except Exception:  # the library raises plain exceptions for what it cannot read
        return Counter(config, None, None)


def _compiled(source: str) -> Any:
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = as_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    try:
        return environment.from_string(source)
    except TemplateError:
        return None


def _characters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages or ()) + len(prompt.text or "")


def _spread(rows: Sequence[T], most: int) -> list[T]:
    return list(islice(rows, 0, None, max(1, -(-len(rows) // most))))
