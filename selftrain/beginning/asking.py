"""Questions on a terminal, for what no flag says; without one, the proposals are taken."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from selftrain.errors import ConfigError


class Asker:
    """Asks, or takes the proposal. `is_there` says whether somebody can answer."""

    def __init__(self, is_there: bool | None = None) -> None:
        self.is_there = sys.stdin.isatty() and sys.stdout.isatty() if is_there is None else is_there

    def ask(self, question: str, proposal: str | None, allowed: Sequence[str] = ()) -> str | None:
        """The answer; the proposal if nobody is there or the answer is empty. Asks again for what is not allowed.
        ConfigError: somebody pressed Ctrl-C or Ctrl-D."""
        if not self.is_there:
            return proposal
        while True:
            try:
                answer = str(typer.prompt(question, default=proposal or "", show_default=bool(proposal))).strip()
            except typer.Abort:
                typer.echo()
                raise ConfigError("stopped at a question; nothing was written") from None
            if not answer:
                return proposal
            if not allowed or answer in allowed:
                return answer
            typer.echo(f"  {answer!r} is none of: {', '.join(allowed)}")

    def tell(self, line: str) -> None:
        """Say something."""
        typer.echo(line)
