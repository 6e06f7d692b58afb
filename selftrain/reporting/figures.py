"""How numbers are written for people. Shares come in as fractions, durations as seconds."""

from __future__ import annotations

import math

MISSING = "–"


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
    """0.614 -> `61.4%`."""
    return f"{_rounded(100 * value)}%" if value is not None and _known(value) else MISSING


def interval(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """0.61 in [0.552, 0.668] -> `61.0% [55.2, 66.8]`; without bounds the share alone."""
    if low is None or high is None or not (_known(low) and _known(high)):
        return percent(value)
    return f"{percent(value)} [{_rounded(100 * low)}, {_rounded(100 * high)}]"


def gain(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """0.435 in [0.36, 0.51] -> `+43.5 points [+36.0, +51.0]`: a difference of two shares."""
    if value is None or not _known(value):
        return MISSING
    points = f"{_rounded(100 * value, sign='+')} points"
    if low is None or high is None or not (_known(low) and _known(high)):
        return points
    return f"{points} [{_rounded(100 * low, sign='+')}, {_rounded(100 * high, sign='+')}]"


def is_graded(value: float | None) -> bool:
    """Whether a candidate's value says how good it is, rather than right (1) or wrong (0)."""
    return value is not None and value not in (0.0, 1.0)


def verdict(value: float | None, correct: bool | None, correct_at: float, truth: str = "", *, by_vote: bool) -> str:
    """`right` or `wrong`; of a graded value `not correct (score.correct_at 1)`; nothing of what has none.

    `truth` is what another scorer, that is only looked at, says against it; `by_vote`: the value is that of a vote.
    """
    if value is None or correct is None:
        return ""
    words = "right" if correct else "wrong"
    if is_graded(value):
        words = f"{'correct' if correct else 'not correct'} (score.correct_at {correct_at:g})"
    elif truth and by_vote:
        words = "agrees with the vote" if correct else "differs from the vote"
    return f"{words}, {truth}" if truth else words


def duration(seconds: float | None) -> str:
    """`3.2 s`, `38 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds is None or not _known(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def count(value: float | None) -> str:
    """1024 -> `1,024`."""
    return f"{round(value):,}" if value is not None and _known(value) else MISSING


def size(amount: float | None) -> str:
    """Bytes: 532 -> `532 B`, 19593064 -> `19.6 MB`, 5.4e9 -> `5.4 GB`; powers of ten, as disks are sold."""
    if amount is None or not _known(amount):
        return MISSING
    if amount < 1000:
        return f"{round(amount)} B"
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:,.1f} TB"


def per_second(amount: float, seconds: float, unit: str) -> str:
    """8056 tokens in 38 s -> `212 tokens/s`; slow ones with a decimal."""
    rate = amount / max(seconds, 1e-9)
    return f"{rate:,.0f} {unit}/s" if rate >= 9.95 else f"{rate:.1f} {unit}/s"


def _rounded(value: float, sign: str = "-") -> str:
    # a small negative difference must not read "-0.0"
    return f"{round(value, 1) + 0.0:{sign}.1f}"
