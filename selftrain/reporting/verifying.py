"""`selftrain verify` as lines. What models, data and scorers wrote is made inert."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.reporting.figures import MISSING, is_graded, verdict
from selftrain.reporting.inert import inert, inert_lines
from selftrain.reporting.tables import Line

LOOKS = {True: "best", False: "warning", None: "error"}
NAMES = {True: "right", False: "wrong", None: "could not be judged"}


def verdict_lines(data: Mapping[str, Any]) -> list[Line]:
    """The prompt, the reference, the answer as it was judged, each scorer's part, and the verdict."""
    task = f" · task {data['task']}" if data["task"] else ""
    lines = [Line(inert(f"{data['recipe']} · {data['set']}{task} · prompt {data['prompt_id']}"), "head")]
    lines += _block("asked", data["prompt"])
    lines += _block("reference", data["reference"], missing="(none)")
    if data["reasoning"] is not None:
        lines += _block("reasoning, which is not judged", data["reasoning"])
    lines += _block("judged", data["text"], missing="(empty)")
    lines += [Line(f"  note: {inert(one)}") for one in data["notes"]]
    extracted = data["answer"]
    if extracted is not None and "\n" in extracted.strip("\n"):
        lines += _block("taken as the answer", extracted)
    else:
        lines.append(Line(f"  taken as the answer: {inert(extracted) if extracted is not None else MISSING}"))
    lines += _parts(data)
    lines += [Line(f"  {inert(what)}: {inert(str(text))}") for what, text in _logged(data["extras"])]
    return [*lines, Line(""), Line(inert(_verdict(data)), LOOKS[data["correct"]])]


def _block(what: str, text: str | None, *, missing: str = "") -> list[Line]:
    shown = inert_lines(text).splitlines() if text else []
    return [Line(f"  {what}:"), *(Line(f"    {line}") for line in shown or [missing])]


def _parts(data: Mapping[str, Any]) -> Iterator[Line]:
    for one in data["scorers"]:
        value = MISSING if one["value"] is None else f"{one['value']:g}"
        role = ["gate"] if one["gate"] else []
        role += [f"weight {one['weight']:g}"] if len(data["scorers"]) > 1 else []
        in_brackets = f" ({', '.join(role)})" if role else ""
        said = f": {one['explanation']}" if one["explanation"] else ""
        yield Line(f"  {inert(one['name'] + in_brackets)}: {value}{inert(said)}")


def _logged(extras: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in extras.items():
        if name.startswith("score/") and not any(value):
            continue  # a metric of which there is nothing
        yield f"logged {name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _verdict(data: Mapping[str, Any]) -> str:
    if data["value"] is None:
        return f"{NAMES[None]}: {data['error'] or 'no scorer gave a value'}"
    if is_graded(data["value"]):
        words = verdict(data["value"], data["correct"], data["correct_at"], by_vote=False)
        return f"value {data['value']:g}, {words}"
    return f"{NAMES[data['correct']]}: value {data['value']:g}, and right from {data['correct_at']:g} up"
