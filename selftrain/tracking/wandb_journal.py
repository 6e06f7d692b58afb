"""What tells, after a kill or an outage, which rows a W&B run has: a journal of its steps, and what wandb says."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TextIO

PROBE_SECONDS = 1.5
# How wandb says, in words only, that it will not upload the rest of a run although `finish` returns as if it had.
GIVEN_UP = "Fatal error while uploading data"


class Journal:
    """Which step of an online run holds what, one line each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, first_step: int) -> set[str]:
        """What the server has of a run that goes on from `first_step`; everything else is forgotten."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        known = [line.partition(" ") for line in lines]
        kept = {int(step): name for step, _, name in known if name and step.isdigit() and int(step) < first_step}
        self._path.write_text("".join(f"{step} {name}\n" for step, name in kept.items()))
        return set(kept.values())

    def add(self, step: int, name: str) -> None:
        """Note what the step is about to hold."""
        with self._path.open("a") as file:
            file.write(f"{step} {name}\n")


class Ears:
    """Stands for stderr, passes everything on, and hears whether wandb gave up uploading."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.heard = ""

    @classmethod
    def open(cls) -> Ears:
        """Listen to everything that this process writes to stderr from here on."""
        ears = cls(sys.stderr)
        sys.stderr = ears
        return ears

    def write(self, text: str) -> int:
        """Pass it on."""
        if GIVEN_UP in text:
            self.heard = " ".join(text.split())
        return self._stream.write(text)

    def flush(self) -> None:
        """Pass it on."""
        self._stream.flush()

    def isatty(self) -> bool:
        """A log file is none."""
        return False


def answers(url: str) -> bool:
    """Whether anything answers there within a moment, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError) as error:
        # What fails on the way to a server that wandb may reach (certificates, proxies) says nothing about that server.
        reason = getattr(error, "reason", error)
        return not isinstance(reason, TimeoutError | ConnectionError)
