"""Words after a number: a unit or a thing counted, which may be left out, or words that change what the number says."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Bare words of one or two letters, or without a vowel, are products of symbols (`5 xy`), but for these.
_SHORT = _set(
    "m g s h L cm mm km dm nm ft in yd mi kg mg lb oz ml mL cl dl qt pt ha hr ms ns Hz kW kJ kN Pa kV mV mA GB MB KB "
    "kB TB AM PM am pm lbs hrs yds pts mph kph kmh kHz MHz GHz min mins sec secs yr yrs TVs"
)
_ANY_SHORT = "|".join(sorted(_SHORT))
_POWER = r"(?:\^\{?-?[1-4]\}?)?"
TRAILING = re.compile(
    rf"(?:(?: ?\\(?:text|mathrm|rm) ?\{{(?:(?P<unit>[^{{}}]*[A-Za-z][^{{}}]*)\}}{_POWER}|\s*\}}))"
    r"|(?P<degrees> ?\^ ?\{? ?\\circ ?\}?)"
    rf"|(?:(?<=[\d}}]) (?!pi\Z)(?:(?P<short>{_ANY_SHORT}){_POWER}|(?P<word>(?=[a-z]*[aeiouAEIOU])[A-Za-z]{{3,20}}))))\Z"
)
"""A unit at the end of a body of LaTeX."""
_RAISED = re.compile(r"\^\{?(-?[1-4])\}?\Z")
_ALSO_SHORT = _set(
    "by my day days try fly sky gym way ways st nd rd th px dB eV MPa kPa rpm bpm psi mol Mb Gb kb fl sq cu"
)
_ONE_LETTER = _set("m g s h l L N J W V A K C F T H d t")
_NO_UNITS = _set(
    "not or nor xor and but except no isn wrong false never if is hundred thousand million billion trillion dozen lakh "
    "crore grand gross score kilo mega giga mil mln mn bn tn half halves third quarter fifth sixth eighth ten tenth "
    "hundredth thousandth percent negative squared cubed factorial mod base minus plus times over twice double triple "
    "zero one two three four five six seven eight nine eleven twelve twenty thirty forty fifty sixty seventy eighty "
    "ninety sin cos tan cot csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi"
)
_READS_AS_A_WORD = re.compile(r"(?=.*[aeiouAEIOU]).{3}")
_WORD = r"[A-Za-z]{1,20}(?:\^?-?[1-4])?"
_WORDS = re.compile(rf"(?:{_WORD}(?:[ /·.-]{{1,2}}{_WORD}){{0,2}})?")


def named(unit: re.Match[str]) -> str:
    """The words of a match of `TRAILING`."""
    if unit["degrees"]:
        return "degrees"
    words = (unit["unit"] or unit["short"] or unit["word"] or "").strip()
    power = _RAISED.search(unit[0])
    return f"{words}^{power[1]}" if power and words and not _RAISED.search(words) else words


def is_unit(words: str) -> bool:
    """Whether words after a number can be left out: a unit or a thing counted, never `or`, `not`, `million` or a letter
    that is no unit (`5\\text{i}`)."""
    each = re.findall("[A-Za-z]+", words)
    folded = {word.lower() for word in each}
    if _NO_UNITS & (folded | {word.removesuffix("s") for word in folded}):
        return False
    if any(not _READS_AS_A_WORD.search(word) and len(word) > 1 for word in {*each} - _SHORT - _ALSO_SHORT):
        return False
    letters = {word for word in each if len(word) == 1} - ({"a"} if len(each) > 1 else set())
    return _WORDS.fullmatch(words) is not None and letters <= _ONE_LETTER


def is_same(first: str, second: str) -> bool:
    """Whether two units may stand for each other: `cm` and `cm`, `dollar` and `dollars per hour`, `degrees` and
    `degrees C`, but no `cents` for `dollars`."""
    one, other = sorted((_form(first), _form(second)), key=len)
    if one in (["dollar"], ["degree"]) and other[:1] == one:
        return True
    return one == other or (other[0] == "degree" and one == other[1:])


def _form(words: str) -> list[str]:
    found = []
    for word in words.split():
        plain = word if len(word) < 3 else word.lower()
        plain = plain.removesuffix("s") if len(plain) > 3 else plain
        found.append({"deg": "degree", "usd": "dollar"}.get(plain, plain))
    return found
