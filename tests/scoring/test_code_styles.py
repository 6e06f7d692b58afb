"""The ways in which honest people and models write solutions are all right, and wrong ones of the same kind are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chosen_sandbox import chosen
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    with build(ScoreConfig.model_validate({"scorers": ["code"], "workers": 2}), Path(), {}, chosen()) as built:
        yield built


def judged(scorer: CombinedScorer, text: str, tests: Any, **metadata: Any) -> tuple[float | None, str]:
    (score,) = scorer.score(make_group([text], reference=None, tests=tests, **metadata))
    return score.value, str(score.explanation)


DEEP = "import sys\nsys.setrecursionlimit(10**6)\n{more}\ndef deep(n):\n    return 0 if n == 0 else 1 + deep(n - 1)\n"
IN_THREAD = (
    "import threading\nthreading.stack_size(1 << {size})\n"
    "thread = threading.Thread(target=lambda: print(deep(int(input()))))\nthread.start()\nthread.join()\n"
)
PROGRAMS = {
    "exit": "print(int(input()))\nexit()",
    "quit": "print(int(input()))\nquit(0)",
    "sys.exit": "import sys\nprint(int(input()))\nsys.exit()",
    "deep recursion": DEEP.format(more="") + "print(deep(int(input())))",
    "deep recursion through a cache": DEEP.format(more="from functools import cache\n@cache")
    + "print(deep(int(input())))",
    "more stack asked of the system": DEEP.format(more="")
    + "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)\n"
    + "print(deep(int(input())))",
    **{
        f"a thread of {1 << size - 20} MiB": DEEP.format(more="") + IN_THREAD.format(size=size) for size in (26, 27, 29)
    },
    "a thread that is not waited for": "import threading, time\n"
    "def run():\n    time.sleep(0.05)\n    print(input())\nthreading.Thread(target=run).start()",
    "written at the end": "import atexit, io, os, sys\nsys.stdout = io.StringIO()\n"
    "atexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))\nprint(input())",
    "fileinput": "import fileinput\nprint(*[int(line) for line in fileinput.input()])",
    "bytes": "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.readline())",
    "until the end of input": "while True:\n    try:\n        print(input())\n    except EOFError:\n        break",
    "a main": "def main():\n    print(input())\nif __name__ == '__main__':\n    main()",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_right_however_it_reads_prints_and_ends(scorer: CombinedScorer, name: str) -> None:
    source = f"```python\n{PROGRAMS[name]}\n```"
    value, why = judged(scorer, source, [{"input": "50000\n", "output": "50000"}])
    assert value == 1.0, why
    assert judged(scorer, source, [{"input": "50000\n", "output": "50001"}])[0] == 0.0


def test_a_program_that_breaks_at_its_very_end_still_printed_what_it_printed(scorer: CombinedScorer) -> None:
    source = "import sys\nprint(input())\nsys.stdout.flush()\nsys.stdout = None"
    assert judged(scorer, source, [{"input": "a", "output": "a"}])[0] == 1.0
    threads = "import threading\nthreading.Thread(target=lambda: print(input())).start()\nraise SystemExit(3)"
    assert judged(scorer, threads, [{"input": "a", "output": "a"}])[0] == 0.0


def test_numbers_of_many_digits_are_printed(scorer: CombinedScorer) -> None:
    tests = [{"input": "5000", "output": "1" + "0" * 5000}]
    assert judged(scorer, "print(10 ** int(input()))", tests)[0] == 1.0


RIGHT = "def f(n):\n    return 2 * n\n"
TEXTS = {
    "an example after it": f"```python\n{RIGHT}```\nUse it:\n```python\nprint(f(3))\n```",
    "cut before its block was closed": f"Here:\n```python\n{RIGHT}",
    "in a block that the prompt opened": f"{RIGHT}```\nIt doubles.",
    "in a list": "1. Code:\n   ```python\n   def f(n):\n       return 2 * n\n   ```",
    "of Windows": f"```python\n{RIGHT}```\n".replace("\n", "\r\n"),
    "tabs": "def f(n):\n\treturn 2 * n",
    "a method": f"```python\nclass Solution:\n    def f(self, n):\n        return 2 * n\n```\n```python\n{'f(1)'}\n```",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_solution_is_found_in_its_text(scorer: CombinedScorer, name: str) -> None:
    value, why = judged(scorer, TEXTS[name], ["assert f(3) == 6"])
    assert value == 1.0, why
    assert judged(scorer, TEXTS[name], ["assert f(3) == 7"])[0] == 0.0


def test_the_last_of_several_solutions_counts(scorer: CombinedScorer) -> None:
    wrong = RIGHT.replace("2", "3")
    for first, last, value in ((RIGHT, wrong, 0.0), (wrong, RIGHT, 1.0)):
        text = f"```python\n{first}```\nor\n```python\n{last}```\nso\n```python\nf(1)\n```"
        assert judged(scorer, text, ["assert f(3) == 6"])[0] == value


def test_stubs_of_contests_find_what_they_use_imported(scorer: CombinedScorer) -> None:
    source = "class Solution:\n    def f(self, a: List[int]) -> Optional[int]:\n        "
    source += "return Counter(a)[heapq.nlargest(1, a)[0]]"
    tests = {"inputs": [[[3, 1, 3]]], "outputs": [[2]], "fn_name": "f"}
    assert judged(scorer, source, tests)[0] == 1.0
    lines = [{"input": "[3, 1, 3]", "output": "2", "testtype": "functional"}]
    assert judged(scorer, source, lines, entry_point="f")[0] == 1.0
    assert judged(scorer, source.replace("1, a", "2, a"), lines, entry_point="f")[0] == 1.0
    assert judged(scorer, source.replace("Counter(a)", "Counter()"), lines, entry_point="f")[0] == 0.0


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("raise ValueError('no')", 1.0),
        ("raise Own", 1.0),
        ("raise UnicodeError", 1.0),
        ("raise KeyError", 0.0),
        ("return None", 0.0),
    ],
)
def test_a_test_may_say_that_an_error_is_raised(scorer: CombinedScorer, body: str, value: float) -> None:
    source = f"class Own(ValueError):\n    pass\ndef f(n):\n    {body}\n"
    tests = ["try:\n    f(-1)\n    assert False, 'not reached'\nexcept ValueError:\n    pass"]
    found, why = judged(scorer, source, tests, entry_point="f")
    assert found == value, why
    caught = ["try:\n    f(-1)\nexcept ValueError:\n    pass"]  # nothing is asserted by it
    assert judged(scorer, source, [*caught, "assert f(1) == 1"], entry_point="f")[0] == 0.0
