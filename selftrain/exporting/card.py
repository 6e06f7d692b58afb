"""README.md of an exported data set: the hub's front matter, and what a reader must know to judge the data.

What models and prompts wrote stands in fenced blocks alone, as JSON on lines of its own, so that none of it can end the
block, the table or the front matter that it is in.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from selftrain.exporting.rows import Format

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)
MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~$&])")
SHOWN_CHARACTERS = 1200
TRAINERS: dict[Format, str] = {
    "prompt_completion": "demonstrations, prompt and completion apart (TRL: `SFTTrainer`)",
    "messages": "the same demonstrations as whole conversations (TRL: `SFTTrainer`)",
    "text": "the same demonstrations as single texts (TRL: `SFTTrainer`)",
    "preference": "pairs of a better and a worse answer (TRL: `DPOTrainer`, `RewardTrainer`)",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card says beside the rows. Mappings and lists are shown as YAML; the caller has taken secrets out.

    `funnel` has each step of selection with the candidates left after it; `counts` are words with numbers.
    """

    title: str
    command: str
    prompts: Mapping[str, Any]
    generator: Mapping[str, Any]
    scorers: Sequence[Mapping[str, Any]]
    selection: Mapping[str, Any]
    funnel: Sequence[tuple[str, int]]
    counts: Mapping[str, int]
    versions: Mapping[str, str]
    pairs: str | None = None
    license: str | None = None
    license_notes: str | None = None
    language: Sequence[str] = ()
    tags: Sequence[str] = ()
    caveats: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    opening: str = "Answers of a language model, sampled, scored and selected in one round by selftrain"
    has_generators: bool = True
    has_tasks: bool = True
    own_columns: Sequence[str] = ()


def render(facts: Facts, rows: Mapping[Format, int], samples: Mapping[Format, Sequence[Mapping[str, Any]]]) -> str:
    """The card. `rows` says how many each format has, the first one being the default; `samples` are shown."""
    return f"---\n{_front_matter(facts, rows)}---\n\n" + "\n".join(_body(facts, rows, samples)) + "\n"


def _front_matter(facts: Facts, rows: Mapping[Format, int]) -> str:
    largest = max(rows.values())
    size = next((name for limit, name in SIZES if largest < limit), "100M<n<1B")
    data: dict[str, Any] = {"pretty_name": plain(facts.title)}
    if facts.license is not None:
        data["license"] = facts.license
    if facts.language:
        data["language"] = list(facts.language)
    data["task_categories"] = ["text-generation"]
    data["size_categories"] = [size]
    data["tags"] = list(dict.fromkeys([*facts.tags, "selftrain", "synthetic"]))
    data["configs"] = [
        {
            "config_name": name,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": "train", "path": f"{name}.parquet"}],
        }
        for number, name in enumerate(rows)
    ]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)


def _body(
    facts: Facts, rows: Mapping[Format, int], samples: Mapping[Format, Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    yield f"# {marked(facts.title)}\n"
    yield f"{marked(facts.opening)}:\n"
    yield fenced(facts.command, "bash")
    for words in facts.caveats:
        yield f"\n> **Warning**: {marked(words)}"
    yield "\n## What is in it\n"
    yield from _table(
        ("part", "rows", "what"), [(f"`{name}`", f"{count:,}", TRAINERS[name]) for name, count in rows.items()]
    )
    yield "\nEvery part is there as Parquet and as JSONL. Beside the columns that trainers read:"
    columns = ["`prompt_id` and `candidate_id` name the prompt and the answer", "`value` is the score"]
    columns += ["`why` says why it was kept"]
    columns += ["`generator` who wrote it"] * facts.has_generators
    columns += ["`task` which part of a mix of prompts it is from"] * facts.has_tasks
    yield ", ".join(columns) + "."
    if facts.own_columns:
        yield f"From the candidates' own file: {', '.join(map(marked, facts.own_columns))}."
    yield from (f"\n{words}" for words in facts.notes)
    yield "\n" + "\n".join(f"* {marked(name)}: {count:,}" for name, count in facts.counts.items())
    yield "\n## Loading\n"
    yield fenced(_loading(rows), "python")
    yield "\n## Where it comes from\n"
    for name, data in (("Prompts", facts.prompts), ("Generator", facts.generator), ("Scorers", facts.scorers)):
        yield f"{name}:\n\n{fenced(_as_yaml(data), 'yaml')}\n"
    yield f"Selection:\n\n{fenced(_as_yaml(facts.selection), 'yaml')}\n"
    if facts.pairs is not None:
        yield f"{facts.pairs}\n"
    yield "Candidates left after each step:\n"
    yield from _table(("step", "left"), [(marked(name), f"{left:,}") for name, left in facts.funnel])
    yield "\n## Licence\n"
    stated = facts.license is not None
    yield f"Licence: {marked(facts.license or '')}." if stated else "Licence: not stated."
    if facts.license_notes is not None:
        yield f"\n{marked(facts.license_notes)}"
    yield (
        "\nWhat the licences of the prompts and the terms of the generator ask for, holds for these data too."
        if facts.license_notes is None
        else ""
    )
    for name, shown in samples.items():
        if shown:
            yield f"\n## First rows of `{name}`\n"
            yield from (fenced(_as_json(row), "json") for row in shown)
    yield "\n## Made with\n"
    yield ", ".join(f"{marked(name)} {marked(version)}" for name, version in facts.versions.items()) + "."


def _loading(rows: Mapping[Format, int]) -> str:
    first, *others = rows
    lines = ["from datasets import load_dataset", "", f'load_dataset("path/to/this/folder", split="train")  # {first}']
    return "\n".join(lines + [f'load_dataset("path/to/this/folder", "{name}", split="train")' for name in others])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def plain(text: str) -> str:
    """One line without control characters, also those that turn the direction of writing."""
    return " ".join("".join(one if _is_seen(one) else " " for one in text).split())


def marked(text: str) -> str:
    """`plain`, and nothing of it is Markdown or HTML."""
    return MARKUP.sub(r"\\\1", plain(text))


def fenced(text: str, language: str) -> str:
    """A block of code that the text cannot end."""
    longest = max((len(one) for one in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _as_yaml(data: Any) -> str:
    return _seen(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _as_json(row: Mapping[str, Any]) -> str:
    return _seen(json.dumps(_shortened(row), ensure_ascii=False, indent=1))


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]} [...]"
    if isinstance(value, Mapping):
        return {name: _shortened(one) for name, one in value.items()}
    return [_shortened(one) for one in value] if isinstance(value, list) else value


def _seen(text: str) -> str:
    """What cannot be seen, in the escapes that JSON and YAML have for it."""
    return "".join(one if one == "\n" or _is_seen(one) else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    code = ord(character)
    pair = (code,) if code < 0x10000 else (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF))
    return "".join(f"\\u{one:04x}" for one in pair)


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
