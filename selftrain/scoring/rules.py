"""The built-in verifiers: each a plain function of a candidate's text and the reference.

A rule returns a Verdict, value 1 or 0. It raises ValueError where the *reference* cannot be used, which is a mistake
of the data and never a verdict on the candidate; `check_reference` finds those before any work. Rules read the whole
text they are given: words such as `not 57` are beyond them, so prompts should ask for the bare answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from selftrain.config.judging import one_group
from selftrain.scoring import Verdict
from selftrain.scoring.numerals import Numeral, numerals, same
from selftrain.scoring.results import cut

Take = Literal["only", "last", "first"]
Compare = Literal["exact", "normalised", "numeric"]
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact(text: str, reference: str, *, strip: bool = True) -> Verdict:
    """Correct when the text is the reference, white space at both ends aside."""
    answer, wanted = (text.strip(), reference.strip()) if strip else (text, reference)
    if not wanted.strip():
        raise ValueError("the reference is blank, so an empty answer would be correct")
    if answer == wanted:
        return Verdict(1.0, answer, "the text equals the reference")
    return Verdict(0.0, answer, f"the text is {_shown(answer)}, the reference {_shown(wanted)}")


def normalised(text: str, reference: str, *, punctuation: bool = True, articles: bool = True) -> Verdict:
    """Correct when equal after NFKC (but x² is x^2, not x2), case folding and folding of white space.
    `punctuation: false` and `articles: false` ignore those (a, an, the) as well."""
    answer, wanted = (normal_form(one, punctuation=punctuation, articles=articles) for one in (text, reference))
    if not wanted:
        raise ValueError("nothing is left of the reference once it is normalised")
    if answer == wanted:
        return Verdict(1.0, answer, "the text equals the reference once both are normalised")
    return Verdict(0.0, answer, f"the text is {_shown(answer)}, the reference {_shown(wanted)}, once normalised")


def normal_form(text: str, *, punctuation: bool = True, articles: bool = True) -> str:
    """The text as `normalised` compares it."""
    text = "".join(map(_raised_or_lowered, text))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not punctuation:
        text = "".join(character for character in text if not unicodedata.category(character).startswith("P"))
    if not articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split())


def _raised_or_lowered(character: str) -> str:
    """`²` as `^2`, `₂` as `_2`: NFKC would make 4⁶ the number 46."""
    kind, _, plain = unicodedata.decomposition(character).partition(" ")
    return {"<super>": "^", "<sub>": "_"}.get(kind, "") + character if plain else character


def numeric(
    text: str,
    reference: str,
    *,
    take: Take = "only",
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
) -> Verdict:
    """Correct when the text's number is the reference's, at most `tolerance` apart. `take: only` wants exactly one
    numeral in the text: `last` and `first` let a candidate list many and be paid for one."""
    wanted = _number_of_reference(reference)
    found = list(numerals(text))
    if not found:
        return Verdict(0.0, None, "the text holds no number")
    if take == "only" and len(found) > 1:
        return Verdict(0.0, None, f"the text holds {len(found)} numbers, and exactly one is wanted (take: only)")
    numeral = found[0] if take == "first" else found[-1]
    return _compare_numbers(numeral, wanted, Decimal(str(tolerance)))


def _number_of_reference(reference: str) -> Numeral:
    found = list(numerals(reference))
    if len(found) != 1 or found[0].number is None:
        raise ValueError(f"the reference {_shown(reference)} does not hold exactly one plain number")
    return found[0]


def _compare_numbers(numeral: Numeral, wanted: Numeral, tolerance: Decimal) -> Verdict:
    answer = numeral.text + ("%" if numeral.percent else "")
    if numeral.number is None or wanted.number is None:
        return Verdict(0.0, answer, f"{_shown(answer)} is not plainly a number")
    if numeral.percent != wanted.percent:
        which = "the answer is a percentage and the reference is not"
        return Verdict(0.0, answer, which if numeral.percent else "the reference is a percentage and the answer is not")
    if same(numeral.number, wanted.number, tolerance):
        return Verdict(1.0, answer, f"the number {_shown(answer)} is the reference's")
    return Verdict(0.0, answer, f"the number is {_shown(answer)}, the reference {_shown(wanted.text)}")


def regex(
    text: str,
    reference: str,
    *,
    pattern: Annotated[str, AfterValidator(one_group)],
    take: Take = "only",
    compare: Compare = "exact",
) -> Verdict:
    """Correct when what the pattern's group (the one, or the one named `answer`) matched is the reference, compared
    by another rule. `take: only` wants exactly one match."""
    matches = list(re.finditer(pattern, text))
    if not matches:
        return Verdict(0.0, None, "the pattern does not occur in the text")
    if take == "only" and len(matches) > 1:
        return Verdict(0.0, None, f"the pattern occurs {len(matches)} times, and exactly one is wanted (take: only)")
    match = matches[0] if take == "first" else matches[-1]
    answer = match["answer"] if "answer" in match.re.groupindex else match[1]
    if answer is None:
        return Verdict(0.0, None, "the pattern occurs, but its group matched nothing")
    verdict = _COMPARE[compare](answer, reference)
    return Verdict(verdict.value, answer.strip(), verdict.explanation)


_COMPARE: dict[str, Callable[[str, str], Verdict]] = {"exact": exact, "normalised": normalised, "numeric": numeric}


def check_regex(reference: str, *, pattern: str, take: Take = "only", compare: Compare = "exact") -> None:
    """Raise ValueError unless the reference is correct by the rule that what the pattern matched is compared with."""
    check_reference(_COMPARE[compare], reference, {})


def check_reference(rule: Callable[..., Verdict], reference: str, params: Mapping[str, Any]) -> None:
    """Raise ValueError unless the reference, given as the answer, is correct by the rule."""
    verdict = rule(reference, reference, **params)
    if verdict.value != 1.0:
        raise ValueError(f"the reference {_shown(reference)} is not correct by its own rule: {verdict.explanation}")


def _shown(text: str, limit: int = 60) -> str:
    return repr(cut(text, limit))
