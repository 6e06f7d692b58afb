"""The pool of workers: what comes of a candidate's process, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import chosen_or_skip

from selftrain.errors import DependencyError
from selftrain.scoring.sandbox import Chosen, Ended, Limits, Stopped, pool
from selftrain.scoring.sandbox.pool import Process, Sandbox

DRIVER = Path(__file__).with_name("doing.py")
LIMITS = Limits(cpu_seconds=0.6, wall_seconds=5.0, memory_bytes=512 << 20, output_bytes=100_000, scratch_bytes=4 << 20)


@pytest.fixture(params=["bubblewrap", "landlock"], scope="module")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(chosen_or_skip(request.param), LIMITS, driver=DRIVER, workers=2) as opened:
        yield opened


def short(chosen: Chosen, **changed: Any) -> Sandbox:
    """One worker of its own, with little wall time."""
    limits = Limits(**{"cpu_seconds": 0.6, "wall_seconds": 0.7, "output_bytes": 100_000, **changed})
    return Sandbox(chosen, limits, driver=DRIVER)


def run(sandbox: Sandbox, code: str, converse: Callable[[Sequence[Process]], Any] | None = None) -> tuple[Any, Ended]:
    result, (ended,) = sandbox.attempt([{"code": code}], converse or (lambda one: one[0].receive()))
    return result, ended


def still_works(sandbox: Sandbox) -> bool:
    result, ended = run(sandbox, "print('fine')")
    return bool(result == "done" and ended.how == "finished" and ended.output == b"fine\n")


def test_what_a_process_sends_prints_and_uses_up_is_told(sandbox: Sandbox) -> None:
    code = "import sys\nchannel.send([1, 'two', None, 2.5])\nprint('out')\nprint('err', file=sys.stderr)"
    result, ended = run(sandbox, code)
    assert result == [1, "two", None, 2.5]
    assert (ended.how, ended.output, ended.exit_code) == ("finished", b"out\n", 0)
    assert ended.detail == "err\n"
    assert 0 < ended.cpu_seconds <= 0.6
    assert ended.wall_seconds > 0
    assert 1 << 20 < ended.peak_bytes < 512 << 20


def test_a_conversation_goes_both_ways_until_the_trainer_sends_no_more(sandbox: Sandbox) -> None:
    code = "try:\n while True: channel.send(channel.receive() * 2)\nexcept EOFError: print('over')"

    def converse(running: Sequence[Process]) -> list[Any]:
        answers = []
        for value in (1, "ab", [None], "x" * 40_000):
            running[0].send(value)
            answers.append(running[0].receive())
        return answers

    result, ended = run(sandbox, code, converse)
    assert result == [2, "abab", [None, None], "x" * 80_000]
    assert (ended.how, ended.output) == ("finished", b"over\n")


def test_a_payload_larger_than_any_pipe_arrives(sandbox: Sandbox) -> None:
    code = "#" + "x" * 3_000_000 + "\nchannel.send(len(payload['code']))"
    assert run(sandbox, code)[0] == len(code)


def test_processes_of_one_attempt_run_at_once_in_workers_of_their_own(sandbox: Sandbox) -> None:
    code = "import os\nchannel.send(channel.receive())"

    def converse(running: Sequence[Process]) -> list[Any]:
        for number, one in enumerate(running):
            one.send(number)
        return [one.receive() for one in reversed(running)]

    result, endings = sandbox.attempt([{"code": code}] * 3, converse)  # more than the pool began with
    assert result == [2, 1, 0]
    assert [one.how for one in endings] == ["finished"] * 3


@pytest.mark.parametrize(
    ("code", "how", "words"),
    [
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", "timeout", "processor"),
        (
            "from threading import Thread\ndef spin():\n while True: pass\n"
            "for _ in range(4): Thread(target=spin).start()\nspin()",
            "timeout",
            "processor",
        ),
        ("x = bytearray(600 << 20)", "oom", "memory"),
        ("x = []\nwhile True: x.append(bytes(1 << 20))", "oom", "memory"),
        ("while True: print('x' * 1000)", "output_limit", "printed"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output_limit", "printed"),
        ("import os\nwhile True: os.write(1, b'x' * 60000); os.write(2, b'y')", "output_limit", "printed"),
        ("channel.send('x' * 200_000)", "output_limit", "message"),
        ("import os\nos.write(4, b'\\xff' * 8)", "output_limit", "message"),
        ("import os\nos.write(4, b'\\0\\0\\0\\x03{x}')", "crashed", "no message"),
        ("import os\nos.write(4, b'\\0\\0\\0\\x02\\xff\\xff')", "crashed", "no message"),
        ("import os, struct\nd = b'[' * 90000\nos.write(4, struct.pack('>I', len(d)) + d)", "crashed", "no message"),
        ("import os, struct\nd = b'9' * 90000\nos.write(4, struct.pack('>I', len(d)) + d)", "crashed", "no message"),
        ("import os\nos.write(4, b'\\0\\0\\0\\x09[1')\nos._exit(0)", "crashed", "middle"),
        ("import os\nos.abort()", "crashed", "SIGABRT"),
        ("import ctypes\nctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)", "crashed", "SIGUSR1"),
    ],
)
def test_what_a_process_does_wrong_has_a_name(sandbox: Sandbox, code: str, how: str, words: str) -> None:
    result, ended = run(sandbox, code)
    assert result is None or result == "done"
    assert (ended.how, words in ended.detail) == (how, True), ended
    assert len(ended.output) <= LIMITS.output_bytes
    assert still_works(sandbox)


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("import os\nos._exit(7)", 7, ""),
        ("raise ValueError('of mine')", 1, "ValueError: of mine"),
    ],
)
def test_ending_by_itself_is_finished_with_the_exit_code(
    sandbox: Sandbox, code: str, exit_code: int, words: str
) -> None:
    result, ended = run(sandbox, code)
    assert (result, ended.how, ended.exit_code) == (None, "finished", exit_code)
    assert words in ended.detail


def test_closing_every_descriptor_stops_the_conversation_not_the_judge(sandbox: Sandbox) -> None:
    result, ended = run(sandbox, "import os\nos.closerange(0, 256)\nos._exit(5)")
    assert (result, ended.how, ended.exit_code) == (None, "finished", 5)


def test_what_the_kernel_kills_cannot_be_imitated(sandbox: Sandbox) -> None:
    code = "import os\ntry: os.kill(os.getpid(), 9)\nexcept PermissionError: channel.send('no')"
    assert run(sandbox, code)[0] == "no"


SLEEPING = {
    "sleeps": "import time\ntime.sleep(60)",
    "waits for itself": "import threading\nthreading.Event().wait()",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "sleeps in threads": "import time\nfrom threading import Thread\n"
    "for _ in range(9): Thread(target=time.sleep, args=[60]).start()\ntime.sleep(60)",
    "hears nothing": "while True: channel.receive()",
}


@pytest.mark.parametrize("what", SLEEPING)
def test_a_process_that_sleeps_is_a_timeout_at_once(confined: Chosen, what: str) -> None:
    conversations = []

    def converse(running: Sequence[Process]) -> Any:
        conversations.append(time.monotonic())
        return running[0].receive()

    with short(confined, cpu_seconds=5.0) as sandbox:
        result, ended = run(sandbox, SLEEPING[what], converse)
        assert (result, ended.how, ended.starved, len(conversations)) == (None, "timeout", False, 1)
        assert "wall" in ended.detail
        both = [{"code": SLEEPING[what]}, {"code": "channel.receive()"}]
        assert [one.starved for one in sandbox.attempt(both, converse)[1]] == [False, False]


def test_a_process_that_had_too_little_of_the_machine_is_tried_once_more_alone(confined: Chosen) -> None:
    conversations = []

    def converse(running: Sequence[Process]) -> Any:
        conversations.append(time.monotonic())
        return running[0].receive()

    with short(confined, cpu_seconds=5.0) as sandbox:
        result, ended = run(sandbox, "while True: pass", converse)
        assert (result, ended.how, ended.starved, len(conversations)) == (None, "timeout", True, 2)


def test_the_second_try_alone_can_be_right(anywhere: Chosen) -> None:
    spins = iter([True, False])
    with short(anywhere, cpu_seconds=5.0) as sandbox:
        result, ended = run(
            sandbox,
            "spin = channel.receive()\nwhile spin: pass",
            lambda one: (one[0].send(next(spins)), one[0].receive())[1],
        )
        assert (result, ended.how) == ("done", "finished")


def test_a_process_that_waits_for_a_slow_trainer_is_tried_once_more(anywhere: Chosen) -> None:
    pauses = iter([0.8, 0.0])

    def converse(running: Sequence[Process]) -> Any:
        running[0].receive()
        time.sleep(next(pauses))
        running[0].send(2)
        return running[0].receive()

    with short(anywhere, cpu_seconds=5.0) as sandbox:
        result, ended = run(sandbox, "channel.send(1)\nchannel.send(channel.receive())", converse)
        assert (result, ended.how) == (2, "finished")


def test_what_ended_in_time_is_no_timeout_however_late_the_trainer_looks(anywhere: Chosen) -> None:
    with short(anywhere, cpu_seconds=5.0) as sandbox:
        _, ended = run(sandbox, "print('in time')", lambda running: (running[0].receive(), time.sleep(1)))
        assert (ended.how, ended.output) == ("finished", b"in time\n")


@pytest.mark.parametrize(
    "code",
    [
        "import os, time\nos.write(4, b'\\0\\0')\ntime.sleep(60)",
        "import os, time\nos.write(4, b'\\0\\0\\0\\x09[1')\ntime.sleep(60)",
        "import os, time\nfor n in (1, 2, 3, 4): os.close(n)\ntime.sleep(60)",
        "import time\nfrom threading import Thread\nfor _ in range(3): Thread(target=time.sleep, args=[60]).start()\n"
        "channel.receive(); channel.receive()",
    ],
)
def test_half_messages_and_silence_cannot_hold_the_trainer(anywhere: Chosen, code: str) -> None:
    with short(anywhere, wall_seconds=0.4) as sandbox:
        begun = time.monotonic()
        result, ended = run(sandbox, code)
        assert result is None
        assert ended.how in ("timeout", "finished")
        assert time.monotonic() - begun < 6


def test_a_process_that_reads_nothing_cannot_hold_a_sender(anywhere: Chosen) -> None:
    with short(anywhere, wall_seconds=0.4) as sandbox:
        sent = run(sandbox, "import time\ntime.sleep(60)", lambda one: one[0].send("x" * 10_000_000))
        assert (sent[0], sent[1].how) == (None, "timeout")


def test_numbers_of_no_end_do_not_reach_the_trainer_even_where_it_lifted_pythons_limit(sandbox: Sandbox) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        code = "import os, struct\nd = b'-' + b'9' * 5000\nos.write(4, struct.pack('>I', len(d)) + d)"
        assert run(sandbox, code)[1].how == "crashed"
        assert run(sandbox, "channel.send(-10**4000)")[0] == -(10**4000)
    finally:
        sys.set_int_max_str_digits(before)


LEFT_BEHIND = {
    "files": "open('a', 'w').write('x'); open('.b\\n', 'w')",
    "a deep tree": "import os\nfor n in range(1200): os.mkdir('d'); os.chdir('d')\nopen('f', 'w')",
    "closed folders": (
        "import os\nos.umask(0)\nfor n in range(3): os.mkdir(f'd{n}', 0o000); os.mkdir(f'e{n}'); os.mkdir(f'e{n}/f', 0)"
    ),
    "links": "import os\nos.symlink('/', 'root'); os.symlink('..', 'up'); open('f', 'w'); os.link('f', 'g')",
    "long names": "import os\nfor n in range(14): os.mkdir('x' * 250); os.chdir('x' * 250)",
    "odd bytes": "open(b'\\xff\\xfe', 'w'); open(b'-rf *', 'w')",
}


@pytest.mark.parametrize("what", list(LEFT_BEHIND))
def test_nothing_that_a_process_leaves_meets_the_next_one(confined: Chosen, what: str) -> None:
    with Sandbox(confined, Limits(scratch_bytes=256 << 20), driver=DRIVER) as sandbox:
        result, ended = run(sandbox, LEFT_BEHIND[what])
        assert (result, ended.how) == ("done", "finished"), ended
        assert run(sandbox, "import os\nchannel.send(os.listdir('.'))")[0] == []


@pytest.mark.parametrize(
    "code",
    [
        "for n in range(100): open(f'f{n}', 'wb').write(b'x' * 200_000)",
        "n = 0\nwhile True: open(f'f{n}', 'w').close(); n += 1",
        "import os\nn = 0\nwhile True:\n f = os.open(f'f{n}', os.O_RDWR | os.O_CREAT); os.unlink(f'f{n}')\n"
        " os.write(f, b'x' * 200_000); n += 1",
        "import os\nwhile True:\n os.mkdir('x' * 250); os.chdir('x' * 250)\n open('f', 'wb').write(b'x' * 200_000)",
    ],
)
def test_files_are_limited_in_size_and_number(confined: Chosen, code: str) -> None:
    limits = Limits(cpu_seconds=4, scratch_bytes=4 << 20, output_bytes=100_000)
    with Sandbox(confined, limits, driver=DRIVER) as sandbox:
        _, ended = run(sandbox, code + "\nimport time\ntime.sleep(1)")
        full = ended.how == "finished" and "OSError" in ended.detail
        assert full or ended.how == "output_limit", ended
        assert still_works(sandbox)


def test_an_error_of_the_judge_passes_through_and_the_sandbox_goes_on(sandbox: Sandbox) -> None:
    with pytest.raises(ZeroDivisionError):
        run(sandbox, "import time\ntime.sleep(60)", lambda one: 1 // 0)
    assert still_works(sandbox)


def test_several_threads_take_several_workers_without_deadlock(anywhere: Chosen) -> None:
    with Sandbox(anywhere, Limits(), driver=DRIVER, workers=3) as sandbox, ThreadPoolExecutor(6) as threads:

        def one(number: int) -> bool:
            count = number % 3 + 1
            result, endings = sandbox.attempt(
                [{"code": f"channel.send([{number}, {at}])"} for at in range(count)],
                lambda running: [each.receive() for each in running],
            )
            return result == [[number, at] for at in range(count)] and {each.how for each in endings} == {"finished"}

        assert all(threads.map(one, range(60)))


def test_nothing_is_left_open_or_running(anywhere: Chosen) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    with Sandbox(anywhere, LIMITS, driver=DRIVER) as sandbox:
        run(sandbox, "")
        during = opened()
        for code in ("", "import os\nos.abort()", "channel.send('x' * 200_000)", "while True: print('x' * 1000)"):
            run(sandbox, code)
        assert opened() == during
        (worker,) = sandbox._idle
    assert opened() == before
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        run(sandbox, "")


def test_closing_ends_what_runs_in_another_thread(confined: Chosen) -> None:
    sandbox = Sandbox(confined, Limits(cpu_seconds=60, wall_seconds=60), driver=DRIVER)
    begun = threading.Event()

    def converse(running: Sequence[Process]) -> Any:
        begun.set()
        return running[0].receive()

    with ThreadPoolExecutor(1) as threads:
        attempt = threads.submit(run, sandbox, "while True: pass", converse)
        assert begun.wait(20)
        sandbox.close()
        with pytest.raises(RuntimeError, match="closed"):
            attempt.result(20)


def test_a_worker_that_dies_is_replaced_and_its_work_done_once_more(confined: Chosen) -> None:
    with Sandbox(confined, Limits(), driver=DRIVER) as sandbox:
        tries = []

        def converse(running: Sequence[Process]) -> Any:
            (worker,) = sandbox._held
            tries.append(worker.pid)
            if len(tries) == 1:
                os.kill(worker.pid, signal.SIGKILL)
            return running[0].receive()

        result, ended = run(sandbox, "", converse)
        assert (result, ended.how, len(set(tries))) == ("done", "finished", 2)


def test_a_sandbox_that_fails_twice_is_an_infra_error_and_no_verdict(confined: Chosen) -> None:
    with Sandbox(confined, Limits(), driver=DRIVER) as sandbox:

        def converse(running: Sequence[Process]) -> Any:
            for worker in list(sandbox._held):
                os.kill(worker.pid, signal.SIGKILL)
            return running[0].receive()

        result, ended = run(sandbox, "", converse)
        assert (result, ended.how) == (None, "infra_error")
        assert "died" in ended.detail
        assert still_works(sandbox)


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, anywhere: Chosen) -> None:
    broken = tmp_path / "driver.py"
    broken.write_text("raise RuntimeError('a driver of no use')\n")
    with Sandbox(anywhere, Limits(), driver=broken) as sandbox:
        result, ended = run(sandbox, "")
        assert (result, ended.how) == (None, "infra_error")
        assert "a driver of no use" in ended.detail


def test_workers_are_replaced_after_many_executions(anywhere: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "RECYCLE_AFTER", 3)
    with Sandbox(anywhere, Limits(), driver=DRIVER) as sandbox:
        pids = []

        def converse(running: Sequence[Process]) -> None:
            (worker,) = sandbox._held
            pids.append(worker.pid)

        for _ in range(7):
            run(sandbox, "", converse)
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


PROGRAM = """
import sys, time
from pathlib import Path
from selftrain.scoring.sandbox import Chosen, Limits
from selftrain.scoring.sandbox.pool import Sandbox

sandbox = Sandbox(Chosen(sys.argv[1]), Limits(cpu_seconds=60, wall_seconds=60), driver=Path(sys.argv[2]), workers=2)
sandbox.attempt([{"code": ""}] * 2, lambda running: None)
def converse(running):
    running[0].receive()
    print(*(worker.pid for worker in (*sandbox._held, *sandbox._idle)), flush=True)
    running[0].receive()
sandbox.attempt([{"code": "open('left', 'w')\\nchannel.send(1)\\nwhile True: pass"}], converse)
"""


def test_workers_do_not_outlive_a_trainer_that_was_killed(confined: Chosen, tmp_path: Path) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, confined.tier, str(DRIVER)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        descendants = [*pids, *(child for pid in pids for child in children_of(pid))]
        trainer.kill()
    assert len(pids) == 2
    assert len(descendants) > 2
    deadline = time.monotonic() + 10
    while (left := [pid for pid in descendants if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    assert list(tmp_path.iterdir()) == []


def children_of(pid: int) -> list[int]:
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in children_of(child)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_modules_asked_for_can_be_imported_and_no_others(confined: Chosen) -> None:
    code = (
        "import numpy\nfound = [float((numpy.ones((200, 200)) @ numpy.ones((200, 200)))[0, 0])]\n"
        "found.append(round(float(numpy.linalg.inv(numpy.array([[2.0]]))[0, 0]), 3))\n"
        "for name in ('torch', 'pytest', 'selftrain', 'yaml'):\n"
        "    try: __import__(name); found.append(name)\n    except ImportError: pass\n"
        "import colorsys, wave\nchannel.send(found)"
    )
    with Sandbox(confined, Limits(), driver=DRIVER, modules=["numpy"]) as sandbox:
        result, ended = run(sandbox, code)
        assert (result, ended.how) == ([200.0, 0.5], "finished"), ended


def test_without_asking_not_even_numpy_is_there(sandbox: Sandbox) -> None:
    code = "try: import numpy\nexcept ModuleNotFoundError as error: channel.send(str(error))"
    assert run(sandbox, code)[0] == "No module named 'numpy'"


def test_a_module_that_is_not_installed_is_named_before_anything_runs(anywhere: Chosen) -> None:
    with pytest.raises(DependencyError, match="no_such_package_at_all"):
        Sandbox(anywhere, Limits(), driver=DRIVER, modules=["no_such_package_at_all"])


def test_every_process_sees_the_same_plain_surroundings(sandbox: Sandbox) -> None:
    code = (
        "import os, time, sys, locale\n"
        "channel.send([hash('a'), time.tzname[0], sys.getfilesystemencoding(), os.getcwd() == os.environ['HOME'],"
        " sorted(os.environ), sys.path[0] != '', os.listdir('.')])"
    )
    first, second = (run(sandbox, code)[0] for _ in range(2))
    assert first == second
    assert first[1:4] == ["UTC", "utf-8", True]
    assert set(first[4]) <= {
        *("HOME", "LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PWD", "PYTHONHASHSEED", "TMPDIR", "TZ")
    }


def test_deep_recursion_and_threads_of_honest_programs_work(sandbox: Sandbox) -> None:
    code = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(128 << 20)\n"
        "def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\n"
        "thread = threading.Thread(target=lambda: channel.send(deep(20000)))\nthread.start()\nthread.join()"
    )
    assert run(sandbox, code)[0] == 20000


def test_asyncio_sqlite_and_subprocess_errors_are_plain_python(sandbox: Sandbox) -> None:
    code = (
        "import asyncio, sqlite3, subprocess, socket\n"
        "async def wait(): await asyncio.sleep(0.01); return 1\n"
        "found = [asyncio.run(wait()), sqlite3.connect('file.db').execute('select 2').fetchone()[0]]\n"
        "for attempt in (lambda: subprocess.run(['true']), lambda: socket.create_connection(('127.0.0.1', 9))):\n"
        "    try: attempt()\n    except OSError as error: found.append(type(error).__name__)\n"
        "channel.send(found)"
    )
    result, ended = run(sandbox, code)
    assert result == [1, 2, "PermissionError", "PermissionError"], ended


def test_stopped_is_what_a_judge_sees_of_an_end(sandbox: Sandbox) -> None:
    def converse(running: Sequence[Process]) -> str:
        assert running[0].receive() == 1
        with pytest.raises(Stopped):
            running[0].receive()
        with pytest.raises(Stopped):
            running[0].send("too late")
        return "seen"

    result, ended = run(sandbox, "import os\nchannel.send(1)\nos._exit(0)", converse)
    assert (result, ended.how) == ("seen", "finished")


THREADS = """
import threading, time
{size}
def wait(): time.sleep(10)
made = 0
try:
    while True:
        threading.Thread(target=wait, daemon=True).start()
        made += 1
except (RuntimeError, MemoryError):
    channel.send(made)
"""


RAW_THREADS = """
import ctypes, time
libc = ctypes.CDLL(None)
room = ctypes.create_string_buffer(1 << 22)
top, pause = ctypes.addressof(room) & ~15, ctypes.cast(libc.pause, ctypes.c_void_p)
made = 0
for at in range(1, 1001):
    made += libc.clone(pause, ctypes.c_void_p(top + 4096 * at), 0x50F00, None) > 0
assert made == 1000 or made <= 512, made
time.sleep(3)
"""


def test_threads_without_a_stack_of_their_own_are_few(sandbox: Sandbox) -> None:
    _, ended = run(sandbox, RAW_THREADS)
    assert (ended.how, ended.detail) == ("oom", "too many threads") or ended.how == "finished", ended
    beside = [{"code": RAW_THREADS}, {"code": "import time\ntime.sleep(1)"}]
    _, (ended, _) = sandbox.attempt(beside, lambda running: running[1].receive())  # nobody waits for the first
    assert (ended.how, ended.wall_seconds < 2) == ("oom", True) or ended.how == "finished", ended


def test_limits_cannot_be_made_to_look_like_a_failure_of_the_machine(sandbox: Sandbox) -> None:
    code = "import resource\nfor limit in (resource.RLIMIT_CPU, resource.RLIMIT_STACK): "
    code += "resource.setrlimit(limit, (0, 0)); resource.setrlimit(limit, (-1, -1))\n"
    code += "channel.send(resource.getrlimit(resource.RLIMIT_CPU)[0] > 1)\nwhile True: pass"
    result, ended = run(sandbox, code)
    assert (result, ended.how, ended.starved) == (True, "timeout", False)


HIDING = {
    "a name that breaks lines of /proc": (
        "import mmap, os, time\nf = os.open('a\\rb', os.O_RDWR | os.O_CREAT)\nos.ftruncate(f, 4096)\n"
        "m = mmap.mmap(f, 4096)\nos.close(f)\nos.unlink('a\\rb')\ntime.sleep(0.3)"
    ),
    "a thread with descriptors of its own": """
import ctypes, os, threading, time
libc = ctypes.CDLL(None)
def hold():
    libc.syscall(ctypes.c_long(436), ctypes.c_uint(1000), ctypes.c_uint(2000), ctypes.c_uint(2))
    for at in range(40):
        f = os.open(f'f{at}', os.O_RDWR | os.O_CREAT)
        os.unlink(f'f{at}')
        os.write(f, b'x' * 1_000_000)
    time.sleep(0.4)
thread = threading.Thread(target=hold)
thread.start()
thread.join()
""",
}


@pytest.mark.parametrize("what", HIDING)
def test_files_cannot_be_hidden_from_the_server_nor_trip_it(sandbox: Sandbox, what: str) -> None:
    result, ended = run(sandbox, HIDING[what])
    if what.startswith("a name"):
        assert (result, ended.how) == ("done", "finished"), ended
    else:
        assert ended.how == "output_limit" or "No space" in ended.detail, ended
    assert still_works(sandbox)


@pytest.mark.parametrize("size", ["", "threading.stack_size(32768)", "threading.stack_size(1 << 20)"])
def test_threads_are_few(sandbox: Sandbox, size: str) -> None:
    made, ended = run(sandbox, THREADS.format(size=size))
    assert ended.how in ("finished", "oom"), ended
    assert made is None or made <= 512
    assert still_works(sandbox)


def test_modules_that_are_installed_under_tmp_are_there_too(confined: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"brought_along_{confined.tier}"  # where a module is, is looked up once per process
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, f"{name}.py").write_text("ANSWER = 42\n")
        monkeypatch.syspath_prepend(folder)
        code = (
            f"import {name}, os, tempfile\n"
            "with tempfile.TemporaryFile() as file: file.write(b'written')\n"
            f"channel.send([{name}.ANSWER, os.getcwd() == os.environ['HOME']])"
        )
        with Sandbox(confined, Limits(), driver=DRIVER, modules=[name]) as sandbox:
            assert run(sandbox, code)[0] == [42, True]
            assert run(sandbox, code)[0] == [42, True]
