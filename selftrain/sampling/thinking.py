"""What a thinking model wrote before its answer, cut off.

The text is cut by characters, the tokens are counted: one that holds the end of the reasoning and the answer's first
characters is counted as reasoning, and the answer is whole all the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selftrain.config import ThinkingConfig


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` follows the reasoning. `reasoning` stands between the tags; None: there is none, and the text is all."""

    text: str
    reasoning: str | None
    reasoning_tokens: int


def cut(
    tags: ThinkingConfig | None,
    text: str,
    token_ids: Sequence[int],
    *,
    after: str,
    decode: Callable[[Sequence[int]], str],
) -> Answer:
    """A candidate's text without its reasoning, and how many of its `token_ids` lead up to the end of that.

    `after` is the rendered prompt, which may open the reasoning itself. It and what `decode` gives show the tags, also
    where they are special tokens. Reasoning that is not closed leaves no answer.
    """
    if tags is None or (found := _span(tags, text, after)) is None:
        return Answer(text, None, 0)
    start, end = found
    if end is None:
        return Answer("", text[start:], len(token_ids))

    def closes(count: int) -> bool:
        span = _span(tags, decode(token_ids[:count]), after)
        return span is not None and span[1] is not None

    count = bisect_left(range(len(token_ids)), True, key=closes)
    return Answer(text[end + len(tags.close) :], text[start:end], count)


def never_ends(tags: ThinkingConfig | None, text: str, *, after: str) -> bool:
    """Whether the text, which follows `after`, is reasoning without an end."""
    span = None if tags is None else _span(tags, text, after)
    return span is not None and span[1] is None


def _span(tags: ThinkingConfig, text: str, after: str) -> tuple[int, int | None] | None:
    """Where the reasoning begins and ends in the text; it may not end. None: there is none."""
    begun = after.rstrip().endswith(tags.open)
    blank = len(text) - len(text.lstrip())
    if text.startswith(tags.open, blank):
        start = blank + len(tags.open)
    elif begun:
        start = 0
    else:
        return None
    end = text.find(tags.close, start)
    return start, end if end >= 0 else None
