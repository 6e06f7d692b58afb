"""Candidates that exist: which rows of a file hold those of which prompt.

One pass over the rows keeps three small numbers of each; a row itself is read again when its prompt's block needs it.
JSON lines are read where they stand. Rows of any other kind of source cannot be read singly in constant time, so they
are put down as JSON lines, without their prompts, in a temporary file that has no name and so leaves nothing behind.
"""

from __future__ import annotations

import string
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from selftrain.config import Columns, GeneratorConfig, PromptsConfig, SourceConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.prompts import files, rows
from selftrain.prompts.bad_rows import BadRows
from selftrain.prompts.building import identifier_of, own_words
from selftrain.prompts.cells import Unusable, readable, require_json
from selftrain.prompts.conversations import as_answer
from selftrain.records import FinishReason, canonical_json
from selftrain.store import disk_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHERE = "sample.policy.file"
# What servers, libraries and selftrain itself call the ends of an answer.
FINISHES: dict[str, FinishReason] = {
    "stop": "stop_token",
    "stop_token": "stop_token",
    "eos": "stop_token",
    "eos_token": "stop_token",
    "end_turn": "stop_token",
    "stop_string": "stop_string",
    "stop_sequence": "stop_string",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "length",
}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Brought:
    """One candidate as its row has it. `metadata` are the columns that have no other use."""

    text: str
    finish_reason: FinishReason
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Candidates whose prompts are not asked: how many, and where the first ones stand."""

    count: int
    places: tuple[str, ...]


class BroughtCandidates:
    """The candidates of a generator's file by prompt. `wanted` are the ids of the prompts that may be asked.

    Reads every row once. Raises ConfigError, DataError or DependencyError naming the row and what is wrong with it.
    """

    def __init__(
        self, generator: GeneratorConfig, config: PromptsConfig, base: Path, wanted: Sequence[str], spool_dir: Path
    ) -> None:
        assert generator.file is not None
        self._number = {name: number for number, name in enumerate(wanted)}
        self._parts = [
            _Part(_Reading(generator, one, config), one, base, WHERE if task is None else f"{WHERE}.mix.{task}")
            for task, one in generator.file.sources.items()
        ]
        try:
            for part in self._parts:
                part.index(self._number, spool_dir)
        except BaseException:
            self.close()
            raise
        self.elsewhere = Elsewhere(
            sum(part.num_elsewhere for part in self._parts),
            tuple(islice((place for part in self._parts for place in part.elsewhere), _NAMED)),
        )

    def num_held(self, prompt_id: str) -> int:
        """How many candidates of that prompt there are."""
        number = self._number.get(prompt_id)
        return 0 if number is None else sum(part.num_held(number) for part in self._parts)

    def of(self, prompt_id: str) -> Iterator[Brought]:
        """The candidates of that prompt, in the order of the rows. PhaseError: the file was changed meanwhile."""
        number = self._number.get(prompt_id)
        if number is not None:
            for part in self._parts:
                yield from part.of(number)

    def close(self) -> None:
        """Give the temporary files back."""
        for part in self._parts:
            part.close()


def check(generator: GeneratorConfig, config: PromptsConfig, base: Path) -> None:
    """Look at the first row of each source: that there is one, and that it has the columns of a candidate. Raises as
    reading all of them does, which one that cannot be read leads to, so that all such rows are named."""
    assert generator.file is not None
    for task, source in generator.file.sources.items():
        where = WHERE if task is None else f"{WHERE}.mix.{task}"
        reading, bad = _Reading(generator, source, config), BadRows(where)
        for place, row in rows.stream(source, base, where):
            try:
                reading.prompt_id(row, place)
                reading.candidates(row, place)
            except DataError as error:
                bad.add(error)
            if not bad.count:
                break
        bad.refuse()


def columns(generator: GeneratorConfig, config: PromptsConfig, base: Path) -> dict[str, Unusable | None]:
    """The columns that the candidates of the first row of each source bring, each with what is not read there. Raises
    as `check` does."""
    found: dict[str, Unusable | None] = {}
    for reading, place, row in first_rows(generator, config, base):
        found |= dict.fromkeys(reading.candidates(row, place)[0].metadata)
        found |= {name: value for name, value in reading.own(row).items() if isinstance(value, Unusable)}
    return found


def first_rows(
    generator: GeneratorConfig, config: PromptsConfig, base: Path
) -> Iterator[tuple[_Reading, str, rows.Row]]:
    """Of each source: what reads its rows, the first row's place in words, and the row."""
    assert generator.file is not None
    for task, source in generator.file.sources.items():
        where = WHERE if task is None else f"{WHERE}.mix.{task}"
        yield _Reading(generator, source, config), *next(rows.stream(source, base, where))


class _Reading:
    """What the columns of a source's rows say."""

    def __init__(self, generator: GeneratorConfig, source: SourceConfig, config: PromptsConfig) -> None:
        template = source.template if source.template is not None else config.template
        self._config = config.model_copy(update={"template": template})
        self._generator = generator
        self._columns: Columns = rows.columns_of(source)
        fields = () if template is None else [name for _, name, _, _ in string.Formatter().parse(template) if name]
        columns = self._columns
        self._of_prompt = {columns.prompt, columns.messages, columns.reference, generator.prompt_id}
        self._of_prompt |= {name.partition("[")[0] for name in fields}
        self._of_candidate = {columns.completion, columns.completions, generator.finish_reason}

    def prompt_id(self, row: rows.Row, place: str) -> str:
        """Of the prompt that the row answers."""
        if (name := self._generator.prompt_id) is not None:
            return rows.as_text(rows.column(row, name, place, f"{WHERE}: sample.policy.prompt_id names it"), place)
        try:
            words, _ = own_words(row, self._columns, self._config, place)
        except (ConfigError, DataError) as error:
            raise type(error)(
                f"{WHERE}: {error}. A candidate's row has the words of its prompt, as those of prompts.train have "
                f"(columns.prompt or template of {WHERE}), or its id (sample.policy.prompt_id)"
            ) from error
        return identifier_of(words)

    def candidates(self, row: rows.Row, place: str) -> list[Brought]:
        """Those of the row. Of a list of them, every other list of its length is shared out among them."""
        texts, is_list = self._texts(row, place)
        metadata = readable(self.own(row))
        ends = rows.find(row, self._generator.finish_reason)
        if not is_list:
            return [Brought(texts[0], self._finish(ends, place), metadata)]
        shared = {
            name for name, value in metadata.items() if isinstance(value, list | tuple) and len(value) == len(texts)
        }
        each = isinstance(ends, list | tuple) and len(ends) == len(texts)
        return [
            Brought(
                text,
                self._finish(ends[number] if each else ends, place),
                {name: value[number] if name in shared else value for name, value in metadata.items()},
            )
            for number, text in enumerate(texts)
        ]

    def own(self, row: rows.Row) -> rows.Row:
        """What the row has beside its prompt and its candidates."""
        return {name: value for name, value in row.items() if name not in self._of_prompt | self._of_candidate}

    def kept(self, row: rows.Row) -> dict[str, Any]:
        """The row without what is the prompt's, and without what JSON cannot hold."""
        return {name: value for name, value in readable(row).items() if name not in self._of_prompt}

    def _texts(self, row: rows.Row, place: str) -> tuple[list[str], bool]:
        several, single = self._columns.completions, self._columns.completion
        held = [name for name in (single, several) if rows.find(row, name) not in (rows.MISSING, None)]
        if len(held) > 1:
            raise DataError(
                f"{place} has both {single} and {several}; name the one that holds the candidates in {WHERE}.columns, "
                "and give the other (completion or completions) a name that no column has"
            )
        name = several if held == [several] or (rows.find(row, single) is rows.MISSING and several in row) else single
        value = rows.column(row, name, place, f"{WHERE}.columns.completion names the candidate's text")
        is_list = isinstance(value, list | tuple) and (name == several or not _is_turn(value))
        texts = list(value) if is_list else [value]
        if not texts:
            raise DataError(f"{place}: {name} is an empty list; take the row out")
        return [self._text(one, name, place) for one in texts], is_list

    def _text(self, value: Any, name: str, place: str) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping) or _is_turn(value):
            return as_answer([value] if isinstance(value, Mapping) else value, name, place)
        raise DataError(
            f"{place}: {name} holds the candidate, which is a text or one turn of the assistant, and is {value!r:.80}; "
            "take the row out"
        )

    def _finish(self, value: Any, place: str) -> FinishReason:
        if value is rows.MISSING or value in (None, ""):  # an empty cell of CSV
            return "stop_token"
        if not isinstance(value, str) or value not in FINISHES:
            said = value.what if isinstance(value, Unusable) else repr(value)
            raise DataError(
                f"{place}: the column {self._generator.finish_reason!r} says {said}; known are "
                f"{', '.join(FINISHES)}. Name another column in sample.policy.finish_reason"
            )
        return FINISHES[value]


def _is_turn(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], Mapping)


class _Part:
    """The rows of one source, by prompt."""

    def __init__(self, reading: _Reading, source: SourceConfig, base: Path, where: str) -> None:
        import numpy as np  # here: the doctor imports this module, and works where numpy is broken

        self._reading, self._source, self._base, self._where = reading, source, base, where
        self._file: BinaryIO | None = None
        self._unchanged: Callable[[], bool] = lambda: True
        # Rows `order[starts[p]]` to `order[starts[p + 1]]`, the end excluded, are those of prompt number p; a row
        # stands `at` a byte of the file, and holds so many candidates.
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self._at: array[int] = array("q")
        self._held: NDArray[np.int64] = np.zeros(0, np.int64)
        self.num_elsewhere = 0
        self.elsewhere: list[str] = []

    def index(self, numbers: Mapping[str, int], spool_dir: Path) -> None:
        """Read all rows, and keep where those of the numbered prompts stand."""
        owners, many, bad = array("i"), array("i"), BadRows(self._where)
        for at, place, row in self._placed(spool_dir):
            try:
                number = numbers.get(self._reading.prompt_id(row, place))
                kept = self._reading.kept(row)
                require_json(kept, place)
                count = len(self._reading.candidates(row, place))
            except DataError as error:
                bad.add(error)
            if bad.count:
                continue
            if number is None:
                self.num_elsewhere += count
                if len(self.elsewhere) < _NAMED:
                    self.elsewhere.append(place)
                continue
            owners.append(number)
            many.append(count)
            self._at.append(self._put_down(kept, spool_dir) if at is None else at)
        bad.refuse()
        import numpy as np

        owner = np.frombuffer(owners, np.int32) if owners else np.zeros(0, np.int32)
        counts = np.frombuffer(many, np.int32) if many else np.zeros(0, np.int32)
        self._order = np.argsort(owner, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(numbers)))])
        self._held = np.bincount(owner, weights=counts, minlength=len(numbers)).astype(np.int64)

    def num_held(self, number: int) -> int:
        """How many candidates of that prompt there are."""
        return int(self._held[number])

    def of(self, number: int) -> Iterator[Brought]:
        """Those candidates, in the order of the rows."""
        assert self._file is not None
        for row in self._order[self._starts[number] : self._starts[number + 1]]:
            self._file.seek(self._at[row])
            line = self._file.readline()
            if not self._unchanged():
                raise PhaseError(
                    f"{self._where}: {self._source.path} was changed while it was read; run again when it is whole"
                )
            place = f"{self._source.path}, byte {self._at[row]}"
            yield from self._reading.candidates(files.json_line(line, place), place)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _placed(self, spool_dir: Path) -> Iterator[tuple[int | None, str, rows.Row]]:
        """Every row with its place in words; and where it stands in the file that it is read again from, unless it has
        to be put down first."""
        kind = rows.kind_of(self._source, self._base, self._where)
        if kind != ".jsonl":
            with disk_errors(spool_dir):
                spool_dir.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=spool_dir)  # noqa: SIM115 - closed by close
            yield from ((None, place, row) for place, row in rows.stream(self._source, self._base, self._where))
            return
        assert self._source.path is not None
        path = self._base / Path(self._source.path).expanduser()
        self._file = path.open("rb")
        seen = _state(path)
        self._unchanged = lambda: _state(path) == seen
        limit = None if self._source.limit is None else self._source.skip + self._source.limit
        is_empty = True
        for found in islice(files.json_lines_at(path, self._source.path), self._source.skip, limit):
            is_empty = False
            yield found
        if is_empty:
            raise rows.empty(self._source, self._where)

    def _put_down(self, row: Mapping[str, Any], spool_dir: Path) -> int:
        assert self._file is not None
        at = self._file.tell()
        with disk_errors(spool_dir):
            self._file.write(canonical_json(row).encode("utf-8", "surrogatepass") + b"\n")
        return at


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
