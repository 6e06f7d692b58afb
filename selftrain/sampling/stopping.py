"""When a candidate ends, and what its text is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from selftrain.errors import DataError
from selftrain.records import FinishReason

# The first tokens of a window may decode differently without what stands before them: a character whose bytes are
# split, a leading space that is stripped.
MARGIN = 4


def until_stop(text: str, stop_strings: Sequence[str]) -> str | None:
    """The text up to the end of the stop string that is complete first; None where there is none in it."""
    ends = [text.index(stop) + len(stop) for stop in stop_strings if stop in text]
    return text[: min(ends)] if ends else None


def before_stop(text: str, stop_strings: Sequence[str]) -> str | None:
    """The text before its first stop string; None where there is none in it."""
    starts = [text.index(stop) for stop in stop_strings if stop in text]
    return text[: min(starts)] if starts else None


def with_stop(text: str, stop_strings: Sequence[str], what: str) -> str:
    """The text and the first stop string, up to where generation would have ended; the text itself without any.

    A text may end with a stop string, or with the beginning of one, already. Raises DataError, naming `what` the text
    is, where there is a stop string before its end.
    """
    if not stop_strings:
        return text
    written = until_stop(text + stop_strings[0], stop_strings)
    kept = before_stop(written or "", stop_strings)
    assert written is not None
    assert kept is not None
    rest = text[len(kept) :]
    if not any(stop.startswith(rest) for stop in stop_strings):
        raise DataError(
            f"{what} goes on after a stop string, where the policy would have ended: {text[: len(kept)][-60:]!r}, then "
            f"{rest[:60]!r} (sample.stop_strings: {list(stop_strings)!r}); cut it there, or change the stop strings"
        )
    return written


@dataclass(frozen=True, slots=True)
class StopRule:
    """What ends a candidate. `hidden_token_ids` are those that `decode` skips."""

    decode: Callable[[Sequence[int]], str]
    stop_token_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    hidden_token_ids: frozenset[int]

    @property
    def window(self) -> int:
        """So many visible tokens hold any stop string that the last of them completes: each adds a byte or more."""
        return max((len(stop.encode()) for stop in self.stop_strings), default=0) + MARGIN

    def cut(self, text: str) -> str | None:
        """The text before its first stop string; None where there is no stop string in it."""
        return before_stop(text, self.stop_strings)


@dataclass(slots=True)
class Completion:
    """A candidate in the making: its ids, log-probabilities, entropies, and, once it has ended, why, and its text."""

    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    text: str = ""
    _visible: list[int] = field(default_factory=list)

    @property
    def entropy(self) -> float:
        """Mean entropy over the tokens so far, in nats; rounding makes none negative."""
        return max(0.0, math.fsum(self.entropies) / len(self.entropies))

    def add(self, token_id: int, logprob: float, entropy: float, rule: StopRule) -> None:
        """Append a token and see whether it ends the candidate. A stop token goes before a stop string or length."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        if token_id in rule.stop_token_ids:
            self.text = rule.decode(self.token_ids[:-1])
            self.finish_reason = "stop_token"
            return
        if token_id not in rule.hidden_token_ids:
            self._visible.append(token_id)
        if rule.stop_strings and rule.cut(rule.decode(self._visible[-rule.window :])) is not None:
            # The window only says that a look at the whole is due.
            text = rule.cut(rule.decode(self.token_ids))
            if text is not None:
                self.text, self.finish_reason = text, "stop_string"
                return
        if len(self.token_ids) >= self.max_tokens:
            self.text, self.finish_reason = rule.decode(self.token_ids), "length"
