"""Answers made to break a verifier of mathematics, in any number, the same at every call. None of them is right for any
of REFERENCES."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

REFERENCES = (
    "271828182845",
    "-0.271828",
    r"\frac{271828}{314159}",
    r"271828\%",
    "271828 apples",
    r"\{271828,314159\}",
    "m=271828",
    r"2\sqrt{271829}",
    r"(271828,\frac{314159}{7})",
    r"\text{xylophone}",
    "z>271829",
    r"\frac{271828\pi}{314159}",
    r"\sum_{k=1}^{n} k^{27}",
    r"\binom{271}{8}",
    "27!+1",
    r"\int_0^1 x^{271} dx+z",
    r"\begin{pmatrix}271828&1\\0&314159\end{pmatrix}",
    r"(-\infty,271828)\cup(314159,\infty)",
)

_ATOMS = ("0", "1", "2", "7", "42", "-3", "0.5", "10", "99", "1000", "x", "y", "n", r"\pi", "e", "i", r"\infty", "")
_BINARY = (
    "+",
    "-",
    "*",
    "/",
    r"\cdot ",
    r"\times ",
    r"\div ",
    "=",
    "<",
    r"\le ",
    ",",
    r"\pm ",
    r"\cup ",
    "^",
    "**",
    "_",
)
_UNARY = (
    *(r"\sqrt{%s}", r"\sqrt[3]{%s}", r"\sqrt[%s]{7}", r"\sin(%s)", r"\log_{2} %s", r"\ln{%s}", r"|%s|", "(%s)", "[%s)"),
    *(r"\{%s\}", "%s!", "%s!!", r"%s\%%", "-%s", r"\text{%s}", r"%s \text{ cm}", r"\left(%s\right)", r"\boxed{%s}"),
    *(r"\lfloor %s \rfloor", r"\overline{%s}", r"\mathbf{%s}", r"%s \pmod{7}", r"\lim_{x\to 0} %s", r"\gcd(%s, 12)"),
    *(r"\int_0^1 %s dx", r"\sum_{k=1}^{99} %s", r"\prod_{k=1}^{9} %s", r"\frac{d}{dx} %s", r"e^{%s}", r"%s^\circ"),
)
_PAIRS = (r"\frac{%s}{%s}", r"\binom{%s}{%s}", "{%s}^{%s}", r"\log_{%s}{%s}", r"\begin{pmatrix}%s\\%s\end{pmatrix}")
_COSTLY = (
    *("9^9^9^9", "9^{9^{9^9}}", "9**9**9", r"2^{2^{40}}", "((9^{999})^{999})^{999}", "1000000!", "(10^6)!", "9!!!!!"),
    *(r"\binom{10^6}{500000}", r"\binom{999999}{333333}", r"e^{e^{e^e}}", "(x+1)^{999}", "(x+y+z+n)^{99}", "0^{-1}"),
    *(r"\frac{1}{0}", r"\sum_{k=1}^{10^9} k^{99}", r"\prod_{k=1}^{10^6} k", r"\int_0^1 x^{x^x} dx", "1e999", "1e-999"),
    *(r"\sum_{k=1}^{\infty} \frac{1}{k^{3}}", r"\int_0^\infty \frac{\sin(x)}{x} e^{-x^2} dx", r"\sqrt[999]{7^{999}}"),
    *(
        "7^{1/999}",
        r"\sin(10^{1000})",
        r"\lim_{x\to 0} \frac{\sin^{99} x}{x^{99}}",
        "10^{1000}",
        "x^{1000}",
        "2^{-1000}",
    ),
    *(r"\cos(\frac{\pi}{257})", r"\sqrt{2+\sqrt{3+\sqrt{5+\sqrt{7+\sqrt{11}}}}}", r"\zeta(3)", r"(1+\sqrt{2})^{999}"),
    *(
        "999999999999999989!",
        r"\log_{7}(3^{999})",
        r"(\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11})^{90}",
        "17^{999}!",
    ),
    *(r"\frac{(x^{99}-1)(x^{98}-1)}{(x-1)^{99}}", r"\tan(\tan(\tan(10^{99})))", r"\Gamma(10^9)", "x^{y^{z^{n}}}"),
)
_NESTS = (
    r"\frac{1}{",
    "(",
    "{",
    "[",
    r"\{",
    r"\sqrt{",
    "-",
    "^{",
    r"\left(",
    r"\boxed{",
    r"\text{",
    "|",
    r"\sin",
    "2^",
)
_LONG = (
    "9",
    "a",
    " ",
    "1,",
    r"\\",
    "\\",
    "$",
    "#### ",
    r"\boxed{1}",
    r"\boxed{",
    "-",
    "%",
    "1 ",
    "\n",
    "}",
    "1+",
    "x=",
)
_SIGNS = (
    "0123456789",
    "\u200b\u200c\u200d\u2060\ufeff",  # zero width
    "\u202a\u202b\u202d\u202e\u2066\u2067\u2069\u200e\u200f",  # directions
    "".join(map(chr, [*range(32), *range(127, 160)])),
    "".join(map(chr, range(0xFF10, 0xFF1A))),  # fullwidth digits
    "".join(map(chr, [*range(0x660, 0x66A), *range(0x966, 0x970), *range(0x2070, 0x207A), *range(0x2460, 0x2469)])),
    "".join(map(chr, [0x4FE, 0x417, 0x41E, 0x43E, 0x3BF, 0x6C, 0x7C, 0x1D7D2, 0x1D7D0])),  # like digits
    r"\{}()[]^_$&#%!|<>=+-*/,.;:'~" + '"`',
    "".join(map(chr, range(0xD800, 0xD810))),  # lone surrogates
)


def hostile_answers(count: int) -> Iterator[tuple[str, str]]:
    """So many times an answer and the reference that it is not."""
    chance = random.Random(2718)
    kinds: tuple[tuple[Callable[[random.Random], str], int], ...] = (
        (_grammar, 40),
        (_costly, 14),
        (_signs, 16),
        (_unicode, 10),
        (_nested, 8),
        (_digits, 4),
        (_list, 7),
        (_long, 1),
    )
    for number in range(count):
        (made,) = chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        answer = made(chance)
        form = chance.choice(("%s", r"\boxed{%s}", r"\boxed{%s}", r"So it is $\boxed{%s}$.", "#### %s", "$%s$"))
        yield form.replace("%s", answer), REFERENCES[number % len(REFERENCES)]


def _grammar(chance: random.Random, depth: int = 4) -> str:
    if depth == 0 or chance.random() < 0.15:
        return chance.choice(_ATOMS)
    kind = chance.random()
    if kind < 0.35:
        return _grammar(chance, depth - 1) + chance.choice(_BINARY) + _grammar(chance, depth - 1)
    if kind < 0.75:
        return chance.choice(_UNARY) % _grammar(chance, depth - 1)
    return chance.choice(_PAIRS) % (_grammar(chance, depth - 1), _grammar(chance, depth - 1))


def _costly(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return chance.choice(_PAIRS) % (chance.choice(_COSTLY), _grammar(chance, 2))
    if chance.random() < 0.3:
        return chance.choice(_COSTLY) + chance.choice(_BINARY) + chance.choice(_COSTLY)
    return chance.choice(_COSTLY)


def _signs(chance: random.Random) -> str:
    signs = "".join(chance.sample(_SIGNS, 3))
    return "".join(chance.choice(signs) for _ in range(chance.randrange(1, 30)))


def _unicode(chance: random.Random) -> str:
    return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(1, 40)))


def _nested(chance: random.Random) -> str:
    opens = chance.choice(_NESTS)
    times = chance.choice((3, 10, 30, 90, 1_000, 8_000))
    closes = {"(": ")", "[": "]", "{": "}"}.get(opens[-1], "")
    return opens * times + chance.choice(_ATOMS) + closes * (times - chance.choice((0, 0, 1)))


def _digits(chance: random.Random) -> str:
    digits = chance.choice("123456789") * chance.choice((20, 59, 61, 250, 5_000, 50_000))
    return chance.choice(("%s", "-%s", "0.%s", "1e%s", "%s!", "2^{%s}", r"\frac{1}{%s}", r"\sqrt{%s}")) % digits


def _list(chance: random.Random) -> str:
    numbers = ",".join(str(chance.randrange(200)) for _ in range(chance.choice((2, 5, 40, 400))))
    boxes = r"\boxed{" + numbers.replace(",", r"} or \boxed{") + "}"
    rows = r"\begin{pmatrix}" + numbers.replace(",", chance.choice(("&", r"\\"))) + r"\end{pmatrix}"
    return chance.choice(
        (numbers, rf"\{{{numbers}\}}", f"({numbers})", boxes, rows, numbers.replace(",", r" \text{ or } "))
    )


def _long(chance: random.Random) -> str:
    piece = chance.choice(_LONG)
    return (piece * (100_000 // len(piece) + 1))[:100_000]
