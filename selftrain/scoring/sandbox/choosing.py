"""Which sandbox a run uses: the first tier whose self-test holds everything, or none at all.

choose     test the tiers and take one; SandboxRefused where none holds
unsafe     no confinement, because somebody typed it
describe   a choice in one line
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Literal

from selftrain.errors import SandboxRefused
from selftrain.scoring.sandbox import Chosen, Probe, Tier, confinement, selftest, syscalls, tiers

ORDER: tuple[Tier, ...] = ("bubblewrap", "landlock")
_SIGNALS_SINCE = 6
"""The version of Landlock from which it governs signals."""


def choose(wanted: Literal["auto", "bubblewrap", "landlock"] = "auto") -> Chosen:
    """Run the self-test of the tiers wanted, about a second each, and take the first that holds everything.

    Raises SandboxRefused, naming each probe that failed with its fix. A tier asked for is never replaced by another,
    and nothing is ever run without one.
    """
    failed: list[Probe] = []
    for tier in ORDER if wanted == "auto" else (wanted,):
        probes = selftest.probed(tier)
        if all(one.held for one in probes):
            return Chosen(tier, details(tier), probes)
        failed += [one for one in probes if not one.held]
    raise SandboxRefused(_refusal(failed, wanted))


def unsafe() -> Chosen:
    """The choice of somebody who typed --unsafe-no-sandbox."""
    return Chosen("none", details("none"))


def describe(chosen: Chosen) -> str:
    """What holds candidates' code, in one line for the terminal."""
    known = chosen.details
    landlock = f"Landlock {known.get('landlock_abi')}" if known.get("landlock_abi", "0") != "0" else "no Landlock"
    match chosen.tier:
        case "bubblewrap":
            words = f"bubblewrap {known.get('bubblewrap', '')}, {landlock} and seccomp"
        case "landlock":
            words = f"{landlock} and seccomp, without bubblewrap (code can see that files exist, not read them)"
        case _:
            return "none: code that the model writes may do whatever you may do"
    tested = f"; {len(chosen.probes)} probes held" if chosen.probes else ""
    return words + tested + (f" ({known['notes']})" if known.get("notes") else "")


def details(tier: Tier) -> dict[str, str]:
    """What is recorded of the machine beside the tier."""
    abi = confinement.landlock_abi() if tier != "none" else 0
    bwrap = tiers.found_bubblewrap() if tier == "bubblewrap" else None
    notes = []
    if tier != "none" and syscalls.architecture() not in syscalls.TESTED:
        notes.append(f"the filter of system calls was not tested on {syscalls.architecture()} by selftrain's authors")
    if tier == "landlock" and abi < _SIGNALS_SINCE:
        notes.append(f"Landlock {abi} does not govern signals: the filter of system calls alone holds them")
    return {
        "architecture": syscalls.architecture(),
        "kernel": os.uname().release,
        "python": platform.python_version(),
        "landlock_abi": str(abi),
        "bubblewrap": tiers.bubblewrap_version(bwrap) if bwrap else "",
        "notes": "; ".join(notes),
    }


def _refusal(failed: Sequence[Probe], wanted: str) -> str:
    lines = [
        "No sandbox passed its self-test here, so no code that a model wrote was run."
        if wanted == "auto"
        else f"The sandbox {wanted!r}, which score.sandbox.tier asks for, did not pass its self-test here, so no code "
        "that a model wrote was run."
    ]
    for tier in dict.fromkeys(one.tier for one in failed):
        lines.append(f"  {tier}:")
        of_tier = [one for one in failed if one.tier == tier]
        for one in of_tier:
            lines.append(f"    {one.name}: {one.detail}")
        for fix in dict.fromkeys(one.fix for one in of_tier if one.fix):
            lines.append(f"      to mend it: {fix}")
    if wanted != "auto":
        lines.append("score.sandbox.tier=auto takes whichever of bubblewrap and landlock works.")
    lines.append(
        "--unsafe-no-sandbox runs such code with everything that you may do: only on a machine that you can throw away."
    )
    return "\n".join(lines)
