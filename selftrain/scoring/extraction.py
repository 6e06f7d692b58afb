"""Taking the answer out of a candidate's text, apart from judging it: `ScorerConfig.extract`.

Every way but `regex` takes time linear in the text, so that it needs no process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from selftrain.config import ExtractConfig
from selftrain.records import canonical_json
from selftrain.scoring import Verdict
from selftrain.scoring.json_text import outermost, strict

_BRACES = re.compile(r"\\boxed[ \t]*\{|\\.|[{}]", re.DOTALL)
# Without braces TeX takes one sign; only one that stands alone, or `\boxed 12` would say 1.
_BARE_BOX = re.compile(r"(?<!\\)\\boxed[ \t]+([0-9A-Za-z])(?=[ \t]*[$.,;]*(?:\s|\Z))")
_FENCE = re.compile(r"[ ]{0,3}(?P<marks>`{3,}|~{3,})(?P<info>[^`\n]*)\n?")
_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was taken out of a text, as it stands there (a JSON value: in its canonical form). `answer=None`: there is
    no one answer. `why` says in words where it was, or why there is none."""

    answer: str | None
    why: str


def extract(text: str, config: ExtractConfig) -> Extraction:
    """The answer in `text`. A blank one is none. By `regex` this can take for ever; see `matched`."""
    if config.by == "whole":
        return Extraction(text, "the whole text")
    where = described(config)
    if config.by in ("first_line", "last_line"):
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            return Extraction(None, "no answer: the text is blank")
        return Extraction(lines[0 if config.by == "first_line" else -1].strip(), where)
    return _taken(_FINDERS[config.by](text, config.argument or ""), where, config.take)


def described(config: ExtractConfig) -> str:
    """Where it looks, in words."""
    return {
        "whole": "the whole text",
        "first_line": "the first line",
        "last_line": "the last line",
        "boxed": "\\boxed{}",
        "after": f"after {config.argument!r}",
        "tag": f"<{config.argument}>",
        "code": "a fenced block of code",
        "json": "a JSON value",
        "regex": "the pattern",
    }[config.by]


def _taken(found: Sequence[str], where: str, take: str) -> Extraction:
    if not found:
        return Extraction(None, f"no answer: the text does not hold it ({where})")
    if take == "only" and len(found) > 1:
        return Extraction(
            None, f"no answer: the text holds {len(found)} of them ({where}), and exactly one is wanted (take: only)"
        )
    answer = found[-1 if take == "last" else 0]
    return Extraction(answer, where) if answer.strip() else Extraction(None, f"no answer: it is empty ({where})")


def boxed(text: str) -> list[str]:
    """The inside of every `\\boxed{...}`, braces balanced (`\\{` is none), outermost ones only, stripped. `\\boxed 5`
    counts where the one sign stands alone."""
    text = _BARE_BOX.sub(r"\\boxed{\1}", text)
    opened: list[int | None] = []  # where a box's inside begins; None for a plain brace
    spans: list[tuple[int, int]] = []
    for mark in _BRACES.finditer(text):
        if mark[0] == "{":
            opened.append(None)
        elif mark[0].startswith("\\boxed"):
            opened.append(mark.end())
        elif mark[0] == "}" and opened:
            begins = opened.pop()
            if begins is not None:
                while spans and spans[-1][0] > begins:
                    spans.pop()  # inside of this one
                spans.append((begins, mark.start()))
    return [text[begins:ends].strip() for begins, ends in spans]


def after(text: str, mark: str) -> list[str]:
    """The rest of the line after each `mark`, up to the next mark if that is on the same line, stripped; also of the
    end of bold print that began before the mark (`**Answer:** B`, `**Answer: B**`)."""
    return [_without_half_of_bold(rest.partition("\n")[0].strip()) for rest in text.split(mark)[1:]]


def _without_half_of_bold(line: str) -> str:
    if line.count("**") % 2 == 0:
        return line
    return (line[2:] if line.startswith("**") else line.removesuffix("**")).strip()


def tagged(text: str, name: str) -> list[str]:
    """The inside of every `<name>...</name>`, stripped. An end belongs to the nearest beginning before it, so that a
    tag that is only mentioned takes nothing in."""
    found, begins = [], None
    for mark in re.finditer(rf"<(/?){re.escape(name)}>", text):
        if not mark[1]:
            begins = mark.end()
        elif begins is not None:
            found.append(text[begins : mark.start()].strip())
            begins = None
    return found


def blocks(text: str) -> list[tuple[str, str]]:
    """Every fenced block as (what follows the opening fence, the inside without its last line break). A block that is
    never closed is none. Fences as in CommonMark 0.31, section 4.5."""
    found: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    begins = 0
    for line in _LINE.finditer(text):
        fence = _FENCE.fullmatch(line[0])
        if opened is None:
            opened, begins = fence, line.end()
        elif fence and fence["marks"].startswith(opened["marks"]) and not fence["info"].strip():
            found.append((opened["info"].strip(), text[begins : line.start()].removesuffix("\n")))
            opened = None
    return found


def json_values(text: str) -> list[str]:
    """JSON values in canonical form: the whole text, if it is one; else those fenced blocks marked `json`, or else
    those outermost `{...}` and `[...]`, that are."""
    if found := _canonical([text]):
        return found
    if found := _canonical([inside for info, inside in blocks(text) if info.lower() == "json"]):
        return found
    return _canonical(outermost(text))


def _canonical(texts: Iterable[str]) -> list[str]:
    found = []
    for one in texts:
        try:
            found.append(canonical_json(strict(one)))
        except (ValueError, RecursionError):
            continue
    return found


_FINDERS: dict[str, Callable[[str, str], list[str]]] = {
    "boxed": lambda text, _: boxed(text),
    "after": after,
    "tag": tagged,
    "code": lambda text, _: [inside for _, inside in blocks(text)],
    "json": lambda text, _: json_values(text),
    "regex": lambda text, pattern: [_group(match) for match in re.finditer(pattern, text)],
}


def _group(match: re.Match[str]) -> str:
    return (match["answer"] if "answer" in match.re.groupindex else match[1]) or ""


def matched(text: str, *, by: str, argument: str, take: str) -> Verdict:
    """`extract` as a scorer, for a worker process: value 1 with the answer, or 0, and the explanation."""
    found = extract(text, ExtractConfig.model_validate({"by": by, "argument": argument, "take": take}))
    return Verdict(0.0 if found.answer is None else 1.0, found.answer, found.why)
