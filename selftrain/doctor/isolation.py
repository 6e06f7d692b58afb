"""The sandbox for code that a model wrote: the self-test that a run makes, tier by tier."""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.doctor.findings import Finding, note, ok
from selftrain.scoring.sandbox import Chosen, Probe, Tier

AREA = "sandbox"


def check() -> Iterator[Finding]:
    """One line per tier that holds; of one that does not, each probe that failed. None is a problem here: only scorers
    that run code need one."""
    from selftrain.scoring.sandbox.choosing import ORDER

    held = []
    for tier in ORDER:
        failed, line = _tested(tier)
        held += [tier] if not failed else []
        yield line
        for one in failed:
            yield note(AREA, f"{tier}: {one.name}: {one.detail}", one.fix or None)
    if not held:
        yield note(AREA, "no tier holds, so a run with the scorer code refuses to start (exit code 77)")
    else:
        yield ok(AREA, f"score.sandbox.tier auto takes {held[0]}")


def _tested(tier: Tier) -> tuple[list[Probe], Finding]:
    from selftrain.scoring.sandbox import choosing, selftest

    probes = selftest.probed(tier)
    failed = [one for one in probes if not one.held]
    if failed:
        return failed, note(AREA, f"{tier}: not usable here")
    return [], ok(AREA, f"{tier}: {choosing.describe(Chosen(tier, choosing.details(tier), probes))}")
