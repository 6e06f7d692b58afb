"""Reading a mathematical answer strictly: which part of a text it is, and what form it has.

Libraries that compare expressions are generous: they take the last number of a list, the last side of an equation, a
percentage for a number, an integral for its value. What decides whether two answers may be compared at all is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from selftrain.scoring.extraction import after, boxed
from selftrain.scoring.numerals import numerals
from selftrain.scoring.units import TRAILING, is_unit, named


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


MAX_LENGTH = 300
MAX_EXPONENT = 1000
MAX_EXPONENT_OF_BRACKETS = 60
MAX_DIGITS = 60
MAX_DEPTH = 12

_DELIMITERS = re.compile(r"(?<!\\)\$|\\[()\[\]]|\\(?:left|right|[bB]igg?|displaystyle)(?![A-Za-z])|(?<!\\)\\!")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\s+")
_UNICODE = {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ "}
_UNICODE |= {
    "∅": r"\emptyset ",
    r"\varnothing": r"\emptyset ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "÷": "/",
    "\u00a0": " ",
}
_ROOT = re.compile(r"√ ?(?:(\d+(?!\d|[.,]\d)|[A-Za-z])|\(([^()]*)\))")
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:(?:,|\{,\}|\\,)\d{3})+)(?![\d,])")
_PERCENT = re.compile(r"\s*(?:\\?%|per ?cent|\\text\{\s*(?:per ?cent|\\?%)\s*\})\s*\Z")
# Words of two letters are products of symbols (`xy`), but for these.
_SHORT_WORDS = _set("or is so no if to be it an at by we of in on as do he me my up us am")
_PRICE = re.compile(r"\A\s*(-?)(?<!\\)\$(?= ?[\d.][^$]*\Z)")  # one dollar sign opens no formula
_CURRENCY = re.compile(r"\A(?P<sign>-?) ?\\\$ ?(?=[\d.])")
_NAME = re.compile(
    r"\A\s*(?P<name>[A-Za-z](?:_\{?\w\}?)?(?:\([A-Za-z]\))?|\\(?:theta|alpha|beta|lambda|mu))\s*=(?!=)\s*"
)
_RELATION = re.compile(
    r"[=<>≈]|\\(?:le|leq|ge|geq|ne|neq|lt|gt|approx|equiv|sim|in|to|implies|iff|mid|leqslant|geqslant)(?![A-Za-z])"
)
_COMMAND = re.compile(r"\\([A-Za-z]+|[{}|%$#&_])")
_WORDS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}(?![A-Za-z])")
_ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{[a-z]+\}")
_FUNCTIONS = _set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi")
# What a final answer is written with. Any other command must be in the reference as well.
_FINAL = _FUNCTIONS | _set(
    "frac dfrac tfrac cdot times div infty circ theta alpha beta gamma lambda mu phi omega pm mp le leq ge geq ne neq "
    "lt gt in cup { } % $"
)
_POWER = re.compile(r"(?:\^|\*\*)\s*(\{[^{}]*\}|\([^()]*\)|-?\d+|\\?[A-Za-z]+)")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:\{[^{}]*|\([^()]*|\d+\s*|[A-Za-z]\s*)(?:\^|\*\*)")
_BRACKETS_TO_THE = re.compile(r"[)\]}]\s*(?:\^|\*\*)\s*\{?\s*-?(\d+)")
_LONG_PRODUCT = re.compile(r"\d{4,}[\s)}\]]*!|!\s*!|\\[dt]?binom\s*\{[^{}]*(?:\d{4,}|\^)")
_TEXT_ONLY = re.compile(r"\\(?:text|mathrm)\s*\{(?P<inside>[^{}\\]*)\}")
_BOX = re.compile(r"[\s$]*\\boxed[ \t]*(\{.*\})[\s$.]*", re.DOTALL)
# What only looks different: the whole of an answer in upright or bold print.
_PRINT = re.compile(r"\\(?:text|mathrm|mathbf|mathit|boldsymbol|bm) ?\{((?![^{}]*[A-Za-z]{2})[^{}\\\s]*)\}")
_PRINTED = re.compile(r"\\(?:textbf|textit|textrm|texttt|mbox)(?![A-Za-z])")
_BASED = re.compile(r"(?P<digits>\d[0-9A-Z]*) ?_ ?(?:(?P<base>\d)|\{ ?(?P<braced>\d{1,2}) ?\})")
_SIDE_BY_SIDE = re.compile(r"(?<!_)(?<!_\d)\d \d")
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_FORMS = (
    re.compile(rf"(?P<sign>[+-]?)\s*(?P<top>{_NUMBER})"),
    re.compile(
        r"(?P<sign>[+-]?)\s*(?P<whole>\d+)?\s*\\[dt]?frac\s*\{\s*(?P<top>-?\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}"
    ),
    re.compile(r"(?P<sign>[+-]?)\s*\\[dt]?frac\s*(?P<top>\d)\s*(?P<bottom>\d)"),
    re.compile(r"(?P<sign>[+-]?)\s*(?P<top>\d+)\s*/\s*(?P<bottom>\d+)"),
    re.compile(
        rf"(?P<sign>[+-]?)\s*(?P<top>{_NUMBER})\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{{?\s*(?P<power>-?\d{{1,3}})\s*\}}?"
    ),
    re.compile(rf"(?P<sign>[+-]?)\s*(?P<top>{_NUMBER})[eE](?P<power>[+-]?\d{{1,3}})"),
)


@dataclass(frozen=True, slots=True)
class Expression:
    """An answer, read. `body` is LaTeX without formatting, name, percent sign and unit; `name` is what stood before a
    single equals sign (`x` of `x=5`); `parts` are the members of a tuple, interval, set or list, which `opens` and
    `closes` enclose; `number` is its exact value where it is one plain number."""

    body: str
    name: str | None
    unit: str | None
    percent: bool
    opens: str
    closes: str
    parts: tuple[str, ...]
    number: Fraction | None
    lowest: bool
    """Whether `number` is not written as a fraction that could be reduced."""


def final_answer(text: str) -> tuple[str | None, str]:
    """The one final answer in a text and where it stood, or None and why there is none: the one `\\boxed{}` (however
    often it is repeated), or else what follows the one `####`, or else the whole of a text that is a short
    mathematical expression or one word. Never the last number of prose."""
    for found, where in ((boxed(text), "\\boxed{}"), (after(text, "####"), "####")):
        distinct = list(dict.fromkeys(_closed_up(one) for one in found))
        if len(distinct) > 1:
            return None, f"the text gives {len(distinct)} different answers ({where})"
        if distinct:
            answer = _unboxed(found[0])
            return (answer, where) if answer.strip() else (None, f"the answer is empty ({where})")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        return None, "the text is blank" if not lines else "the text has several lines and no \\boxed{}"
    if len(lines[0]) > MAX_LENGTH:
        return None, "the text is long and has no \\boxed{}"
    plain = ascii_form(lines[0])
    unit = TRAILING.search(plain)
    prose = _prose(_TEXT_ONLY.sub("", plain[: unit.start()] if unit and is_unit(named(unit)) else plain))
    if prose and plain != prose[0]:
        return None, f"the text holds words ({prose[0]!r:.30}) and no \\boxed{{}}"
    return lines[0], "the whole text"


def _unboxed(text: str) -> str:
    """The inside of a box that is all there is in the box around it."""
    while len(text) <= MAX_LENGTH and (match := _BOX.fullmatch(text)) is not None and _is_enclosed(match[1]):
        text = match[1][1:-1]
    return text


def last_number(text: str) -> tuple[str | None, str]:
    """The last number in a text, or None and why not. A text of many lists as many guesses."""
    found = list(numerals(text[-MAX_LENGTH:]))
    if not found:
        return None, "the text holds no number at its end"
    if found[-1].number is None:
        return None, f"the last number of the text, {found[-1].text!r:.30}, is not plainly one"
    return found[-1].text + ("%" if found[-1].percent else ""), "the last number of the text"


def refusal(answer: str, reference: str) -> str | None:
    """Why an answer is not compared with that reference, whatever its value; None where it may be."""
    if len(answer) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    plain, wanted = ascii_form(answer), ascii_form(reference)
    if not plain.isascii() or _CONTROL.search(plain):
        return "it holds characters that are no mathematics"
    if re.search(rf"\d{{{MAX_DIGITS},}}", plain) and not re.search(rf"\d{{{MAX_DIGITS},}}", wanted):
        return f"it holds a number of {MAX_DIGITS} digits or more"
    if (why := _too_costly(plain)) and not _too_costly(wanted):
        return why
    allowed = _FINAL | set(_COMMAND.findall(wanted))
    unit = TRAILING.search(plain)
    rest = (plain[: unit.start()] if unit else plain).replace("\\\\", ",")
    for command in _COMMAND.findall(rest):
        if command not in allowed:
            return f"it is no final form: it holds \\{command}, which the reference does not"
    for sign in ("!", ";", "|", "?", "'", "\\pm", "\\mp", "\\cup"):
        if sign in rest and sign not in wanted:
            return f"it holds {sign}, which the reference does not"
    symbols = set(_COMMAND.sub(" ", wanted))
    for word in _prose(rest):
        if word.lower() not in wanted.lower() and not set(word) <= symbols:
            return f"it holds the word {word!r:.30}, which the reference does not"
    if _SIDE_BY_SIDE.search(rest) and not _SIDE_BY_SIDE.search(wanted):
        return "it holds several numbers side by side"
    return None


def _prose(plain: str) -> list[str]:
    """The words of it that are neither functions nor, two letters long, products of symbols."""
    found = (
        word
        for word in _WORDS.findall(_COMMAND.sub(" ", _ENVIRONMENT.sub(" ", plain)))
        if word.lower() not in _FUNCTIONS
    )
    return [word for word in found if len(word) > 2 or word.lower() in _SHORT_WORDS]


def _too_costly(plain: str) -> str | None:
    """What takes for ever to work out: high powers, powers of powers, long products, deep nesting."""
    if _depth(plain) > MAX_DEPTH:
        return f"its brackets are nested more than {MAX_DEPTH} deep"
    if any(len(digits) > 3 or int(digits) > MAX_EXPONENT_OF_BRACKETS for digits in _BRACKETS_TO_THE.findall(plain)):
        return f"it holds brackets to a power above {MAX_EXPONENT_OF_BRACKETS}"
    if _LONG_PRODUCT.search(plain):
        return "it holds a factorial or binomial coefficient of a large number"
    if any(_too_high(exponent) for exponent in _POWER.findall(plain)):
        return f"it holds an exponent above {MAX_EXPONENT}"
    return "it holds a power of a power" if _TOWER.search(plain) else None


def _depth(plain: str) -> int:
    depth = deepest = 0
    for sign in plain:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _too_high(exponent: str) -> bool:
    if re.search(r"\d\s*(?:\*|\\cdot|\\times|!)", exponent):
        return True
    return any(len(digits) > 4 or int(digits) > MAX_EXPONENT for digits in re.findall(r"\d+", exponent))


def ascii_form(text: str) -> str:
    """LaTeX for the signs that models write in Unicode, without formatting and grouping of thousands."""
    for sign, latex in _UNICODE.items():
        text = text.replace(sign, latex)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    bold = re.fullmatch(r"\s*\*\*(.+)\*\*\s*", text, re.DOTALL)
    text = bold[1] if bold else text
    text = re.sub(r"(?<=\d)\\[,!](?=\d{3})", ",", text)
    text = text if _has_members(text) else _THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[1]), text)
    text = _DELIMITERS.sub("", _PRICE.sub(r"\1\\$", text))
    text = _PRINTED.sub(r"\\text", text)
    text = printed[1] if (printed := _PRINT.fullmatch(text.strip())) else text
    return _SPACES.sub(" ", text).strip().removesuffix(".").strip()


def _has_members(text: str) -> bool:
    """Whether commas part members of a tuple or set, rather than thousands."""
    bare = re.sub(r"\\[()\[\]]", "", text)
    return bool(re.search(r"[(\[]|\\\{", bare))


def read(answer: str) -> Expression:
    """The form of an answer. What it cannot read is left in `body` for the library."""
    body = ascii_form(answer)
    about = _NAME.match(body)
    if about and not _RELATION.search(body, about.end()):
        body = body[about.end() :].strip()
    else:
        about = None
    percent = _PERCENT.search(body)
    body = body[: percent.start()] if percent else body
    unit = None
    while (found := TRAILING.search(body)) is not None and found.start() > 0:
        unit = " ".join(one for one in (named(found), unit) if one) or None
        body = body[: found.start()]
    if (currency := _CURRENCY.match(body)) is not None:
        body, unit = f"{currency['sign']}{body[currency.end() :]}", unit or "dollars"
    body = body.strip()
    opens, closes, parts = _members(body)
    number, lowest = _number(body)
    name = re.sub(r"\s", "", about["name"]) if about else None
    return Expression(body, name, unit, percent is not None, opens, closes, parts, number, lowest)


def relations(body: str) -> list[str]:
    """The signs of equality and order in it."""
    return _RELATION.findall(body)


def based(body: str) -> tuple[str, str] | None:
    """The digits and the base of a numeral like `101_2`; None for any other."""
    match = _BASED.fullmatch(body.strip())
    return None if match is None else (match["digits"], match["base"] or match["braced"])


def cased_apart(*bodies: str) -> tuple[str, ...]:
    """The same with another letter for a capital, where one of them has the small letter too (`R - r`): the library
    folds cases."""
    tokens = [re.findall(r"\\[A-Za-z]+|[A-Za-z]", body) for body in bodies]
    used = {token.lower() for each in tokens for token in each}
    free = iter(sorted(set("abcfghjklmnopqrstuvwxyz") - used))
    capitals = {token for each in tokens for token in each if token.isupper() and token.lower() in each}
    letters = dict(zip(sorted(capitals), free, strict=False))
    return tuple(re.sub(r"\\[A-Za-z]+|[A-Z]", lambda found: letters.get(found[0], found[0]), one) for one in bodies)


def words_of(body: str) -> str | None:
    """The words, folded, of an answer that is nothing but words (`\\text{even}`, `Monday`); None for any other."""
    match = _TEXT_ONLY.fullmatch(body.strip())
    inside = (match["inside"] if match else body).strip()
    each = re.split("[ '’-]+", inside.lower())
    if not re.fullmatch(r"[A-Za-z][A-Za-z'’ -]+", inside) or set(each) <= _FUNCTIONS:
        return None
    if match is None and len(each) > 1 and all(len(one) < 3 and one not in _SHORT_WORDS for one in each):
        return None  # `R - r`, `x y`
    return " ".join(inside.casefold().split())


def _members(body: str) -> tuple[str, str, tuple[str, ...]]:
    """What encloses the members, and the members; one member where commas part nothing."""
    inner, opens, closes = body, "", ""
    match = re.fullmatch(r"(\(|\[|\\\{)(.*)(\)|\]|\\\})", body, re.DOTALL)
    is_set = match is not None and (match[1], match[3]) == (r"\{", r"\}")
    if match is not None and _is_enclosed(body) and (is_set or len(_split(match[2])) > 1):
        opens, inner, closes = match[1], match[2], match[3]
    return opens, closes, tuple(part.strip() for part in _split(inner))


def _is_enclosed(body: str) -> bool:
    """Whether the bracket that begins it is closed by the one that ends it."""
    depth = 0
    for position, sign in enumerate(body):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and sign in ")]}":
            return position == len(body) - 1
    return False


def _split(body: str) -> list[str]:
    """At commas outside of all brackets."""
    parts, depth, begins = [], 0, 0
    for position, sign in enumerate(body):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(body[begins:position])
            begins = position + 1
    return [*parts, body[begins:]]


def _number(body: str) -> tuple[Fraction | None, bool]:
    if len(body) > MAX_LENGTH:
        return None, False
    for form in _FORMS:
        match = form.fullmatch(body.strip())
        if match is None:
            continue
        groups = match.groupdict()
        bottom = int(groups.get("bottom") or 1)
        if bottom == 0 or (groups.get("whole") and groups["top"].startswith("-")):
            return None, False
        top = Fraction(groups["top"])
        value = Fraction(groups.get("whole") or 0) + top / bottom
        value *= Fraction(10) ** int(groups.get("power") or 0)
        lowest = groups.get("bottom") is None or (bottom > 1 and Fraction(int(top), bottom).denominator == bottom)
        return (-value if groups.get("sign") == "-" else value), lowest
    return None, False


def _closed_up(text: str) -> str:
    return re.sub(r"\s+", "", text)
