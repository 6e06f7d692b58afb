"""One rank, and several: what they decide together, and that none hangs when another dies, stops or fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from launching import Ended, Launched

from selftrain.config import RanksConfig
from selftrain.errors import ConfigError, DataError
from selftrain.world import World, imposed_single_thread

DEFAULT_LIMIT_SECONDS = 60


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def run(name: str, *arguments: str, torchrun: bool = False, **environment: str) -> list[Ended]:
    with Launched("rank_program.py", name, *arguments, torchrun=torchrun, **environment) as launched:
        return launched.finish()


def test_alone_a_rank_decides_by_itself() -> None:
    world = World()
    assert (world.rank, world.size, world.local_rank, world.is_first) == (0, 1, 0, True)
    with world.connected(RanksConfig()):
        assert world.from_first(lambda: 3, "a number") == 3
        assert world.gather("a", "letters") == ["a"]
        assert world.claim("blocks", 0)
        assert world.claim("blocks", 0)
        assert world.any(True, "a flag")
        assert not world.any(False, "a flag")
        world.barrier("here")
        world.require_agreement("the recipe", "abc")
        world.busy_with("nothing")
        world.check()
        with pytest.raises(DataError, match="no such row"):
            world.from_first(lambda: fail(), "trouble")


def fail() -> None:
    raise DataError("no such row")


def test_alone_a_rank_loads_no_torch() -> None:
    program = (
        "import sys\nfrom selftrain.config import RanksConfig\nfrom selftrain.world import World\nworld = World()\n"
        "with world.listening(), world.connected(RanksConfig()):\n"
        "    world.gather(world.from_first(lambda: 1, 'x'), 'y')\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_launcher_that_says_nonsense_is_an_error_of_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two', not a number"):
        World()


def test_a_single_thread_that_a_launcher_imposed_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert imposed_single_thread("cpu") is None, "nobody but the user can have set it"
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    message = imposed_single_thread("cpu")
    assert message is not None
    assert "OMP_NUM_THREADS=4" in message
    assert imposed_single_thread("cuda") is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert imposed_single_thread("cpu") is None, "there is one core for each"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert imposed_single_thread("cpu") is None


@pytest.mark.parametrize("torchrun", [False, True], ids=["the first rank keeps the store", "torchrun keeps the store"])
def test_ranks_decide_together_and_leave_without_a_word(torchrun: bool) -> None:
    ended = run("decide", torchrun=torchrun)
    assert [one.code for one in ended] == [0] * len(ended), ended
    lines = [line for one in ended for line in one.output.splitlines()]
    spoken = [line for line in lines if line.strip()]
    assert all(line.startswith("GIVEN ") for line in spoken), spoken
    first, second = sorted((json.loads(line[6:]) for line in spoken), key=lambda one: one["rank"])
    assert (first["first"], second["first"]) == (True, False)
    assert (first["from_first"], second["from_first"]) == (True, False)
    for one in (first, second):
        assert one["gathered"] == [0, 10]
        assert one["large"]
        assert one["any"] == [True, False]
        assert one["reduced"] == 3.0
    assert sorted(first["claimed"] + second["claimed"]) == list(range(40))
    assert first["errors"] == ["DataError: no such row; mend it", "ValueError: a bug"]
    assert second["errors"][0] == first["errors"][0]
    assert second["errors"][1].startswith("PhaseError: rank 0 failed at trouble: ValueError: a bug")
    for one in (first, second):
        assert "do not agree on the survivors: 000000000000 on rank 0, 111111111111 on rank 1" in one["disagreed"]


def losses(*fast: tuple[str, str, int]) -> list[Any]:
    """All ways to lose a rank: where the others are, how, which one; all but some are slow together."""
    every = itertools.product(["barrier", "first", "work", "step"], ["SIGKILL", "raise"], [0, 1])
    return [pytest.param(*one, marks=[] if one in fast else pytest.mark.slow) for one in every]


@pytest.mark.parametrize(
    ("where", "how", "victim"), losses(("barrier", "raise", 0), ("work", "SIGKILL", 0), ("step", "SIGKILL", 1))
)
def test_a_rank_that_dies_or_fails_takes_the_other_with_it(tmp_path: Path, where: str, how: str, victim: int) -> None:
    ended = run("lose", where, how, str(victim), str(tmp_path / "note"))
    other = ended[1 - victim]
    told = [line for line in other.output.splitlines() if line.strip()]
    assert len(told) == 1, told
    if how == "raise":
        assert told[0].startswith(f"selftrain: DataError: rank {victim} failed at ")
        assert "no such row; mend it" in told[0]
        assert [one.code for one in ended] == [65, 65]
        assert ended[victim].output.strip() == "selftrain: DataError: no such row; mend it"
    else:
        assert told[0].startswith(f"selftrain: Interrupted: rank {victim} ")
        assert "run the same command again to go on" in told[0]
        assert other.code == 75
    assert other.seconds < 40


@pytest.mark.slow
@pytest.mark.parametrize("where", ["barrier", "work", "step"])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("apart", [False, True], ids=["one machine", "two machines"])
def test_a_rank_that_is_silent_takes_the_other_with_it(tmp_path: Path, where: str, victim: int, apart: bool) -> None:
    arguments = ("lose", where, "SIGSTOP", str(victim), str(tmp_path / "note"))
    with Launched("rank_program.py", *arguments, **({"APART": "1"} if apart else {})) as launched:
        output, _ = launched.processes[1 - victim].communicate(timeout=100)
        seconds = time.time() - float((tmp_path / "note").read_text())
        told = [line for line in output.splitlines() if line.strip()]
        assert len(told) == 1, told
        assert f"rank {victim} " in told[0]
        assert "run the same command again to go on" in told[0]
        assert launched.processes[1 - victim].returncode == 75
        assert seconds < 5 + 15 + 5
        # On the same machine the silent one is ended too: it must not wake up later and go on alone.
        if not apart:
            assert launched.processes[victim].wait(timeout=10) == -9


@pytest.mark.slow
@pytest.mark.parametrize("where", ["barrier", "step"])
def test_a_rank_of_another_machine_that_dies_is_missed(tmp_path: Path, where: str) -> None:
    ended = run("lose", where, "SIGKILL", "1", str(tmp_path / "note"), APART="1")
    assert ended[0].code == 75
    assert "rank 1 gave no sign of life" in ended[0].output


@pytest.mark.slow
@pytest.mark.parametrize(("how", "where"), [("SIGSTOP", "step"), ("SIGSTOP", "barrier"), ("SIGKILL", "step")])
def test_by_default_all_is_over_a_minute_after_a_death(tmp_path: Path, how: str, where: str) -> None:
    arguments = ("lose", where, how, "0", str(tmp_path / "note"))
    with Launched("rank_program.py", *arguments, torchrun=True, DEAD_AFTER="30") as launched:
        [ended] = launched.finish()
    seconds = time.time() - float((tmp_path / "note").read_text())
    print(f"{how} at {where}: over after {seconds:.1f} s")
    assert seconds < DEFAULT_LIMIT_SECONDS
    assert ended.code != 0
    assert "selftrain: Interrupted: rank 0 " in ended.output
    assert "run the same command again to go on" in ended.output


def test_the_launchers_own_signal_is_not_reported_as_the_cause(tmp_path: Path) -> None:
    # torchrun sends SIGTERM to the ranks that are left when one dies.
    [ended] = run("lose", "work", "SIGKILL", "1", str(tmp_path / "note"), torchrun=True)
    assert "selftrain: Interrupted: rank 1 died" in ended.output
    assert "stopped by SIGTERM" not in ended.output


def test_a_rank_that_dies_at_its_start_takes_the_others_with_it() -> None:
    [ended] = run("start_and_die", torchrun=True)
    assert ended.code != 0
    assert "stopped by SIGTERM while waiting for rank 1 to start" in ended.output


@pytest.mark.slow
def test_without_a_launcher_a_rank_that_never_comes_is_missed() -> None:
    first, second = run("start_and_die")
    assert second.code == -9
    assert first.code == 75
    assert "the processes have not found each other" in first.output


@pytest.mark.slow
def test_ranks_that_go_different_ways_say_so() -> None:
    ended = run("part", "ways")
    assert [one.code for one in ended] == [70, 70]
    for one in ended:
        assert "rank 1 is at 'train round 1', rank 0 at 'select round 1'" in one.output


@pytest.mark.slow
def test_a_wait_for_a_live_rank_is_bounded_and_says_what_it_does() -> None:
    ended = run("part", "patience", WAIT="10")
    assert ended[1].code == 70
    assert "rank 0, which is at 'a long nap', has not come to 'the meeting' within 10 s" in ended[1].output
    assert "ranks.wait_seconds" in ended[1].output


@pytest.mark.parametrize("number", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGUSR1"])
def test_a_stop_asked_of_one_rank_reaches_all(number: str) -> None:
    ended = run("be_asked", number)
    assert [one.code for one in ended] == [75, 75]
    for one in ended:
        assert f"stopped by {number}" in one.output
        assert "run the same command again to go on" in one.output


@pytest.mark.slow
def test_ranks_that_are_all_paused_go_on_when_they_are_woken() -> None:
    # As a suspended machine or job is: nobody is dead, though every sign is old.
    with Launched("rank_program.py", "go_on", "6") as launched:
        for process in launched.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "BEGUN\n"
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in launched.processes:
                process.send_signal(number)
            time.sleep(8 if number == signal.SIGSTOP else 0)
        ended = launched.finish()
    assert [one.code for one in ended] == [0, 0], ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "message"),
    [("SIGTERM", "stopped by SIGTERM; everything finished is saved"), ("SIGKILL", "the launcher, which keeps")],
)
def test_ranks_leave_when_their_launcher_is_told_to_or_dies(number: str, message: str) -> None:
    with Launched("rank_program.py", "go_on", "60", torchrun=True) as launched:
        [launcher] = launched.processes
        assert launcher.stdout is not None
        assert [launcher.stdout.readline() for _ in range(2)] == ["BEGUN\n"] * 2
        began = time.monotonic()
        launcher.send_signal(signal.Signals[number])
        output = launcher.stdout.read()  # until the ranks, which hold the other ends, have left
    assert time.monotonic() - began < 30
    told = [line for line in output.splitlines() if line.startswith("selftrain: ")]
    assert len(told) == 2, output
    assert all(line.startswith("selftrain: Interrupted: ") and message in line for line in told), told


def test_ranks_without_a_meeting_point_are_told_how_to_start() -> None:
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    environment.pop("MASTER_ADDR", None)
    command = [sys.executable, str(Path(__file__).parent / "rank_program.py"), "decide"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "MASTER_ADDR" in done.stderr
    assert "start them with torchrun or accelerate launch" in done.stderr
