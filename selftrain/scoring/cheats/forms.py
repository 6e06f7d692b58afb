"""The texts in which a right answer is expected, by the scorers that judge it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from selftrain.config import ScorerConfig
from selftrain.records import Prompt
from selftrain.scoring import SCORERS
from selftrain.scoring.choice import right
from selftrain.scoring.expressions import final_answer
from selftrain.scoring.extraction import extract
from selftrain.scoring.gym import NO_ANSWER
from selftrain.scoring.perturbing import as_text

# What a function of the user's own may look for is tried, the commonest first.
_GUESSES = (
    ("as it is", "{}"),
    ("\\boxed{}", "\\boxed{{{}}}"),
    ("after ####", "#### {}"),
    ("<answer>", "<answer>{}</answer>"),
    ("after Answer:", "Answer: {}"),
    ("in a sentence", "The answer is {}."),
    ("<answer> after <think>", "<think>\nLet me see.\n</think>\n<answer>{}</answer>"),
    ("a block of code", "```python\n{}\n```"),
)
_GROUP = re.compile(r"(?<!\\)\((?:\?P<answer>|(?!\?))")
_ATOM = r"(?:\\.|\[(?:\\.|[^\]\\])*\]|\((?:\\.|[^()\\])*\)|[^\\()\[\]])"
# What stands around a pattern's group, piece by piece; what must be there, and stands for itself, is in a named group.
_PIECE = re.compile(
    rf"\\[AZbB]|[\^$]|\(\?[aimsux]+\)|{_ATOM}(?:[*?]|\{{0,\d*\}})[?+]?|\(\?:|[()+]|(?P<space>\\s)|\\(?P<escaped>.)"
    r"|\[(?P<first>[^\]\\^])(?:\\.|[^\]\\])*\]|(?P<plain>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write an answer; `name` says it in words."""

    name: str
    wrap: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms that scorers take together. `known`: the one is what the rules look for, so that a right answer in it
    must be accepted; otherwise they are guesses."""

    forms: tuple[Form, ...]
    known: bool


def forms_of(scorers: Sequence[ScorerConfig], prompt: Prompt) -> Forms:
    """The forms for a prompt that these scorers judge together: gates, and those with a weight."""
    found: dict[str, Form] = {}
    known = True
    for scorer in scorers:
        of_scorer = _of_scorer(scorer)
        known = known and len(of_scorer) == 1 and _is_told(scorer, prompt)
        found |= {one.name: one for one in of_scorer}
    if len(found) > 1 and len(scorers) > 1:
        each = [_of_scorer(scorer)[0] for scorer in scorers]
        joined = tuple({one.name: one for one in each if one.name != "as it is"}.values())
        if len(joined) > 1:
            found["all of them"] = Form("all of them", lambda answer: "\n".join(one.wrap(answer) for one in joined))
    return Forms(tuple(found.values()), known and len(found) == 1)


def _is_told(scorer: ScorerConfig, prompt: Prompt) -> bool:
    """Whether the scorer is a rule that finds the reference right where it stands alone."""
    made_by = prompt.metadata.get("reasoning_gym")
    task = made_by.get("task") if isinstance(made_by, Mapping) else None
    return scorer.name in SCORERS and not (scorer.name == "reasoning_gym" and task in NO_ANSWER)


def _of_scorer(scorer: ScorerConfig) -> list[Form]:
    patterns = [scorer.extract.argument] if scorer.extract.by == "regex" else []
    patterns += [scorer.params.get("pattern")] if scorer.name == "regex" else []
    if patterns:
        made = [Form("by the pattern", partial(by_pattern, str(one))) for one in patterns]
        return [*made, Form("as it is", str)]
    if scorer.name not in SCORERS and scorer.extract.by == "whole":
        return [Form(name, shape.format) for name, shape in _GUESSES]
    is_plain = as_text("x", scorer) == "x"
    name = "as it is" if is_plain else str(as_text("...", scorer)).replace("\n", " ")
    return [Form(name, lambda answer: str(as_text(answer, scorer)))]


def by_pattern(pattern: str, answer: str) -> str:
    """A text that the pattern may match with `answer` in its group: what stands around the group, read literally."""
    group = _GROUP.search(pattern)
    if group is None:
        return answer
    depth, end = 1, group.end()
    while end < len(pattern) and depth:
        step = 2 if pattern[end] == "\\" else 1
        depth += {"(": 1, ")": -1}.get(pattern[end], 0) if step == 1 else 0
        end += step
    return f"{_literal(pattern[: group.start()])}{answer}{_literal(pattern[end:])}"


def _literal(pattern: str) -> str:
    found = []
    for piece in _PIECE.finditer(pattern):
        found.append(" " if piece["space"] else piece["escaped"] or piece["first"] or piece["plain"] or "")
    return "".join(found)


def bare_answer(prompt: Prompt, scorer: ScorerConfig) -> str | None:
    """The reference as a candidate would give it: of a worked solution the final answer, of a choice its letter."""
    reference = prompt.reference
    if reference is None:
        return None
    if scorer.name == "choice":
        try:
            return right(reference, prompt.metadata, scorer.params.get("choices"))
        except ValueError:
            return None
    is_solution = "\\boxed" in reference or "####" in reference
    if scorer.name == "math" or (scorer.name not in SCORERS and is_solution):
        return final_answer(reference)[0] or reference
    return reference


def is_right_by_form(text: str, scorers: Sequence[ScorerConfig], answer: str | None) -> bool:
    """Whether what the scorers take out of a text is the answer itself, as it may be by accident."""
    if answer is None:
        return False
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = [text] + [last] * any(one.name not in SCORERS for one in scorers)
    found += [extract(text, one.extract).answer or "" for one in scorers if one.extract.by != "regex"]
    return any(_folded(one) == _folded(answer) for one in found)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,!?:'\"")


def num_choices(prompt: Prompt, scorer: ScorerConfig) -> int | None:
    """Between how many a multiple choice is, where the data says it."""
    named = scorer.params.get("choices")
    listed = prompt.metadata.get(named) if isinstance(named, str) else named
    texts = listed.get("text") if isinstance(listed, Mapping) else listed
    return len(texts) if isinstance(texts, list) and texts else None
