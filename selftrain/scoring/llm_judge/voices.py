"""Who answers as judge: a server, or a model on this machine. Both count what it took."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selftrain.config import EndpointConfig
from selftrain.endpoint import Answer, Endpoint, Failure, Request
from selftrain.errors import ConfigError
from selftrain.records import Message
from selftrain.scoring import NO_ROOM, UNANSWERED, Answered, Generate, Means

# A second attempt at temperature 0 would say the same again.
TEMPERATURE_OF_SECOND = 0.5
COUNTS = ("requests", "retries", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation for the judge, and the seed of its answer."""

    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said; without a text, why (`error`). `is_whole`: it came to an end of its own. `counts` has what
    it took, by the names in `COUNTS`, and every kind of fault on the way."""

    text: str | None
    is_whole: bool = True
    error: str | None = None
    counts: dict[str, int] = field(default_factory=dict)


class Voice(Protocol):
    """Answers questions."""

    can_try_again: bool
    """Whether the same question, asked a second time, may have another answer."""

    def special_tokens(self) -> Sequence[str]:
        """The control tokens of the judge's tokenizer, where it is known."""

    def ask(self, questions: Sequence[Question], *, second: bool = False) -> list[Reply]:
        """One Reply per question, in order. `second`: the first answer could not be read."""

    def release(self) -> None:
        """Free the memory of a model."""

    def close(self) -> None:
        """End what runs."""


class ServerVoice:
    """A server of chat completions."""

    can_try_again = True

    def __init__(self, config: EndpointConfig, *, where: str, max_new_tokens: int, temperature: float) -> None:
        self._endpoint = Endpoint(config, where)
        self._max_new_tokens, self._temperature = max_new_tokens, temperature

    def special_tokens(self) -> Sequence[str]:
        """None are known."""
        return ()

    def ask(self, questions: Sequence[Question], *, second: bool = False) -> list[Reply]:
        """One Reply per question, in order. Raises Interrupted once it is closed."""
        temperature = max(self._temperature, TEMPERATURE_OF_SECOND) if second else self._temperature
        requests = [
            Request(one.messages, max_tokens=self._max_new_tokens, temperature=temperature, seed=one.seed)
            for one in questions
        ]
        return [_reply(one) for one in self._endpoint.complete(requests)]

    def release(self) -> None:
        """There is none here."""

    def close(self) -> None:
        """Send nothing more."""
        self._endpoint.close()


def _reply(result: Answer | Failure) -> Reply:
    counts = {"requests": result.attempts, "retries": result.attempts - 1}
    for kind in result.failures:
        counts[f"faults/{kind}"] = counts.get(f"faults/{kind}", 0) + 1
    if isinstance(result, Failure):
        advice = "" if result.advice is None else f"; {result.advice}"
        return Reply(None, error=f"{UNANSWERED}: {result.reason}{advice}", counts=counts)
    counts |= {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens}
    return Reply(result.texts[0], result.finish_reasons[0] != "length", counts=counts)


def _no_room(answered: Answered, context: int) -> str:
    """Why a judge with a short context has no verdict."""
    words = f"{NO_ROOM} {answered.prompt_tokens} tokens, and the model reads {context}"
    return words + f": no room for more than the first {answered.completion_tokens} of its answer" * (
        answered.completion_tokens > 0
    )


class LocalVoice:
    """A model on this machine, through the run's own sampling engine: greedy, by block."""

    can_try_again = False

    def __init__(self, model: str, means: Means, *, max_new_tokens: int) -> None:
        self._model, self._generate, self._max_new_tokens = model, means.generate, max_new_tokens
        self._is_closed = threading.Event()
        if self._generate is not None:  # on this thread: of two that import transformers at once, one gets half of it
            importlib.import_module("selftrain.models")

    def special_tokens(self) -> Sequence[str]:
        """Those of its tokenizer."""
        return self._lent().special_tokens(self._model)

    def ask(self, questions: Sequence[Question], *, second: bool = False) -> list[Reply]:
        """One Reply per question, in order. Raises Interrupted once it is closed."""
        answers = self._lent()(
            self._model,
            [one.messages for one in questions],
            max_new_tokens=self._max_new_tokens,
            should_stop=self._is_closed.is_set,
        )
        return [
            Reply(
                one.text if one.context is None else None,
                one.is_whole,
                error=None if one.context is None else _no_room(one, one.context),
                counts={
                    "requests": 1,
                    "retries": 0,
                    "prompt_tokens": one.prompt_tokens,
                    "completion_tokens": one.completion_tokens,
                },
            )
            for one in answers
        ]

    def _lent(self) -> Generate:
        if self._generate is None:
            raise ConfigError("score.scorers: llm_judge with params.model can judge only where a model may be loaded")
        return self._generate

    def release(self) -> None:
        """Free the memory of the models that are lent; they are loaded again when asked."""
        if self._generate is not None:
            self._generate.release()

    def close(self) -> None:
        """Ask nothing more. The lent models are others' too, and are not waited for."""
        self._is_closed.set()
