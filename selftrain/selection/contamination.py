"""Decontamination: candidates that share word n-grams with texts of evaluation sets leave (`select.decontaminate`).

After Brown et al. 2020 (arXiv 2005.14165, appendix C): two texts overlap where n words in a row are the same, in lower
case and without punctuation (words as `selection.words` has them); n is 13 there at most, and 8 at least. So

    a text of n words or more          overlaps with what has any n words of it in a row
    one of `SHORTEST` words or more    with what has all of it in a row, punctuation included
    a question of `FEWEST` or more     with a prompt or a completion that is the same, but for case and white space

and what is shorter (a number, a name, a short answer) with nothing: that much is the same by chance. A prompt that
overlaps takes all of its candidates with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from selftrain.selection.steps import Row, Step, written
from selftrain.selection.words import Numbers, ngrams, words

SHORTEST = 8
FEWEST = 4
_QUOTED = 120


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """One text of an evaluation set. `source` is the set, as `prompts.test` or the path of a further one; `name` the
    prompt's id or the row; `kind` is `question`, `reference`, `completion` or `text`."""

    source: str
    name: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """The words that a text shares with one of an evaluation set."""

    words: str
    number: int
    text: EvaluationText

    def __str__(self) -> str:
        return f"{self.number} words with {self.text.source} ({self.text.kind} of {self.text.name}): {self.words!r}"


@dataclass(frozen=True, slots=True)
class Contaminated:
    """A candidate that left: where the overlap is (`prompt` or `completion`), the words, and what they stand in."""

    candidate_id: str
    prompt_id: str
    found_in: str
    words: str
    source: str
    evaluation: str
    kind: str


class Overlaps:
    """Finds overlaps with the texts of evaluation sets.

    `asked` are the training prompts in their own words: with `common`, n-grams that stand in more of them than that are
    the data's own phrases and count for nothing, nor do those that share a word's place with one.
    """

    def __init__(
        self,
        texts: Iterable[EvaluationText],
        n: int,
        *,
        common: int | None = None,
        asked: Iterable[str] = (),
    ) -> None:
        self._n = n
        self._texts = list(texts)
        of_length: dict[int, list[int]] = {}
        self._whole: dict[str, int] = {}
        for number, one in enumerate(self._texts):
            length = len(words(one.text))
            if length >= min(n, SHORTEST):
                of_length.setdefault(min(length, n), []).append(number)
            elif length >= FEWEST and one.kind in ("question", "text"):
                self._whole.setdefault(_normalised(one.text), number)
        # The longest first: what is found is told by as many words as there are.
        self._indexes = {
            size: _Index(self._texts, of_length[size], size, is_whole=size < n)
            for size in sorted(of_length, reverse=True)
        }
        if common is not None and n in self._indexes:
            self._indexes[n].ignore(asked, common)

    @property
    def num_texts(self) -> int:
        """How many of them can be found at all."""
        return len(self._whole) + sum(index.num_texts for index in self._indexes.values())

    def find(self, text: str) -> Overlap | None:
        """The first words of the text that overlap with any; None if there are none."""
        of = words(text)
        for size, index in self._indexes.items():
            for start, number, place in index.places(of):
                one = self._texts[number]
                theirs = words(one.text)
                if theirs[place : place + size] != of[start : start + size]:
                    continue  # equal numbers by chance
                if size < self._n and _normalised(one.text) not in _normalised(text):
                    continue
                return Overlap(" ".join(of[start : start + size])[:_QUOTED], size, one)
        if self._whole and len(of) < SHORTEST and (found := self._whole.get(_normalised(text))) is not None:
            return Overlap(" ".join(of), len(of), self._texts[found])
        return None


def step(overlaps: Overlaps, asked: Callable[[str], str], report: Callable[[Contaminated], None]) -> Step:
    """The step of selection. `asked` gives a prompt's own words by its id; `report` is told of every candidate that
    leaves."""

    def leaving(rows: Sequence[Row]) -> Mapping[str, str]:
        if not rows:
            return {}
        reasons = {}
        of_prompt = overlaps.find(asked(rows[0][0].prompt_id))
        for candidate, _ in rows:
            found = of_prompt or overlaps.find(written(candidate))
            if found is None:
                continue
            where = "prompt" if of_prompt else "completion"
            one = found.text
            report(Contaminated(candidate.id, candidate.prompt_id, where, found.words, one.source, one.name, one.kind))
            reasons[candidate.id] = f"its {where} shares {found}"
        return reasons

    return leaving


class Tally:
    """Writes the report, a row of plain data for each candidate that left, and counts them."""

    def __init__(self, write: Callable[[dict[str, str]], None]) -> None:
        self._write = write
        self._candidates = 0
        self._prompts: set[str] = set()

    def add(self, one: Contaminated) -> None:
        """Take one."""
        self._write(asdict(one))
        self._candidates += 1
        if one.found_in == "prompt":
            self._prompts.add(one.prompt_id)

    def metrics(self) -> dict[str, float]:
        """Flat: `select/contaminated` candidates, and `select/contaminated_prompts`, whose own words overlap."""
        return {
            "select/contaminated": float(self._candidates),
            "select/contaminated_prompts": float(len(self._prompts)),
        }


class _Index:
    """The n-grams of some texts, as sorted numbers, each with its text and its place in it."""

    def __init__(self, texts: Sequence[EvaluationText], chosen: Sequence[int], n: int, *, is_whole: bool) -> None:
        """`is_whole`: each text is one n-gram. Of equal ones all are held then, for they may differ in punctuation."""
        self._n = n
        self._texts = [texts[number] for number in chosen]
        grams = [ngrams(words(one.text), n) for one in self._texts]
        every = np.concatenate(grams)
        numbers = np.repeat(np.array(chosen, dtype=np.int32), [len(one) for one in grams])
        places = np.concatenate([np.arange(len(one), dtype=np.int32) for one in grams])
        order = np.argsort(every, kind="stable")
        is_first = np.concatenate([[True], every[order][1:] != every[order][:-1]])
        self._hold(every[order], numbers[order], places[order], is_first | is_whole)

    def _hold(
        self, grams: Numbers, numbers: NDArray[np.int32], places: NDArray[np.int32], stays: NDArray[np.bool_]
    ) -> None:
        self._grams, self._numbers, self._places = grams[stays], numbers[stays], places[stays]

    @property
    def num_texts(self) -> int:
        """How many have an n-gram that counts and that none before them has."""
        return len(set(self._numbers.tolist()))

    def places(self, of: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """Where n of the words are in the index: their place among the words, the text, and the place there."""
        grams = ngrams(of, self._n)
        first, end = (np.searchsorted(self._grams, grams, side=side) for side in ("left", "right"))
        for start in np.flatnonzero(first < end).tolist():
            for at in range(first[start], end[start]):
                yield start, int(self._numbers[at]), int(self._places[at])

    def ignore(self, asked: Iterable[str], common: int) -> None:
        """Take out what stands in more than `common` of the texts asked, with all that overlaps with it in place."""
        if not len(self._grams):
            return
        counts = np.zeros(len(self._grams), dtype=np.int64)
        for text in asked:
            grams = np.unique(ngrams(words(text), self._n))
            at = np.minimum(np.searchsorted(self._grams, grams), len(self._grams) - 1)
            counts[at[self._grams[at] == grams]] += 1
        often = self._grams[counts > common]
        out: list[Numbers] = [often]
        for one in self._texts:
            grams = ngrams(words(one.text), self._n)
            for place in np.flatnonzero(np.isin(grams, often)).tolist():
                out.append(grams[max(0, place - self._n + 1) : place + self._n])
        stays = ~np.isin(self._grams, np.concatenate(out))
        self._hold(self._grams, self._numbers, self._places, stays)


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .?!:")
