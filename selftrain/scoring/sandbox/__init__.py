"""The sandbox: model-written Python in processes that can reach nothing, behind one interface for all tiers.

    tier "bubblewrap"   a fork server inside one hardened bubblewrap per worker; each candidate's process also under
                        Landlock, seccomp and resource limits
    tier "landlock"     the same fork server without bubblewrap, as in containers; only stat() of foreign files leaks
    tier "none"         no confinement at all: chosen by typing --unsafe-no-sandbox, never by falling back

`choose` runs real probes in each tier and takes the first in which all of them fail to get out. What a candidate's
process does is said by a *driver*: a file of the standard library alone with `main(payload, channel)`, which the fork
server loads once. Everything that comes back from a candidate's process is data that it may have forged.

    choosing, selftest, fixes   which tier holds here, by real probes, and what to do where none does
    probe_driver                the probes, on their side
    pool, process, workers      the trainer's side: workers, the process in one of them, and what came of it
    watching                    what the trainer sees of a candidate's process in /proc
    interpreter, tiers          which files the interpreter needs, and how a worker is started in each tier
    server                      the fork server: a program of its own, with the four that follow
    preloads, scratch           what it imports before it forks; the folder in which a candidate may write
    confinement, syscalls       Landlock, capabilities, limits; the list of system calls that are allowed

Nothing here imports more than the standard library and `selftrain.errors`, so that any Python 3.11 can run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Tier: TypeAlias = Literal["bubblewrap", "landlock", "none"]
Ending: TypeAlias = Literal["finished", "timeout", "oom", "output_limit", "crashed", "infra_error"]
"""How a candidate's process ended: by itself; over its processor or wall time; out of memory; having printed or sent
too much; killed by a signal of its own making, or sending what is no message; or the sandbox failed, twice."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one candidate's process may use up. Seconds and bytes."""

    cpu_seconds: float = 5.0
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 20
    """Of standard output and error together, and of each message."""
    scratch_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of the self-test: what it tried in that tier, whether it was held, and the fix where it was not."""

    tier: Tier
    name: str
    held: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sandbox that a self-test chose, as it is recorded in a run's config.json."""

    tier: Tier
    details: Mapping[str, str] = field(default_factory=dict)
    """`architecture`, `kernel`, `python`, `landlock_abi`, and `bubblewrap` (its version) or ""."""
    probes: tuple[Probe, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """Plain JSON data: tier, details, and how many probes were held."""
        return {"tier": self.tier, "details": dict(self.details), "probes_held": sum(one.held for one in self.probes)}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a candidate's process ended, with what it used up. `output` is what it printed, cut at the limit."""

    how: Ending
    detail: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0
    exit_code: int | None = None
    output: bytes = b""
    """Standard output alone."""
    starved: bool = False
    """Whether it might have done better with the machine to itself."""


class Stopped(Exception):  # noqa: N818 - reads as a fact
    """Raised by `Process.receive` and `send` when there is nothing more to come; `Sandbox.attempt` turns it into the
    `Ended` of the process."""
