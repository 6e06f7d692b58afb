"""The recipe code_mbpp_style: what its problems promise, that its verifier holds them to it, and a run of it."""

from __future__ import annotations

import ast
import builtins
import itertools
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from groups import make_candidate
from tiny_models import build_model
from worlds import receipt_of, run_here

from selftrain import prompts, scoring
from selftrain.compose import compose, find_recipe
from selftrain.config import Config, ScoreConfig
from selftrain.errors import UnusablePrompts
from selftrain.records import Group, Prompt
from selftrain.scoring.code.mutants import mutants
from selftrain.unusable import write_unusable

RECIPE = find_recipe("code_mbpp_style")
SPLITS = ("train", "validate", "test")
Row = dict[str, Any]


def rows_of(split: str) -> list[Row]:
    return [json.loads(line) for line in (RECIPE.parent / f"{split}.jsonl").read_text().splitlines()]


ROWS = {row["entry_point"]: row for split in SPLITS for row in rows_of(split)}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def expected(assertion: str) -> tuple[tuple[Any, ...], Any]:
    """The arguments and the answer of `assert f(ARGUMENTS) == ANSWER`, all of them literals."""
    [statement] = ast.parse(assertion).body
    assert isinstance(statement, ast.Assert)
    compared = statement.test
    assert isinstance(compared, ast.Compare)
    assert isinstance(compared.left, ast.Call)
    assert isinstance(compared.left.func, ast.Name)
    assert [type(one) for one in compared.ops] == [ast.Eq]
    assert not compared.left.keywords
    return tuple(map(ast.literal_eval, compared.left.args)), ast.literal_eval(compared.comparators[0])


def answers(row: Row) -> list[Any]:
    """The expected answers of all tests, each once."""
    return [json.loads(one) for one in {json.dumps(repr(expected(test)[1])) for test in row["visible"] + row["tests"]}]


def passes(source: str, row: Row) -> bool:
    """Whether code of our own passes the hidden tests, run right here."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    for test in row["tests"]:
        try:
            exec(test, dict(namespace))
        except Exception:
            return False
    return True


def remembering(row: Row) -> str:
    """A solution that knows the shown examples, and answers anything else as it does the first."""
    known = {repr(arguments): answer for arguments, answer in map(expected, row["visible"])}
    return f"def {row['entry_point']}(*given):\n    return {known!r}.get(repr(given), {next(iter(known.values()))!r})\n"


def always(row: Row) -> list[str]:
    """Solutions that give one and the same answer, whatever they are asked."""
    return [f"def {row['entry_point']}(*given):\n    return {answer}\n" for answer in ["None", *answers(row)]]


def unchanged(row: Row) -> str:
    return f"def {row['entry_point']}(first, *others):\n    return first\n"


def test_a_row_has_what_its_prompt_needs(row: Row) -> None:
    assert list(row) == [
        "entry_point", "level", "topic", "task", "signature", "visible", "tests", "solution", "completion",
    ]  # fmt: skip
    assert row["level"] in ("easy", "medium")
    assert row["task"].startswith("Return ")
    assert row["task"].endswith(".")
    assert row["solution"].startswith(row["signature"] + "\n")
    assert row["signature"].startswith(f"def {row['entry_point']}(")
    assert row["completion"] == f"```python\n{row['solution']}```"


def test_a_row_has_two_shown_tests_and_four_to_eight_hidden_ones_none_twice(row: Row) -> None:
    asked = [repr(expected(test)[0]) for test in row["visible"] + row["tests"]]
    assert len(row["visible"]) == 2
    assert 4 <= len(row["tests"]) <= 8
    assert len(set(asked)) == len(asked)


def test_a_solution_passes_all_tests(row: Row) -> None:
    assert passes(row["solution"], {**row, "tests": row["visible"] + row["tests"]})


def test_no_solution_without_thought_passes_the_hidden_tests(row: Row) -> None:
    for source in (remembering(row), *always(row), unchanged(row)):
        assert not passes(source, row), source


def test_remembering_passes_what_is_shown(row: Row) -> None:
    assert passes(remembering(row), {**row, "tests": row["visible"]})


def words_of(task: str) -> set[str]:
    """The words of a task that say something."""
    little = "return the a of an and is in that to it for which each list are with from at or its on one if not as"
    return set(re.findall(r"[a-z]+", task.lower())) - set(little.split())


def shape_of(source: str) -> str:
    """A solution without its names, but for Python's own."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("id", "name", "arg"):
            name = getattr(node, field, None)
            if name is not None and not hasattr(builtins, name):
                setattr(node, field, "_")
    return ast.dump(tree)


def test_no_problem_is_like_one_of_another_split() -> None:
    assert len(ROWS) == sum(len(rows_of(split)) for split in SPLITS)
    said = {name: (words_of(row["task"]), shape_of(row["solution"])) for name, row in ROWS.items()}
    names = [[row["entry_point"] for row in rows_of(split)] for split in SPLITS]
    for one, other in itertools.combinations(names, 2):
        for first, second in itertools.product(one, other):
            (words, shape), (other_words, other_shape) = said[first], said[second]
            assert len(words & other_words) / len(words | other_words) < 0.5, (first, second)
            assert shape != other_shape, (first, second)


def test_every_split_has_easy_problems_and_all_sizes_are_as_the_page_says() -> None:
    sizes = {split: len(rows_of(split)) for split in SPLITS}
    assert sizes == {"train": 80, "validate": 16, "test": 32}
    for split in SPLITS:
        assert sum(row["level"] == "easy" for row in rows_of(split)) >= 0.4 * sizes[split]


# ---------------------------------------------------------------------------------------------- by its own verifier


def config_of(*overrides: str, recipe: Path = RECIPE) -> Config:
    return compose(str(recipe), overrides=overrides).config


def fenced(source: str) -> str:
    return f"Here it is:\n```python\n{source}```"


def values(asked: Iterable[tuple[Prompt, Sequence[str]]], config: ScoreConfig, base: Path) -> list[list[float | None]]:
    """What the scorer of a config gives to each text, prompt by prompt."""
    found = []
    with scoring.build(config, base) as scorer:
        for prompt, texts in asked:
            candidates = tuple(make_candidate(prompt.id, index, text) for index, text in enumerate(texts))
            found.append([score.value for score in scorer.score(Group(prompt, candidates))])
    return found


@pytest.fixture(scope="module")
def problems() -> list[Prompt]:
    """All prompts of the recipe."""
    sets = prompts.load(config_of().prompts, RECIPE.parent)
    assert sets.validate is not None
    assert sets.test is not None
    return [*sets.train.prompts, *sets.validate.prompts, *sets.test.prompts]


def test_a_prompt_shows_the_task_and_two_tests_and_hides_the_others(problems: list[Prompt]) -> None:
    for prompt in problems:
        assert prompt.messages is not None
        row, asked = ROWS[prompt.metadata["entry_point"]], prompt.messages[-1].content
        assert all(one in asked for one in (row["task"], row["signature"], *row["visible"]))
        assert not any(test in asked for test in row["tests"])
        assert prompt.reference == row["solution"]


def test_the_verifier_accepts_solutions_and_refuses_what_only_knows_the_shown_tests(problems: list[Prompt]) -> None:
    texts = [
        [fenced(prompt.reference or ""), *map(fenced, (remembering(row), always(row)[1]))]
        for prompt in problems
        for row in [ROWS[prompt.metadata["entry_point"]]]
    ]
    found = values(zip(problems, texts, strict=True), config_of().score, RECIPE.parent)
    assert found == [[1.0, 0.0, 0.0]] * len(problems)


@pytest.mark.slow
def test_the_hidden_tests_refuse_two_mutants_of_every_solution(problems: list[Prompt]) -> None:
    changed = [[fenced(one) for one in mutants(str(p.reference), p.metadata["entry_point"])] for p in problems]
    config = config_of("score.sandbox.cpu_seconds=1").score
    found = values(zip(problems, changed, strict=True), config, RECIPE.parent)
    few = {p.metadata["entry_point"]: given for p, given in zip(problems, found, strict=True) if given.count(0.0) < 2}
    assert not few


# --------------------------------------------------------------------------------------------------- a run of it

ANSWERS = '''
import zlib


def answer(prompt, seed, policy_round):
    """Four kinds of answer, by the prompt's checksum: right, a forged success, what is shown by heart, no code."""
    name = prompt.metadata.get("entry_point", "")
    return {
        0: f"Like this:\\n```python\\n{prompt.reference}\\n```",
        1: "```python\\nimport os\\nprint('pass', flush=True)\\nos._exit(0)\\n```",
        2: f"```python\\nclass Same:\\n    def __eq__(self, other):\\n        return True\\n\\n\\n"
        f"def {name or 'f'}(*given):\\n    return Same()\\n```",
        3: "It is not possible to say.",
    }[zlib.crc32(prompt.id.encode()) % 4]
'''
SHORT = (
    "rounds=1",
    "sample.num_candidates=2",
    "train.batch_size=4",
    "evaluate.sampled_rounds=none",
    "evaluate.resamples=100",
    "arms=[]",
    "model.device=cpu",
)
SCRIPTED = ("sample.engine=scripted", "train.trainer=scripted", "sample.max_new_tokens=2048", *SHORT)


def scripted(folder: Path) -> tuple[str, ...]:
    """Overrides for a run without a model."""
    (folder / "answers.py").write_text(ANSWERS)
    return (*SCRIPTED, f"sample.params={{function: {folder / 'answers.py'}:answer}}")


def survivors_of(run: Path) -> tuple[set[str], set[str]]:
    """The prompts of round 1, and those with a survivor."""
    folder = run / "arms/main/rounds/001/survivors/improve-00"
    asked = {json.loads(line)["prompt_id"] for line in (folder / "prompts.jsonl").read_text().splitlines()}
    return asked, {row["prompt_id"] for row in pq.read_table(folder / "survivors.parquet").to_pylist()}


def only_the_right_ones(run: Path) -> bool:
    asked, kept = survivors_of(run)
    return 0 < len(kept) < len(asked) and kept == {one for one in asked if zlib.crc32(one.encode()) % 4 == 0}


def test_a_run_keeps_the_right_functions_and_no_others(tmp_path: Path) -> None:
    run = run_here(RECIPE, *scripted(tmp_path), "prompts.per_round=24", runs_dir=tmp_path / "runs")
    assert only_the_right_ones(run)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/unscored_rate"] == 0


def mbpp_row(number: int, row: Row) -> Row:
    """A row of ours in the shape of MBPP's, in which names stand only in the tests, and some are no plain calls."""
    tests = [row["visible"][0], *row["tests"][-2:]]
    _, answer = expected(tests[2])
    if isinstance(answer, list) and answer and isinstance(answer[0], int | str):
        call = tests[2].removeprefix("assert ").rsplit(" == ", 1)[0]
        tests[2] = f"assert set({call}) == set({answer!r})"
    elif isinstance(answer, int) and not isinstance(answer, bool):
        call = tests[2].removeprefix("assert ").rsplit(" == ", 1)[0]
        tests[2] = f"assert math.floor({call}) == {answer!r}"
    return {
        "task_id": number,
        "text": f"Write a function for this. {row['task']}",
        "code": row["solution"].replace("\n", "\r\n"),
        "test_list": tests,
        "test_setup_code": "import math" if "math." in tests[2] else "",
        "challenge_test_list": [],
    }


@pytest.fixture
def mbpp(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder as the hub's data set is when loaded from disk, and what points the recipe to it."""
    folder = tmp_path / "mbpp"
    folder.mkdir()
    for split, ours, first in (("train", "train", 0), ("validation", "validate", 200), ("test", "test", 400)):
        rows = [mbpp_row(first + number, row) for number, row in enumerate(rows_of(ours)[:16])]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, [f"prompts.{name}.path={folder}" for name in ("train", "validate", "test")]


def test_rows_in_the_shape_of_mbpp_are_judged_by_their_own_tests_and_two_commands_leave_out_what_cannot_be(
    tmp_path: Path, mbpp: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, paths = mbpp
    assert "import math" in (folder / "train.jsonl").read_text()
    handed_a_type = {
        "task_id": 99,
        "text": "Write a function to remove a given data type from a tuple.",
        "code": "def remove_datatype(given, kind):\n  return [one for one in given if not isinstance(one, kind)]",
        "test_list": ["assert remove_datatype((4, 5, 4, 7.7, 1.2), int) == [7.7, 1.2]"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps(handed_a_type) + "\n")
    recipe, knobs = RECIPE.parent / "mbpp.yaml", (*scripted(tmp_path), *paths)
    with pytest.raises(UnusablePrompts, match=r"cannot use the tests of 1 prompt:"):
        run_here(recipe, *knobs, runs_dir=tmp_path / "refused")
    out = tmp_path / "left_out"
    named: dict[str, Any] = {"layers": [], "overrides": knobs, "sets": [], "unsafe_no_sandbox": False, "as_json": False}
    write_unusable(str(recipe), folder=out, **named)
    assert f"prompts.train.exclude={out}/train.txt" in capsys.readouterr().out
    excluding = [f"prompts.{name}.exclude={out}/{name}.txt" for name in ("train", "validate", "test")]
    run = run_here(recipe, *knobs, *excluding, runs_dir=tmp_path / "runs")
    sets = json.loads((run / "config.json").read_text())["prompts"]
    assert {name: one["excluded"] for name, one in sets.items()} == {"train": 1, "validate": 0, "test": 0}
    assert run.name == "mbpp"
    assert only_the_right_ones(run)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/unscored_rate"] == 0


def test_mbpp_is_named_by_its_hub_id_and_splits() -> None:
    config = config_of(recipe=RECIPE.parent / "mbpp.yaml").prompts
    assert config.validate_ is not None
    assert config.test is not None
    sources = (config.train, config.validate_, config.test)
    assert {one.path for one in sources} == {"google-research-datasets/mbpp"}
    assert [one.split for one in sources] == ["train", "validation", "test"]


@pytest.mark.slow
def test_a_tiny_model_goes_through_a_round(tmp_path: Path) -> None:
    model = build_model(tmp_path / "model", context=1024)
    few = ("prompts.per_round=4", "prompts.validate.limit=4", "prompts.test.limit=4", "prompts.few_shot=[]")
    small = (*few, "sample.max_new_tokens=8", "train.lora.r=4", "train.epochs=1")
    any_answer = ("select.rule=best_of_n", "select.finish_reasons=[stop_token,stop_string,length]")
    run = run_here(RECIPE, f"model.path={model}", *SHORT, *small, *any_answer, runs_dir=tmp_path / "runs")
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/unscored_rate"] == 0
    assert receipt_of(run, "main/rounds/001/train-improve-00")["metrics"]["train/update_norm"] > 0
