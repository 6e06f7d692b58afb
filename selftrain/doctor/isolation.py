"""What the machine offers to shut other code in. selftrain runs no code that a model wrote; this is for verifiers of
your own that do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

from selftrain.doctor.findings import Finding, note, ok

SECONDS = 10.0
# Each prints one word; in a process of its own, as a filter of system calls may kill who asks.
NAMESPACES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
print("yes" if libc.unshare(CLONE_NEWUSER) == 0 else os.strerror(ctypes.get_errno()))
"""
# landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION); number 444 on every architecture but Alpha.
LANDLOCK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
version = libc.syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
print(version if version > 0 else os.strerror(ctypes.get_errno()))
"""
# prctl(PR_GET_SECCOMP): EINVAL where the kernel has no seccomp; PR_SET_SECCOMP with a null filter: EFAULT where it
# has filters.
SECCOMP = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
PR_GET_SECCOMP, PR_SET_SECCOMP, FILTER = 21, 22, 2
if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
    print(os.strerror(ctypes.get_errno()))
else:
    libc.prctl(PR_SET_SECCOMP, FILTER, None, 0, 0)
    print("yes" if ctypes.get_errno() == errno.EFAULT else os.strerror(ctypes.get_errno()))
"""


def check() -> Iterator[Finding]:
    """One line per mechanism, none of which a run needs."""
    area = "isolation"
    yield ok(area, "selftrain runs no model-written code; for a verifier of yours that does, this machine offers:")
    yield _bubblewrap()
    said = _asked(NAMESPACES)
    yield ok(area, "user namespaces") if said == "yes" else note(area, f"no user namespaces ({said})")
    said = _asked(LANDLOCK)
    yield ok(area, f"Landlock, ABI {said}") if said.isdecimal() else note(area, f"no Landlock ({said})")
    said = _asked(SECCOMP)
    yield ok(area, "seccomp filters") if said == "yes" else note(area, f"no seccomp filters ({said})")


def _bubblewrap() -> Finding:
    path = shutil.which("bwrap")
    if path is None:
        return note("isolation", "no bubblewrap (bwrap is not on the PATH)")
    failure = _failure([path, "--ro-bind", "/", "/", "--unshare-all", "true"])
    return (
        ok("isolation", f"bubblewrap ({path})") if failure is None else note("isolation", f"no bubblewrap: {failure}")
    )


def _failure(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _asked(program: str) -> str:
    """What the program printed, or how it failed."""
    try:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return done.stdout.strip() or f"exit code {done.returncode}"
