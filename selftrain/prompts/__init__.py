"""Prompts: reading the sets, building what is asked, and which of them a round uses.

- `rows`           rows of a set: from which kind of source, and what their columns hold
- `files`          ... JSON lines, JSON, CSV; `parquet`; `hub` (the `datasets` library); `gym` (reasoning_gym)
- `conversations`  messages and turns in a row
- `building`       from a row to a prompt
- `excluding`      which prompts leave their set
- `sets`           what a run's prompts are
- `brought`        candidates that exist: which rows of a file hold those of which prompt; `bad_rows` hold none
- `counting`       ... and how many there are
- `schedule`       which of them a round asks

Every row becomes one Prompt; duplicates collapse and are counted; a problem that stands both in a held-out set and in
data that is trained on is an error, or leaves that data if so asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from selftrain.config import PromptsConfig, SourceConfig
from selftrain.errors import DataError
from selftrain.prompts import rows
from selftrain.prompts.building import build
from selftrain.prompts.excluding import Excluding, refuse_of_texts
from selftrain.prompts.schedule import of_round, shares, weights_of
from selftrain.prompts.sets import PromptSet, PromptSets, Retention, asked, content_digest, in_both, without
from selftrain.records import Prompt, digest

__all__ = ["PromptSet", "PromptSets", "Retention", "load", "of_round", "shares", "weights_of"]

TRAINED_ON = ("train", "seed_data")

Found = list[tuple[str | None, SourceConfig, Iterable[tuple[str, rows.Row]]]]
"""A set's rows with their places, by source: task, source, rows."""


def load(config: PromptsConfig, base: Path) -> PromptSets:
    """Read every set. Raises ConfigError, DataError or DependencyError naming the source, the row and the column of
    what is wrong."""
    sources = {
        "train": config.train,
        "validate": config.validate_,
        "test": config.test,
        "seed_data": config.seed_data,
    }
    sets = {
        name: _collected(name, _read(one, base, f"prompts.{name}"), config, base)
        for name, one in sources.items()
        if one is not None
    }
    held_out = [sets[name] for name in ("validate", "test") if name in sets]
    if len(held_out) == 2:
        _refuse_overlap(*held_out)
    retention = _load_retention(config.retention, config, base) if config.retention is not None else None
    if retention is not None and retention.prompts is not None:
        held_out.append(retention.prompts)
    for name in TRAINED_ON:
        if name in sets:
            sets[name] = _apart(sets[name], held_out, config)
    return PromptSets(**sets, retention=retention)


def _read(source: SourceConfig, base: Path, where: str) -> Found:
    return [
        (task, one, rows.stream(one, base, where if task is None else f"{where}.mix.{task}"))
        for task, one in source.sources.items()
    ]


def _collected(name: str, found: Found, config: PromptsConfig, base: Path) -> PromptSet:
    is_demonstration = name == "seed_data"
    excluding = Excluding(name, [(task, source) for task, source, _ in found], base)
    distinct: dict[tuple[str, str | None], Prompt] = {}
    task_of: dict[str, str | None] = {}
    num_rows = 0
    for task, source, place, prompt in _built(found, config, is_demonstration=is_demonstration):
        num_rows += 1
        if excluding.leaves(task, prompt.id):
            continue
        if task_of.setdefault(prompt.id, task) != task:
            raise DataError(
                f"{place}: the same prompt stands in two tasks of prompts.{name}, {task_of[prompt.id]!r} and {task!r}: "
                f"{asked(prompt)}; take it out of one of them, or give one a template of its own"
            )
        answer = (prompt.completion or prompt.reference) if is_demonstration else None
        other = distinct.setdefault((prompt.id, answer), prompt)
        # Of demonstrations nothing is judged by the reference; of reasoning_gym it is one of several right answers.
        if other.reference != prompt.reference and not is_demonstration and not rows.is_gym(source):
            raise DataError(
                f"{place}: the same prompt came before with another reference "
                f"({other.reference!r}, now {prompt.reference!r})"
            )
    excluding.require_matched()
    prompts = tuple(distinct.values())
    num_duplicates = num_rows - excluding.num_rows - len(prompts)
    return PromptSet(name, prompts, content_digest(name, prompts), num_duplicates, num_excluded=excluding.num_prompts)


def _built(
    found: Found, config: PromptsConfig, *, is_demonstration: bool
) -> Iterator[tuple[str | None, SourceConfig, str, Prompt]]:
    for task, source, of_source in found:
        own = {} if source.template is None else {"template": source.template}
        knobs, columns = config.model_copy(update=own), rows.columns_of(source)
        for place, row in of_source:
            yield task, source, place, build(row, columns, knobs, place, is_demonstration=is_demonstration, task=task)


def _load_retention(source: SourceConfig, config: PromptsConfig, base: Path) -> Retention:
    """Texts where every row has the text column. Otherwise prompts, asked as the rows have them: with the run's format
    and system message, and the source's own template, but neither `prompts.template` nor the worked examples, which
    are about another task."""
    found: Found = [(task, one, list(of_source)) for task, one, of_source in _read(source, base, "prompts.retention")]
    # Whoever names the text column as the prompt's has prompts.
    placed = [
        (task, one.columns, place, row, one.columns.text in row and one.columns.text != one.columns.prompt)
        for task, one, of_source in found
        for place, row in of_source
    ]
    if not any(has_text for *_, has_text in placed):
        own = config.model_copy(update={"template": None, "few_shot": ()})
        prompts = _collected("retention", found, own, base)
        return Retention((), prompts, prompts.digest)
    refuse_of_texts([(task, one) for task, one, _ in found])
    first = placed[0][-1]
    for _, columns, place, row, has_text in placed:
        if has_text != first:
            raise DataError(
                f"prompts.retention: {place} has {'a' if has_text else 'no'} column {columns.text!r} (columns.text), "
                f"unlike the rows before; either all rows are texts, or none is. It has: {', '.join(map(str, row))}"
            )
    texts = tuple(_text(row, columns.text, place) for _, columns, place, row, _ in placed)
    tasks = tuple(task for task, *_ in placed if task is not None)
    return Retention(texts, None, digest([texts, tasks] if tasks else texts), tasks)


def _text(row: rows.Row, name: str, place: str) -> str:
    text = rows.as_text(rows.column(row, name, place, "columns.text"), f"{place}: the text")
    if not text.strip():
        raise DataError(f"{place}: the text is empty ({text!r}); take the row out")
    return text


def _apart(prompts: PromptSet, held_out: Sequence[PromptSet], config: PromptsConfig) -> PromptSet:
    """What is trained on, without what is held out; an error if that was not asked for."""
    tasks = prompts.tasks
    for other in held_out:
        if config.overlap == "error":
            _refuse_overlap(prompts, other)
        prompts = without(prompts, other)
    if not prompts.prompts:
        raise DataError(f"prompts.{prompts.name}: every one of them is also a held-out prompt; give other prompts")
    if emptied := [task for task in tasks if task not in prompts.tasks]:
        raise DataError(
            f"prompts.{prompts.name}.mix.{emptied[0]}: every one of them is also a held-out prompt; give other prompts"
        )
    return prompts


def _refuse_overlap(first: PromptSet, second: PromptSet) -> None:
    shared = in_both(first, second)
    if shared:
        remedy = " or set prompts.overlap: drop_from_train" if first.name in TRAINED_ON else ""
        raise DataError(
            f"{len(shared)} of the {first.name} prompts are also in prompts.{second.name}, for example "
            f"{asked(shared[0])} (id {shared[0].id}); give other prompts{remedy}"
        )
