"""Wrong answers near a reference, to see that a verifier refuses them: `perturbed`.

None of them equals the reference in value, so a rule that accepts one is wrong about that reference; only a mutant of
code may be another right solution. They are the same at every call. What an `extract` looks for around an answer is put
there by `as_text`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from selftrain.records import canonical_json
from selftrain.scoring.expressions import Expression, ascii_form, final_answer, read, relations, words_of
from selftrain.scoring.json_text import contains, strict
from selftrain.scoring.json_text import same as same_value
from selftrain.scoring.numerals import numerals

if TYPE_CHECKING:
    from selftrain.config import ScorerConfig

_LARGEST_EXPONENT = 300
_COEFFICIENT = re.compile(r"(?P<sign>-?)(?P<number>\d{1,9})(?= ?(?:\\sqrt|\\pi|[A-Za-z(]))")
_ENTRY = re.compile(r"(?<=[}&\\]) ?(-?\d{1,9}) ?(?=&|\\\\|\\end)")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\leq": r"\geq", r"\geq": r"\leq", r"\ne": "="}
_FLIPPED |= {r"\neq": "=", "=": r"\ne "}


def perturbed(
    reference: str | None, scorer: ScorerConfig, metadata: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Wrong answers near the reference, by what the scorer compares, as the rule is given them: numbers with another
    digit, ten times as large, of the other sign, as a percentage; tuples swapped; lists lacking a member; other letters
    of a choice; changed words; a changed value of a JSON object; mutants of a solution's code. `metadata` are the
    prompt's columns (the choices, the entry point).

    Empty where nothing near is known to be wrong: without a reference, by json_schema's `match: none`, and for
    reasoning_gym, whose tasks may have many right answers. For a function of the user's own they are near a number or
    words, and what it accepts of them is for the user to judge. Raises ValueError where the rule cannot use the
    reference."""
    if reference is None or scorer.name == "reasoning_gym":
        return ()
    params, columns = scorer.params, metadata or {}
    if scorer.name == "math":
        return of_mathematics(reference)
    if scorer.name == "numeric":
        return _of_number(reference, Decimal(str(params.get("tolerance", 0))))
    if scorer.name == "regex":
        return _of_compared(reference, params.get("compare", "exact"))
    if scorer.name == "choice":
        from selftrain.scoring.choice import wrong

        return wrong(reference, columns, params.get("choices"))
    if scorer.name == "json_schema":
        return _of_json(reference, params.get("match", "exact"))
    if scorer.name == "code":
        from selftrain.scoring.code.mutants import mutants

        entry_point = columns.get(params.get("entry_point", "entry_point"))
        prepend = columns.get(params["prepend"]) if params.get("prepend") else None
        return mutants(reference, entry_point, prepend=str(prepend or ""))
    if scorer.name in ("exact", "normalised"):
        return _of_compared(reference, scorer.name, **params)
    answer, _ = final_answer(reference)
    return of_mathematics(reference) if answer and read(answer).number is not None else _of_compared(reference, "exact")


def as_text(answer: str, scorer: ScorerConfig) -> str | None:
    """The answer as a text in which the scorer finds it; None where that takes a pattern."""
    by, argument = scorer.extract.by, scorer.extract.argument
    if by == "regex" or scorer.name == "regex":
        return None
    if by == "boxed" or (by == "whole" and scorer.name == "math"):
        return rf"\boxed{{{answer}}}"
    if by == "after":
        return f"{argument} {answer}"
    if by == "tag":
        return f"<{argument}>{answer}</{argument}>"
    return f"```\n{answer}\n```" if by == "code" or (by == "whole" and scorer.name == "code") else answer


def of_mathematics(reference: str) -> tuple[str, ...]:
    """As `perturbed`, of the one final answer in a reference, which the rule `math` reads."""
    answer, _ = final_answer(reference)
    if answer is None:
        return ()
    expression = read(answer)
    unit = rf"\text{{ {expression.unit}}}" if expression.unit else ""
    sign = r"\%" if expression.percent else ""
    near = [one + unit + sign for one in _near(expression)]
    if expression.number and not unit:  # 0 % is 0
        near.append(_written(expression.number, expression.body) + ("" if sign else r"\%"))
    return _distinct(near)


def _near(expression: Expression) -> list[str]:
    body = expression.body
    if expression.number is not None:
        return [_written(one, body) for one in _near_value(expression.number)]
    if (words := words_of(body)) is not None:
        changed = [f"not {words}", *_changed(words)]
        return [one for one in changed if words_of(one) != words]
    if r"\begin" in body:
        return _next_entry(body)
    if r"\cup" in body:
        return [part.strip() for part in body.split(r"\cup")[:1] if len(set(body.split(r"\cup"))) > 1]
    if found := relations(body):
        flipped = _FLIPPED.get(found[0])
        return [body.replace(found[0], flipped, 1)] if flipped and len(found) == 1 else []
    if expression.opens or len(expression.parts) > 1:
        return list(_near_members(expression))
    return _near_term(body)


def _near_value(value: Fraction) -> list[Fraction]:
    """Plus one, another digit, ten times as much, the other sign, upside down."""
    found = [value + 1]
    if value and _terminates(value):
        found.append(value + (1 if value > 0 else -1) * Fraction(10) ** _magnitude(value))
    if value:
        found += [value * 10, -value]
        if value.denominator > 1:
            found.append(1 / value)
    return [one for one in dict.fromkeys(found) if one != value]


def _magnitude(value: Fraction) -> int:
    """The place of the first digit: 2 of 350, -1 of 0.2."""
    place = len(str(abs(value.numerator))) - len(str(value.denominator))
    return place if abs(value) >= Fraction(10) ** place else place - 1


def _written(value: Fraction, like: str) -> str:
    """As a decimal number, or as a fraction in lowest terms where it has none or the other one is a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1 or "frac" in like or "/" in like:
        return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    places = next(places for places in range(1, 4 * len(str(value.denominator)) + 2) if (value * 10**places) % 1 == 0)
    digits = str(int(abs(value) * 10**places)).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _near_members(expression: Expression) -> Iterator[str]:
    """One member changed; in order: two of them swapped; otherwise: one missing, one more."""
    parts = list(expression.parts)
    values = [read(part).number for part in parts]
    ordered = expression.opens in ("(", "[")

    def enclosed(members: Iterable[str]) -> str:
        return expression.opens + ",".join(members) + expression.closes

    place = next((index for index, one in enumerate(values) if one is not None), None)
    if place is not None:
        steps = (Fraction(step) + (values[place] or 0) for step in range(1, len(parts) + 2))
        other = next(one for one in steps if one not in values)
        yield enclosed([*parts[:place], _written(other, parts[place]), *parts[place + 1 :]])
        if not ordered:
            yield enclosed([*parts, _written(other, parts[place])])
    else:
        yield from (enclosed([changed, *parts[1:]]) for changed in _near(read(parts[0]))[:1])
    if ordered and len(parts) > 1 and None not in values[:2] and values[0] != values[1]:
        yield enclosed([parts[1], parts[0], *parts[2:]])
    if (
        len(parts) > (2 if ordered else 1)
        and parts[-1] not in parts[:-1]
        and (values[-1] is None or values[-1] not in values[:-1])
    ):
        yield enclosed(parts[:-1])


def _next_entry(body: str) -> list[str]:
    """A matrix with another number in one place."""
    match = _ENTRY.search(body)
    return [] if match is None else [body[: match.start(1)] + str(int(match[1]) + 1) + body[match.end(1) :]]


def _near_term(body: str) -> list[str]:
    """Of an expression with symbols or roots: the other sign in front, another coefficient, plus one."""
    if not body or body.lstrip("-").startswith("0"):
        return []
    found = []
    if r"\pm" not in body and r"\mp" not in body:
        found.append(body[1:].strip() if body.startswith("-") else f"-{body}")
    if (match := _COEFFICIENT.match(body)) is not None:
        found.append(f"{match['sign']}{int(match['number']) + 1}{body[match.end() :]}")
    # Infinity plus one is infinity, and any constant plus one is any constant.
    if "infty" not in body and not re.search(r"[+-] ?[Cc]\b", body) and "," not in body:
        found.append(f"{body}+1")
    return found


def _of_number(reference: str, tolerance: Decimal) -> tuple[str, ...]:
    """Of the one numeral in the reference, and more than the tolerance away from it."""
    found = list(numerals(reference))
    if len(found) != 1 or found[0].number is None:
        raise ValueError(f"the reference {reference!r:.60} does not hold exactly one plain number")
    number, sign = found[0].number, "%" if found[0].percent else ""
    if number and abs(number.adjusted()) > _LARGEST_EXPONENT:
        return (f"{-number}{sign}",)
    value = Fraction(number)
    near = [*_near_value(value), value + 2 * Fraction(tolerance)]
    away = [one for one in near if abs(one - value) > Fraction(tolerance)]
    texts = [_written(one, "") + sign for one in away if _terminates(one)]
    if value and abs(value - value / 100) > Fraction(tolerance):
        texts.append(_written(value, "") + ("" if sign else "%"))
    return _distinct(texts)


def _terminates(value: Fraction) -> bool:
    return r"\frac" not in _written(value, "")


def _of_compared(reference: str, rule: str, **params: Any) -> tuple[str, ...]:
    """Changed words: those that are still others by the rule's own idea of equal text."""
    if rule == "numeric":
        return _of_number(reference, Decimal(0))
    from selftrain.scoring.rules import normal_form

    def form(text: str) -> str:
        if rule == "exact":
            return text.strip()
        return normal_form(text, **params)

    texts = [f"not {reference.strip()}", *_changed(reference.strip())]
    return _distinct(one for one in texts if form(one) and form(one) != form(reference))


def _changed(text: str) -> list[str]:
    """Another last letter or digit, another first one, the last word left out, the first two words swapped."""
    places = [index for index, sign in enumerate(text) if sign.isascii() and sign.isalnum()]
    found = [text[:place] + _next(text[place]) + text[place + 1 :] for place in places[-1:] + places[:1]]
    words = text.split()
    if len(words) > 1:
        found.append(" ".join(words[:-1]))
    if len(words) > 1 and words[0].casefold() != words[1].casefold():
        found.append(" ".join([words[1], words[0], *words[2:]]))
    return found or [text + "x"]


def _next(sign: str) -> str:
    if sign.isdigit():
        return str((int(sign) + 1) % 10)
    first = "a" if sign.islower() else "A"
    return chr(ord(first) + (ord(sign) - ord(first) + 1) % 26)


def _of_json(reference: str, match: str) -> tuple[str, ...]:
    if match == "none":
        return ()
    value = strict(reference)
    equal: Callable[[Any, Any], bool] = same_value if match == "exact" else contains
    changed = [one for one in _changed_values(value) if not equal(one, value)]
    return _distinct(canonical_json(one) for one in changed)


def _changed_values(value: Any) -> Iterator[Any]:
    """The value with one part of it changed or left out: of an object every entry in turn, of a list the ends."""
    if isinstance(value, Mapping):
        for name, inside in value.items():
            yield from ({**value, name: changed} for changed in list(_changed_values(inside))[:2])
            yield {other: kept for other, kept in value.items() if other != name}
        yield {**value, "x": None} if "x" not in value else []
    elif isinstance(value, list):
        if value:
            yield value[:-1]
            yield from ([changed, *value[1:]] for changed in list(_changed_values(value[0]))[:2])
        yield [*value, None]
        yield value[::-1]
    elif isinstance(value, bool) or value is None:
        yield not value
    elif isinstance(value, int | float):
        yield value + 1 if value + 1 != value else -value
        yield json.dumps(value)
    else:
        yield from _changed(value)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for one in texts if ascii_form(one) or one.strip()))
