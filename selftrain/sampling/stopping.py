"""When a candidate ends, and what its text is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from selftrain.records import FinishReason

# The first tokens of a window may decode differently without what stands before them: a character whose bytes are
# split, a leading space that is stripped.
MARGIN = 4


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
        found = [text.find(stop) for stop in self.stop_strings if stop in text]
        return text[: min(found)] if found else None


@dataclass(slots=True)
class Completion:
    """A candidate in the making: its ids, log-probabilities, and, once it has ended, why, and its text."""

    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    text: str = ""
    _visible: list[int] = field(default_factory=list)

    def add(self, token_id: int, logprob: float, rule: StopRule) -> None:
        """Append a token and see whether it ends the candidate. A stop token goes before a stop string or length."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
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
