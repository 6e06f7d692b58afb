"""Mathematical equality of a final answer and the reference: plain numbers exactly, the rest by math-verify."""

from __future__ import annotations

import itertools
import logging
import re
import signal
import time
import warnings
from functools import lru_cache
from typing import Any, Literal

from selftrain.scoring import Verdict
from selftrain.scoring.expressions import (
    MAX_LENGTH,
    Expression,
    ascii_form,
    based,
    cased_apart,
    final_answer,
    last_number,
    read,
    refusal,
    relations,
    words_of,
)
from selftrain.scoring.perturbing import of_mathematics
from selftrain.scoring.results import cut
from selftrain.scoring.units import is_same, is_unit

COMPARE_SECONDS = 4.0
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
CHECK_SECONDS = 1.5
ALL_COMPARED = 300


class _TakesTooLong(BaseException):
    """Not an Exception: the libraries catch those."""


def prepare() -> None:
    """Import math-verify and parse once: its grammar is built at the first use."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)  # of what it cannot parse, and of time-outs that are set here instead
    _parsed(r"\frac{1}{2}")
    _verified(r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")


def math(text: str, reference: str, *, fallback: Literal["none", "last_number"] = "none") -> Verdict:
    """Correct when the text's one final answer equals the reference's: the one \\boxed{}, or else what follows the one
    `####`, or else the whole of a text that is only an expression. The reference is read the same way, so GSM8K's and
    MATH's solutions can be references as they are.

    A plain number must be written as one (`42`, `1,234`, `3/4`, not `40+2`), and is compared exactly. A percentage
    equals only a percentage, tuples and intervals keep order and brackets, `x=5` equals `5`, other equations need one
    in the reference, and no integral, sum or limit stands for its value. What cannot be compared within 4 seconds
    of processor time is wrong.

    `fallback: last_number` takes the last number of a text that is no expression and has neither mark, as evaluations
    of base models do. It pays a candidate that lists numbers until one fits, and takes `not 42` for 42: measure with
    it, and do not train on it."""
    wanted = _of_reference(reference)
    answer, where = final_answer(text)
    if answer is None and fallback == "last_number" and r"\boxed" not in text and "####" not in text:
        answer, where = last_number(text)
    if answer is None:
        return Verdict(0.0, None, where)
    shown = cut(answer, 100)
    why = refusal(answer, wanted)
    if why is None:
        why = _difference(read(wanted), read(answer), same_text=ascii_form(answer) == ascii_form(wanted))
    canonical = _canonical(answer)
    if why is None:
        return Verdict(1.0, canonical, f"{shown!r} ({where}) equals the reference {wanted!r:.100}")
    return Verdict(0.0, canonical, f"{shown!r} ({where}): {why}; the reference is {wanted!r:.100}")


def check(reference: str, *, fallback: Literal["none", "last_number"] = "none") -> None:
    """Raise ValueError unless the reference has one final answer that equals itself, and none that is near it and wrong
    (`perturbing`). Whether expressions with symbols or roots differ is for math-verify to find out, which takes long:
    it is asked about two copies of each, and after 300 such references about every tenth."""
    wanted = _of_reference(reference)
    why = refusal(wanted, wanted) or _difference(read(wanted), read(wanted), same_text=False, is_reference=True)
    if why is not None:
        raise ValueError(f"the reference {wanted!r:.100} does not equal itself by this rule: {why}")
    start = time.monotonic()
    for copy in _wrong_copies(wanted):
        if time.monotonic() - start > CHECK_SECONDS:
            return
        if math(rf"\boxed{{{copy}}}", reference, fallback=fallback).value == 1.0:
            raise ValueError(f"the wrong answer {copy!r:.100} equals the reference {wanted!r:.100} by this rule")


def _wrong_copies(wanted: str) -> tuple[str, ...]:
    copies = of_mathematics(wanted)
    if read(wanted).number is not None:
        return copies
    number = next(_compared)
    return copies[:2] if number < ALL_COMPARED or number % 10 == 0 else ()


_compared = itertools.count()  # references of this process that are no plain numbers


def _of_reference(reference: str) -> str:
    wanted, why = final_answer(reference)
    if wanted is None:
        raise ValueError(f"the reference {reference!r:.60} has no final answer: {why}")
    return wanted


def _difference(wanted: Expression, given: Expression, *, same_text: bool, is_reference: bool = False) -> str | None:
    """What tells the two apart, in words; None where they are equal."""
    if same_text:
        return None
    if wanted.percent != given.percent:
        return f"{'it is a percentage' if given.percent else 'it is no percentage'}, unlike the reference"
    units = [one for one in (wanted.unit, given.unit) if one is not None]
    if not (is_same(*units) if len(units) == 2 else all(map(is_unit, units))):
        said = [f"{one!r:.30}" if one else "none" for one in (given.unit, wanted.unit)]
        return f"its unit is {said[0]}, and the reference's is {said[1]}"
    if None not in (wanted.name, given.name) and wanted.name != given.name:
        return f"it is about {given.name}, not {wanted.name}"
    if len(relations(given.body)) != len(relations(wanted.body)):
        return "it is an equation or inequality, or the reference is one"
    if (in_base := based(wanted.body)) is not None:
        return None if based(given.body) == in_base else "its digits or their base differ"
    if (words := words_of(wanted.body)) is not None:
        return None if words_of(given.body) == words else "its words differ"
    if wanted.number is not None:
        return _difference_of_numbers(wanted, given, is_reference=is_reference)
    if (given.opens, given.closes) != (wanted.opens, wanted.closes) and (len(wanted.parts) > 1 or wanted.opens):
        return "its brackets differ"
    if len(given.parts) != len(wanted.parts):
        return f"it has {len(given.parts)} members, not {len(wanted.parts)}"
    return _difference_of_members(wanted, given)


def _difference_of_numbers(wanted: Expression, given: Expression, *, is_reference: bool) -> str | None:
    if given.number is None:
        return "it is not written as one plain number"
    if given.number != wanted.number:
        return "its value differs"
    return None if given.lowest or is_reference else "its fraction can be reduced"


def _difference_of_members(wanted: Expression, given: Expression) -> str | None:
    """Members in order; those of a set or a bare list in any order, each for one of the reference's."""
    if len(wanted.parts) == 1 and not wanted.opens:
        return _difference_by_library(wanted.body, given.body)
    if wanted.opens in ("(", "["):
        pairs = zip(wanted.parts, given.parts, strict=True)
        wrong = [index for index, (one, other) in enumerate(pairs, 1) if not _equal_member(one, other)]
        return f"member {wrong[0]} differs" if wrong else None
    left = list(given.parts)
    for one in wanted.parts:
        match = next((other for other in left if _equal_member(one, other)), None)
        if match is None:
            return f"it lacks the member {one!r:.30}"
        left.remove(match)
    return None


def _equal_member(wanted: str, given: str) -> bool:
    return _difference(read(wanted), read(given), same_text=wanted == given) is None


def _difference_by_library(wanted: str, given: str) -> str | None:
    """As `_difference`, by math-verify, within COMPARE_SECONDS of processor time."""

    def ring(number: int, frame: Any) -> None:
        raise _TakesTooLong

    # Time of the processor: on a busy machine the same answers are compared in full.
    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, COMPARE_SECONDS)
    try:
        return None if _verified(*cased_apart(wanted, given)) else "its value differs"
    except _TakesTooLong:
        return f"it could not be compared within {COMPARE_SECONDS:g} s"
    except Exception as error:  # the reference was compared with itself before any work, so this is the candidate's
        return f"it could not be compared ({type(error).__name__})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@lru_cache(maxsize=4096)
def _verified(wanted: str, given: str) -> bool:
    from math_verify import verify

    gold, answer = _parsed(wanted), _parsed(given)
    # Text that could not be parsed would be compared as text, which has been done.
    if gold is None or answer is None:
        return False
    # Its own time-outs are of wall time.
    return bool(verify([gold], [answer], timeout_seconds=None))


@lru_cache(maxsize=4096)
def _parsed(body: str) -> Any:
    """The sympy expression of LaTeX, or None."""
    from math_verify import LatexExtractionConfig, parse

    body = re.sub(r"\*\*", "^", body)
    body = _DECIMAL.sub(_as_fraction, body)
    body = re.sub(r"(?<![A-Za-z\\])(pi|theta|infty)(?![A-Za-z])", r"\\\1 ", body)
    found = parse(f"${body}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    return next((one for one in found if not isinstance(one, str)), None)


def _as_fraction(decimal: re.Match[str]) -> str:
    """A decimal exactly: the library rounds what it reads as a float, and 1.414214 would be a root of 2."""
    return rf"(\frac{{{int(decimal[1] + decimal[2])}}}{{{10 ** len(decimal[2])}}})"


def _canonical(answer: str) -> str:
    """Equal plain numbers get one text, so that votes for an answer are counted together."""
    if len(answer) > MAX_LENGTH:
        return answer[:MAX_LENGTH]
    expression = read(answer)
    if expression.number is None or expression.parts[1:]:
        return ascii_form(answer)
    return f"{expression.number}{'%' if expression.percent else ''}"
