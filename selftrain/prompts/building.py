"""From a row to a prompt: what is asked, what is known of the answer, and what the policy sees."""

from __future__ import annotations

import string
from collections.abc import Mapping

from selftrain.config import Columns, PromptsConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts.rows import Row, as_text, column
from selftrain.records import Message, Prompt, canonical_json, digest


def build(row: Row, columns: Columns, config: PromptsConfig, place: str, *, is_demonstration: bool) -> Prompt:
    """The prompt of a row; `place` names the row in errors.

    A demonstration may lack a reference if it has a completion, and the other way round; DataError if it has neither.
    """
    completion = _completion(row, columns, place)
    reference = _reference(row, columns, place, required=not is_demonstration)
    if is_demonstration and completion is None and reference is None:
        raise DataError(
            f"{place} shows no answer: it has neither the column {columns.completion!r} (columns.completion) nor a "
            f"reference; it has: {', '.join(map(str, row))}"
        )
    own = _own_messages(row, columns.messages, place) or (Message("user", _asked(row, columns, config, place)),)
    identifier = digest([[one.role, one.content] for one in own])[:20]
    identity = identifier
    if columns.identity is not None:
        identity = canonical_json(column(row, columns.identity, place, "it names what makes two problems the same"))
    known = {columns.reference, columns.completion, columns.messages, columns.prompt}
    metadata = {key: value for key, value in row.items() if key not in known}
    try:
        canonical_json([metadata, reference, completion, [one.content for one in own]]).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"{place} holds something that is not plain JSON text and numbers: {error}") from None
    messages, text = _shown(own, config, place)
    return Prompt(identifier, identity, messages, text, reference, metadata, completion)


def _reference(row: Row, columns: Columns, place: str, *, required: bool) -> str | None:
    if columns.reference is None or not (required or columns.reference in row):
        return None
    advice = "name it in columns.reference of this set, or set that to null if there is none"
    value = column(row, columns.reference, place, advice)
    return None if value is None else as_text(value, f"{place}: the reference")


def _completion(row: Row, columns: Columns, place: str) -> str | None:
    value = row.get(columns.completion)
    if value is None:
        return None
    completion = as_text(value, f"{place}: the completion (columns.completion: {columns.completion})")
    if not completion.strip():
        raise DataError(f"{place}: the completion is empty ({completion!r}); make it null where there is none")
    return completion


def _shown(
    own: tuple[Message, ...], config: PromptsConfig, place: str
) -> tuple[tuple[Message, ...] | None, str | None]:
    """What the policy sees: system message and worked examples before the row's own words."""
    if config.format == "chat":
        system = (Message("system", config.system),) if config.system is not None else ()
        examples = tuple(
            m for one in config.few_shot for m in (Message("user", one.prompt), Message("assistant", one.completion))
        )
        return (*system, *examples, *own), None
    if len(own) > 1:
        raise DataError(f"{place} is a conversation of {len(own)} messages; set prompts.format: chat")
    worked = [one.prompt + one.completion for one in config.few_shot]
    return None, config.few_shot_separator.join([*worked, own[0].content])


def _asked(row: Row, columns: Columns, config: PromptsConfig, place: str) -> str:
    if config.template is None:
        value = column(row, columns.prompt, place, "name the right one in columns.prompt, or set prompts.template")
        return as_text(value, f"{place}: the prompt")
    try:
        for _, name, _, _ in string.Formatter().parse(config.template):
            if name is not None:
                column(row, name.split(".")[0].split("[")[0], place, "prompts.template uses it; {{ is a plain brace")
        return config.template.format_map(dict(row))
    except (ValueError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"prompts.template {config.template!r} does not fit {place}: {error}; write {{{{ and }}}} for plain braces"
        ) from None


def _own_messages(row: Row, name: str, place: str) -> tuple[Message, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: {name} must be a list of {{role, content}}, not {value!r:.80}")
    messages = []
    for turn in value:
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise DataError(f"{place}: a message needs role and content, but is {turn!r:.80}")
        if not isinstance(turn["content"], str):
            raise DataError(
                f"{place}: a message's content must be text, not {type(turn['content']).__name__} "
                "(images are not supported)"
            )
        messages.append(Message(str(turn["role"]), turn["content"]))
    if messages[-1].role == "assistant":
        raise DataError(f"{place}: the last message is the assistant's; a prompt ends where the policy has to answer")
    return tuple(messages)
