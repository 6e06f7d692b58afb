"""`selftrain show` as lines: a run, a round, or a prompt. What models and data wrote is made inert."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.reporting.figures import MISSING, count
from selftrain.reporting.inert import inert, inert_lines
from selftrain.reporting.status import render
from selftrain.reporting.tables import Line, RoundRow, aligned

PROMPTS_SHOWN = 20
TEXT_SHOWN = 72
LOOKS = {True: "best", False: "warning", None: "plain"}
FATES = {True: "kept", False: "rejected", None: "waiting"}


def run_lines(data: Mapping[str, Any], rounds: Sequence[RoundRow]) -> list[Line]:
    """The status, then each selection's funnel with its commonest reasons, then the alarms."""
    lines = render(data["status"], rounds)
    for one in data["selections"]:
        lines += [Line(""), Line(f"{inert(one['arm'])} · round {one['round']} · select", "head")]
        lines.append(Line(f"  {inert(one['funnel'])}"))
        rows = [(count(number), inert(why)) for why, number in one["reasons"].items()]
        lines += [Line(f"  {text}") for text in aligned(rows, right=(0,))]
    if data["alarms"]:
        lines += [Line(""), Line("alarms", "head")]
    for one in data["alarms"]:
        words = f"{one['arm']} · round {one['round']} · {one['name']}: {one['words']}"
        lines.append(Line(f"  {inert(words)}", "warning"))
    return lines


def round_lines(data: Mapping[str, Any]) -> list[Line]:
    """A round's prompts with how many of their candidates are right and kept, then the candidates shown."""
    prompts = data["prompts"]
    right, kept = sum(one["right"] for one in prompts), sum(one["kept"] for one in prompts)
    every = sum(one["candidates"] for one in prompts)
    found_right = f"{count(right)} {data['right_words']}"
    numbers = f"{count(every)} candidates of {count(len(prompts))} prompts, {found_right}, {count(kept)} kept"
    lines = [Line(f"{inert(data['arm'])} · round {data['round']}: {numbers}", "head")]
    cells = [("prompt", "candidates", data["right_words"].partition(" (")[0], "kept", "")]
    for one in prompts[:PROMPTS_SHOWN]:
        is_scored = one["scored"] > 0
        numbers_of = (count(one["candidates"]), count(one["right"]) if is_scored else MISSING, count(one["kept"]))
        cells.append((one["prompt_id"], *numbers_of, _end(one["prompt"])))
    lines += [Line(f"  {text}") for text in aligned([tuple(map(inert, row)) for row in cells], right=(1, 2, 3))]
    if len(prompts) > PROMPTS_SHOWN:
        lines.append(Line(f"  and {count(len(prompts) - PROMPTS_SHOWN)} more prompts (--json has all)"))
    for name in ("kept", "rejected", "waiting"):
        for one in data.get(name, ()):
            lines += [Line(""), *candidate_lines(one, _end(one["prompt"]))]
    return lines


def prompt_lines(data: Mapping[str, Any]) -> list[Line]:
    """A prompt in full, and every candidate of it in full, round by round."""
    lines = [Line(f"{inert(data['arm'])} · prompt {inert(data['prompt_id'])}", "head")]
    lines += _indented(data["prompt"] or "(its words are not written down yet)")
    for one in data["candidates"]:
        lines += [Line(""), *candidate_lines(one)]
    if not data["candidates"]:
        lines.append(Line("no candidate of it is left to show"))
    return lines


def candidate_lines(one: Mapping[str, Any], asked: str = "") -> list[Line]:
    """What became of a candidate and why, what was judged, and what it says, in full; `asked` is an inert line."""
    value = f"value {one['value']:g}" if one["value"] is not None else "no value"
    which = f"round {one['round']}" + (f" · candidate {one['index']}" if one["index"] is not None else "")
    ended = f"{one['tokens']} tokens" + (f", ended by {one['finish_reason']}" if one["finish_reason"] else "")
    parts = [FATES[one["kept"]], which, *([value] if one["index"] is not None else []), one["verdict"], ended]
    lines = [Line(inert(" · ".join(part for part in parts if part)), LOOKS[one["kept"]])]
    lines += [Line(f"  {inert(what)}: {inert(str(text))}") for what, text in _judged(one)]
    return [*lines, *([Line(f"  asked: {asked}")] if asked else []), *_body(one)]


def _judged(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if one["why"]:
        yield "because", one["why"]
    for name in ("answer", "explanation", "error"):
        if one[name]:
            yield name, one[name]
    if len(one["parts"]) > 1:
        parts = one["parts"].items()
        yield (
            "parts",
            ", ".join(f"{name} {value:g}" if value is not None else f"{name} {MISSING}" for name, value in parts),
        )
    for name, value in one["extras"].items():
        yield f"logged {name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _body(one: Mapping[str, Any]) -> list[Line]:
    reasoning = [Line("  reasoning:"), *_indented(one["reasoning"])] if one["reasoning"] else []
    return [*reasoning, Line("  text:"), *_indented(one["text"] or "(empty)")]


def _indented(text: str) -> list[Line]:
    return [Line(f"    {line}") for line in inert_lines(text).splitlines() or [""]]


def _end(text: str | None) -> str:
    """The last words of a prompt, which are usually its own: worked examples stand before them. Only whole words, but
    of a text that has no other."""
    words = inert(text or "")
    if len(words) <= TEXT_SHOWN:
        return words
    end = words[-TEXT_SHOWN:]
    is_cut = words[-TEXT_SHOWN - 1] != " " and " " in end
    return f"... {end.partition(' ')[2] if is_cut else end.lstrip()}"
