"""From a row to a prompt: what is asked, what is known of the answer, and what the policy sees."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.config import Columns, PromptsConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts.cells import readable, require_json
from selftrain.prompts.conversations import as_answer, asked_and_answered, is_conversation
from selftrain.prompts.rows import MISSING, Row, as_text, column, find
from selftrain.records import Message, Prompt, canonical_json, digest

_REFERENCE = str(Columns().reference)


def build(
    row: Row, columns: Columns, config: PromptsConfig, place: str, *, is_demonstration: bool, task: str | None = None
) -> Prompt:
    """The prompt of a row; `place` names the row in errors, `config.template` is the one of its source.

    Columns that are not used are its metadata, but for what JSON cannot hold in tables (images, dates). The last turn
    of a conversation that ends with the assistant's is its completion, if no column is, and its reference, if no column
    is named for that. A demonstration may lack a reference if it has a completion, and the other way round; DataError
    if it has neither.
    """
    own, answer = own_words(row, columns, config, place)
    completion = _completion(row, columns, place)
    if completion is None and answer is not None:
        completion = _not_blank(answer, place)
    if answer is not None and columns.reference == _REFERENCE and find(row, _REFERENCE) is MISSING:
        reference: str | None = answer
    else:
        reference = _reference(row, columns, place, required=not is_demonstration)
    if is_demonstration and completion is None and reference is None:
        raise DataError(
            f"{place} shows no answer: it has neither the column {columns.completion!r} (columns.completion) nor a "
            f"reference; it has: {', '.join(map(str, row))}"
        )
    identifier = identifier_of(own)
    identity = identifier
    if columns.identity is not None:
        identity = canonical_json(column(row, columns.identity, place, "it names what makes two problems the same"))
    known = {columns.reference, columns.completion, columns.messages}
    if isinstance(row.get(columns.completions), list | tuple):  # a million candidates are no metadata of their prompts
        known.add(columns.completions)
    if config.template is None:  # beside one, it is a column like others
        known.add(columns.prompt)
    metadata = {key: value for key, value in readable(row).items() if key not in known}
    named = {str(columns.reference): reference, columns.completion: completion}
    require_json({_asked_in(row, columns, config): [one.content for one in own], **named, **metadata}, place)
    messages, text = _shown(own, config, place)
    return Prompt(identifier, identity, messages, text, reference, metadata, completion, task)


def _asked_in(row: Row, columns: Columns, config: PromptsConfig) -> str:
    """The column that holds the prompt, or what makes one of several."""
    if find(row, columns.messages) not in (MISSING, None):
        return columns.messages
    return columns.prompt if config.template is None else "prompts.template"


def identifier_of(own: Sequence[Message]) -> str:
    """The id of the prompt that these words of a row make."""
    return digest([[one.role, one.content] for one in own])[:20]


def _reference(row: Row, columns: Columns, place: str, *, required: bool) -> str | None:
    if columns.reference is None or not (required or find(row, columns.reference) is not MISSING):
        return None
    advice = "name it in columns.reference of this set, or set that to null if there is none"
    value = column(row, columns.reference, place, advice)
    if isinstance(value, dict | list):
        require_json({columns.reference: value}, place)
        return canonical_json(value)
    return None if value is None else as_text(value, f"{place}: the reference")


def _completion(row: Row, columns: Columns, place: str) -> str | None:
    value = find(row, columns.completion)
    if value is MISSING or value is None:
        return None
    value = column(row, columns.completion, place, "columns.completion")
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        completion = as_answer(value, columns.completion, place)
    else:
        completion = as_text(value, f"{place}: the completion (columns.completion: {columns.completion})")
    return _not_blank(completion, place)


def _not_blank(completion: str, place: str) -> str:
    if not completion.strip():
        raise DataError(f"{place}: the completion is empty ({completion!r}); make it null where there is none")
    return completion


def _shown(
    own: tuple[Message, ...], config: PromptsConfig, place: str
) -> tuple[tuple[Message, ...] | None, str | None]:
    """What the policy sees: a system message and worked examples before the row's own words."""
    if config.format == "chat":
        system: tuple[Message, ...] = (Message("system", config.system),) if config.system is not None else ()
        if own[0].role == "system":
            if system:
                raise DataError(
                    f"{place} has a system message of its own ({own[0].content!r:.80}), and prompts.system is set; "
                    "take one of them out"
                )
            system, own = own[:1], own[1:]
        examples = tuple(
            m for one in config.few_shot for m in (Message("user", one.prompt), Message("assistant", one.completion))
        )
        return (*system, *examples, *own), None
    if len(own) > 1:
        raise DataError(f"{place} is a conversation of {len(own)} messages; set prompts.format: chat")
    worked = [one.prompt + one.completion for one in config.few_shot]
    return None, config.few_shot_separator.join([*worked, own[0].content])


def own_words(row: Row, columns: Columns, config: PromptsConfig, place: str) -> tuple[tuple[Message, ...], str | None]:
    """The row's own words: its messages, what the template makes of it, or its prompt, which may be a conversation.
    Beside them the answer that a conversation ends with, if it does."""
    messages = find(row, columns.messages)
    if messages is not MISSING and messages is not None:
        turns = column(row, columns.messages, place, "columns.messages")
        return asked_and_answered(turns, columns.messages, place)
    if config.template is not None:
        return (Message("user", templated(row, config.template, place)),), None
    value = column(row, columns.prompt, place, "name the right one in columns.prompt, or set prompts.template")
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return asked_and_answered(value, columns.prompt, place)
    return (Message("user", as_text(value, f"{place}: the prompt")),), None


def templated(row: Row, template: str, place: str) -> str:
    """What the template makes of the row. Raises ConfigError or DataError where it does not fit."""
    try:
        return _Template(place).vformat(template, (), row)
    except (ValueError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"prompts.template {template!r} does not fit {place}: {error}; write {{{{ and }}}} for plain braces"
        ) from None


class _Template(string.Formatter):
    """As str.format, with fields found as columns are: `{answer.text}` and `{answer[text]}` look into a column."""

    def __init__(self, place: str) -> None:
        self._place = place

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The value, and the column it is in."""
        if not field_name or field_name.isdecimal():
            raise ValueError("a field needs the name of a column")
        name, bracket, inside = field_name.partition("[")
        value = column(kwargs, name, self._place, "prompts.template uses it; {{ is a plain brace")
        if value is None:
            raise DataError(f"{self._place}: the column {name!r} is null, and prompts.template uses it; give it a text")
        if not bracket and is_conversation(value):  # its text would hold the answer that it may end with
            raise DataError(
                f"{self._place}: the column {name!r} is a conversation, and prompts.template uses it; take the "
                f"template out, or name a part of it: {{{name}[0][content]}}"
            )
        return (super().get_field(f"value[{inside}", (), {"value": value})[0] if bracket else value), name
