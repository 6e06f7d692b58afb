"""Prompts: reading the sets, building what is asked, and which of them a round uses.

Rows come from JSON-lines files or from a function of the recipe. Every row becomes one Prompt; duplicates collapse and
are counted; a problem that stands both in a held-out set and in training is an error, or leaves training if so asked.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import plugins
from selftrain.config import PromptsConfig, SourceConfig
from selftrain.errors import ConfigError, DataError
from selftrain.records import Message, Prompt, canonical_json, digest, seed_from


@dataclass(frozen=True, slots=True)
class PromptSet:
    """One set of distinct prompts, in the order of the source. `digest` covers content, references and metadata."""

    name: str
    prompts: tuple[Prompt, ...]
    digest: str
    num_duplicates: int
    num_overlapping: int = 0


@dataclass(frozen=True, slots=True)
class PromptSets:
    """The sets of a run; `validate` and `test` may be absent."""

    train: PromptSet
    validate: PromptSet | None
    test: PromptSet | None

    def held_out(self) -> dict[str, PromptSet]:
        """The sets that evaluation uses, by name: validate first."""
        return {one.name: one for one in (self.validate, self.test) if one is not None}


def load(config: PromptsConfig, base: Path) -> PromptSets:
    """Read every set. Raises ConfigError or DataError naming the file, the row and the column of what is wrong."""
    sets = {}
    for name, source in (("train", config.train), ("validate", config.validate_), ("test", config.test)):
        sets[name] = _load_set(name, source, config, base) if source is not None else None
    train, validate, test = sets["train"], sets["validate"], sets["test"]
    assert train is not None
    if validate is not None and test is not None:
        _refuse_overlap(validate, test)
    for held_out in (validate, test):
        if held_out is not None:
            if config.overlap == "error":
                _refuse_overlap(train, held_out)
            train = _without(train, held_out)
    if not train.prompts:
        raise DataError("prompts.train: every training prompt is also a held-out one; give other prompts")
    return PromptSets(train, validate, test)


def of_round(prompts: PromptSet, config: PromptsConfig, *, seed: int, round_number: int) -> tuple[Prompt, ...]:
    """The prompts of a round (1-based): all of them, or the next K of a seeded shuffle that starts again when used up.

    Depends on the seed and on the prompts' content, not on the order of the file.
    """
    schedule = config.per_round if isinstance(config.per_round, tuple) else (config.per_round,)
    sizes = [schedule[min(number, len(schedule)) - 1] for number in range(1, round_number + 1)]
    if sizes[-1] == "all":
        return prompts.prompts
    start = sum(size for size in sizes[:-1] if size != "all")
    wanted = min(sizes[-1], len(prompts.prompts))
    chosen: dict[str, Prompt] = {}
    for prompt in _shuffled_from(prompts.prompts, start, seed):
        chosen.setdefault(prompt.id, prompt)  # a window over the end of a shuffle may meet a prompt twice
        if len(chosen) == wanted:
            break
    return tuple(chosen.values())


def _shuffled_from(prompts: Sequence[Prompt], start: int, seed: int) -> Iterator[Prompt]:
    epoch, offset = divmod(start, len(prompts))
    while True:
        yield from sorted(prompts, key=lambda one: seed_from(seed, "prompts", epoch, one.id))[offset:]
        epoch, offset = epoch + 1, 0


def _load_set(name: str, source: SourceConfig, config: PromptsConfig, base: Path) -> PromptSet:
    where = f"prompts.{name}"
    distinct: dict[str, Prompt] = {}
    count = 0
    for number, (place, row) in enumerate(_rows(source, base, where), 1):
        if source.limit is not None and number > source.limit:
            break
        prompt = _prompt(row, source, config, place)
        other = distinct.setdefault(prompt.id, prompt)
        if other.reference != prompt.reference:
            raise DataError(
                f"{place}: the same prompt came before with another reference "
                f"({other.reference!r}, now {prompt.reference!r})"
            )
        count += 1
    if not distinct:
        raise DataError(f"{where}: {source.path} gave no prompts; it is empty")
    prompts = tuple(distinct.values())
    return PromptSet(name, prompts, _content_digest(prompts), count - len(prompts))


def _content_digest(prompts: Sequence[Prompt]) -> str:
    rows = [
        [one.identity, [[m.role, m.content] for m in one.messages or ()], one.text, one.reference, dict(one.metadata)]
        for one in prompts
    ]
    return digest(rows)


def _rows(source: SourceConfig, base: Path, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if plugins.is_reference(source.path):
        yield from _rows_of_function(source, base, where)
        return
    path = base / source.path
    if path.suffix != ".jsonl":
        raise ConfigError(f"{where}: cannot read {source.path!r}; give a .jsonl file, or path/to/file.py:function")
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path.resolve()} (relative paths start at the recipe's folder)")
    if source.params:
        raise ConfigError(f"{where}: params are for functions; {source.path} is a file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{source.path}, line {number}", _json_row(line, f"{source.path}, line {number}")


def _json_row(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: {error}") from None
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place} holds a {type(row).__name__}; every line must be an object with named columns")
    return row


def _rows_of_function(source: SourceConfig, base: Path, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    function = plugins.load_function(source.path, base)
    try:
        rows: Iterable[Any] = function(**source.params)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{where}: row {number} of {source.path} is a {type(row).__name__}; yield dicts with named columns"
                )
            yield f"row {number} of {source.path}", row
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {source.path} raised {type(error).__name__}: {error}") from error


def _prompt(row: Mapping[str, Any], source: SourceConfig, config: PromptsConfig, place: str) -> Prompt:
    columns = source.columns
    reference = None
    if columns.reference is not None:
        value = _column(
            row,
            columns.reference,
            place,
            "name it in columns.reference of this set, or set that to null if there is none",
        )
        reference = None if value is None else _text(value, f"{place}: the reference")
    own = _own_messages(row, columns.messages, place) or (Message("user", _asked(row, source, config, place)),)
    identifier = digest([[one.role, one.content] for one in own])[:20]
    identity = identifier
    if columns.identity is not None:
        identity = canonical_json(_column(row, columns.identity, place, "it names what makes two problems the same"))
    metadata = {
        key: value for key, value in row.items() if key not in {columns.reference, columns.messages, columns.prompt}
    }
    try:
        canonical_json([metadata, reference, [one.content for one in own]]).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"{place} holds something that is not plain JSON text and numbers: {error}") from None
    messages, text = _built(own, config, place)
    return Prompt(identifier, identity, messages, text, reference, metadata)


def _built(
    own: tuple[Message, ...], config: PromptsConfig, place: str
) -> tuple[tuple[Message, ...] | None, str | None]:
    """What the policy sees: system message and worked examples before the row's own words."""
    if config.format == "chat":
        system = (Message("system", config.system),) if config.system is not None else ()
        shown = tuple(
            m for one in config.few_shot for m in (Message("user", one.prompt), Message("assistant", one.completion))
        )
        return (*system, *shown, *own), None
    if len(own) > 1:
        raise DataError(f"{place} is a conversation of {len(own)} messages; set prompts.format: chat")
    shown_text = [one.prompt + one.completion for one in config.few_shot]
    return None, config.few_shot_separator.join([*shown_text, own[0].content])


def _asked(row: Mapping[str, Any], source: SourceConfig, config: PromptsConfig, place: str) -> str:
    if config.template is None:
        value = _column(
            row, source.columns.prompt, place, "name the right one in columns.prompt, or set prompts.template"
        )
        return _text(value, f"{place}: the prompt")
    try:
        for _, name, _, _ in string.Formatter().parse(config.template):
            if name is not None:
                _column(row, name.split(".")[0].split("[")[0], place, "prompts.template uses it; {{ is a plain brace")
        return config.template.format_map(dict(row))
    except (ValueError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"prompts.template {config.template!r} does not fit {place}: {error}; write {{{{ and }}}} for plain braces"
        ) from None


def _own_messages(row: Mapping[str, Any], column: str, place: str) -> tuple[Message, ...]:
    value = row.get(column)
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: {column} must be a list of {{role, content}}, not {value!r:.80}")
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


def _column(row: Mapping[str, Any], column: str, place: str, advice: str) -> Any:
    if column not in row:
        raise DataError(f"{place} has no column {column!r} ({advice}); it has: {', '.join(map(str, row))}")
    return row[column]


def _text(value: Any, what: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{what} must be text or a number, not {type(value).__name__}: {value!r:.80}")


def _refuse_overlap(first: PromptSet, second: PromptSet) -> None:
    known = {one.identity: one for one in second.prompts}
    shared = [one for one in first.prompts if one.identity in known]
    if shared:
        example = shared[0].messages[-1].content if shared[0].messages else (shared[0].text or "")
        remedy = " or set prompts.overlap: drop_from_train" if first.name == "train" else ""
        raise DataError(
            f"{len(shared)} of the {first.name} prompts are also in prompts.{second.name}, for example "
            f"{example[-200:]!r} (id {shared[0].id}); give other prompts{remedy}"
        )


def _without(train: PromptSet, held_out: PromptSet) -> PromptSet:
    known = {one.identity for one in held_out.prompts}
    left = tuple(one for one in train.prompts if one.identity not in known)
    dropped = len(train.prompts) - len(left)
    return PromptSet(train.name, left, _content_digest(left), train.num_duplicates, train.num_overlapping + dropped)
