"""Prompts: reading the sets, building what is asked, and which of them a round uses.

- `rows`      rows from JSON-lines files or from a function of the recipe
- `building`  from a row to a prompt

Every row becomes one Prompt; duplicates collapse and are counted; a problem that stands both in a held-out set and in
data that is trained on is an error, or leaves that data if so asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selftrain.config import PromptsConfig, SourceConfig
from selftrain.errors import DataError
from selftrain.prompts import rows
from selftrain.prompts.building import build
from selftrain.records import Prompt, digest, seed_from

TRAINED_ON = ("train", "seed_data")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """One set of distinct prompts, in the order of the source.

    In `seed_data`, where one prompt may be answered in several ways, prompt and answer together are distinct. `digest`
    covers content, references and metadata, and, in `seed_data`, completions.
    """

    name: str
    prompts: tuple[Prompt, ...]
    digest: str
    num_duplicates: int
    num_overlapping: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """What is measured to see what is forgotten: texts, or prompts (then `texts` is empty)."""

    texts: tuple[str, ...]
    prompts: PromptSet | None
    digest: str


@dataclass(frozen=True, slots=True)
class PromptSets:
    """The sets of a run; all but `train` may be absent."""

    train: PromptSet
    validate: PromptSet | None = None
    test: PromptSet | None = None
    seed_data: PromptSet | None = None
    retention: Retention | None = None

    def held_out(self) -> dict[str, PromptSet]:
        """The sets that evaluation uses, by name: validate first."""
        return {one.name: one for one in (self.validate, self.test) if one is not None}


def load(config: PromptsConfig, base: Path) -> PromptSets:
    """Read every set. Raises ConfigError or DataError naming the file, the row and the column of what is wrong."""
    sources = {
        "train": config.train,
        "validate": config.validate_,
        "test": config.test,
        "seed_data": config.seed_data,
    }
    sets = {
        name: _collected(name, rows.read(one, base, f"prompts.{name}"), one, config)
        for name, one in sources.items()
        if one is not None
    }
    held_out = [sets[name] for name in ("validate", "test") if name in sets]
    if len(held_out) == 2:
        _refuse_overlap(*held_out)
    for name in TRAINED_ON:
        if name in sets:
            sets[name] = _apart(sets[name], held_out, config)
    retention = _load_retention(config.retention, config, base) if config.retention is not None else None
    return PromptSets(**sets, retention=retention)


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


def _collected(
    name: str, found: Sequence[tuple[str, rows.Row]], source: SourceConfig, config: PromptsConfig
) -> PromptSet:
    is_demonstration = name == "seed_data"
    distinct: dict[tuple[str, str | None], Prompt] = {}
    for place, row in found:
        prompt = build(row, source.columns, config, place, is_demonstration=is_demonstration)
        answer = (prompt.completion or prompt.reference) if is_demonstration else None
        other = distinct.setdefault((prompt.id, answer), prompt)
        # Of demonstrations nothing is judged by the reference.
        if other.reference != prompt.reference and not is_demonstration:
            raise DataError(
                f"{place}: the same prompt came before with another reference "
                f"({other.reference!r}, now {prompt.reference!r})"
            )
    prompts = tuple(distinct.values())
    return PromptSet(name, prompts, _content_digest(name, prompts), len(found) - len(prompts))


def _content_digest(name: str, prompts: Sequence[Prompt]) -> str:
    content = []
    for one in prompts:
        messages = [[m.role, m.content] for m in one.messages or ()]
        content.append([one.identity, messages, one.text, one.reference, dict(one.metadata)])
        # Of training prompts only the arm gold reads them, which has a digest of its own for that.
        if name == "seed_data" and one.completion is not None:
            content[-1].append(one.completion)
    return digest(content)


def _load_retention(source: SourceConfig, config: PromptsConfig, base: Path) -> Retention:
    """Texts where every row has the text column. Otherwise prompts, asked as the rows have them: with the run's format
    and system message, but neither the template nor the worked examples, which are about another task."""
    found = rows.read(source, base, "prompts.retention")
    columns = source.columns
    # Whoever names the text column as the prompt's has prompts.
    has_text = [columns.text in row and columns.text != columns.prompt for _, row in found]
    if not any(has_text):
        asked = config.model_copy(update={"template": None, "few_shot": ()})
        prompts = _collected("retention", found, source, asked)
        return Retention((), prompts, prompts.digest)
    if not all(has_text):
        place, row = found[has_text.index(not has_text[0])]
        raise DataError(
            f"prompts.retention: {place} has {'no' if has_text[0] else 'a'} column {columns.text!r} (columns.text), "
            f"unlike the rows before; either all rows are texts, or none is. It has: {', '.join(map(str, row))}"
        )
    texts = tuple(rows.as_text(row[columns.text], f"{place}: the text") for place, row in found)
    for (place, _), text in zip(found, texts, strict=True):
        if not text.strip():
            raise DataError(f"{place}: the text is empty ({text!r}); take the row out")
    return Retention(texts, None, digest(texts))


def _apart(prompts: PromptSet, held_out: Sequence[PromptSet], config: PromptsConfig) -> PromptSet:
    """What is trained on, without what is held out; an error if that was not asked for."""
    for other in held_out:
        if config.overlap == "error":
            _refuse_overlap(prompts, other)
        prompts = _without(prompts, other)
    if not prompts.prompts:
        raise DataError(f"prompts.{prompts.name}: every one of them is also a held-out prompt; give other prompts")
    return prompts


def _refuse_overlap(first: PromptSet, second: PromptSet) -> None:
    known = {one.identity: one for one in second.prompts}
    shared = [one for one in first.prompts if one.identity in known]
    if shared:
        example = shared[0].messages[-1].content if shared[0].messages else (shared[0].text or "")
        remedy = " or set prompts.overlap: drop_from_train" if first.name in TRAINED_ON else ""
        raise DataError(
            f"{len(shared)} of the {first.name} prompts are also in prompts.{second.name}, for example "
            f"{example[-200:]!r} (id {shared[0].id}); give other prompts{remedy}"
        )


def _without(prompts: PromptSet, held_out: PromptSet) -> PromptSet:
    known = {one.identity for one in held_out.prompts}
    left = tuple(one for one in prompts.prompts if one.identity not in known)
    return replace(
        prompts,
        prompts=left,
        digest=_content_digest(prompts.name, left),
        num_overlapping=prompts.num_overlapping + len(prompts.prompts) - len(left),
    )
