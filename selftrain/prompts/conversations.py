"""Conversations in rows: messages as chat templates have them, and turns as ShareGPT has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.errors import DataError
from selftrain.records import Message

# Of turns written {from, value}.
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TURNS = ({"role", "content"}, {"from", "value"})
TEXT_PARTS = ("text", "input_text", "output_text")
NOT_TEXT = {"image": "images", "audio": "recordings", "video": "videos", "file": "files"}


def as_messages(value: Any, name: str, place: str) -> tuple[Message, ...]:
    """The turns of the column `name`: {role, content} or {from, value}; content is text, or a list of parts, of which
    the texts are joined. Raises DataError for anything else, images among them."""
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{place}: {name} must be a list of {{role, content}}, not {value!r:.80}")
    return tuple(_message(turn, name, place) for turn in value)


def asked_and_answered(value: Any, name: str, place: str) -> tuple[tuple[Message, ...], str | None]:
    """`as_messages` of what is asked, and the assistant's last turn where the conversation ends with one: that is the
    known answer, and no part of what the policy sees. DataError where nothing is left to ask."""
    messages = as_messages(value, name, place)
    if messages[-1].role != "assistant":
        return messages, None
    asked, answer = messages[:-1], messages[-1].content
    if not asked or asked[-1].role == "assistant":
        why = "holds the assistant's turn alone" if not asked else "ends with two turns of the assistant"
        raise DataError(
            f"{place}: {name} {why}; the last one is the known answer, and a prompt ends before it, where the policy "
            "has to answer"
        )
    return asked, answer


def is_conversation(value: Any) -> bool:
    """A list of {role, content}, or of {from, value}."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and any(keys <= turn.keys() for keys in TURNS) for turn in value)
    )


def as_answer(value: Any, name: str, place: str) -> str:
    """The text of a completion that is written as one assistant's turn."""
    messages = as_messages(value, name, place)
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(one.role for one in messages)
        raise DataError(f"{place}: {name} must be text or one turn of the assistant, not turns of: {roles}")
    return messages[0].content


def _message(turn: Any, name: str, place: str) -> Message:
    if isinstance(turn, Mapping) and {"role", "content"} <= turn.keys():
        return Message(str(turn["role"]), _content(turn["content"], place))
    if isinstance(turn, Mapping) and {"from", "value"} <= turn.keys():
        speaker = SPEAKERS.get(str(turn["from"]))
        if speaker is None:
            raise DataError(f"{place}: a turn of {name} is from {turn['from']!r}; known are {', '.join(SPEAKERS)}")
        return Message(speaker, _content(turn["value"], place))
    raise DataError(f"{place}: a message needs role and content, but is {turn!r:.80}")


def _content(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        return "".join(_part(one, place) for one in content)
    raise DataError(f"{place}: a message's content must be text, not {type(content).__name__}")


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind in TEXT_PARTS and isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    for word, things in NOT_TEXT.items():
        if word in str(kind):
            raise DataError(f"{things} are not supported: {place} has a part of type {kind!r}")
    raise DataError(f"{place}: a message has a part that is no text: {part!r:.80}")
