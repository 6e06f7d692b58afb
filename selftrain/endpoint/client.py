"""The client: so many requests at a time, each repeated while that may help.

A request is repeated after 408, 409, 429, any 5xx, a time-out, a broken connection, and a body that is no answer; other
refusals stand at once. What is never answered is a `Failure` in its place, so that one bad request loses nothing of the
others. The key comes from the environment alone, and is taken out of every message.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from selftrain.config import EndpointConfig
from selftrain.endpoint.attempt import LONGEST_ASKED_WAIT_SECONDS, SHOWN, Fault, ask, connect
from selftrain.endpoint.exchange import Answer, Failure, FailureKind, Request, Totals, advice_on, check_endpoint, key_of
from selftrain.errors import Interrupted

if TYPE_CHECKING:
    import openai

LONGEST_WAIT_SECONDS = 60.0
POLL_SECONDS = 0.1
# So many requests in a row without an answer, all of their repetitions spent, and the server is taken to be down: the
# next ones are tried once each, until one is answered.
DOWN_AFTER = 8


@dataclass(slots=True)
class _Batch:
    """The requests of one call of `complete`, and what became of them."""

    requests: Sequence[Request]
    left: Iterator[int]
    results: dict[int, Answer | Failure] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    is_dropped: bool = False
    error: BaseException | None = None

    def is_over(self) -> bool:
        return self.error is not None or len(self.results) == len(self.requests)


class Endpoint:
    """The server of `config`, which `where` names in messages. It may be used by several threads at once, and has at
    most `config.concurrency` requests under way. Close it, from any thread: those that wait then raise Interrupted.

    `first_wait_seconds` is the wait before the first repetition; each later one is twice as long, a random part of it
    left out.
    """

    def __init__(self, config: EndpointConfig, where: str = "endpoint", *, first_wait_seconds: float = 0.5) -> None:
        check_endpoint(config, where)
        self.config = config
        self._key = key_of(config, where)
        self._first_wait = first_wait_seconds
        self._slots = threading.Semaphore(config.concurrency)
        self._lock = threading.Lock()
        self._totals = Totals()
        self._is_closed = threading.Event()
        self._client: openai.OpenAI | None = None
        self._unanswered_in_a_row = 0
        self._not_before = 0.0

    @property
    def totals(self) -> Totals:
        """The sums so far, as a copy."""
        with self._lock:
            one = self._totals
            return Totals(
                one.requests,
                one.retries,
                one.failures,
                one.prompt_tokens,
                one.completion_tokens,
                Counter(one.faults),
            )

    def complete(
        self, requests: Sequence[Request], *, should_stop: Callable[[], bool] | None = None
    ) -> list[Answer | Failure]:
        """One Answer or Failure per request, in order. Raises Interrupted once the endpoint is closed, or where
        `should_stop()`, which is asked every tenth of a second, says so; what is under way is then left alone."""
        batch = _Batch(requests, iter(range(len(requests))))
        if self._is_closed.is_set():
            raise Interrupted("the endpoint is closed")
        for _ in range(min(self.config.concurrency, len(requests))):
            # Daemons: one that hangs on a silent server cannot keep the process from ending.
            threading.Thread(target=self._work, args=(batch,), name="selftrain_endpoint", daemon=True).start()
        with batch.changed:
            while not batch.is_over():
                if self._is_closed.is_set() or (should_stop is not None and should_stop()):
                    batch.is_dropped = True
                    raise Interrupted("stopped while requests to the endpoint were under way; none of them is lost")
                batch.changed.wait(POLL_SECONDS)
            if batch.error is not None:
                raise batch.error
            if self._is_closed.is_set():  # which is what some of them may have failed of
                raise Interrupted("the endpoint is closed")
            return [batch.results[index] for index in range(len(requests))]

    def close(self) -> None:
        """Send nothing more, and end all waiting."""
        self._is_closed.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the threads of a batch

    def _work(self, batch: _Batch) -> None:
        while True:
            with batch.changed:
                index = None if batch.error or self._is_over(batch) else next(batch.left, None)
            if index is None:
                return
            try:
                result = self._answered(batch, batch.requests[index])
            except BaseException as error:  # raised by `complete`
                with batch.changed:
                    batch.error = batch.error or error
                    batch.changed.notify_all()
                return
            with batch.changed:
                batch.results[index] = result
                batch.changed.notify_all()

    def _is_over(self, batch: _Batch) -> bool:
        return batch.is_dropped or self._is_closed.is_set()

    def _answered(self, batch: _Batch, request: Request) -> Answer | Failure:
        """The answer, after as many repetitions as it takes and the config allows."""
        faults: list[FailureKind] = []
        while True:
            try:
                self._await_turn(batch)
                with self._slots:
                    found = self._attempt(request, is_repeated=bool(faults))
            except Fault as fault:
                faults.append(fault.kind)
                allowed = 0 if self._seems_down() else self.config.retries
                if not fault.can_repeat or len(faults) > allowed:
                    return self._given_up(fault, faults)
                self._put_off(fault, batch, len(faults))
                continue
            with self._lock:
                self._unanswered_in_a_row = 0
                self._totals.prompt_tokens += found.prompt_tokens
                self._totals.completion_tokens += found.completion_tokens
            return Answer(
                found.texts,
                found.finish_reasons,
                found.prompt_tokens,
                found.completion_tokens,
                len(faults) + 1,
                tuple(faults),
            )

    def _given_up(self, fault: Fault, faults: Sequence[FailureKind]) -> Failure:
        with self._lock:
            self._totals.failures += 1
            self._unanswered_in_a_row += fault.can_repeat
        times = "" if len(faults) == 1 else f" ({len(faults)} attempts)"
        advice = advice_on(self.config, fault.kind, fault.reason)
        return Failure(fault.kind, f"{fault.reason}{times}", len(faults), tuple(faults), advice)

    def _seems_down(self) -> bool:
        with self._lock:
            return self._unanswered_in_a_row >= DOWN_AFTER

    def _put_off(self, fault: Fault, batch: _Batch, attempts: int) -> None:
        """Wait before the next attempt, or until the batch is over."""
        wait = min(LONGEST_WAIT_SECONDS, self._first_wait * 2 ** (attempts - 1)) * random.uniform(0.5, 1.0)
        if fault.wait is not None:
            wait = max(wait, min(fault.wait, LONGEST_ASKED_WAIT_SECONDS))
            with self._lock:  # a server that asks for a pause means every request
                self._not_before = max(self._not_before, time.monotonic() + fault.wait)
        self._sleep(batch, time.monotonic() + wait)

    def _await_turn(self, batch: _Batch) -> None:
        with self._lock:
            until = min(self._not_before, time.monotonic() + LONGEST_ASKED_WAIT_SECONDS)
        self._sleep(batch, until)

    def _sleep(self, batch: _Batch, until: float) -> None:
        while not self._is_over(batch) and (left := until - time.monotonic()) > 0:
            self._is_closed.wait(min(left, POLL_SECONDS))
        if self._is_over(batch):
            raise Interrupted("the endpoint is closed")

    def _attempt(self, request: Request, *, is_repeated: bool) -> Answer:
        """One request and its answer. Raises Fault."""
        client = self._connected()
        with self._lock:
            self._totals.requests += 1
            self._totals.retries += is_repeated
        try:
            return ask(client, self.config, request)
        except Fault as fault:
            said = fault.reason if self._key is None else fault.reason.replace(self._key, "[key]")
            fault.reason = said if len(said) <= SHOWN else f"{said[: SHOWN - 1]}…"
            with self._lock:
                self._totals.faults[fault.kind] += 1
            raise
        except RuntimeError:
            if self._is_closed.is_set():  # so was the client, meanwhile
                raise Interrupted("the endpoint is closed") from None
            raise

    def _connected(self) -> openai.OpenAI:
        with self._lock:
            if self._is_closed.is_set():
                raise Interrupted("the endpoint is closed")
            if self._client is None:
                self._client = connect(self.config, self._key)
            return self._client
