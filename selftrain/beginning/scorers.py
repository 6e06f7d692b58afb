"""How each kind of scorer is set up: what the prompt asks for, where the answer is taken from, how long it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selftrain.beginning.looking import MARK, ReferenceKind
from selftrain.errors import ConfigError

KINDS = (
    *("exact", "normalised", "numeric", "regex", "choice", "math", "json_schema", "code", "reasoning_gym", "function"),
)
OF_REFERENCES: dict[ReferenceKind, str] = {
    "number": "numeric",
    "marked": "math",
    "math": "math",
    "json": "json_schema",
    "choice": "choice",
    "short": "normalised",
}
ANSWER = "Answer:"
FENCED = "```python\n{}\n```"


@dataclass(frozen=True, slots=True)
class Judging:
    """A scorer of the recipe with what belongs to it.

    `scorer` is its entry in `score.scorers`; `asks` is what the prompt says about the form of the answer (None: the
    prompts say it themselves); `shown` is a completion that this scorer finds right, with `{}` for the reference.
    """

    scorer: str | dict[str, Any]
    asks: str | None
    shown: str
    tokens: int
    """For max_new_tokens, where references say nothing of the length."""
    bare: bool = False
    """The completion is the answer alone."""

    def knowing(self, params: dict[str, Any]) -> Judging:
        """The same with parameters of the scorer."""
        assert isinstance(self.scorer, dict)
        given = {"params": params} if params else {}
        return replace(self, scorer={"name": self.scorer["name"], **given, **self.scorer})

    def asking(self, words: str) -> Judging:
        """The same with other words about the form of the answer, if there are any."""
        return replace(self, asks=None if self.asks is None else words)


def judging(kind: str, references: ReferenceKind, *, fmt: str, template: str | None) -> Judging:
    """The set-up of a kind of scorer. With a template of the user's own, the answer is taken from where that asks for
    it; without a mark of one of the known forms, from the whole text."""
    chosen = _of_text(kind, references) if fmt == "text" else _of_chat(kind, references)
    if template is None or isinstance(chosen.scorer, str):
        return chosen
    return Judging(_by_template(chosen.scorer, template), None, chosen.shown, chosen.tokens)


def _of_chat(kind: str, references: ReferenceKind) -> Judging:
    marked = {"extract": {"after": MARK}}
    last = {"extract": {"after": ANSWER}}
    match kind:
        case "exact" | "normalised":
            return Judging(kind, "Give the answer alone.", "{}", 16, bare=True)
        case "numeric":
            asks = f"End with a line that says {MARK} and the number."
            return Judging({"name": kind, **marked}, asks, f"{MARK} {{}}", 256)
        case "regex":
            params = {"pattern": f"{ANSWER} *(.+)", "compare": "normalised"}
            asks = f"End with a line that says {ANSWER} and the answer."
            return Judging({"name": kind, "params": params}, asks, f"{ANSWER} {{}}", 256)
        case "choice":
            asks = f"End with a line that says {ANSWER} and the letter."
            return Judging({"name": kind, **last}, asks, f"{ANSWER} {{}}", 256)
        case "math":
            if references == "marked":
                return Judging({"name": kind}, f"End with a line that says {MARK} and the answer.", "{}", 256)
            return Judging({"name": kind}, "Put the final answer in \\boxed{}.", "\\boxed{{{}}}", 1024)
        case "json_schema":
            return Judging({"name": kind, "extract": "json"}, "Answer with JSON alone.", "{}", 256)
        case "code":
            return Judging({"name": kind}, "Answer with Python code in one fenced block.", FENCED, 512)
        case "reasoning_gym":
            asks = "Give the final answer inside <answer></answer>."
            return Judging({"name": kind, "extract": {"tag": "answer"}}, asks, "<answer>{}</answer>", 512)
        case "function":
            return Judging("verify.py:judge", "End with the answer alone on the last line.", "{}", 256)
    raise ConfigError(f"--scorer {kind!r} is unknown; known: {', '.join(KINDS)}")


def _of_text(kind: str, references: ReferenceKind) -> Judging:
    """A base model goes on as the worked example does, so nothing is asked in words."""
    chat = _of_chat(kind, references)
    if kind in ("numeric", "choice", "reasoning_gym", "math") and references != "marked":
        return Judging({"name": kind}, None, "{}", 16, bare=True)
    if kind == "regex":
        params = {"pattern": "\\A *([^\n]+)", "compare": "normalised"}
        return Judging({"name": kind, "params": params}, None, "{}", 16, bare=True)
    return Judging(chat.scorer, None, chat.shown, chat.tokens, bare=chat.bare or kind == "json_schema")


def _by_template(scorer: dict[str, Any], template: str) -> dict[str, Any]:
    known = {MARK: {"after": MARK}, "\\boxed": "boxed", "<answer>": {"tag": "answer"}, ANSWER: {"after": ANSWER}}
    if scorer["name"] in ("json_schema", "regex", "code"):
        return scorer
    if scorer["name"] == "math":  # finds these two by itself
        known = {mark: form for mark, form in known.items() if mark not in (MARK, "\\boxed")}
    # A template may well end with the mark, for the policy to go on behind it.
    asked = [form for mark, form in known.items() if mark in template.rstrip().removesuffix(mark)]
    kept = {key: value for key, value in scorer.items() if key != "extract"}
    return {**kept, "extract": asked[0]} if asked else kept


def max_new_tokens(setup: Judging, references: Sequence[str], *, thinking: bool) -> int:
    """Twice the longest known answers, at about three characters a token; with thinking, room for that."""
    lengths = sorted(map(len, references))
    known = lengths[int(0.95 * (len(lengths) - 1))] / 3 if lengths else 0.0
    step = 16 if setup.bare else 64
    wanted = max(setup.tokens, step * math.ceil((2 * known + 8) / step))
    return max(wanted, 4096) if thinking else wanted
