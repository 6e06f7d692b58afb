"""Whether the answer to another prompt is surely wrong here."""

from __future__ import annotations

import unicodedata
from decimal import Decimal, InvalidOperation

from selftrain.config import ScorerConfig
from selftrain.records import Prompt
from selftrain.scoring.cheats.forms import bare_answer
from selftrain.scoring.expressions import read, words_of
from selftrain.scoring.json_text import contains, same, strict
from selftrain.scoring.numerals import numerals


def surely_differ(prompt: Prompt, other: Prompt, scorer: ScorerConfig) -> bool:
    """Whether `other`'s answer has another value than `prompt`'s, by what the scorer compares. False also where that
    cannot be seen without the scorer's own comparison (two expressions), or where several answers may be right."""
    mine, theirs = bare_answer(prompt, scorer), bare_answer(other, scorer)
    if mine is None or theirs is None or scorer.name == "reasoning_gym":
        return False
    if scorer.name == "exact":
        return mine.strip() != theirs.strip()
    if scorer.name == "choice":
        return mine != theirs
    if scorer.name == "math":
        return _differ_in_mathematics(mine, theirs)
    if scorer.name == "json_schema":
        return _differ_as_json(mine, theirs, str(scorer.params.get("match", "exact")))
    if scorer.name == "code":
        name = scorer.params.get("entry_point", "entry_point")
        return _folded(mine) != _folded(theirs) and prompt.metadata.get(name) != other.metadata.get(name)
    first, second = number_of(mine), number_of(theirs)
    if first is not None and second is not None:
        return abs(first - second) > Decimal(str(scorer.params.get("tolerance", 0)))
    return _folded(mine) != _folded(theirs)


def _differ_in_mathematics(mine: str, theirs: str) -> bool:
    first, second = read(mine), read(theirs)
    if first.number is not None and second.number is not None:
        return first.number != second.number and first.percent == second.percent
    return None not in (words_of(first.body), words_of(second.body)) and _folded(mine) != _folded(theirs)


def _differ_as_json(mine: str, theirs: str, match: str) -> bool:
    try:
        first, second = strict(mine), strict(theirs)
    except ValueError:
        return False
    if match == "none":
        return False
    return not (contains(second, first) if match == "subset" else same(first, second))


def number_of(text: str) -> Decimal | None:
    """The value of a text that is one plain number and nothing else."""
    found = list(numerals(text))
    if len(found) != 1 or found[0].percent or found[0].text != text.strip():
        return None
    number = found[0].number
    try:
        return number if number is None or abs(number.adjusted()) <= 300 else None
    except InvalidOperation:
        return None


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())
