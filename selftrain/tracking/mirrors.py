"""A mirror as the run sees it: a process that is started, looked at now and then, and ended.

The process follows metrics.jsonl by itself. Nothing is sent to it but one line when it starts and one when the run is
done, so its slowness, its crash and an outage of the tracker behind it cost the run nothing. What it could not copy is
copied by the next attempt. Everything that goes wrong is one line of warning.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Not `-m`: that puts the working directory first on the path, where a user's wandb.py would be imported for W&B's.
_PROGRAM = "import sys; module, *sys.path[:] = sys.argv[1:]; __import__(module, fromlist=['main']).main()"
CANNOT_START = 3
CANNOT_FINISH = 4
# These would make the mirror's process take itself for a rank of the run, or put something on the run's accelerator.
_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_OF_LAUNCHERS = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_")


class Mirror:
    """A running copy of the ledger to one tracker. No method raises for the tracker's sake, and none but `close` waits.

    `module` has the process's `main`; `order` is the line it is told, in which `folder` is where it keeps what it knows
    and `start_seconds` bounds its waiting for a server. `label` names the tracker in warnings. A process that dies is
    started again up to `restarts` times.
    """

    restarts = 1

    def __init__(
        self, label: str, module: str, order: Mapping[str, Any], *, log_path: Path, warn: Callable[[str], None]
    ) -> None:
        self.label = label
        self.log_path = log_path
        self.warn = warn
        self._module = module
        self._order = dict(order)
        self._restarts_left = self.restarts
        self._process: subprocess.Popen[bytes] | None = None
        self._news = -1
        self._start()

    @property
    def pid(self) -> int | None:
        """Of the mirror's process; None when there is none."""
        return self._process.pid if self._process else None

    def check(self) -> None:
        """See whether the process still runs, and start another if it may be replaced. Returns at once."""
        code = self._process.poll() if self._process else None
        if code is None:
            return
        self._forget()
        if code != 0:
            self._replace(code)

    def done(self) -> None:
        """Say that no more rows will come. Returns at once."""
        self._tell("done\n")

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Let the process copy what is left and end.

        After the timeout, or as soon as it says that nobody answers, it goes on alone, with one line of warning; it
        ends by itself, as every wait of its own is bounded.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._process is not None:
            self.done()
            has_ended, why = self._wait(max(0.1, deadline - time.monotonic()))
            if not has_ended:
                why = why or f"it took more than {timeout_seconds:g} s"
                self.warn(
                    f"{self.label} did not get everything when the run was done ({why}); process {self.pid} goes on "
                    f"for a while, see {self.log_path}; all metrics are in metrics.jsonl, and the same command mirrors "
                    f"again what did not arrive{self._later()}"
                )
                self._process.returncode = 0  # it may outlive this process: nothing that Popen should complain about
                self._forget()
            self.check()

    # What a tracker may have of its own

    def _environment(self) -> dict[str, str]:
        """The environment of the process."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in _OF_RANKS and not key.startswith(_OF_LAUNCHERS)
        }
        return {**kept, "CUDA_VISIBLE_DEVICES": ""}

    def _fallback(self, words: str) -> bool:
        """Whether a process that could not start, with these last words, may start again in another way."""
        return False

    def _later(self) -> str:
        """What else can be done about rows that did not arrive, as the end of a sentence."""
        return ""

    # The process

    def _wait(self, seconds: float) -> tuple[bool, str]:
        """Whether the process has ended within that time, and else what it said why nobody should wait for it."""
        assert self._process is not None
        readable, _, _ = select.select([self._news], [], [], seconds)
        words = os.read(self._news, 1000).decode("utf-8", "replace").strip() if readable else ""
        has_ended = bool(readable) and not words  # the end of the pipe is the end of the process
        if has_ended:
            self._process.wait()
        return has_ended, words

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", _PROGRAM, self._module, *sys.path]
        self._news, its_end = os.pipe()
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.log_path.open("ab") as log:
                # Its own session: Ctrl-C in the terminal must not end it before it has copied the last rows.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    bufsize=0,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    pass_fds=(its_end,),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._news)
            self._give_up(f"could not be started ({error.strerror})")
            return
        finally:
            os.close(its_end)
        self._tell(json.dumps({**self._order, "news": its_end}) + "\n")

    def _tell(self, text: str) -> None:
        pipe = self._process.stdin if self._process else None
        if pipe is None:
            return
        try:
            pipe.write(text.encode())
        except OSError:
            return  # it is dead: the next check says so

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            os.close(self._news)
        self._process = None

    def _replace(self, code: int) -> None:
        if code == CANNOT_START and self._fallback(self._last_words()):
            self._start()
        elif code not in (CANNOT_START, CANNOT_FINISH) and self._restarts_left:
            self._restarts_left -= 1
            self.warn(f"the {self.label} mirror ended with code {code} and was started again, see {self.log_path}")
            self._start()
        else:
            self._give_up(f"ended with code {code} ({self._last_words()})")

    def _give_up(self, why: str) -> None:
        self.warn(
            f"the {self.label} mirror {why}, see {self.log_path}; the run is unaffected, all metrics are in "
            f"metrics.jsonl and the same command mirrors them again{self._later()}"
        )

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no reason given")
