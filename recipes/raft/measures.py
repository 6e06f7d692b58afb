"""What is asked of an answer, in code. The selector never sees it: it sees the reward model alone."""

import re

POLITE = re.compile(
    r"\b(please|thank|thanks|glad|happy to|pleasure|welcome|hope|good luck|of course|certainly|kindly|feel free|sure|"
    r"enjoy|wish you|great question|let me know)\b",
    re.IGNORECASE,
)
MOST_WORDS = 30


def whole(text):
    """It ends with a sentence that is finished."""
    return text.rstrip().endswith((".", "!", "?", '."', '!"', ".)"))


def brief(text):
    """It has some words, and at most 30."""
    return 0 < len(text.split()) <= MOST_WORDS


def polite(text):
    """It says something kind."""
    return POLITE.search(text) is not None


def asked_for(text):
    """All three."""
    return whole(text) and brief(text) and polite(text)
