"""A prompt and an answer as the ids that a reward model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from selftrain.errors import ConfigError
from selftrain.records import Prompt

Reads = Literal["auto", "chat", "pair", "text"]


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """What is read at once. `type_ids` is empty where the tokenizer gives none; `at` are the positions whose logits
    are wanted, empty for a model that gives one vector for all."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...] = ()
    at: tuple[int, ...] = ()


def render(tokenizer: Any, reads: Reads, prompt: Prompt, answer: str, system: str | None) -> Row:
    """By the chat template the prompt's messages and the answer as the assistant's turn; by `pair` the prompt's text
    and the answer as the tokenizer joins two texts; by `text` the one after the other and EOS, as TRL's RewardTrainer
    has them. `auto`: the first of these that the tokenizer is made for. Special tokens that the answer spells out are
    left out of it: it could end its turn and praise itself in another.
    """
    answer = without_special(tokenizer, answer)
    if reads == "auto":
        reads = "chat" if tokenizer.chat_template is not None else "pair" if tokenizer.sep_token else "text"
    if reads == "chat":
        return Row(chat_ids(tokenizer, turns(prompt, answer, system)))
    asked = text_of(prompt, system)
    if reads == "pair":
        found = tokenizer(asked, answer)
        return Row(tuple(found["input_ids"]), tuple(found.get("token_type_ids", ())))
    return Row(text_ids(tokenizer, asked + answer))


def turns(prompt: Prompt, answer: str | None, system: str | None) -> list[dict[str, str]]:
    """The conversation with the answer at its end, if there is one. `system` takes the place of the prompt's own."""
    messages = [{"role": "user", "content": prompt.text or ""}]
    if prompt.messages is not None:
        messages = [{"role": one.role, "content": one.content} for one in prompt.messages]
    if system is not None:
        rest = [one for one in messages if one["role"] != "system"]
        messages = [{"role": "system", "content": system}, *rest]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def text_of(prompt: Prompt, system: str | None) -> str:
    """The prompt as plain text: as it is, or its messages and a line break after each."""
    if prompt.messages is None:
        return f"{system}\n{prompt.text}" if system is not None else prompt.text or ""
    return "".join(f"{one['content']}\n" for one in turns(prompt, None, system))


def chat_ids(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """The conversation by the tokenizer's own chat template. ConfigError: the template takes no such conversation."""
    return by_template(tokenizer, messages)


def by_template(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> tuple[int, ...]:
    """As `chat_ids`, with `options` for the template."""
    from jinja2 import TemplateError

    try:
        return tuple(tokenizer.apply_chat_template(messages, return_dict=False, **options))
    except TemplateError as error:
        roles = ", ".join(one["role"] for one in messages)
        raise ConfigError(
            f"score.scorers: the reward model's chat template does not take a conversation of {roles}: {error}; set "
            "reads: text in its params, or leave the system message out of the prompts"
        ) from error


def text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The text with what the tokenizer puts before texts, and one EOS after it where there is one."""
    ids = tuple(tokenizer(text)["input_ids"])
    eos = tokenizer.eos_token_id
    return ids if eos is None or (ids and ids[-1] == eos) else (*ids, eos)


def without_special(tokenizer: Any, text: str, *marks: str) -> str:
    """The text without the special tokens that it spells out, nor any of `marks`."""
    # Templates use special tokens that have no name among eos, pad and the like.
    added = {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
    known = sorted({*added, *tokenizer.all_special_tokens, *marks} - {""}, key=lambda one: (-len(one), one))
    while True:  # what is left may make another one
        before = text
        for token in known:
            text = text.replace(token, "")
        if text == before:
            return text
