"""How far an audit is, on stderr, so that --json stays whole on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from selftrain.reporting.figures import count
from selftrain.reporting.inert import inert

LINE_SECONDS = 15.0
REFRESH_SECONDS = 0.1
WIDTH = 78


class Progress:
    """On a terminal one line, written over; elsewhere a line every LINE_SECONDS: `cheating answers: 120 of 556`."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._is_tty = self._stream.isatty()
        self._next = clock() + (0.0 if self._is_tty else LINE_SECONDS)
        self._what, self._done, self._total, self._is_shown = "", 0, 0, False

    def begin(self, what: str, total: int) -> None:
        """A check begins that has so many answers, or prompts, to go through."""
        self._what, self._done, self._total = inert(what), 0, total

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (REFRESH_SECONDS if self._is_tty else LINE_SECONDS)
        text = f"{self._what}: {count(self._done)} of {count(self._total)}"
        self._write(f"\r\x1b[2K{text[:WIDTH]}" if self._is_tty else f"{text}\n")
        self._is_shown = self._is_tty

    def end(self) -> None:
        """Take the line away."""
        if self._is_shown:
            self._write("\r\x1b[2K")
            self._is_shown = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            self._is_tty, self._next = False, float("inf")
