"""The words of a data set itself, without what the recipe puts around them: for comparing texts of different sets.

All prompts of a run share its template and its worked examples; what they share beside those is theirs.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from selftrain.config import PromptsConfig, SourceConfig
from selftrain.errors import DataError
from selftrain.prompts import rows
from selftrain.prompts.building import own_words
from selftrain.prompts.conversations import as_answer, is_conversation
from selftrain.records import Prompt

Wording = tuple[str, str, str]
"""Which row or prompt, what of it (`question`, `reference`, `completion`, `text`), and the text."""


def own_text(prompt: Prompt, config: PromptsConfig, source: SourceConfig) -> str:
    """What is asked, earlier turns included, without the system message, the worked examples and the words of the
    template. `source` is that of the prompt's set."""
    of_task = source.sources.get(prompt.task, source)
    template = of_task.template or config.template
    if prompt.messages is None:
        worked = [one.prompt + one.completion for one in config.few_shot]
        own = [(prompt.text or "").removeprefix(config.few_shot_separator.join([*worked, ""]))]
    else:
        turns = [one.content for one in prompt.messages if one.role != "system"]
        shown = [words for one in config.few_shot for words in (one.prompt, one.completion)]
        own = turns[len(shown) :] if turns[: len(shown)] == shown else turns
    return "\n".join(own) if template is None or len(own) != 1 else within_template(own[0], template)


def within_template(text: str, template: str) -> str:
    """What stands in the fields of the template; the whole text where it is not made by it."""
    literals = [""]
    for literal, field, _, _ in string.Formatter().parse(template):
        literals[-1] += literal
        if field is not None:
            literals.append("")
    if len(literals) == 1 or not text.startswith(literals[0]):
        return text
    fields, start = [], len(literals[0])
    for literal in literals[1:-1]:
        end = text.find(literal, start)
        if end < 0:
            return text
        fields.append(text[start:end])
        start = end + len(literal)
    end = len(text) - len(literals[-1])
    return "\n".join([*fields, text[start:end]]) if end >= start and text.endswith(literals[-1]) else text


def of_prompt(prompt: Prompt, config: PromptsConfig, source: SourceConfig) -> Iterator[Wording]:
    """What a prompt's row says: the question, and the reference and completion where there are any."""
    yield prompt.id, "question", own_text(prompt, config, source)
    known = {"reference": prompt.reference, "completion": prompt.completion}
    yield from ((prompt.id, kind, text) for kind, text in known.items() if text is not None)


def of_source(source: SourceConfig, base: Path, where: str) -> Iterator[Wording]:
    """What the rows of a source say, as `of_prompt`; of rows without a question, what their text column does.

    Raises what `rows.stream` does, and DataError for a row that has neither; `where` is the knob in errors.
    """
    for task, one in source.sources.items():
        at = where if task is None else f"{where}.mix.{task}"
        columns = rows.columns_of(one)
        knobs = PromptsConfig(train=one, template=one.template)
        for place, row in rows.stream(one, base, at):
            names = (columns.messages, columns.prompt)
            if one.template is None and all(rows.find(row, name) in (rows.MISSING, None) for name in names):
                if rows.find(row, columns.text) is rows.MISSING:
                    raise DataError(
                        f"{place} has no text to compare with: none of the columns {columns.messages!r}, "
                        f"{columns.prompt!r} and {columns.text!r}; it has: {', '.join(map(str, row))}. Name the right "
                        f"one in columns of {at}: {{columns: {{prompt: ...}}}}"
                    )
                yield place, "text", rows.as_text(rows.column(row, columns.text, place, "columns.text"), place)
                continue
            turns, answer = own_words(row, columns, knobs, place)
            asked = [turn.content for turn in turns if turn.role != "system"]
            templated = one.template is not None and len(asked) == 1
            yield place, "question", within_template(asked[0], str(one.template)) if templated else "\n".join(asked)
            yield from _answers(row, place, answer, {"reference": columns.reference, "completion": columns.completion})


def _answers(row: rows.Row, place: str, answer: str | None, columns: dict[str, str | None]) -> Iterator[Wording]:
    if answer is not None:
        yield place, "completion", answer
    for kind, name in columns.items():
        value = rows.find(row, name) if name is not None else None
        if isinstance(value, str):
            yield place, kind, value
        elif is_conversation(value):
            yield place, kind, as_answer(value, str(name), place)
