"""The Weights & Biases mirror as the run sees it: a process that is started, looked at now and then, and ended.

The process (`wandb_process`) follows metrics.jsonl by itself. Nothing is sent to it but one line when it starts and
one when the run is done, so its slowness, its crash and an outage of W&B cost the run nothing. What it could not copy
is copied by the next attempt, or by `wandb sync` from the files under `wandb/`.

A process that cannot start online (no network, no login) is started once more offline; one that dies is started again
once. Everything that goes wrong is one line of warning.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from selftrain.config import WandbConfig

# Not `-m`: that puts the working directory first on the path, where a user's wandb.py would be imported for W&B's.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from selftrain.tracking.wandb_process import main; main()"
Mode = Literal["online", "offline", "disabled"]
CANNOT_START = 3
CANNOT_FINISH = 4
FOLDER = "wandb"


def mode_of(config: WandbConfig, environment: Mapping[str, str]) -> Mode:
    """The config's mode, unless the environment's WANDB_MODE asks for less: it can turn the mirror down, never up."""
    modes: tuple[Mode, ...] = ("disabled", "offline", "online")
    asked = environment.get("WANDB_MODE", "")
    return min(config.mode, asked, key=modes.index) if asked in modes else config.mode


def fragments(run_dir: Path) -> list[Path]:
    """The folders that W&B wrote for this run, oldest first: one per attempt."""
    return sorted(path for path in (run_dir / FOLDER).glob("*run-*") if path.is_dir() and not path.is_symlink())


def sync_command(run_dir: Path, mode: Mode) -> str:
    """What uploads the offline fragments, or what is left of the last online one."""
    folder = run_dir / FOLDER
    if mode == "offline":
        return f"wandb sync {shlex.quote(str(folder))}/offline-run-*"
    online = [path for path in fragments(run_dir) if path.name.startswith("run-")]
    return f"wandb sync {shlex.quote(str(online[-1] if online else folder))}"


class Mirror:
    """A running copy of the ledger to W&B. No method raises for W&B's sake, and none but `close` waits.

    `shown_config` is all that W&B is told of the config. `start_seconds` bounds the wait for W&B's server.
    """

    def __init__(
        self,
        run_dir: Path,
        config: WandbConfig,
        *,
        run_id: str,
        name: str,
        shown_config: Mapping[str, Any],
        log_path: Path,
        warn: Callable[[str], None],
        start_seconds: float = 20.0,
    ) -> None:
        self.run_dir = run_dir.resolve()
        self.log_path = log_path
        self.warn = warn
        self.mode = mode_of(config, os.environ)
        self._restarts_left = 1
        self._process: subprocess.Popen[bytes] | None = None
        self._order = {
            "run_dir": str(self.run_dir),
            "config": dict(shown_config),
            "start_seconds": start_seconds,
            "run": {
                "id": run_id,
                "name": name,
                "project": config.project,
                "entity": config.entity,
                "group": config.group,
                "tags": list(config.tags),
            },
        }
        if self.mode != "disabled":
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

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Let the process copy what is left and end; after the timeout it is killed, with one line of warning."""
        deadline = time.monotonic() + timeout_seconds
        while self._process is not None:
            self._tell("done\n")
            try:
                self._process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._forget()
                self._give_up(f"did not finish within {timeout_seconds:.0f} s and was ended")
                return
            self.check()

    def _start(self) -> None:
        # WANDB_SERVICE names the wandb-core of another user of wandb in this process: sharing it would share its fate
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        environment |= {"WANDB_ERROR_REPORTING": "false"}
        command = [sys.executable, "-P", "-c", _PROGRAM, *sys.path]
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
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            self._give_up(f"could not be started ({error.strerror})")
            return
        self._tell(json.dumps({**self._order, "mode": self.mode}) + "\n")

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
        self._process = None

    def _replace(self, code: int) -> None:
        if code == CANNOT_START and self.mode == "online":
            self.mode = "offline"
            self.warn(
                f"Weights & Biases could not start online ({self._last_words()}); the run goes on and is mirrored "
                f"offline, upload later: {sync_command(self.run_dir, self.mode)}"
            )
            self._start()
        elif code not in (CANNOT_START, CANNOT_FINISH) and self._restarts_left:
            self._restarts_left -= 1
            self.warn(f"the Weights & Biases mirror ended with code {code} and was started again, see {self.log_path}")
            self._start()
        else:
            self._give_up(f"ended with code {code} ({self._last_words()})")

    def _give_up(self, why: str) -> None:
        later = f"; upload what it has: {sync_command(self.run_dir, self.mode)}" if fragments(self.run_dir) else ""
        self.warn(
            f"the Weights & Biases mirror {why}, see {self.log_path}; the run is unaffected, all metrics are in "
            f"metrics.jsonl and the same command mirrors them again{later}"
        )

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no reason given")
