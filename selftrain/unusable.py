"""Which prompts a run would refuse, written as `exclude` takes them (`selftrain audit RECIPE --unusable FOLDER`)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from selftrain.compose import Composed
from selftrain.config import SourceConfig
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.opening import confined, opened, require_columns
from selftrain.preflight import judged
from selftrain.prompts import PromptSets
from selftrain.prompts.excluding import ids_of, place_of
from selftrain.records import Prompt
from selftrain.reporting.inert import inert
from selftrain.rooms import Rooms
from selftrain.scoring import Judge
from selftrain.scoring.combined import CombinedScorer
from selftrain.store import disk_errors

HEADER = "# Written by `selftrain audit --unusable`: "
_REASON = 200


@dataclass(frozen=True, slots=True)
class Found:
    """Of one source: how many prompts it has, why some cannot be used (by id), and which are excluded already."""

    set: str
    task: str | None
    prompts: int
    unusable: Mapping[str, str]
    excluded_before: tuple[str, ...]
    file: str

    @property
    def knob(self) -> str:
        """What names the file, for the command line."""
        return f"{place_of(self.set, self.task)}.exclude={self.file}"


def write_unusable(
    recipe: str,
    *,
    layers: Sequence[str],
    overrides: Sequence[str],
    sets: Sequence[str],
    folder: Path,
    unsafe_no_sandbox: bool,
    as_json: bool,
) -> None:
    """Check every prompt of the sets (none named: of all that are judged) as the start of a run does, write the ids of
    those that it would refuse, and those that are excluded already, to one file per source, and say what was found.

    Raises SelftrainError where nothing can be asked, and ConfigError for a file in the way.
    """
    from selftrain.reporting.terminal import Terminal

    composed, prompts = opened(recipe, layers=layers, overrides=overrides)
    config = composed.config
    require_columns(config, [prompts.train, *prompts.held_out().values()])
    sandbox = confined(config, recipe, unsafe_no_sandbox=unsafe_no_sandbox, warn=Terminal().warn)
    with closing(Rooms(config, composed.folder, sandbox=sandbox)) as rooms:
        by_set = _by_set(composed, rooms, prompts, sets)
    found = list(_found(composed, by_set, folder))
    _write(found, composed.folder)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return
    for line in _lines(found):
        print(line)


def unusable_of(scorer: CombinedScorer | Judge, prompts: Iterable[Prompt]) -> dict[str, str]:
    """Why the scorer cannot judge some of the prompts, by id: it accepts what is left. Raises DataError for what is
    not mended by leaving prompts out."""
    found: dict[str, str] = {}
    left = tuple(prompts)
    while left:
        try:
            scorer.check_references(left)
        except UnusablePrompts as error:
            found |= error.why
            fewer = tuple(one for one in left if one.id not in found)
            if len(fewer) == len(left):
                raise
            left = fewer
        else:
            break
    return found


def _by_set(
    composed: Composed, rooms: Rooms, prompts: PromptSets, wanted: Sequence[str]
) -> dict[str, tuple[tuple[Prompt, ...], dict[str, str]]]:
    """By set: its prompts, and why some cannot be used by one of the scorers that judge it."""
    of_sets = {one.name: one.prompts for one, _ in judged(composed.config, rooms, prompts)}
    if unknown := [name for name in wanted if name not in of_sets]:
        raise ConfigError(f"--set {unknown[0]!r}: this recipe has no such set of prompts; it has: {', '.join(of_sets)}")
    found: dict[str, dict[str, str]] = {name: {} for name in of_sets if not wanted or name in wanted}
    for one, scorer in judged(composed.config, rooms, prompts):
        if one.name in found:
            found[one.name] |= unusable_of(scorer, [each for each in one.prompts if each.id not in found[one.name]])
    return {name: (of_sets[name], why) for name, why in found.items()}


def _found(
    composed: Composed, by_set: Mapping[str, tuple[tuple[Prompt, ...], dict[str, str]]], folder: Path
) -> Iterator[Found]:
    for name, (prompts, why) in by_set.items():
        source: SourceConfig = getattr(composed.config.prompts, "validate_" if name == "validate" else name)
        for task, one in source.sources.items():
            ids = [each.id for each in prompts if each.task == task]
            file = (folder / f"{name if task is None else f'{name}-{task}'}.txt").absolute()
            shown = file.relative_to(composed.folder) if file.is_relative_to(composed.folder) else file
            before = ids_of(one, composed.folder, place_of(name, task))
            yield Found(name, task, len(ids), {each: why[each] for each in ids if each in why}, before, str(shown))


def _write(found: Sequence[Found], base: Path) -> None:
    for one in found:
        path = base / one.file
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(HEADER.encode())):
            raise ConfigError(f"{path} is there, and was not written by this command; give another folder")
    for one in found:
        path = base / one.file
        lines = [f"{HEADER}left out of {place_of(one.set, one.task)} by `exclude`."]
        lines += [f"{each}   # {inert(why)[:_REASON]}" for each, why in one.unusable.items()]
        lines += [f"{each}   # excluded before" for each in one.excluded_before]
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(found: Sequence[Found]) -> Iterator[str]:
    for one in found:
        name = one.set if one.task is None else f"{one.set}, {one.task}"
        before = f"; {len(one.excluded_before):,} more are excluded already" if one.excluded_before else ""
        yield f"{name}: {len(one.unusable):,} of {one.prompts:,} prompts cannot be used{before}"
    knobs = [shlex.quote(one.knob) for one in found if one.unusable or one.excluded_before]
    if knobs:
        yield "to leave them out, set in the recipe or on the command line:"
    yield from (f"  {knob}" for knob in knobs)
