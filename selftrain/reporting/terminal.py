"""What a run prints while it works.

On a terminal: a progress bar for the phase at work. Elsewhere (a file, a pipe, a scheduler's log): plain lines, none
for what is quick, at most two a minute for what is slow. Finished phases, tables and messages read the same in both.

A display that breaks (closed pipe, lost ssh connection, an encoding without `·`) never ends a run: output stops, or
characters are replaced. No thread is started, so that forking workers stays safe.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from selftrain.reporting.figures import count, duration, per_second
from selftrain.reporting.inert import inert, inert_lines
from selftrain.reporting.tables import Line, RoundRow, round_lines, rounds_lines

FIRST_LINE_SECONDS = 10.0
NEXT_LINE_SECONDS = 30.0
REFRESH_SECONDS = 0.1
STYLES = {"plain": "", "head": "bold", "best": "green", "warning": "yellow", "error": "bold red", "quiet": "dim"}


class SafeStream(io.TextIOBase):
    """A text stream that replaces what it cannot encode, and goes silent once writing to it fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Rich chooses its characters by it."""
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return not self._stream.closed and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write as much as can be shown."""
        if not self._is_gone:
            try:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except (OSError, ValueError):  # ValueError: closed
                self._is_gone = True
        return len(text)

    def flush(self) -> None:
        """Show it now."""
        if not self._is_gone:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._is_gone = True


class Phase:
    """A phase at work; a context manager made by `Terminal.phase`."""

    def __init__(self, terminal: Terminal, name: str, total: int | None, unit: str) -> None:
        self._terminal = terminal
        self._name = name
        self._total = total
        self._unit = unit
        self._count = 0
        self._tokens = 0
        self._details: tuple[str, ...] | None = None
        self._started = terminal.clock()
        self._next_line = self._started + FIRST_LINE_SECONDS

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """`n` more units are done, for which so many tokens were sampled or trained on."""
        self._count += n
        self._tokens += tokens
        self._terminal.show_progress(self._progress_text(), self._count)
        now = self._terminal.clock()
        if not self._terminal.is_tty and now >= self._next_line:
            self._next_line = now + NEXT_LINE_SECONDS
            self._terminal.line(f"{self._name} · {self._progress_text()}")

    def undo(self, n: int) -> None:
        """`n` of the units that were counted are to be done again."""
        self._count -= n

    def done(self, *details: str) -> None:
        """What the phase's last line says instead of the plain count: `"512 candidates", "61% correct"`."""
        self._details = tuple(map(inert, details))

    def __enter__(self) -> Phase:
        self._terminal.open_bar(self._name, self._total)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._terminal.close_bar(self._name)
        seconds = self._terminal.clock() - self._started
        if kind is not None:
            done = f"{count(self._count)} {self._unit}" if self._count else "nothing"
            self._terminal.line(f"{self._name} · stopped after {duration(seconds)}, {done} done", "warning")
            return
        details = self._details if self._details is not None else (f"{count(self._count)} {self._unit}",)
        speed = [per_second(self._tokens, seconds, "tokens")] if self._tokens else []
        self._terminal.line(" · ".join([self._name, *details, duration(seconds), *speed]))

    def _progress_text(self) -> str:
        seconds = self._terminal.clock() - self._started
        speed = (self._tokens, "tokens") if self._tokens else (self._count, self._unit)
        parts = [f"{count(self._count)}/{count(self._total)}" if self._total else f"{count(self._count)} {self._unit}"]
        if seconds > 0:
            parts.append(per_second(speed[0], seconds, speed[1]))
        if self._total and 0 < self._count < self._total:
            parts.append(f"{duration(seconds / self._count * (self._total - self._count))} left")
        return " · ".join(parts)


class Terminal:
    """Where a run prints. Progress, tables and `info` go to `stream` (stdout), `warn` and `error` to `errors` (stderr).

    `is_tty` and `width` are found out unless given; TERM=dumb counts as no terminal, NO_COLOR is respected.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        errors: TextIO | None = None,
        *,
        is_tty: bool | None = None,
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        out, err = SafeStream(stream or sys.stdout), SafeStream(errors or sys.stderr)
        self.clock = clock
        self.is_tty = out.isatty() and os.environ.get("TERM") != "dumb" if is_tty is None else is_tty
        self._console = _console(out, self.is_tty, width)
        errors_tty = err.isatty() and os.environ.get("TERM") != "dumb" if is_tty is None else is_tty
        self._errors = _console(err, errors_tty, width)
        self._kept: list[tuple[str, int, str]] = []
        self._bar: tuple[str, Progress, TaskID] | None = None
        self._refreshed = 0.0

    def phase(self, name: str, total: int | None, unit: str, *, arm: str, round: int) -> Phase:
        """A phase that begins now: `total` units (`candidates`, `steps`, ...), or None where it is not known."""
        self._tell_kept(arm, round)
        return Phase(self, f"{inert(arm)} · round {round} · {inert(name)}", total, inert(unit))

    def kept(self, name: str, *, arm: str, round: int) -> None:
        """A phase that an earlier attempt committed. Told in one line together with its neighbours."""
        self._kept.append((inert(arm), round, inert(name)))

    def round_table(self, arm: str, round: int, rows: Sequence[tuple[str, str, str]]) -> None:
        """The summary of a round: rows of (phase, what, value)."""
        self._tell_kept()
        self.table(round_lines(f"{arm} · round {round}", rows))

    def final(self, rounds: Sequence[RoundRow], verdict: Sequence[str], places: Sequence[tuple[str, str]]) -> None:
        """The end of a run: all rounds, what they prove, and where everything is, as (label, path)."""
        self._tell_kept()
        if rounds:
            self.table(rounds_lines(rounds))
        if verdict:
            self.line("")
        for sentence in verdict:
            self.line(inert(sentence), "head")
        if places:
            self.line("")
        width = max((len(inert(label)) for label, _ in places), default=0)
        for label, path in places:
            self.line(f"{inert(label):<{width}}  {inert_lines(path)}")

    def info(self, text: str) -> None:
        """Something worth knowing, on stdout."""
        self.line(inert_lines(text))

    def warn(self, text: str) -> None:
        """Something that may need attention, on stderr; the run goes on."""
        self._print(self._errors, f"warning: {inert_lines(text)}", "warning")

    def error(self, text: str) -> None:
        """Why the run ends, on stderr."""
        self._tell_kept()
        self._print(self._errors, f"error: {inert_lines(text)}", "error")

    def line(self, text: str, look: str = "plain") -> None:
        """One line on stdout, of text that is inert already."""
        self._print(self._console, text, look)

    def open_bar(self, name: str, total: int | None) -> None:
        """Show a bar for the phase, unless another one has it."""
        if not self.is_tty or self._bar is not None:
            return
        # A refreshing thread (rich's default) would run while workers are forked.
        bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._bar = (name, bar, bar.add_task(name, total=total, text=""))
        bar.start()

    def show_progress(self, text: str, completed: int) -> None:
        """Move the bar, if there is one, at most ten times a second."""
        if self._bar is None:
            return
        _, bar, task = self._bar
        bar.update(task, completed=completed, text=text)
        now = self.clock()
        if now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            bar.refresh()

    def close_bar(self, name: str) -> None:
        """Take the phase's bar away."""
        if self._bar is not None and self._bar[0] == name:
            self._bar[1].stop()
            self._bar = None

    def _tell_kept(self, arm: str | None = None, round: int | None = None) -> None:
        kept, self._kept = self._kept, []
        for name in dict.fromkeys(kept_arm for kept_arm, _, _ in kept):
            rounds = sorted({number for kept_arm, number, _ in kept if kept_arm == name})
            whole = [number for number in rounds if (name, number) != (arm, round)]
            for numbers in _stretches(whole):
                self.line(f"{name} · {numbers} already done", "quiet")
            if len(whole) < len(rounds):
                phases = [phase for kept_arm, number, phase in kept if (kept_arm, number) == (arm, round)]
                self.line(f"{name} · round {round} · {', '.join(dict.fromkeys(phases))} · already done", "quiet")

    def table(self, lines: Sequence[Line]) -> None:
        """A table, after an empty line."""
        self.line("")
        for line in lines:
            self.line(line.text, line.look)

    def page(self, lines: Sequence[Line]) -> None:
        """Lines that are inert already, as they are."""
        for line in lines:
            self.line(line.text, line.look)

    @contextmanager
    def in_place(self) -> Iterator[Callable[[Sequence[Line]], None]]:
        """Gives what shows a page: on a terminal over the page before, elsewhere after an empty line.

        Lines that a terminal has no room for are left out at the end; the last page stays as a whole.
        """
        if not self.is_tty:
            yield self._page_after_page
            return
        # No refreshing thread, as for the bar.
        with Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
            last: list[Line] = []

            def show(lines: Sequence[Line]) -> None:
                last[:] = lines
                text = Text("\n").join(Text(line.text, STYLES[line.look]) for line in lines)
                text.no_wrap = True
                live.update(text, refresh=True)

            try:
                yield show
            finally:
                live.stop()
                self.page(last)

    def _page_after_page(self, lines: Sequence[Line]) -> None:
        self.page([*lines, Line("")])

    def _print(self, console: Console, text: str, look: str) -> None:
        with self._bar_away(console):
            console.print(Text(text, STYLES[look]), soft_wrap=True)

    @contextmanager
    def _bar_away(self, console: Console) -> Iterator[None]:
        """A bar on stdout would be written over by a line on stderr; rich moves it for lines on stdout."""
        if self._bar is None or console is self._console:
            yield
            return
        self._bar[1].stop()
        yield
        self._bar[1].start()


def _console(stream: SafeStream, is_tty: bool, width: int | None) -> Console:
    return Console(
        file=cast(TextIO, stream),
        force_terminal=is_tty,
        force_interactive=is_tty,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def _stretches(numbers: Sequence[int]) -> Iterator[str]:
    """`round 1`, `rounds 3-5`: ascending numbers, neighbours together."""
    start = previous = None
    for number in [*numbers, None]:
        if previous is not None and number != previous + 1:
            yield f"round {start}" if start == previous else f"rounds {start}-{previous}"
            start = None
        start = number if start is None else start
        previous = number
