"""`selftrain compare` as text: the runs in a table, their differences in words, knobs that differ, seeds, notes.

Made from the data that `--json` prints and from nothing else.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.reporting.figures import count, duration, interval
from selftrain.reporting.inert import inert
from selftrain.reporting.tables import aligned

WIDTH = 80
BOUNDS = re.compile(r"\[[-+.0-9]+, [-+.0-9]+\]")
NO_BREAK = "\xa0"
ROW_COLUMNS = ("run", "round", "pass@1", "seed", "time", "tokens")


def render(data: Mapping[str, Any]) -> str:
    """The whole comparison as lines of at most 80 columns, but for words and tables that are wider."""
    lines = [f"greedy pass@1 on {inert(data['set'])} prompts, at the headline round of each run", ""]
    lines += _rows(data["runs"])
    for one in data["differences"]:
        lines += ["", *_wrapped(one["line"])]
        lines += [line for of_figure in one.get("values", ()) for line in _wrapped(of_figure["line"])]
        lines += [line for text in one["warnings"] for line in _wrapped(f"careful: {text}")]
        if one["knobs"]:
            lines += [f"knobs of {inert(one['name'])} that differ from {inert(one['over'])}'s:"]
            lines += [line for text in one["knobs"] for line in _wrapped(text, indent="  ")]
    if data["seeds"] is not None:
        lines += ["", *(line for text in data["seeds"]["lines"] for line in _wrapped(text))]
    if data["notes"]:
        lines += ["", *(line for text in data["notes"] for line in _wrapped(f"note: {text}"))]
    return "\n".join(lines)


def _rows(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [ROW_COLUMNS, *map(_cells, runs)]
    yield from aligned(cells, right=(1, 2, 3, 4, 5))
    for run in runs:
        arms = [f"{inert(arm)} {_share(level)}" for arm, level in run["arms"].items()]
        if arms:
            yield from _wrapped(f"arms of {run['name']}: {', '.join(arms)}")
    if unscored := [f"{one['name']} {one['pass@1']['unscored']}" for one in runs if one["pass@1"]["unscored"]]:
        yield from _wrapped(f"unscored, and so left out: {', '.join(unscored)}")
    yield from _wrapped(
        "time and sampled tokens are of the arm compared, over all its rounds; what it shares with main counts there"
    )


def _cells(run: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        inert(run["name"]),
        str(run["round"]),
        _share(run["pass@1"]),
        str(run["seed"]),
        duration(run["seconds"]),
        count(run["sampled_tokens"]),
    )


def _share(level: Mapping[str, Any]) -> str:
    return interval(level["estimate"], level["low"], level["high"])


def _wrapped(text: str, indent: str = "") -> list[str]:
    """The text in lines that fit; those after the first stand two columns further in. Words and bounds stay whole."""
    inner = indent + " " * (len(text) - len(text.lstrip()))
    whole = BOUNDS.sub(lambda bounds: bounds[0].replace(" ", NO_BREAK), inert(text))
    lines = textwrap.wrap(
        whole,
        WIDTH,
        initial_indent=inner,
        subsequent_indent=f"{inner}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines]
