"""What tells, from outside, that an attack came through: the evidence, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from attack_world import MEMORY, OUTPUT, SCRATCH, Came, World, descendants, resident

THREADS = 1000
FILES = 4_300


def told(came: Came, word: str) -> list[Any]:
    """The values of that word in the messages."""
    return [one[word] for one in came.messages if isinstance(one, dict) and word in one]


def loot(world: World, came: Came) -> str:
    everything = repr(came.messages) + repr(came.output) + repr(came.later)
    found = [one for one in (world.token, world.environment_token, world.expected) if one in everything]
    if world.note in repr(came.later):
        found.append(world.note)
    return f"brought back {', '.join(found)}" if found else ""


def size(world: World, came: Came) -> str:
    told_sizes = told(came, "size")
    return f"knows the size {told_sizes}" if world.canary.stat().st_size in told_sizes else ""


def changed(world: World, came: Came) -> str:
    after = world.outside()
    differing = sorted(
        name for name in {*world.before, *after} if world.before.get(name) != after.get(name) or name not in after
    )
    return f"changed {differing}" if differing else ""


def processes(world: World, came: Came) -> str:
    return f"{world.watch.processes} processes at once" if world.watch.processes >= 6 else ""


def threads(world: World, came: Came) -> str:
    return f"{world.watch.threads} threads at once" if world.watch.threads >= THREADS else ""


def memory(world: World, came: Came) -> str:
    base = sum(size for _, size in world.watch.base.values())
    taken = world.watch.memory - base
    return f"{taken >> 20} MiB under a limit of {MEMORY >> 20}" if taken > MEMORY * 1.25 else ""


def blocks(world: World, came: Came) -> str:
    most = max(told(came, "blocks"), default=0) * 512
    return f"{most >> 20} MiB of files under a limit of {SCRATCH >> 20}" if most > 1.5 * SCRATCH else ""


def files(world: World, came: Came) -> str:
    most = max(told(came, "files"), default=0)
    return f"{most} files" if most >= FILES else ""


def flood(world: World, came: Came) -> str:
    grown = resident() - world.own_memory
    if came.bytes_back + len(came.output) > 64 * OUTPUT or grown > 200 << 20:
        return f"{came.bytes_back + len(came.output) >> 20} MiB came back, the judge grew by {grown >> 20} MiB"
    return ""


def heard(world: World, came: Came) -> str:
    return f"was heard: {world.heard[0][:40]!r}" if world.heard else ""


def claim(world: World, came: Came) -> str:
    # Whoever says so is believed, which is the safe side here.
    done = told(came, "done")
    return f"got {done}" if done else ""


def victim(world: World, came: Came) -> str:
    states = {*world.watch.states, world.wait_for_the_victim()} - {world.victim_before}
    return f"the process was {world.victim_before}, and then {sorted(map(repr, states))}" if states else ""


def parent(world: World, came: Came) -> str:
    return "its parent died" if came.parent_died or "infra_error" in came.endings else ""


def survivor(world: World, came: Came) -> str:
    time.sleep(0.2)
    left = len(descendants(os.getpid())) - len(world.watch.base)
    return f"{left} processes are still there" if left > 0 else ""


def hung(world: World, came: Came) -> str:
    return "the judge was still waiting" if came.hung else ""


def broken(world: World, came: Came) -> str:
    if came.error:
        return f"the judge raised {came.error}"
    if not came.next_judged:
        return "the next candidate was not judged"
    return "the sandbox failed" if "infra_error" in came.endings else ""


def passed(world: World, came: Came) -> str:
    return "the judge took it for right" if came.passed else ""


EFFECTS: dict[str, Callable[[World, Came], str]] = {
    one.__name__: one
    for one in (
        loot, size, changed, processes, threads, memory, blocks, files, flood, heard, claim, victim, parent, survivor,
        hung, broken, passed,
    )
}  # fmt: skip
"""By name."""
