"""Several processes of a test program, as ranks of one run: started by torchrun, or each by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """One process's exit code, its output, and the seconds since all were started."""

    code: int
    output: str
    seconds: float


class Launched:
    """The processes of one launch; killed with all that they started at the end of the block."""

    def __init__(
        self, program: str, *arguments: str, ranks: int = 2, torchrun: bool = False, **environment: str
    ) -> None:
        command = [str(TESTS / program), *arguments]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RANK", "WORLD", "LOCAL"))}
        env = {**inherited, "OMP_NUM_THREADS": "1", **environment}
        self._began = time.monotonic()
        if torchrun:
            words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), *command]
            self.processes = [_start([sys.executable, *words], env)]
            return
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(ranks)}
        self.processes = [
            _start([sys.executable, *command], {**env, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def finish(self, timeout: float = 120) -> list[Ended]:
        """Wait for all of them."""
        ended = []
        for process in self.processes:
            output, _ = process.communicate(timeout=timeout)
            ended.append(Ended(process.returncode, output, time.monotonic() - self._began))
        return ended


def _start(command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
