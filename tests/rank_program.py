"""What the ranks of `test_world.py` do: python rank_program.py NAME ARGUMENT..."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain import heartbeat
from selftrain.config import RanksConfig
from selftrain.errors import DataError, PhaseError, SelftrainError
from selftrain.world import World


def decide(world: World) -> None:
    """Everything that ranks decide together; each prints what it was given."""
    given: dict[str, Any] = {"rank": world.rank, "first": world.is_first}
    given["from_first"] = world.from_first(lambda: {"of": os.getpid()}, "a value") == {"of": os.getpid()}
    given["gathered"] = world.gather(world.rank * 10, "numbers")
    large = world.from_first(lambda: bytes(range(256)) * (80 << 10), "20 MiB")
    given["large"] = large == bytes(range(256)) * (80 << 10)
    given["claimed"] = [index for index in range(40) if world.claim("blocks", index)]
    world.barrier("a point")
    given["any"] = [world.any(world.rank == 1, "one is set"), world.any(False, "none is set")]
    world.require_agreement("the recipe", "abcdef")
    for error in (DataError("no such row; mend it"), ValueError("a bug")):
        try:
            world.from_first(lambda error=error: _raise(error), "trouble")
        except Exception as caught:
            given.setdefault("errors", []).append(f"{type(caught).__name__}: {caught}")
    try:
        world.require_agreement("the survivors", f"{world.rank}" * 64)
    except PhaseError as disagreement:
        given["disagreed"] = str(disagreement)
    import torch

    numbers = torch.tensor([world.rank + 1.0])
    torch.distributed.all_reduce(numbers)
    given["reduced"] = numbers.item()
    # In one write: the launcher's ranks share a pipe, and print would send the line's end on its own.
    os.write(sys.stdout.fileno(), ("GIVEN " + json.dumps(given) + "\n").encode())


def lose(world: World, where: str, how: str, victim: str, note: str) -> None:
    """The victim dies, stops or fails while the others wait for it at `where`; it notes when."""
    world.barrier("the beginning")
    import torch

    if world.rank == int(victim):
        if where == "step":
            torch.distributed.all_reduce(torch.ones(1))
        Path(note).write_text(str(time.time()))
        if how == "raise":
            raise DataError("no such row; mend it")
        os.kill(os.getpid(), signal.Signals[how])
    if where == "barrier":
        world.barrier("the meeting")
    elif where == "first":
        world.from_first(lambda: time.sleep(0.1), "the decision")
        world.barrier("the meeting")
    elif where == "work":
        while True:
            world.check()
            time.sleep(0.05)
    else:
        for step in range(2):
            world.busy_with(f"step {step}")
            torch.distributed.all_reduce(torch.ones(1))


def part(world: World, how: str) -> None:
    """The ranks do not do the same."""
    if how == "ways":
        if world.is_first:
            world.gather(1, "select round 1")
        else:
            world.from_first(lambda: 1, "train round 1")
    elif how == "patience":
        if world.is_first:
            world.busy_with("a long nap")
            time.sleep(13)
        world.barrier("the meeting")


def be_asked(world: World, number: str) -> None:
    """One rank is asked to stop; all notice."""
    world.barrier("the beginning")
    if world.rank == 1:
        os.kill(os.getpid(), signal.Signals[number])
    while True:
        world.check()
        time.sleep(0.05)


def go_on(world: World, seconds: str) -> None:
    """Work for so many seconds of this process's own time."""
    world.barrier("the beginning")
    print("BEGUN", flush=True)
    for _ in range(int(float(seconds) / 0.05)):
        world.check()
        time.sleep(0.05)


def start_and_die(world: World) -> None:
    """Never reached by rank 1, which dies before it has joined."""
    world.barrier("the beginning")


def _raise(error: Exception) -> None:
    raise error


def _apart(world: World) -> None:
    """Let each rank take the others for processes of another machine."""
    here = heartbeat.Place.here()
    elsewhere = replace(here, machine=f"{here.machine} {world.rank}")
    heartbeat.Place.here = classmethod(lambda cls: elsewhere)  # type: ignore[method-assign,assignment]


def main(name: str, *arguments: str) -> None:
    """As the command line does it: an error is one line and an exit code."""
    world = World()
    if "APART" in os.environ:
        _apart(world)
    config = RanksConfig(
        dead_after_seconds=float(os.environ.get("DEAD_AFTER", "5")), wait_seconds=float(os.environ.get("WAIT", "100"))
    )
    try:
        if name == "start_and_die" and world.rank == 1:
            time.sleep(3)  # until the other listens to signals
            os.kill(os.getpid(), signal.SIGKILL)
        with world.listening(), world.connected(config):
            globals()[name](world, *arguments)
    except SelftrainError as error:
        print(f"selftrain: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
