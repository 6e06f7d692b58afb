"""Words of a text, and their n-grams as numbers: what comparisons of texts rest on.

A word is a run of letters, digits and their marks, whatever its case; punctuation and white space only part words. A
character of a script that is written without spaces (Chinese, Japanese, Thai, ...) is a word of its own.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# A character and its marks first, and then whatever else is a letter or a digit.
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*+|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}\p{{M}}])++")
_WORD_OF_ASCII = regex.compile(r"[a-z0-9]++")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_KNOWN_WORDS = 1 << 20
_known: dict[str, int] = {}


def words(text: str) -> list[str]:
    """The words in order, in lower case (full-width and other forms of compatibility as the plain ones)."""
    if text.isascii():
        found: list[str] = _WORD_OF_ASCII.findall(text.lower())
        return found
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def ngrams(of: Sequence[str], n: int) -> Numbers:
    """A number of 64 bits for each n words in a row: shape (max(0, words - n + 1),). Equal words, equal numbers, in any
    process."""
    if len(of) < n:
        return np.empty(0, dtype=np.uint64)
    each = np.fromiter((_number(word) for word in of), dtype=np.uint64, count=len(of))
    total = np.zeros(len(of) - n + 1, dtype=np.uint64)
    for offset in range(n):  # a polynomial in _FACTOR; arithmetic on arrays wraps around
        total = total * _FACTOR + each[offset : offset + len(total)]
    return total


def _number(word: str) -> int:
    number = _known.get(word)
    if number is None:
        if len(_known) >= _KNOWN_WORDS:
            _known.clear()
        number = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        _known[word] = number
    return number


def shingles(text: str, n: int) -> NDArray[np.uint32]:
    """The set of a text's word n-grams as sorted numbers of 32 bits. Of a text of fewer than n words, all of them are
    one; of a text without words, the text itself is."""
    of = words(text)
    numbers = ngrams(of, min(n, len(of))) if of else np.array([_number(text.strip())], dtype=np.uint64)
    return np.unique((numbers >> np.uint64(32)).astype(np.uint32))
