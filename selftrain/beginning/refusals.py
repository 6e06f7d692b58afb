"""What cannot run, refused before anything is written."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.beginning.looking import Row, Seen
from selftrain.beginning.programs import TESTS
from selftrain.beginning.wishes import Wishes
from selftrain.errors import ConfigError, SelftrainError
from selftrain.prompts.building import templated
from selftrain.prompts.cells import READ, Unusable
from selftrain.prompts.conversations import is_conversation
from selftrain.prompts.rows import MISSING, find
from selftrain.scoring.choice import right
from selftrain.whereabouts import is_nowhere

# Judge without a reference.
_ALONE = ("function", "reasoning_gym", "code")
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def require_template(template: str, rows: Sequence[Row]) -> None:
    """ConfigError for a template that a row does not fit, or that no row changes."""
    try:
        for number, row in enumerate(rows, 1):
            templated(row, template, f"row {number} of the data")
    except SelftrainError as error:
        raise ConfigError(str(error).replace("prompts.template", "--template")) from None
    if not any(field is not None for _, field, _, _ in string.Formatter().parse(template)):
        raise ConfigError(
            f"--template {template!r} names no column, so every prompt would be the same; write names of columns in "
            "braces, as {question}"
        )


def require_usable(rows: Sequence[Row], seen: Seen, wishes: Wishes) -> None:
    """ConfigError where the column that is asked, or the one with the answer, holds what is no text."""
    asked = None if wishes.template is not None or seen.messages is not None else seen.prompt
    for flag, name in (("--prompt-column", asked), ("--reference-column", seen.reference)):
        for number, row in enumerate(rows, 1) if name is not None else ():
            value = find(row, str(name))
            if isinstance(value, Unusable):
                raise ConfigError(f"{flag} {name!r} holds {value.what}, which is not read ({READ} are)")
            is_text = isinstance(value, str | int | float) or value is MISSING or is_conversation(value)
            if name == asked and not is_text:
                raise ConfigError(
                    f"{flag} {name!r}: row {number} of the data holds no text there, but {value!r:.60}; name another "
                    "column, or make the prompt by --template"
                )


def require_judgeable(rows: Sequence[Row], seen: Seen, scorer: str) -> None:
    """ConfigError for a scorer that compares with references that are not there, or that name no choice; and for one
    that runs tests that are not there."""
    if scorer == "code" and seen.programs is None:
        raise ConfigError(
            f"--scorer code runs the tests of each row, and no column holds any: looked at {', '.join(TESTS)}; the "
            f"columns are {', '.join(seen.columns)}. Rename the one with the tests (asserts, code with check(), or "
            "inputs with outputs)"
        )
    if scorer in _ALONE:
        return
    if seen.reference is None and not seen.answered:
        raise ConfigError(
            f"--scorer {scorer} compares with a known answer, and there is no column of answers; name it by "
            "--reference-column, or judge by a rule of your own: --scorer function"
        )
    if scorer != "choice" or seen.reference is None:
        return
    choices = None if seen.choices is None else seen.choices.params["choices"]
    for number, row in enumerate(rows, 1):
        value = find(row, seen.reference)
        try:
            right(None if value is MISSING or value is None else str(value), row, choices)
        except ValueError as error:
            said = str(error).partition("; give the letter, or name")[0]
            raise ConfigError(
                f"--scorer choice: row {number} of the data: {said}; it needs a column with the letter of the right "
                "choice, or with its text beside a column of choices"
            ) from None


def require_model(model: str) -> None:
    """ConfigError for a model that is neither there nor can be the name of one on the hub."""
    if is_nowhere(model, Path()):
        raise ConfigError(f"--model {model!r}: there is no such file or folder, and it is no hub id; correct the path")


def require_chat_template(model: str, fmt: str) -> None:
    """ConfigError where prompts are chat and the folder of the model has no chat template."""
    folder = Path(model)
    if fmt != "chat" or not (folder / "config.json").is_file() or any((folder / name).exists() for name in _TEMPLATES):
        return
    try:
        settings: Any = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    if not (isinstance(settings, Mapping) and settings.get("chat_template")):
        raise ConfigError(
            f"--model {model}: its tokenizer has no chat template, as base models have none; give --format text"
        )
