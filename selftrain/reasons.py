"""Kinds of reasons why candidates leave, for counting them."""

from __future__ import annotations

import re

# What differs from candidate to candidate in a reason: its own value, another's id, its own length.
OWN_VALUE = re.compile(r"^value [-+.\w]+ ")
OWN_PARTS = (
    (re.compile(r"duplicate of \w+"), "duplicate"),
    (re.compile(r"nearly the same as \S+ \(\S+\)"), "nearly the same as another"),
    (re.compile(r"^holds .* \(without (.*)\)$", re.DOTALL), r"holds what \1 finds"),
    (
        re.compile(r"(its (?:prompt|completion) shares) .*? with (.*) \((?:question|reference|completion|text) of .*"),
        r"\1 words with \2",
    ),
    (re.compile(r" \([\d.e+-]+\)$"), ""),
)


def reason_kind(why: str) -> str:
    """The reason without what is the candidate's own: `value 0.0 under threshold 1.0` and `value 0.5 under threshold
    1.0` are one kind."""
    kind = OWN_VALUE.sub("value ", why)
    for pattern, instead in OWN_PARTS:
        kind = pattern.sub(instead, kind)
    if kind.startswith("value not above "):  # the bar is the prompt's own
        return "value not above the bar of the prompt"
    return "not scored" if kind.startswith("not scored") else kind
