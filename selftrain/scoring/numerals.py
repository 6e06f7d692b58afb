"""Reading a number out of text strictly: what is not plainly one number is not a number.

A numeral is a run of characters without a gap that holds a digit: `57`, `-1,234.50`, `1e5`, `.5`. A run that is not
wholly a plain number (`57apples`, `1/2`, `12-5`, `1,23`, `٣`, fullwidth digits, `2³`) counts as unreadable: it is
never cut down to the part that would fit. Commas are thousands separators, never decimal commas.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

# Dashes and the no-break spaces that group digits belong to the run, so that `12–5` and `1 234` are not read in part.
_RUN = re.compile(r"[\w.,/+\-−‐‑‒–—\u00a0\u202f\u2009]+")
_PLAIN = re.compile(
    r"(?P<sign>[+\-−]?)(?P<digits>(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?P<power>[eE][+-]?\d+)?", re.ASCII
)
_PERCENT = re.compile(r"\s*(?:\\?[%％﹪٪]|per\s?cent\b)", re.IGNORECASE)
# A dash that only symbols or LaTeX commands part from the number: a minus or a bullet, who knows.
_LOOSE_SIGN = re.compile(r"[-−–—](?:\\[A-Za-z]+|\\[^A-Za-z\n]|[^\w\n>\-−–—\\])*\Z")
_WORKED_ON = re.compile(
    r"(?:√|[±∓]|\\pm|\\mp|\\sqrt(?:\[[^\]\n]*\])?|\^|\b(?:minus|negative))[\s${(\[]*\Z", re.IGNORECASE
)
_GOES_ON = re.compile(r"\s*(?:‰|\^|√|π|\\?pi\b|(?:hundred|thousand|million|billion|trillion|dozen)s?\b)", re.IGNORECASE)
_MAX_LENGTH = 200
_LOOK_BACK = 200


@dataclass(frozen=True, slots=True)
class Numeral:
    """A run of `text` that holds a digit. `number` is None where the run is not plainly a number."""

    text: str
    number: Decimal | None
    percent: bool


def numerals(text: str) -> Iterator[Numeral]:
    """Every numeral of `text`, readable or not, in order."""
    for run in _RUN.finditer(text):
        if not any(unicodedata.category(character) in ("Nd", "No") for character in run[0]):
            continue
        written = run[0].strip("\u00a0\u202f\u2009")
        written = written[:-1] if written.endswith((".", ",")) else written
        number = None if _is_part_of_more(text, run.start(), run.end()) else _plain(written)
        percent = _PERCENT.match(text, run.end())
        yield Numeral(written, number, percent is not None)


def _is_part_of_more(text: str, start: int, end: int) -> bool:
    """Whether the run is not the whole number: `- 5`, `-$5`, `-\\boxed{5}`, `√25`, `x^5`, `5‰`, `5 million`."""
    before = text[max(0, start - _LOOK_BACK) : start]
    return bool(_LOOSE_SIGN.search(before) or _WORKED_ON.search(before) or _GOES_ON.match(text, end))


def _plain(written: str) -> Decimal | None:
    match = _PLAIN.fullmatch(written)
    if match is None or len(written) > _MAX_LENGTH:
        return None
    sign = "-" if match["sign"] in ("-", "−") else ""
    try:
        # A Decimal keeps its exponent as a number: 1e999999999 costs nothing as long as nobody makes it an int.
        return Decimal(sign + match["digits"].replace(",", "") + (match["power"] or ""))
    except InvalidOperation:
        return None


def same(first: Decimal, second: Decimal, tolerance: Decimal) -> bool:
    """Whether the numbers differ by at most `tolerance`; exactly equal where it is 0, whatever the size."""
    if first == second or not tolerance:
        return first == second
    try:
        return abs(first - second) <= tolerance
    except ArithmeticError:
        return False
