"""What most sandboxes and judges of model-written code get wrong, one test each."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_house import IS_ROOT, become, finished, results_or_skip, started
from attack_world import descendants
from conftest import chosen_or_skip
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.records import Score
from selftrain.scoring import build
from selftrain.scoring.sandbox import Chosen, Ended, Limits
from selftrain.scoring.sandbox.choosing import unsafe
from selftrain.scoring.sandbox.pool import Sandbox

DRIVER = Path(__file__).with_name("doing.py")
SCRATCH = 8 << 20
LIMITS = Limits(cpu_seconds=2.0, wall_seconds=6.0, memory_bytes=256 << 20, output_bytes=1 << 20, scratch_bytes=SCRATCH)
SECRET = "a-secret-of-the-trainer"
TRY = """
def tried(work):
    try:
        return repr(work())
    except (OSError, RuntimeError, MemoryError) as error:
        return type(error).__name__
"""


def told(chosen: Chosen, code: str, limits: Limits = LIMITS, **options: Any) -> tuple[Any, Ended]:
    """The first message of that code, run in a sandbox of its own, and how it ended."""
    with Sandbox(chosen, limits, driver=DRIVER, **options) as sandbox:
        message, (ended,) = sandbox.attempt([{"code": TRY + code}], lambda running: running[0].receive())
        return message, ended


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file of the trainer's that everybody may write."""
    kept = tmp_path / "checkpoint"
    kept.write_text("weights")
    kept.chmod(0o666)
    before = kept.lstat()
    yield kept
    after = kept.lstat()
    assert kept.read_text() == "weights"
    for what in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns", "st_nlink"):
        assert getattr(before, what) == getattr(after, what), what


def test_1_the_environment_of_bubblewrap_itself_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    # --clearenv clears the environment of the program inside; bwrap's own process keeps what it was started with.
    bubblewrap = chosen_or_skip("bubblewrap")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    code = """
import os, glob
seen = [dict(os.environ)]
for name in glob.glob('/proc/*/environ') + ['/proc/1/environ', '/proc/self/environ']:
    seen.append(tried(lambda: open(name, 'rb').read()))
channel.send(repr(seen))
"""
    before = descendants(os.getpid())
    with Sandbox(bubblewrap, LIMITS, driver=DRIVER) as sandbox:
        seen, _ = sandbox.attempt([{"code": TRY + code}], lambda running: running[0].receive())
        environments = {}
        for one in descendants(os.getpid()).keys() - before.keys():
            with contextlib.suppress(PermissionError):
                environments[one] = Path(f"/proc/{one}/environ").read_bytes()
    assert "PYTHONHASHSEED" in seen
    assert SECRET not in seen
    assert environments, "no process of the sandbox could be looked at from outside"
    assert not any(SECRET.encode() in one for one in environments.values())


def test_2_every_place_that_can_be_written_has_a_size() -> None:
    # `--size` holds for one --tmpfs alone; bwrap's own / and /dev are as large as the machine's memory.
    code = """
import os, sys
writable = []
places = '/ /dev /dev/shm /run /var/tmp /home /root /usr /etc /sandbox /tmp'.split()
for folder in (*places, sys.prefix):
    name = os.path.join(folder, 'a-new-file')
    try:
        with open(name, 'w') as file:
            file.write('x')
        os.unlink(name)
        writable.append(folder)
    except OSError:
        pass
taken = 0
try:
    for number in range(64):
        with open(f'{writable[0]}/{number}', 'wb', buffering=0) as file:
            taken += file.write(b'x' * (1 << 20))
except OSError:
    pass
channel.send([writable, taken])
"""
    before = descendants(os.getpid())
    with Sandbox(chosen_or_skip("bubblewrap"), LIMITS, driver=DRIVER) as sandbox:
        found, (ended,) = sandbox.attempt([{"code": TRY + code}], lambda running: running[0].receive())
        mounts = set()
        for one in descendants(os.getpid()).keys() - before.keys():
            with contextlib.suppress(OSError):
                mounts |= set(Path(f"/proc/{one}/mountinfo").read_text().splitlines())
    assert found is not None, ended
    writable, taken = found
    assert writable == ["/tmp"]
    assert SCRATCH // 2 < taken <= SCRATCH
    # From outside, where Landlock hides nothing of how it is mounted: what is not read-only is that folder or a device.
    here = {line.split(" - ")[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    inside = [line.split() for line in mounts if line.split(" - ")[0] not in here and "/newroot" not in line]
    open_ones = {fields[4] for fields in inside if "rw" in fields[5].split(",")}
    assert "/tmp" in open_ones or not IS_ROOT
    assert all(place == "/tmp" or not Path(place).is_dir() for place in open_ones), open_ones


def test_3_the_threads_of_the_trainer_do_not_count_against_the_candidate() -> None:
    # RLIMIT_NPROC counts the processes of a user on the whole machine, and a trainer has hundreds of threads. As root
    # it does not hold at all, so it is an ordinary user that matters here.
    for tier in ("bubblewrap", "landlock"):
        script = f"""
import sys, threading
from pathlib import Path
from selftrain.scoring.sandbox import Limits
from selftrain.scoring.sandbox.choosing import choose
from selftrain.scoring.sandbox.pool import Sandbox
ends = threading.Event()
others = [threading.Thread(target=ends.wait, daemon=True) for _ in range(400)]
for one in others: one.start()
code = '''
import threading
ends = threading.Event()
mine = [threading.Thread(target=ends.wait) for _ in range(8)]
for one in mine: one.start()
channel.send(len(mine))
ends.set()
'''
limits = Limits(5.0, 20.0, 512 << 20)
with Sandbox(choose({tier!r}), limits, driver=Path({str(DRIVER.name)!r})) as sandbox:
    print(sandbox.attempt([{{'code': code}}], lambda running: running[0].receive()))
ends.set()
"""
        running = started("ordinary", "plain", script=script)
        chosen_or_skip(tier)
        assert running is not None
        said, _ = running.communicate(timeout=60)
        assert said.startswith("(8, (Ended(how='finished'"), said


def test_4_memory_is_bounded_over_all_that_a_candidate_starts(confined: Chosen) -> None:
    # RLIMIT_AS is of each process: several of them would take their multiple.
    code = """
import os
def child():
    held = bytearray(b'x') * (100 << 20)
    os._exit(0)
children = [tried(lambda: os.fork() or child()) for _ in range(8)]
blocks = []
try:
    while True:
        blocks.append(bytearray(b'x') * (8 << 20))
except MemoryError:
    taken = len(blocks) * 8
    blocks.clear()
channel.send([children, taken])
"""
    (children, taken), ended = told(confined, code)
    assert children == ["PermissionError"] * 8
    assert 50 < taken <= 256
    assert ended.peak_bytes <= 256 << 20


def test_5_what_landlock_does_not_govern_is_refused(outside: Path) -> None:
    link = outside.with_name("latest")
    link.symlink_to(outside)
    code = f"""
import os
path = {str(outside)!r}
channel.send([
    tried(lambda: os.chmod(path, 0o777)),
    tried(lambda: os.chown(path, -1, os.getgid())),
    tried(lambda: os.utime(path, (1, 1))),
    tried(lambda: os.setxattr(path, 'user.mine', b'1')),
    tried(lambda: os.truncate(path, 1)),
    tried(lambda: os.readlink({str(link)!r})),
])
"""
    refusals, _ = told(chosen_or_skip("landlock"), code)
    assert refusals == ["PermissionError"] * 6


def test_6_no_socket_of_any_kind_is_to_be_had_and_asyncio_works(confined: Chosen) -> None:
    # Landlock governs TCP, and neither UDP nor multipath TCP nor Unix sockets.
    code = """
import asyncio, socket
kinds = [(2, 1, 0), (2, 2, 0), (2, 1, 262), (2, 1, 132), (10, 1, 0), (10, 2, 0), (1, 1, 0), (1, 2, 0), (16, 3, 0),
         (17, 3, 0), (2, 3, 1), (40, 1, 0), (38, 5, 0)]
async def both():
    return await asyncio.gather(asyncio.sleep(0.01, 'a'), asyncio.to_thread(str, 7))
channel.send([[tried(lambda: socket.socket(*kind)) for kind in kinds], asyncio.run(both())])
"""
    (sockets, results), _ = told(confined, code)
    assert sockets == ["PermissionError"] * 13
    assert results == ["a", "7"]


def test_7_there_is_no_memory_that_is_a_file(confined: Chosen) -> None:
    # What is in a memfd counts neither as address space nor as disk.
    code = "import os\nchannel.send(tried(lambda: os.write(os.memfd_create('mine'), b'x' * (1 << 20))))"
    refusal, _ = told(confined, code)
    assert refusal in ("PermissionError", "OSError")


@pytest.mark.parametrize("tier", ["bubblewrap", "landlock", "none"])
def test_8_a_daemon_in_a_session_of_its_own_ends_with_the_candidate(tier: str, tmp_path: Path) -> None:
    # Killing the process group misses it.
    chosen = unsafe() if tier == "none" else chosen_or_skip(tier)
    code = """
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            time.sleep(30)
        os._exit(0)
    time.sleep(0.2)
except PermissionError:
    pass
channel.send('left it')
"""
    before = descendants(os.getpid())
    with Sandbox(chosen, LIMITS, driver=DRIVER) as sandbox:
        sandbox.attempt([{"code": "channel.send(1)"}], lambda running: running[0].receive())
        workers = descendants(os.getpid()).keys() - before.keys()
        said, _ = sandbox.attempt([{"code": code}], lambda running: running[0].receive())
        assert said == "left it"
        assert descendants(os.getpid()).keys() - before.keys() == workers
    assert descendants(os.getpid()).keys() <= before.keys()


def scored(chosen: Chosen, code: str) -> tuple[Score, float]:
    """How the scorer `code` judges it as an answer whose tests expect `answer(1) == 42`, and the seconds it took."""
    limits = {"cpu_seconds": 0.5, "wall_seconds": 1.0, "memory_mb": 256, "output_kb": 64, "scratch_mb": 4}
    config = ScoreConfig.model_validate({"scorers": [{"name": "code"}], "sandbox": limits, "workers": 1})
    with build(config, Path(), sandbox=chosen) as scorer:
        begun = time.monotonic()
        score = scorer.score(make_group([f"```python\n{code}\n```"], tests=["assert answer(1) == 42"]))[0]
        return score, time.monotonic() - begun


def test_9_bytes_on_the_pipe_do_not_hang_the_judge(confined: Chosen) -> None:
    # A time-out of a queue does not cover a message of which only a part has come.
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(3, 64):
    try:
        os.write(number, b'\\0\\0\\0\\x10{"half')
    except OSError:
        pass
time.sleep(20)
"""
    score, seconds = scored(confined, code)
    assert score.value == 0
    assert seconds < 10


def test_10_a_candidate_that_ignores_signals_ends_in_time(confined: Chosen) -> None:
    code = """
import signal, time
for one in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(one, signal.SIG_IGN)
def answer(x):
    while True:
        pass
"""
    score, seconds = scored(confined, code)
    assert score.value == 0
    assert "timeout" in str(score)
    assert seconds < 10


@pytest.mark.parametrize(
    "code",
    [
        "def answer(x):\n    raise ValueError('PASS')",
        "print('PASS', flush=True)\nraise AssertionError('pass: 1 tests passed')",
        "class PASS(Exception): pass\ndef answer(x):\n    raise PASS  # PASS",
        "def answer(x):\n    print('PASS')\n    return 'PASS'",
    ],
)
def test_11_the_word_pass_in_output_or_traceback_is_no_verdict(anywhere: Chosen, code: str) -> None:
    assert scored(anywhere, code)[0].value == 0


@pytest.fixture
def of_root() -> Iterator[Path]:
    """A folder that nobody else may enter, where such interpreters are."""
    with tempfile.TemporaryDirectory(prefix=".selftrain-", dir=Path.home()) as name:
        yield Path(name)


@pytest.mark.skipif(not IS_ROOT, reason="only root has folders that others cannot enter, and may drop its user")
@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_12_an_interpreter_that_only_root_can_reach_works_and_root_stays_root(tier: str, of_root: Path) -> None:
    # Whoever drops the user first cannot execute it any more; user 0 is kept, without its capabilities.
    real = Path(os.path.realpath(sys.executable))
    program = of_root / "bin" / real.name
    program.parent.mkdir()
    shutil.copy2(real, program)
    (of_root / "lib").symlink_to(real.parent.parent / "lib")
    assert subprocess.run((*become("ordinary"), str(program), "-V"), capture_output=True, check=False).returncode != 0
    found = finished(started("root", tier, only=("open_the_file", "overwrite_the_file"), python=str(program)))
    results = results_or_skip(found)
    assert [one["succeeded"] for one in results.values()] == [False, False], results
    code = "import os\nchannel.send([os.getuid(), tried(lambda: os.setuid(1)), tried(lambda: os.chroot('/'))])"
    (user, change, root), _ = told(chosen_or_skip(tier), code)
    assert (user, change, root) == (0, "PermissionError", "PermissionError")


def test_13_numpy_works_within_half_a_gibibyte(confined: Chosen) -> None:
    # OpenBLAS reserves address space for each core at import, which an address space limit counts.
    code = """
import os, numpy
square = numpy.arange(40_000.0).reshape(200, 200)
channel.send([os.environ['OPENBLAS_NUM_THREADS'], os.environ['OMP_NUM_THREADS'], float((square @ square)[0, 0]),
              float(numpy.linalg.det(numpy.eye(50)))])
"""
    limits = Limits(cpu_seconds=10.0, wall_seconds=30.0, memory_bytes=512 << 20)
    said, ended = told(confined, code, limits, modules=("numpy",))
    assert said == ["1", "1", float(sum(200 * k * k for k in range(200))), 1.0], ended
