"""Of candidates that are nearly the same one stays (`select.near_duplicates`): the one with the best value, of equal
values the first.

Candidates are gone through from the best value down, and one leaves if it is similar enough to one that stays. So no
two that stay are as similar as that, as far as they were compared (`minhash` leaves out a few pairs, by
`minhash.RECALL`), and the reason names one that stays. Texts are compared as they were written, the reasoning before
the answer included.
"""

from __future__ import annotations

import importlib.util
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.config import NearDuplicatesConfig, SelectConfig
from selftrain.errors import DependencyError
from selftrain.selection import Entry, RoundStep
from selftrain.selection.steps import Row, Step, best_first, written

if TYPE_CHECKING:
    from selftrain.selection.embeddings import Encoder
    from selftrain.selection.minhash import Similar, Sketches

NEEDS = {
    "minhash": ("datasketch", "filters"),
    "ratio": ("rapidfuzz", "filters"),
    "embedding": ("sentence_transformers", "embeddings"),
}
"""The package of each kind, and the extra that brings it."""
_READ_TOGETHER = 512
# 1 - 16 / 50 is a little under 0.68 in binary.
_ROUNDING = 1e-9

Compare = Callable[[Sequence[str], Sequence[int]], "Similar"]
"""From texts, and their numbers from the best one down, who leaves."""


def check(config: SelectConfig, base: Path) -> None:
    """Raise DependencyError for a package that is missing, ConfigError for an embedding model that is not there or
    cannot be one. Nothing is loaded; `base` is the recipe's folder."""
    if (knobs := config.near_duplicates) is None:
        return
    package, extra = NEEDS[knobs.by]
    if importlib.util.find_spec(package) is None:
        raise DependencyError(
            f"select.near_duplicates: by: {knobs.by} needs the package {package}, which is not installed; run "
            f"`pip install 'selftrain[{extra}]'`"
        )
    if knobs.model is not None:
        from selftrain.selection import embeddings

        embeddings.check(knobs.model, base)


def step(config: SelectConfig, base: Path, device: str | None = None) -> Step | RoundStep:
    """The step of these knobs, which must be there. `device` is where an embedding model runs, as torch names it (None:
    an accelerator if there is one); models are loaded when the first texts are compared."""
    knobs = config.near_duplicates
    assert knobs is not None
    if knobs.by == "embedding":
        from selftrain.selection.embeddings import Encoder

        assert knobs.model is not None
        encoder = Encoder(knobs.model, base, device)
        return _Embedded(encoder, knobs)
    if knobs.within == "all":
        return _Sketched(knobs)
    return _of_prompt(config, _by_ratio(knobs) if knobs.by == "ratio" else _by_minhash(knobs))


def _of_prompt(config: SelectConfig, compare: Compare) -> Step:
    def leaving(rows: Sequence[Row]) -> Mapping[str, str]:
        if len(rows) < 2:
            return {}
        number = {candidate.id: number for number, (candidate, _) in enumerate(rows)}
        # Rule `random` must not look at values.
        ranked = rows if config.rule == "random" else best_first(rows)
        texts = [written(candidate) for candidate, _ in rows]
        similar = compare(texts, [number[candidate.id] for candidate, _ in ranked])
        ids = [candidate.id for candidate, _ in rows]
        return {ids[one]: _why(ids[other], similarity) for one, (other, similarity) in similar.items()}

    return leaving


def _why(other: str, similarity: float) -> str:
    # Rounded down: 0.8 is not 1.000, and what was under the threshold never reads as if it had reached it.
    return f"nearly the same as {other} ({int((similarity + _ROUNDING) * 1000) / 1000:.3f})"


def _by_minhash(knobs: NearDuplicatesConfig) -> Compare:
    from selftrain.selection import minhash

    def compare(texts: Sequence[str], ranked: Sequence[int]) -> Similar:
        if len(texts) <= minhash.COMPARED_DIRECTLY:
            return minhash.among_few(texts, ranked, knobs.threshold, ngram=knobs.ngram)
        with _sketches(knobs) as sketches:
            sketches.add(texts)
            return sketches.similar(ranked)

    return compare


def _sketches(knobs: NearDuplicatesConfig) -> Sketches:
    from selftrain.selection.minhash import Sketches

    return Sketches(knobs.threshold, ngram=knobs.ngram, permutations=knobs.permutations)


def _by_ratio(knobs: NearDuplicatesConfig) -> Compare:
    """Similarity is 1 - d / (m + n) for texts of m and n characters, d being the least number of characters to put in
    or take out."""

    def compare(texts: Sequence[str], ranked: Sequence[int]) -> Similar:
        import numpy as np
        from rapidfuzz.distance import Indel
        from rapidfuzz.process import cdist

        stay: list[int] = []
        found: Similar = {}
        for one in ranked:
            if stay:
                others = [texts[other] for other in stay]
                similarities = cdist([texts[one]], others, scorer=Indel.normalized_similarity, dtype=np.float64)[0]
                best = int(similarities.argmax())
                if similarities[best] >= knobs.threshold - _ROUNDING:
                    found[one] = stay[best], float(similarities[best])
                    continue
            stay.append(one)
        return found

    return compare


@dataclass(slots=True)
class _Ids:
    """Ids of many candidates in little memory."""

    bytes_: bytearray
    ends: array[int]

    @classmethod
    def none(cls) -> _Ids:
        return cls(bytearray(), array("q", [0]))

    def add(self, name: str) -> None:
        self.bytes_ += name.encode()
        self.ends.append(len(self.bytes_))

    def __getitem__(self, number: int) -> str:
        return self.bytes_[self.ends[number] : self.ends[number + 1]].decode()


def _best_first(values: Sequence[float]) -> list[int]:
    """Numbers by value, highest first; equals stay in order."""
    import numpy as np

    ordered: list[int] = np.argsort(-np.asarray(values), kind="stable").tolist()
    return ordered


class _Sketched:
    """Over the round, by minhash."""

    def __init__(self, knobs: NearDuplicatesConfig) -> None:
        self._knobs = knobs

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """As RoundStep has it."""
        ids, values = _Ids.none(), array("d")

        def texts() -> Iterator[str]:
            for entry in entries:
                ids.add(entry.candidate_id)
                values.append(entry.value)
                yield entry.text

        with _sketches(self._knobs) as sketches:
            sketches.add(texts())
            similar = sketches.similar(_best_first(values))
        for number in sorted(similar):
            other, similarity = similar[number]
            yield number, _why(ids[other], similarity)


class _Embedded:
    """Over the round, or in each prompt, by sentence embeddings. One that leaves within a prompt is told as soon as a
    few hundred texts are read."""

    def __init__(self, encoder: Encoder, knobs: NearDuplicatesConfig) -> None:
        self._encoder = encoder
        self._knobs = knobs

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """As RoundStep has it."""
        with self._encoder:
            yield from (self._within_prompts if self._knobs.within == "prompt" else self._within_all)(entries)

    def _within_all(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        ids, values = _Ids.none(), array("d")
        texts = self._encoder.texts()
        for entry in entries:
            ids.add(entry.candidate_id)
            values.append(entry.value)
            texts.add(entry.text)
        similar = texts.similar(_best_first(values), self._knobs.threshold)
        for number in sorted(similar):
            other, similarity = similar[number]
            yield number, _why(ids[other], similarity)

    def _within_prompts(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        first, waiting = 0, list[list[Entry]]()
        for _, group in groupby(entries, key=lambda entry: entry.prompt_id):
            waiting.append(list(group))
            if sum(map(len, waiting)) >= _READ_TOGETHER:
                yield from self._of_prompts(waiting, first)
                first += sum(map(len, waiting))
                waiting = []
        yield from self._of_prompts(waiting, first)

    def _of_prompts(self, prompts: Sequence[Sequence[Entry]], first: int) -> Iterator[tuple[int, str]]:
        """Of whole prompts, whose texts are read together; `first` is the number of their first entry."""
        read = self._encoder.read([entry.text for entries in prompts for entry in entries])
        for entries in prompts:
            texts = self._encoder.texts()
            for entry in entries:
                texts.take(entry.text, read)
            similar = texts.similar(_best_first([entry.value for entry in entries]), self._knobs.threshold)
            for number in sorted(similar):
                other, similarity = similar[number]
                yield first + number, _why(entries[other].candidate_id, similarity)
            first += len(entries)
