"""Which prompts leave their set, by id: rows that a scorer cannot use, or that nobody should be asked."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from selftrain.config import SourceConfig
from selftrain.errors import ConfigError, DataError

_NAMED = 5


class Excluding:
    """The ids that the sources of a set leave out, and what of that set they met."""

    def __init__(self, name: str, sources: Sequence[tuple[str | None, SourceConfig]], base: Path) -> None:
        self._where = {task: place_of(name, task) for task, _ in sources}
        self._ids = {task: frozenset(ids_of(source, base, self._where[task])) for task, source in sources}
        self._met: dict[str | None, set[str]] = {task: set() for task in self._ids}
        self._stay: dict[str | None, set[str]] = {task: set() for task in self._ids}
        self.num_rows = 0

    @property
    def num_prompts(self) -> int:
        """How many prompts have left."""
        return sum(map(len, self._met.values()))

    def leaves(self, task: str | None, prompt_id: str) -> bool:
        """Whether a prompt of that task leaves; it is counted."""
        is_excluded = prompt_id in self._ids[task]
        (self._met if is_excluded else self._stay)[task].add(prompt_id)
        self.num_rows += is_excluded
        return is_excluded

    def require_matched(self) -> None:
        """Raise ConfigError for ids that no prompt has, DataError where no prompt of a source is left."""
        for task, ids in self._ids.items():
            where, unmatched = self._where[task], sorted(ids - self._met[task])
            if unmatched:
                shown = ", ".join(unmatched[:_NAMED]) + ", ..." * (len(unmatched) > _NAMED)
                near = difflib.get_close_matches(unmatched[0], self._stay[task], n=1, cutoff=0.8)
                meant = f" (did you mean {near[0]} instead of {unmatched[0]}?)" if near else ""
                raise ConfigError(
                    f"{where}.exclude: {len(unmatched)} of {len(ids)} ids match no prompt of {where}: {shown}{meant}; "
                    "correct them or take them out. An id is of the words that are asked, so another template, column "
                    "or part of the data gives others"
                )
            if ids and not self._stay[task]:
                raise DataError(f"{where}: every one of its {len(ids)} prompts is excluded; give other prompts")


def ids_of(source: SourceConfig, base: Path, where: str) -> tuple[str, ...]:
    """The ids that a source leaves out, each once. Raises ConfigError for a file that cannot be read, or a line or an
    entry that is no id."""
    if not isinstance(source.exclude, str):
        ids = [(one.strip(), "an entry") for one in source.exclude]
    else:
        path = base / Path(source.exclude).expanduser()
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(
                f"{where}.exclude: cannot read {path.resolve()}: {why}; give a text file with one id per line "
                "(relative paths start at the recipe's folder), or a list of ids: [ID]"
            ) from None
        told = [(line.partition("#")[0].strip(), f"line {number}") for number, line in enumerate(lines, 1)]
        ids = [(one, place) for one, place in told if one]
    for one, place in ids:
        if len(one.split()) != 1:
            raise ConfigError(f"{where}.exclude: {place} is no id: {one!r:.80}; write one id per line")
    return tuple(dict.fromkeys(one for one, _ in ids))


def refuse_of_texts(sources: Sequence[tuple[str | None, SourceConfig]]) -> None:
    """Raise ConfigError where texts, which have no ids, are to be left out."""
    for task, source in sources:
        if source.exclude:
            raise ConfigError(
                f"{place_of('retention', task)}: exclude is for prompts, and its rows are texts; take it out"
            )


def place_of(name: str, task: str | None) -> str:
    """The knob that a source of a set is set by."""
    return f"prompts.{name}" if task is None else f"prompts.{name}.mix.{task}"
