from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chosen_sandbox import chosen
from groups import make_candidate, make_group, make_prompt

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.records import Prompt, Score
from selftrain.scoring import SCORERS, Asked, build, check, logged_metrics, needs_sandbox
from selftrain.scoring.code.judge import CodeJudge
from selftrain.scoring.code.reading import MAX_CODE, code_of
from selftrain.scoring.code.trials import WORDS, Terms
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.sandbox import Ended

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"]
RIGHT = "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return int(a) + int(b)\n"
LIMITS = {"cpu_seconds": 0.6, "wall_seconds": 4.0, "memory_mb": 512, "output_kb": 256}


def config(**params: Any) -> ScoreConfig:
    scorer = {"name": "code", "params": params}
    return ScoreConfig.model_validate({"scorers": [scorer], "sandbox": LIMITS, "workers": 2})


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    with build(config(), Path(), {}, chosen()) as built:
        yield built


def scored(scorer: CombinedScorer, text: str, tests: Any = TESTS, **metadata: Any) -> Score:
    reference = metadata.pop("reference", None)
    return scorer.score(make_group([text], reference=reference, tests=tests, **metadata))[0]


def fenced(code: str) -> str:
    return f"Here it is:\n\n```python\n{code}\n```\nIt adds."


@pytest.mark.parametrize(
    ("code", "word", "told"),
    [
        (RIGHT, "pass", "3 tests passed"),
        (HALF, "fail", "test 3 of 3: add('a', 'b') raised ValueError: invalid literal"),
        ("def add(a, b):\n    return a\n", "fail", "test 1 of 3: add(1, 2) returned 1, and 3 was expected"),
        ("def add(a, b) return a", "fail", "cannot be loaded: it raised SyntaxError"),
        ("import nothing_of_that_name", "fail", "ModuleNotFoundError"),
        ("def plus(a, b):\n    return a + b\n", "fail", "the code has no function add"),
        ("def add(a, b):\n    while True: pass\n", "timeout", "add(1, 2)"),
        ("while True: pass\n", "timeout", "it was loaded"),
        ("def add(a, b):\n    return [0] * (1 << 34)\n", "oom", "MemoryError"),
        ("def add(a, b):\n    print('x' * (1 << 20))\n    return a + b\n", "output_limit", "printed"),
        ("def add(a, b):\n    return 'x' * (1 << 20)\n", "output_limit", "returned too much"),
        ("import os\nos._exit(0)\n", "fail", "its process ended while it was loaded, exit code 0"),
        ("import ctypes\nctypes.string_at(0)\n", "fail", "crashed"),
        ("class Solution:\n    def add(self, a, b):\n        return a + b\n", "pass", "3 tests passed"),
        (
            "import sys\nprint('\\x1b[31m')\ndef add(a, b): raise ValueError('\\x1b[31m\\u202e\\ud800')\n",
            "fail",
            "ValueError",
        ),
        (RIGHT + "if __name__ == '__main__':\n    add(1)\n", "pass", "3 tests passed"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    b: 'int'\n" + RIGHT, "pass", "3 tests passed"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_a_verdict_is_a_word_with_its_reason(scorer: CombinedScorer, code: str, word: str, told: str) -> None:
    score = scored(scorer, fenced(code))
    assert score.explanation is not None
    assert score.explanation.startswith(f"{word}: ")
    assert told in score.explanation
    assert score.explanation.isprintable()
    assert (score.value, score.error, score.answer) == (float(word == "pass"), None, code)
    rates = {f"score/code/{one}_rate": [float(one == word)] for one in WORDS}
    assert dict(score.extras) == rates


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no code"),
        ("```python\n\n```", "there is no code"),
        ("x = '\0'", "NUL"),
        ("x = '\ud800'", "surrogate"),
        ("x = 1\n" * (10**7 // 6), "characters"),
    ],
    ids=["empty", "empty block", "nul", "surrogate", "ten megabytes"],
)
def test_what_cannot_be_a_program_is_wrong_without_a_process(text: str, told: str) -> None:
    class NoSandbox:
        def attempt(self, payloads: Any, converse: Any) -> Any:
            raise AssertionError("a process was started")

    judge = CodeJudge(NoSandbox(), Terms(), NAMED, {})
    prompt = make_prompt(metadata={"tests": TESTS})
    (verdict,) = judge.judge(prompt, [Asked(make_candidate("p", 0, text), text)])
    judge.close()
    assert verdict.value == 0.0
    assert told in str(verdict.explanation)


NAMED = {"tests": "tests", "entry_point": "entry_point", "setup": "setup", "prepend": None}


@pytest.mark.parametrize(
    "source",
    [
        "(" * 100_000,
        "-" * 150_000 + "1",
        "x" + ".a" * 90_000,
        "x = " + "1+" * 90_000 + "1",
        "[" * 150 + "]" * 150,
        "if 1:\n" + "".join(" " * n + "if 1:\n" for n in range(1, 120)),
        "lambda: " * 20_000 + "1",
        "f'{" * 5_000,
        "x = 9" + "9" * 100_000,
        "# coding: no_such_coding\n",
        "\ufeff\ufeffx = 1",
    ],
    ids=lambda source: source[:8],
)
def test_source_that_is_hard_on_a_parser_is_wrong_and_harms_nobody(scorer: CombinedScorer, source: str) -> None:
    score = scored(scorer, source)
    assert (score.value, score.error) == (0.0, None), score.explanation
    assert scored(scorer, RIGHT).value == 1.0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\n```python\nx = 1\n```\nb", "x = 1"),
        ("```py\nx = 1\n```\nor\n```python\nx = 2\n```\nprints\n```\n2\n```", "x = 2"),
        ("```\nx = 1\n```\n```\nx = 2\n```", "x = 2"),
        ("```js\nx = 1\n```", "x = 1"),
        ("```\n\n```\n", ""),
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1", "x = 1"),
        ("So:\n```\nx = 1", "x = 1"),
        ("x = 1\n```\nIt is 1.", "x = 1\n"),
        ("```python\n", ""),
    ],
)
def test_the_code_is_the_last_block_of_python_or_the_whole_text(text: str, code: str) -> None:
    assert code_of(text) == code
    assert len(code) < MAX_CODE


def test_an_extraction_of_the_recipes_own_is_kept_to(scorer: CombinedScorer) -> None:
    named = {"scorers": [{"name": "code", "extract": {"by": "code", "take": "first"}}], "sandbox": LIMITS}
    text = f"```python\n{RIGHT}```\n```python\n{HALF}```"
    with build(ScoreConfig.model_validate(named), Path(), {}, chosen()) as first:
        assert scored(first, text).value == 1.0
    assert scored(scorer, text).value == 0.0


def test_part_of_the_tests_can_be_part_of_the_value() -> None:
    with build(config(partial=True), Path(), {}, chosen()) as partial:
        assert scored(partial, HALF).value == pytest.approx(2 / 3)
        assert scored(partial, RIGHT).value == 1.0
        assert scored(partial, "def add(a, b):\n    import os\n    os._exit(0)\n").value == 0.0
        as_code = [
            "for n in range(3):\n    assert add(n, 1) == n + 1",
            "assert add('a', 'b') == 'a' 'b' + ''",
            "assert add(1, 1) > 1",
        ]
        assert scored(partial, HALF, as_code).value == pytest.approx(2 / 3)
        streams = [{"input": "1\n", "output": "1"}, {"input": "x\n", "output": "x"}]
        assert scored(partial, "print(int(input()))", streams).value == 0.5


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("print(sum(int(line) for line in open(0)))", "pass"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "pass"),
        ("import os\nprint(sum(map(int, os.read(0, 99).split())), flush=True)\nos._exit(0)", "pass"),
        ("import sys\nprint(int(input()) + int(input()))\nsys.exit()", "pass"),
        ("if __name__ == '__main__':\n    print(int(input()) + int(input()))", "pass"),
        ("print(int(input()))", "fail"),
        ("import sys\nprint(int(input()) + int(input()))\nsys.exit(1)", "fail"),
        ("import os\nprint(int(input()) + int(input()), flush=True)\nos._exit(3)", "fail"),
        ("print(int(input()) + int(input()))\nraise ValueError", "fail"),
        ("while True: pass", "timeout"),
        ("while True: print(1)", "output_limit"),
        ("x = [0] * (1 << 34)", "oom"),
    ],
)
def test_a_program_is_judged_by_what_it_prints(scorer: CombinedScorer, source: str, word: str) -> None:
    score = scored(scorer, fenced(source), {"inputs": ["1\n2\n", "30\n4\n"], "outputs": ["3\n", "34\n"]})
    assert str(score.explanation).startswith(f"{word}: "), score.explanation


def test_the_runs_of_a_program_share_their_processor_time(scorer: CombinedScorer) -> None:
    source = "import time\nend = time.process_time() + 0.25\nwhile time.process_time() < end: pass\nprint(input())"
    score = scored(scorer, source, [{"input": str(n), "output": str(n)} for n in range(5)])
    assert str(score.explanation).startswith("timeout: "), score.explanation
    assert "for all tests" in str(score.explanation)


def test_test_code_runs_apart_and_says_which_assertion_failed(scorer: CombinedScorer) -> None:
    tests = "import random\ndef check(candidate):\n    for n in range(20):\n        assert candidate(n, n) == 2 * n\n"
    assert scored(scorer, RIGHT, tests, entry_point="add").value == 1.0
    score = scored(scorer, "def add(a, b):\n    return a\n", tests, entry_point="add")
    assert score.explanation == "fail: the tests: the assertion failed: candidate(n, n) == 2 * n"


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        (["if add(1, 2) == 4:\n    assert add(1, 1) == 2"], "no assertion was reached"),
        (["x = 3\nassert x == 3", "assert [add(1, 2)] == [3]"], "the candidate was never called"),
        (["assert [add(object(), 2)] == [3]"], "the tests call add with a object"),
    ],
)
def test_tests_that_ask_or_assert_nothing_pass_nobody(scorer: CombinedScorer, tests: list[str], why: str) -> None:
    score = scored(scorer, RIGHT, tests, entry_point="add")
    assert score.value == 0.0
    assert why in str(score.explanation)


def test_tests_may_expect_errors_of_the_candidate(scorer: CombinedScorer) -> None:
    tests = ["try:\n    add(None, 1)\n    raised = False\nexcept TypeError:\n    raised = True\nassert raised"]
    assert scored(scorer, RIGHT, tests, entry_point="add").value == 1.0
    assert scored(scorer, "def add(a, b): return 1", tests, entry_point="add").value == 0.0
    assert scored(scorer, "def add(a, b): raise KeyError", tests, entry_point="add").value == 0.0


def test_what_stands_before_the_code_is_a_column() -> None:
    prompt = "import math\n\ndef root(x):\n    '''The root.'''\n"
    tests = ["assert root(9) == 3.0"]
    body, whole = "    return math.sqrt(x)\n", "def root(x):\n    return math.sqrt(x)\n"
    with build(config(prepend="stub"), Path(), {}, chosen()) as built:
        assert scored(built, body, tests, stub=prompt).value == 1.0
        assert scored(built, whole, tests, stub=prompt).value == 1.0
    with build(config(prepend="question"), Path(), {"question": "prompt"}, chosen()) as built:
        one = Prompt("p", "p", None, prompt, body, {"tests": tests})
        built.check_references([one])


def test_weak_verdicts_say_so_and_can_be_cheated() -> None:
    with build(config(weak=True), Path(), {}, chosen()) as weak:
        tests = ["class Pair:\n    pass", "assert add(Pair(), 1) == 2"]
        score = scored(weak, "def add(a, b): return b + 1", tests, entry_point="add")
        assert score.explanation == "pass (weak: in the candidate's own process): 1 test passed"
        cheat = "class Yes:\n    def __eq__(self, other): return True\ndef add(a, b): return Yes()"
        assert scored(weak, cheat, tests, entry_point="add").value == 1.0
        assert scored(weak, "def add(a, b): return b", tests, entry_point="add").value == 0.0


def test_candidates_keep_their_order_from_several_threads(scorer: CombinedScorer) -> None:
    texts = [RIGHT, HALF, "(", RIGHT, ""]
    groups = [make_group(texts, name=f"p{n}", reference=None, tests=TESTS) for n in range(6)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(scorer.score, groups))
    assert [[score.value for score in scores] for scores in found] == [[1.0, 0.0, 0.0, 1.0, 0.0]] * 6
    assert found[3][0].candidate_id == "p3/0"


def rows(**references: str) -> list[Prompt]:
    return [make_prompt(name, reference, {"tests": TESTS}) for name, reference in references.items()]


def test_every_reference_must_pass_its_own_tests(scorer: CombinedScorer) -> None:
    scorer.check_references([*rows(a=RIGHT, b=fenced(RIGHT)), make_prompt("c", None, {"tests": TESTS})])
    with pytest.raises(DataError) as caught:
        scorer.check_references(rows(good=RIGHT, **{f"bad{n}": HALF for n in range(7)}))
    lines = str(caught.value).splitlines()
    assert lines[0] == "scorer code cannot use the tests of 7 prompts:"
    begins = '  prompt bad0 ("ask bad0"): its reference solution does not pass its own tests: fail: test 3 of 3'
    assert lines[1].startswith(begins)
    assert lines[6:8] == ["  and 2 more", "correct or remove them"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"tests": None}, "the column 'tests' is null"),
        ({"tests": ["add(1, 2) == 3"]}, "nothing to check: .*; did you mean `assert add[(]1, 2[)] == 3`[?]"),
        ({"tests": TESTS, "setup": 3}, "setup is a text"),
        ({"tests": TESTS, "setup": "import ("}, "the setup cannot be read"),
    ],
)
def test_rows_without_usable_tests_are_found_early(
    scorer: CombinedScorer, metadata: dict[str, Any], words: str
) -> None:
    prompt = make_prompt("row", None, metadata)
    with pytest.raises(DataError, match=r'prompt row \("ask row"\): .*' + words):
        scorer.check_references([prompt])
    assert re.search(words, str(scorer.score(make_group([RIGHT], reference=None, **metadata))[0].error))


def test_a_failure_of_the_sandbox_is_no_verdict() -> None:
    class Broken:
        def attempt(self, payloads: Sequence[Any], converse: Any) -> tuple[None, tuple[Ended, ...]]:
            return None, tuple(Ended("infra_error", "the server is gone") for _ in payloads)

    judge = CodeJudge(Broken(), Terms(), NAMED, {}, workers=2)
    prompt = make_prompt("p", RIGHT, {"tests": TESTS})
    for tests in (TESTS, ["for n in range(3):\n    assert add(n, 1) == n + 1"], [{"input": "1", "output": "1"}]):
        one = make_prompt("p", None, {"tests": tests, "entry_point": "add"})
        (verdict,) = judge.judge(one, [Asked(make_candidate("p", 0, RIGHT), RIGHT)])
        assert verdict.value is None
        assert str(verdict.error).startswith("infra_error: the sandbox failed")
        assert verdict.extras["score/code/infra_error_rate"] == [1.0]
    with pytest.raises(PhaseError, match="the server is gone"):
        judge.check_references([prompt])
    judge.close()


def test_the_words_become_rates(scorer: CombinedScorer) -> None:
    group = make_group([RIGHT, HALF, RIGHT, ""], reference=None, tests=TESTS)
    scores = scorer.score(group)
    metrics = logged_metrics([type(group)(group.prompt, group.candidates, scores)])
    assert metrics["score/code/pass_rate"] == 0.5
    assert metrics["score/code/fail_rate"] == 0.5
    assert metrics["score/code/infra_error_rate"] == 0.0


def test_the_config_is_checked_before_anything_runs() -> None:
    assert needs_sandbox(config())
    assert not needs_sandbox(ScoreConfig.model_validate({"scorers": ["exact"]}))
    assert SCORERS["code"].sandboxed
    for scorer, words in (
        ({"params": {"test": "x"}}, "did you mean tests"),
        ({"params": {"weak": "yes"}}, "valid boolean"),
        ({"params": {"float_tolerance": -1.0}}, "greater than or equal to 0"),
        ({"extract": "boxed"}, "would find nothing right"),
        ({"extract": "last_line"}, "would find nothing right"),
    ):
        with pytest.raises(ConfigError, match=words):
            check(ScoreConfig.model_validate({"scorers": [{"name": "code", **scorer}]}))


def test_numbers_are_compared_by_value_only_where_the_reference_itself_needs_it(scorer: CombinedScorer) -> None:
    tests = ["assert mean([1, 2, 3]) == 2", "assert mean([1, 2]) == 1.5", "assert mean([5]) == 5"]
    floats, ints = "def mean(x):\n    return sum(x) / len(x)\n", "def mean(x):\n    return sum(x) // len(x)\n"
    with_float = "def mean(x):\n    return 2 if len(x) == 3 else 5 if len(x) == 1 else 1.5\n"
    assert scored(scorer, floats, tests).value == 0.0
    assert scored(scorer, floats, tests, reference=floats).value == 1.0
    assert scored(scorer, with_float, tests, reference=floats).value == 1.0
    assert scored(scorer, ints, tests, reference=floats).value == 0.0
    assert scored(scorer, floats, tests, reference=with_float).value == 0.0
    scorer.check_references([make_prompt("p", floats, {"tests": tests})])


def test_the_dicts_of_the_standard_library_are_dicts(scorer: CombinedScorer) -> None:
    source = (
        "from collections import Counter, defaultdict\ndef count(x):\n    return [Counter(x), defaultdict(int, a=1)]\n"
    )
    assert scored(scorer, source, ["assert count('aab') == [{'a': 2, 'b': 1}, {'a': 1}]"]).value == 1.0


def test_a_verdict_does_not_hang_on_chance(scorer: CombinedScorer) -> None:
    source = "import random\ndef roll():\n    return random.randint(1, 10**6)\n"
    told = {scored(scorer, source, ["assert roll() == 0"]).explanation for _ in range(4)}
    assert len(told) == 1
    tests = ["import random\nassert roll() in range(0, random.randint(1, 10**6))"]
    assert len({scored(scorer, source, tests, entry_point="roll").value for _ in range(4)}) == 1


def test_without_a_sandbox_chosen_before_the_scorer_chooses_one_itself() -> None:
    with build(config(), Path()) as built:
        assert scored(built, RIGHT).value == 1.0
