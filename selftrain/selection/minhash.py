"""Texts with nearly the same word n-grams: candidates by MinHash, decided by the exact Jaccard similarity.

MinHash (Broder 1997) is datasketch's; the sketches are compared in bands, so that only texts that agree in one are
compared at all (Indyk and Motwani 1998). A band that only one text has is dropped at once, and of a sketch nothing
stays but a number per band: a round of a million texts does not fit into memory as MinHashLSH of datasketch keeps it.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, islice
from typing import Self

import numpy as np
from numpy.typing import NDArray

from selftrain.selection.words import shingles

SEED = 1
RECALL = 0.98
"""Of pairs at the threshold; of more alike ones more, and of equal ones all are found."""
COMPARED_DIRECTLY = 256
"""So many texts are compared pair by pair: then none is missed."""
_CHUNK = 1024
_ROUNDING = 1e-6

Similar = dict[int, tuple[int, float]]
"""Which texts leave, by number: the number of the one that stays and that they resemble most, and how similar."""


def band_rows(threshold: float, permutations: int) -> int:
    """Hash values per band: as many as leave `RECALL` at the threshold, for the fewest needless comparisons."""
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL:
            return rows
    return 1


class Sketches:
    """Texts added one by one, of which the nearly equal ones are asked for once. The n-grams themselves (4 bytes each)
    are in a temporary file, in memory a text takes 4 bytes per band. Use it in a `with`."""

    def __init__(self, threshold: float, *, ngram: int, permutations: int) -> None:
        self._threshold = threshold
        self._ngram = ngram
        self._permutations = permutations
        self._rows = band_rows(threshold, permutations)
        self._bands: list[NDArray[np.uint32]] = []
        self._file = tempfile.TemporaryFile(prefix="selftrain-ngrams-")  # noqa: SIM115 - lives as long as this
        self._ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, texts: Iterable[str]) -> None:
        """Take the texts, numbered in order."""
        remaining = iter(texts)
        while chunk := [shingles(text, self._ngram) for text in islice(remaining, _CHUNK)]:
            for one in chunk:
                self._ends.append(self._ends[-1] + len(one))
            self._file.write(np.concatenate(chunk).tobytes())
            self._bands.append(self._banded(chunk))

    def similar(self, ranked: Sequence[int]) -> Similar:
        """In the order of `ranked`, which has every number once, a text leaves if it is similar to one before it that
        stays."""
        if len(self._ends) == 1:
            return {}
        self._file.flush()
        sets = _Sets(np.memmap(self._file, dtype=np.uint32, mode="r"), self._ends)
        neighbours = Everything() if len(ranked) <= COMPARED_DIRECTLY else Buckets(np.concatenate(self._bands))
        self._bands.clear()
        return _greedy(ranked, neighbours, sets, self._threshold)

    def _banded(self, chunk: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
        """One number for each band of each text: shape (texts, bands)."""
        from datasketch import MinHash

        made = MinHash.generator(
            (one.tolist() for one in chunk),
            num_perm=self._permutations,
            seed=SEED,
            hashfunc=_itself,
            scheme="affine32",
        )
        sketches = np.stack([one.hashvalues for one in made])
        num_bands = self._permutations // self._rows
        bands = sketches[:, : num_bands * self._rows].reshape(len(chunk), num_bands, self._rows)
        total = np.zeros((len(chunk), num_bands), dtype=np.uint64)
        for row in range(self._rows):  # equal by chance once in 2**32, which costs a comparison
            total = (total ^ bands[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
        return (total >> np.uint64(32)).astype(np.uint32)


def among_few(texts: Sequence[str], ranked: Sequence[int], threshold: float, *, ngram: int) -> Similar:
    """As `Sketches.similar`, with every pair compared."""
    sets = [shingles(text, ngram) for text in texts]
    ends = array("q", [0, *accumulate(map(len, sets))])
    return _greedy(ranked, Everything(), _Sets(np.concatenate(sets), ends), threshold)


class Everything:
    """Compares a text with all that stay."""

    def __init__(self) -> None:
        self._stay: list[int] = []

    def of(self, number: int) -> Sequence[int]:
        """Those to compare with, in the order in which they were added."""
        return self._stay

    def add(self, number: int) -> None:
        """This one stays."""
        self._stay.append(number)


class Buckets:
    """Compares a text with those that stay and agree with it in a band."""

    def __init__(self, bands: NDArray[np.uint32]) -> None:
        self._groups = np.stack([_shared(bands[:, band]) for band in range(bands.shape[1])], axis=1)
        self._stay: dict[tuple[int, int], list[int]] = {}

    def of(self, number: int) -> Sequence[int]:
        """As of Everything."""
        found = (self._stay.get(bucket, ()) for bucket in self._buckets(number))
        return list(dict.fromkeys(chain.from_iterable(found)))

    def add(self, number: int) -> None:
        """As of Everything."""
        for bucket in self._buckets(number):
            self._stay.setdefault(bucket, []).append(number)

    def _buckets(self, number: int) -> list[tuple[int, int]]:
        return [(band, group) for band, group in enumerate(self._groups[number].tolist()) if group >= 0]


class _Sets:
    """The sorted n-grams of each text, one after another in a file."""

    def __init__(self, numbers: NDArray[np.uint32], ends: Sequence[int]) -> None:
        self._numbers = numbers
        self._ends = ends

    def of(self, number: int) -> NDArray[np.uint32]:
        return self._numbers[self._ends[number] : self._ends[number + 1]]

    def size(self, number: int) -> int:
        return self._ends[number + 1] - self._ends[number]

    def jaccard(self, number: int, others: Sequence[int]) -> NDArray[np.float64]:
        """Of the text's n-grams with those of each of the others."""
        own = np.array(self.of(number))
        sizes = np.array([self.size(one) for one in others])
        theirs = np.concatenate([self.of(one) for one in others])
        places = np.minimum(np.searchsorted(own, theirs), len(own) - 1)
        shared = np.add.reduceat(own[places] == theirs, np.concatenate([[0], np.cumsum(sizes)[:-1]]), dtype=np.int64)
        similarity: NDArray[np.float64] = shared / (len(own) + sizes - shared)
        return similarity


def _greedy(ranked: Sequence[int], neighbours: Everything | Buckets, sets: _Sets, threshold: float) -> Similar:
    found: Similar = {}
    for number in ranked:
        size = sets.size(number)
        # Sets of very different sizes cannot be similar; 0.55 * 20 is a little over 11 in binary.
        least, most = threshold * size - _ROUNDING, size / threshold + _ROUNDING
        others = [one for one in neighbours.of(number) if least <= sets.size(one) <= most]
        if others:
            similarities = sets.jaccard(number, others)
            best = int(similarities.argmax())
            if similarities[best] >= threshold:
                found[number] = others[best], float(similarities[best])
                continue
        neighbours.add(number)
    return found


def _shared(column: NDArray[np.uint32]) -> NDArray[np.int32]:
    """A number for each value that more than one text has; -1 for a value that only one has."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    is_new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    group = np.cumsum(is_new) - 1
    is_alone = is_new & np.concatenate([is_new[1:], [True]])
    found = np.empty(len(column), dtype=np.int32)
    found[order] = np.where(is_alone, -1, group)
    return found


def _itself(number: int) -> int:
    """The n-grams are hashed already."""
    return number
