"""Selection over a stream of groups: as many passes over it as there are steps over the whole round, plus one.

Held at any time: the groups in hand, a byte for each candidate, and what the steps over the round hold on to. Nothing
else grows with the number of candidates: who survives is handed out, and who leaves is told, as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from selftrain.config import SelectConfig
from selftrain.records import FINISH_REASONS, Funnel, Group, Prompt, Score
from selftrain.selection import Entry, Kept, RoundStep, filters, rules, shaping, steps
from selftrain.selection.demonstrations import words_of
from selftrain.selection.steps import Row, Step, value_of, written

Source = Callable[[], Iterable[Group]]
"""Reads the round's groups from the beginning: the same ones, in the same order, at every call."""
Given = Mapping[str, Step | RoundStep]
"""Steps that need more than the config to be made, by their names in the funnel: `quality`, `decontaminate` and
`near_duplicates`."""

_GroupStep = Callable[[Group, Group, Sequence[Row]], Mapping[str, str]]
"""From a group as it was scored, the same with shaped values, and the rows left: who leaves, and why."""


@dataclass(slots=True)
class _Sifted:
    """A group in a pass: as it was scored, and its rows that are left, with shaped values."""

    scored: Group
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a pass does: first what the step over the round before it said, by the name of that; then its own steps,
    prompt by prompt; then what is left goes to the step over the round after it, if there is one."""

    before: str | None
    steps: tuple[tuple[str, _GroupStep], ...]
    after: RoundStep | None


class Sifting:
    """One selection. `config` is resolved for one round, `loaded` are the functions of `config.filters`.

    `reject` is told of each candidate that leaves, once, with the reason. Who is kept does not depend on the order of
    groups or candidates; `seed` matters to rule `random`, and to the ties of `top_fraction`. What filters raise is
    passed on; ValueError where the source is not what it should be.
    """

    def __init__(
        self,
        source: Source,
        config: SelectConfig,
        *,
        seed: int,
        reject: Callable[[str, str], None],
        loaded: Sequence[filters.Filter] = (),
        given: Given | None = None,
    ) -> None:
        self._source, self._config, self._seed, self._reject = source, config, seed, reject
        self._shapes = shaping.shapes(config)
        self._rule_of_the_round = rules.round_rule(config, seed=seed)
        self._why: dict[str, str] = {}  # of the group in hand
        self._stages = self._staged(loaded, given or {})
        self._is_left = bytearray()
        self._counts: dict[str, int] = {"sampled": 0}
        for stage in self._stages:
            self._counts |= dict.fromkeys([stage.before] if stage.before else [], 0)
            self._counts |= {name: 0 for name, _ in stage.steps}
        self.prompts: dict[str, Prompt] = {}
        """Those of the groups, by id, once a pass is done."""

    def kept(self) -> Iterator[Kept]:
        """Who survives, in the order of the groups, then of wave and index. To be run through once."""
        shape = shaping.over(self._config, self._source()) if self._shapes else None
        ruled: Iterator[tuple[int, str]] | None = None
        for stage in self._stages[:-1]:
            assert stage.after is not None
            ruled = stage.after.leaving(self._entries(self._pass(stage, ruled, shape)))
        for sifted in self._pass(self._stages[-1], ruled, shape):
            raw = _by_id(sifted.scored) if self._shapes else {}
            for candidate, score in sifted.rows:
                stays = self._rule_of_the_round
                why = stays.stays(value_of(score)) if stays is not None else self._why[candidate.id]
                scored = raw.get(candidate.id, score)
                yield Kept(candidate, scored, self._in_words(why, scored))

    @property
    def funnel(self) -> Funnel:
        """How many were left after each step, once all who survive are handed out."""
        counts = dict(self._counts)
        *_, before, answered = [left for name, left in counts.items() if name in ("scored", "finished", "answered")]
        if self._config.train_on != "answer" and answered == before:  # a step where blank answers are met
            del counts["answered"]
        if self._config.rule == "all":  # which is no step
            del counts["rule"]
        return Funnel(tuple(counts.items()))

    def _staged(self, loaded: Sequence[filters.Filter], given: Given) -> tuple[_Stage, ...]:
        """The steps that apply, in order, cut after each one over the round."""
        stages: list[_Stage] = []
        before: str | None = None
        own: list[tuple[str, _GroupStep]] = []
        for name, step in self._planned(loaded, given):
            if callable(step):
                own.append((name, step))
            else:
                stages.append(_Stage(before, tuple(own), step))
                before, own = name, []
        return (*stages, _Stage(before, tuple(own), None))

    def _planned(self, loaded: Sequence[filters.Filter], given: Given) -> Iterator[tuple[str, _GroupStep | RoundStep]]:
        """The steps that apply, by the names they have in the funnel."""
        config = self._config
        yield "scored", _plain(steps.unscored)
        if set(config.finish_reasons) != set(FINISH_REASONS):
            yield "finished", _plain(steps.unfinished(config))
        yield "answered", _plain(steps.unanswered(config))
        if config.min_completion_tokens > 0 or config.max_completion_tokens is not None:
            yield "length", _plain(steps.wrong_length(config))
        yield from _named("quality", given)
        for one in loaded:
            yield one.name, partial(_filtered, one)
        yield from _named("decontaminate", given)
        if config.dedup != "none":
            yield "dedup", _plain(steps.duplicates(config))
        yield from _named("near_duplicates", given)
        is_capped = config.max_per_prompt is not None
        capped = [("max_per_prompt", _plain(steps.over_cap(config, seed=self._seed)))] if is_capped else []
        yield from capped if config.rule == "random" else ()
        if self._rule_of_the_round is not None:
            yield "rule", self._rule_of_the_round
        else:
            yield "rule", self._told(rules.rule(config))
        yield from () if config.rule == "random" else capped

    def _told(self, rule: rules.Rule) -> _GroupStep:
        """The rule as a step that notes why the others stay."""

        def step(scored: Group, shaped: Group, rows: Sequence[Row]) -> Mapping[str, str]:
            ruling = rule(shaped, rows)
            self._why = dict(ruling.stay)
            return self._said("rule", dict(ruling.leave), scored)

        return step

    def _said(self, step: str, reasons: dict[str, str], scored: Group) -> dict[str, str]:
        """What a step over the round says of candidates of a group."""
        if step != "rule" or not self._shapes or not reasons:
            return reasons
        raw = _by_id(scored)
        return {name: self._in_words(why, raw[name]) for name, why in reasons.items()}

    def _in_words(self, why: str, scored: Score) -> str:
        """What the rule says, with the raw value where it saw another one."""
        return f"{why}; raw value {scored.value}" if self._shapes else why

    def _pass(
        self, stage: _Stage, ruled: Iterator[tuple[int, str]] | None, shape: shaping.Shape | None
    ) -> Iterator[_Sifted]:
        """Each group after the stage's steps. `ruled` is who leaves at the step over the round before them; it may
        still be at work on the pass before this one, which then is at this group already, or beyond it."""
        is_first, first = ruled is None, 0
        leaving = _Leaving(ruled)
        for scored in self._source():
            shaped = shape(scored) if shape is not None else scored
            rows = of_all = _rows(shaped)
            of_group = slice(first, first + len(rows))
            first = of_group.stop
            if is_first:
                self._is_left.extend(b"\1" * len(rows))
                self._begin(scored)
                self._counts["sampled"] += len(rows)
            else:
                rows = [row for row, is_left in zip(rows, self._is_left[of_group], strict=True) if is_left]
            if stage.before is not None:
                rows = self._without(rows, self._said(stage.before, leaving.of(rows), scored), stage.before)
            for name, step in stage.steps:
                rows = self._without(rows, step(scored, shaped, rows), name)
            if stage.after is not None:
                left = {candidate.id for candidate, _ in rows}
                self._is_left[of_group] = bytes(candidate.id in left for candidate, _ in of_all)
            yield _Sifted(scored, rows)
        if first != len(self._is_left):
            raise ValueError("the groups are others in the second pass than in the first")
        leaving.require_over()

    def _begin(self, group: Group) -> None:
        if group.prompt.id in self.prompts:
            raise ValueError("two groups have the same prompt; put all candidates of a prompt into one group")
        self.prompts[group.prompt.id] = group.prompt

    def _without(self, rows: list[Row], reasons: Mapping[str, str], step: str) -> list[Row]:
        for name, why in reasons.items():
            self._reject(name, why)
        left = [row for row in rows if row[0].id not in reasons] if reasons else rows
        self._counts[step] += len(left)
        return left

    def _entries(self, sifted: Iterable[_Sifted]) -> Iterator[Entry]:
        is_blind = self._config.rule == "random"
        for one in sifted:
            asked = words_of(one.scored.prompt)
            for candidate, score in one.rows:
                value = 0.0 if is_blind else value_of(score)
                yield Entry(candidate.id, candidate.prompt_id, written(candidate), value, asked)


class _Leaving:
    """Who leaves at a step over the round, met group by group in the order of its entries."""

    def __init__(self, ruled: Iterator[tuple[int, str]] | None) -> None:
        self._ruled = iter(()) if ruled is None else ruled
        self._next = next(self._ruled, None)
        self._number = 0

    def of(self, rows: Sequence[Row]) -> dict[str, str]:
        """Those among the next entries."""
        found = {}
        for candidate, _ in rows:
            if self._next is not None and self._next[0] == self._number:
                found[candidate.id] = self._next[1]
                self._next = next(self._ruled, None)
            self._number += 1
        return found

    def require_over(self) -> None:
        """Raise ValueError if a number was no entry's, or came out of order."""
        if self._next is not None:
            raise ValueError(
                f"a step over the round names entry {self._next[0]} of {self._number}, or not in ascending order"
            )


def _plain(step: Step) -> _GroupStep:
    return lambda scored, shaped, rows: step(rows)


def _filtered(one: filters.Filter, scored: Group, shaped: Group, rows: Sequence[Row]) -> Mapping[str, str]:
    """A filter sees the values that the scorers gave."""
    raw = _by_id(scored)
    return filters.step(one, {scored.prompt.id: scored.prompt})([(each, raw[each.id]) for each, _ in rows])


def _named(name: str, given: Given) -> Iterator[tuple[str, _GroupStep | RoundStep]]:
    if name in given:
        step = given[name]
        yield name, _plain(step) if callable(step) else step


def _by_id(group: Group) -> dict[str, Score]:
    return {score.candidate_id: score for score in group.scores}


def _rows(group: Group) -> list[Row]:
    if [candidate.id for candidate in group.candidates] != [score.candidate_id for score in group.scores]:
        raise ValueError(f"prompt {group.prompt.id}: the scores are not those of its candidates, one each, in order")
    rows = zip(group.candidates, group.scores, strict=True)
    return sorted(rows, key=lambda row: (row[0].wave, row[0].index, row[0].id))
