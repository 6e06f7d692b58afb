"""The whole export: rows of every format as they come, then the card, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.config import CurateConfig
from selftrain.exporting import card, rows
from selftrain.exporting.columns import Kind, values
from selftrain.exporting.pairs import pairs
from selftrain.exporting.publishing import CARD
from selftrain.exporting.rows import Answered, Example, Format, Speech
from selftrain.exporting.writing import Table
from selftrain.records import Candidate, FinishReason, Prompt, Score


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows are made. `chat`: prompts are conversations; `tasks`: they are a mix; `generator_of` names who wrote a
    candidate, where `generators` are known; what `is_barred` must not be in the data set, on either side of a pair."""

    config: CurateConfig
    chat: bool
    tasks: bool
    speech: Speech
    finish_reasons: tuple[FinishReason, ...]
    generator_of: Callable[[Candidate], str | None]
    is_barred: Callable[[Candidate], bool] = lambda candidate: False
    generators: bool = True
    own: Mapping[str, Kind] = field(default_factory=dict)
    """Columns of the candidate file, with their types."""

    @property
    def formats(self) -> tuple[Format, ...]:
        """Those that are written, the default first."""
        whole: Format = "messages" if self.chat else "text"
        asked: tuple[Format, ...] = ("preference",) if self.config.pairs != "none" else ()
        return ("prompt_completion", whole, *asked)

    def example(self, prompt: Prompt, why: str, candidate: Candidate, score: Score) -> Example:
        """A candidate as a row."""
        completion = self.speech.completion(candidate)
        own = values(candidate.metadata, self.own)
        return Example(prompt, completion, candidate.id, score.value, why, self.generator_of(candidate), own)


@dataclass(slots=True)
class Counted:
    """What went into the folder. `answered` are prompts with an example."""

    examples: int = 0
    pairs: int = 0
    answered: int = 0


def fill(
    folder: Path,
    recipe: Recipe,
    answered: Iterable[Answered],
    demonstrations: Iterable[Example],
    facts: Callable[[Counted], card.Facts],
) -> Mapping[str, Any]:
    """Write every file; return what the manifest says of them.

    Both iterables are read once, and of `answered` one prompt is held at a time. `demonstrations` come last, as they do
    where they are trained on.
    """
    counted = Counted()
    shown: dict[Format, list[dict[str, Any]]] = {name: [] for name in recipe.formats}
    with ExitStack() as stack:
        tables = {
            name: stack.enter_context(
                Table(
                    folder,
                    name,
                    chat=recipe.chat,
                    tasks=recipe.tasks,
                    generators=recipe.generators,
                    own=recipe.own,
                )
            )
            for name in recipe.formats
        }

        def add(name: Format, row: dict[str, Any]) -> None:
            tables[name].add(row)
            if len(shown[name]) < recipe.config.sample_rows:
                shown[name].append({key: value for key, value in row.items() if value is not None})

        for one in answered:
            _add_prompt(recipe, one, counted, add)
        for example in demonstrations:
            _add_example(recipe, example, counted, add)
    written = {name: table.count for name, table in tables.items() if table.count}
    (folder / CARD).write_text(card.render(facts(counted), written, shown), encoding="utf-8")
    return {"rows": written, "counts": asdict(counted)}


def _add_prompt(recipe: Recipe, one: Answered, counted: Counted, add: Callable[[Format, dict[str, Any]], None]) -> None:
    counted.answered += bool(one.kept)
    for candidate, score in zip(one.group.candidates, one.group.scores, strict=True):
        if candidate.id in one.kept:
            _add_example(
                recipe, recipe.example(one.group.prompt, one.kept[candidate.id], candidate, score), counted, add
            )
    if recipe.config.pairs == "none":
        return
    found = pairs(
        one,
        recipe.config.pairs,
        limit=recipe.config.pairs_per_prompt,
        finish_reasons=recipe.finish_reasons,
        as_example=partial(recipe.example, one.group.prompt, ""),
        is_barred=recipe.is_barred,
    )
    for pair in found:
        counted.pairs += 1
        add("preference", rows.preference(pair))


def _add_example(
    recipe: Recipe, example: Example, counted: Counted, add: Callable[[Format, dict[str, Any]], None]
) -> None:
    counted.examples += 1
    add("prompt_completion", rows.prompt_completion(example))
    add(*(("messages", rows.messages(example)) if recipe.chat else ("text", rows.text(example))))
