"""Bounds on what a text is like (`select.quality`), as a step of selection.

They are asked of the answer, without the reasoning before it. Bounds of this kind are those of Rae et al. 2021 (arXiv
2112.11446, appendix A.1): lengths in words, repeated word n-grams, symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import regex

from selftrain.config import QualityConfig, SelectConfig
from selftrain.errors import ConfigError, PhaseError
from selftrain.selection.steps import Row, Step
from selftrain.selection.words import words

NGRAM = 4
SECONDS = 5.0
"""Of processor time for one pattern on one text. A pattern that nests repetitions can take for ever."""
_SYMBOLS = regex.compile(r"[^\p{L}\p{N}\p{M}\s]++")
# A mark that ends a sentence (also one of those that it can be quoted or bracketed by), a fence, mathematics, an emoji.
_WHOLE = regex.compile(
    r"(?:[\p{Sentence_Terminal}…\p{Pe}\p{Pf}\"'`>$]|\p{Extended_Pictographic}[\p{M}\p{Emoji_Modifier}\u200d\ufe0f]*+)\Z"
)
_MARKUP = " \t\r\n*_"
_QUOTED = 60

Bound = Callable[[str], str | None]


def check(config: SelectConfig) -> None:
    """ConfigError for a pattern of `without` that is none."""
    if config.quality is not None:
        list(_patterns(config.quality))


def step(config: QualityConfig) -> Step:
    """Those out of bounds leave; the reason says by how much, or what was found.

    Raises PhaseError where a pattern takes over `SECONDS` on a text; it names the pattern and the candidate.
    """
    bounds = list(_bounds(config))
    patterns = list(_patterns(config))

    def leaving(rows: Sequence[Row]) -> Mapping[str, str]:
        reasons = {}
        for candidate, _ in rows:
            text = candidate.text
            why = next((why for bound in bounds if (why := bound(text))), None)
            why = why or _found(patterns, text, candidate.id)
            if why is not None:
                reasons[candidate.id] = why
        return reasons

    return leaving


def repeated(of: Sequence[str], n: int = NGRAM) -> float:
    """The share of word n-grams that stand earlier in the text too; 0 for a text of fewer than n words."""
    total = len(of) - n + 1
    if total < 1:
        return 0.0
    return 1 - len({tuple(of[start : start + n]) for start in range(total)}) / total


def symbols(text: str) -> float:
    """The share of characters that are neither letters (with their marks), digits nor white space; 0 for no text."""
    return sum(map(len, _SYMBOLS.findall(text))) / len(text) if text else 0.0


def ends_whole(text: str) -> bool:
    """Whether the text ends as a finished one does, white space and the stars of emphasis aside."""
    return _WHOLE.search(text.rstrip(_MARKUP)) is not None


def _bounds(config: QualityConfig) -> Iterator[Bound]:
    least, most = config.min_words, config.max_words
    if least is not None or most is not None:

        def length(text: str) -> str | None:
            number = len(words(text))
            if least is not None and number < least:
                return f"under {least} words ({number})"
            return f"over {most} words ({number})" if most is not None and number > most else None

        yield length
    if (repetition := config.max_repeated_ngrams) is not None:
        yield lambda text: _over(repeated(words(text)), repetition, f"of its word {NGRAM}-grams repeated")
    if (share := config.max_symbols) is not None:
        yield lambda text: _over(symbols(text), share, "of its characters symbols")
    if config.ends_whole:
        yield lambda text: None if ends_whole(text) else "ends in the middle"


def _over(share: float, bound: float, what: str) -> str | None:
    return f"over {bound:g} {what} ({share:.3g})" if share > bound else None


def _patterns(config: QualityConfig) -> Iterator[tuple[str, Any]]:
    for pattern in config.without:
        try:
            yield pattern, regex.compile(pattern)
        except regex.error as error:
            raise ConfigError(
                f"select.quality.without: {pattern!r} is no regular expression: {error}; put a backslash before a "
                "character that is meant as it stands"
            ) from None


def _found(patterns: Sequence[tuple[str, Any]], text: str, candidate_id: str) -> str | None:
    for pattern, compiled in patterns:
        try:
            match = compiled.search(text, timeout=SECONDS)
        except TimeoutError:
            raise PhaseError(
                f"select.quality.without: {pattern!r} took over {SECONDS:g} s on candidate {candidate_id} "
                f"({len(text):,} characters); write it without repetitions inside repetitions and run the same command "
                "again: candidates and scores are kept"
            ) from None
        if match is not None:
            return f"holds {match.group()[:_QUOTED]!r} (without {pattern!r})"
    return None
