"""No cheat is found right, and most of them are known to fool a judge that is less careful."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chosen_sandbox import chosen
from code_cheats import CODE_TESTS, FOOLING, FORGING, HONEST, TESTS, Cheat, naively_passed
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer

EVERY = {**FOOLING, **FORGING}


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    limits = {"cpu_seconds": 0.4, "wall_seconds": 1.0, "memory_mb": 512, "output_kb": 1024}
    config = ScoreConfig.model_validate({"scorers": ["code"], "sandbox": limits, "workers": 2})
    with build(config, Path(), {}, chosen()) as built:
        yield built


def judged(scorer: CombinedScorer, source: str, tests: object) -> tuple[float | None, str]:
    group = make_group([f"```python\n{source}\n```"], reference=None, tests=tests, entry_point="solve")
    (score,) = scorer.score(group)
    return score.value, f"{score.explanation} {score.error}"


def test_the_naive_judges_find_an_honest_solution_right_and_a_wrong_one_not() -> None:
    assert set(naively_passed(Cheat(HONEST)).values()) == {True}
    assert set(naively_passed(Cheat("def solve(n):\n    return n\n")).values()) == {False}


def test_naive_judges_are_fooled_by_every_cheat_that_means_to() -> None:
    with ThreadPoolExecutor(2) as threads:
        passed = dict(zip(FOOLING, threads.map(naively_passed, FOOLING.values()), strict=True))
    assert len(passed) == 34
    assert [name for name, judges in passed.items() if not any(judges.values())] == []
    by_judge = {judge: sum(one[judge] for one in passed.values()) for judge in ("exit code", "marker", "in process")}
    assert by_judge == {"exit code": 29, "marker": 19, "in process": 18}


@pytest.mark.parametrize("tests", [TESTS, CODE_TESTS], ids=["calls", "test code"])
def test_an_honest_solution_is_right(scorer: CombinedScorer, tests: object) -> None:
    value, why = judged(scorer, HONEST, tests)
    assert value == 1.0, why


@pytest.mark.parametrize("name", EVERY)
def test_no_cheat_is_right(scorer: CombinedScorer, name: str) -> None:
    value, why = judged(scorer, EVERY[name].source, list(EVERY[name].tests))
    assert value == 0.0, why


EQUAL_IN_PYTHON = "returns floats for ints"


@pytest.mark.parametrize("name", [name for name in EVERY if name != EQUAL_IN_PYTHON])
def test_no_cheat_is_right_where_the_tests_are_code(scorer: CombinedScorer, name: str) -> None:
    value, why = judged(scorer, EVERY[name].source, CODE_TESTS)
    assert value == 0.0, why


def test_test_code_compares_as_python_does_and_calls_compare_types(scorer: CombinedScorer) -> None:
    source = EVERY[EQUAL_IN_PYTHON].source
    assert judged(scorer, source, CODE_TESTS)[0] == 1.0
    assert judged(scorer, source, TESTS)[0] == 0.0
