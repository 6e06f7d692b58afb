"""What a process leaves with while a thread still judges."""

from __future__ import annotations

import subprocess
import sys

# A thread inside torch, when Python ends, ends the process with a code of its own.
WHILE_JUDGING = """
import logging, threading, torch
from selftrain.cli import _leave
from selftrain.scoring.threads import JudgingThreads

begun, matrix = threading.Event(), torch.randn(300, 300)

def judge():
    begun.set()
    while True:
        (matrix @ matrix).softmax(-1).tolist()

threads = JudgingThreads(1)
threads.put(judge)
begun.wait()
print("said before")
_leave("stopped here", 75)
"""


def test_a_thread_that_still_judges_does_not_change_the_code_that_a_process_leaves_with() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", WHILE_JUDGING], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (75, "said before\n", "selftrain: stopped here\n")
