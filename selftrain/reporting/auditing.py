"""`selftrain audit` as lines: the table of checks, then the first answers that were not judged as they must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.reporting.figures import count, duration, per_second, percent
from selftrain.reporting.inert import inert, inert_lines
from selftrain.reporting.tables import Line, aligned

CASES_SHOWN = 5
TEXT_SHOWN = 300
KINDS_SHOWN = 8
CHANGED_SHOWN = 8
VERDICTS = {
    "passed": "passed",
    "failed": "FAILED",
    "noted": "to be looked at",
    "unproven": "SHOWS NOTHING",
    "skipped": "skipped",
    "incomplete": "INCOMPLETE",
}
LOOKS = {"passed": "plain", "failed": "error", "noted": "warning", "unproven": "error", "skipped": "quiet"}
LOOKS |= {"incomplete": "error"}


def audit_lines(data: Mapping[str, Any]) -> list[Line]:
    """The table, what was skipped or noted, the first cases in full, the speed, and the verdict."""
    asked = f"{count(data['prompts'])} of {count(data['available'])} prompts"
    title = f"{data['recipe']} · {data['set']} · {asked} · {', '.join(data['scorers'])}"
    lines = [Line(inert(title), "head"), *_table(data["checks"])]
    words = dict.fromkeys(one["words"] for one in data["checks"] if one["words"])
    lines += [_line(2, f"{_names(data, 'words', said)}: {said}") for said in words]
    lines += [Line(f"  note: {inert(one)}") for one in data["notes"]]
    for one in data["checks"]:
        lines += _cases(one, data)
    lines += [Line(""), *_speed(data["speed"]), Line(inert(_verdict(data)), "best" if data["passed"] else "error")]
    return lines


def _table(checks: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    has_tasks = any(one["task"] is not None for one in checks)
    head = ("task",) * has_tasks + ("check", "prompts", "asked", "accepted", "refused", "unscored", "")
    rows = [head]
    for one in checks:
        numbers = [count(one[name]) for name in ("prompts", "asked", "accepted", "refused", "unscored")]
        rows.append((*(inert(one["task"] or ""),) * has_tasks, one["name"], *numbers, VERDICTS[one["verdict"]]))
    first = 1 + has_tasks
    texts = aligned(rows, right=range(first, first + 5))
    yield Line(f"  {texts[0]}", "head")
    for text, one in zip(texts[1:], checks, strict=True):
        yield Line(f"  {text}", LOOKS[one["verdict"]])


def _name(check: Mapping[str, Any]) -> str:
    return f"{check['task']}: {check['name']}" if check["task"] else str(check["name"])


def _names(data: Mapping[str, Any], field: str, value: str) -> str:
    """The checks in which the field has that value; of tasks, each check once with its tasks."""
    tasks: dict[str, list[str]] = {}
    for one in data["checks"]:
        if one[field] == value:
            tasks.setdefault(one["name"], []).extend([one["task"]] if one["task"] else [])
    return ", ".join(f"{name} of {' and '.join(of)}" if of else name for name, of in tasks.items())


def _cases(check: Mapping[str, Any], data: Mapping[str, Any]) -> list[Line]:
    """The first cases, each of another kind as far as there are kinds."""
    if not check["cases"]:
        return []
    kinds = [f"{name} ({count(number)})" for name, number in check["kinds"].items()]
    more = f", and {len(kinds) - KINDS_SHOWN} other kinds" if len(kinds) > KINDS_SHOWN else ""
    what = "not accepted" if check["wanted"] == "accepted" else "not refused"
    lines = [Line(""), Line(inert(f"{_name(check)}, {what}: {', '.join(kinds[:KINDS_SHOWN])}{more}"), "head")]
    seen: dict[str, int] = {}
    ranked = []
    for one in check["cases"]:
        ranked.append((seen.setdefault(one["kind"], 0), one))
        seen[one["kind"]] += 1
    for _, one in sorted(ranked, key=lambda item: item[0])[:CASES_SHOWN]:
        lines += _case(one)
    hidden = len(check["cases"]) - CASES_SHOWN
    if hidden > 0:
        beyond = sum(check["kinds"].values()) - len(check["cases"])
        also = f", and counts {count(beyond)} besides" if beyond else ""
        lines.append(Line(f"  {count(hidden)} more: --json has them{also}"))
    return lines


def _case(case: Mapping[str, Any]) -> Iterator[Line]:
    state = "unscored" if case["value"] is None else f"value {case['value']:g}"
    yield _line(2, f"{case['kind']} · prompt {case['prompt_id']} · {state}", "warning")
    yield from _block("asked", _cut(case["question"], from_end=True))
    if case["changed"]:
        shown = case["changed"][:CHANGED_SHOWN]
        yield Line("    changed in the reference:")
        yield from (Line(f"      {inert_lines(one)}") for one in shown)
        if len(case["changed"]) > len(shown):
            yield Line(f"      ... {len(case['changed']) - len(shown)} more lines")
    else:
        if case["reference"] is not None:
            yield from _block("reference", _cut(case["reference"], from_end=True))
        if case["reasoning"] is not None:
            yield from _block("reasoning", _cut(case["reasoning"]))
        length = f" ({count(case['length'])} characters)" if case["length"] > TEXT_SHOWN else ""
        shown = inert_lines(_cut(case["answer"])).splitlines() or ["(empty)"]
        yield Line(f"    answer{length}: {shown[0]}")
        yield from (Line(f"            {line}") for line in shown[1:])
    yield _line(4, f"why: {case['why']}")
    if case["error"] or case["explanation"]:
        yield _line(4, f"the scorer says: {_cut(case['error'] or case['explanation'])}")


def _block(what: str, text: str) -> Iterator[Line]:
    """On one line, or with its lines kept below."""
    shown = inert_lines(text).splitlines()
    if len(shown) < 2:
        yield _line(4, f"{what}: {text}")
        return
    yield Line(f"    {what}:")
    yield from (Line(f"      {line}") for line in shown)


def _line(indent: int, text: str, look: str = "plain") -> Line:
    return Line(" " * indent + inert(text), look)


def _cut(text: str, *, from_end: bool = False) -> str:
    if len(text) <= TEXT_SHOWN:
        return text
    return f"...{text[-TEXT_SHOWN:]}" if from_end else f"{text[:TEXT_SHOWN]}..."


def _speed(speed: Mapping[str, Any]) -> Iterator[Line]:
    rate = per_second(speed["answers"], speed["seconds"], "answers")
    failed = f"{percent(speed['unscored_rate'])} unscored, {count(speed['timed_out'])} timed out"
    yield Line(f"{count(speed['answers'])} answers in {duration(speed['seconds'])}, one at a time: {rate}; {failed}")
    if speed["slowest"]:
        yield Line(inert(f"the slowest took {1000 * speed['slowest_seconds']:,.1f} ms: {speed['slowest']}"))


def _verdict(data: Mapping[str, Any]) -> str:
    of = {name: [one for one in data["checks"] if one["verdict"] == name] for name in VERDICTS}
    wrong = sum(one["accepted"] for one in of["failed"] if one["wanted"] == "refused")
    missed = sum(one["refused"] for one in of["failed"] if one["wanted"] == "accepted")
    unscored = sum(one["unscored"] for one in data["checks"])
    found = [f"{count(wrong)} wrong answers accepted"] * bool(wrong)
    found += [f"{count(missed)} right answers refused"] * bool(missed)
    found += [f"{count(unscored)} answers unscored"] * bool(unscored)
    if of["unproven"]:
        found.append(
            "nothing right was accepted, so the refusals show nothing (give rows a `completion`, a good answer in full)"
        )
    if not data["complete"]:
        also = f"; so far: {'; '.join(found)}" if found else ""
        return f"INCOMPLETE: stopped before everything was asked, so it has not passed{also}"
    if found:
        return f"FAILED: {'; '.join(found)}"
    skipped, noted = _names(data, "verdict", "skipped"), _names(data, "verdict", "noted")
    words = "passed: nothing surely wrong was accepted, and nothing was left unscored"
    words += f"; skipped, which is not passed: {skipped}" if skipped else ""
    return words + (f"; to be looked at: {noted}" if noted else "")
