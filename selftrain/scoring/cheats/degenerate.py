"""Texts without an answer: empty, huge, broken, meaningless. A verifier refuses them, and is never at a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from selftrain.scoring.cheats import Cheat

LONG = 100_000
_NOTHING = (
    ("nothing", ""),
    ("a space", " "),
    ("white space", " \n\t\r\n \u00a0\u3000"),
    ("a full stop", "."),
    ("punctuation", "?!,;:-–—()[]{}<>/\\|@#$%^&*_+=~`'\""),
    ("null", "null"),
    ("None", "None"),
    ("a backslash", "\\"),
    ("an emoji", "🤷\u200d♂️"),
    ("invisible characters", "\u200b\u200c\u200d\u2060\ufeff"),
)
_BROKEN = (
    ("control characters", "\x00\x01\x02\x07\x08\x1b[2J\x1b[31m\x7f\x9b"),
    ("lone surrogates", "\ud800 \udfff"),
    ("text that runs backwards", "\u202eyx\u202c \u2067x\u2069"),
    ("a box that is never closed", "\\boxed{"),
    ("unbalanced braces", "}}}{{{\\boxed{{{}"),
    ("a fence that is never closed", "```python\n"),
    ("tags that are never closed", "<answer><answer><think>"),
    ("unbalanced formulas", "$$\\frac{\\sqrt{\\left($"),
    ("unbalanced quotes", "\"'\"'\"\"\"'''"),
    ("half of an object", '{"answer": ["x", {"y":'),
    ("a format string", "%s%s%n {} {reference} ${reference}"),
)
_HUGE = (
    ("one letter, 100,000 times", "a" * LONG),
    ("one digit, 100,000 times", "7" * LONG),
    ("a backslash, 100,000 times", "\\" * LONG),
    ("one word, 20,000 times", "the " * (LONG // 5)),
    ("10,000 lines", "x\n" * 10_000),
    ("10,000 brackets", "[" * 10_000),
    ("10,000 parentheses", "(" * 10_000 + ")" * 10_000),
    ("5,000 boxes inside of each other", "\\boxed{" * 5_000 + "}" * 5_000),
    ("5,000 empty boxes", "\\boxed{}" * 5_000),
    ("bait for a pattern", "a" * 5_000 + "!" + " " * 5_000 + "\n" + "x," * 5_000),
)


def degenerates(question: str, wrap: Callable[[str], str]) -> Iterator[Cheat]:
    """Texts that hold no answer to the question; `wrap` puts something into the form that the scorers look for."""
    why = "there is no answer in it"
    for name, text in (*_NOTHING, *_BROKEN):
        yield Cheat(name, text, why)
    for name, text in (("the form with nothing in it", ""), ("the form with a space in it", " ")):
        yield Cheat(name, wrap(text), why)
    yield Cheat("the form with control characters in it", wrap("\x00\x1b[2J"), why)
    yield Cheat("the form with lone surrogates in it", wrap("\ud800"), why)
    yield Cheat("the question itself", question, "the question is no answer")
    for name, text in _HUGE:
        yield Cheat(name, text, why, slow=True)
    yield Cheat("the form with 100,000 letters in it", wrap("a" * LONG), why, slow=True)
