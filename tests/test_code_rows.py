"""Rows shaped like HumanEval's, from a recipe to a verdict; and what is said of those that cannot be used."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds import scripted_recipe

from selftrain import cli, outlook, scoring
from selftrain import prompts as prompt_room
from selftrain.auditing import show_audit
from selftrain.compose import compose
from selftrain.errors import DataError, UnusablePrompts
from selftrain.prompts.rows import names_of
from selftrain.scoring.sandbox import choosing
from selftrain.unusable import write_unusable
from selftrain.verifying import show_verdict

STUB = "import math\n\n\ndef root(x):\n    '''The root.'''\n"
CHECK = "def check(candidate):\n    assert candidate(9) == 3.0\n    assert candidate(16) == 4.0\n"
BODY = "    return math.sqrt(x)\n"
ROW = {"task_id": "T/0", "prompt": STUB, "canonical_solution": BODY, "test": CHECK, "entry_point": "root"}
PARAMS = {"tests": "test", "prepend": "prompt"}
CHAT: dict[str, Any] = {"format": "chat", "template": None}
SHAPES: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "text": {"format": "text", "template": None},
    "template, chat": {"format": "chat", "template": "Complete it:\n{prompt}"},
    "template, text": {"format": "text", "template": "Complete it:\n{prompt}"},
    "chat with examples": {**CHAT, "few_shot": [{"prompt": "def f", "completion": "(): pass"}]},
}


def recipe_of(
    folder: Path, rows: Sequence[dict[str, Any]] = (ROW,), params: dict[str, Any] = PARAMS, **prompts: Any
) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = prompts.pop("columns", {"reference": "canonical_solution"})
    score = {"scorers": [{"name": "code", "params": params}], "sandbox": {"cpu_seconds": 1.0, "wall_seconds": 5.0}}
    sets = {"train": {"path": "rows.jsonl", "columns": columns}, "validate": None, "test": None}
    path = scripted_recipe(folder, score=score, arms=[], prompts={**sets, **prompts})
    assert yaml.safe_load(path.read_text())["score"]["scorers"][0]["params"] == params
    return path


@contextmanager
def built(path: Path) -> Any:
    composed = compose(str(path))
    prompts = prompt_room.load(composed.config.prompts, composed.folder).train.prompts
    columns = names_of(composed.config.prompts)
    with scoring.build(composed.config.score, composed.folder, columns) as scorer:
        yield scorer, prompts


def refused(path: Path) -> str:
    with built(path) as (scorer, prompts), pytest.raises(UnusablePrompts) as caught:
        scorer.check_references(prompts)
    return str(caught.value)


def plan(path: Path) -> None:
    outlook.show_plan(str(path), layers=[], overrides=[], runs_dir=path.parent / "runs")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_prompts_own_column_stands_before_the_code_as_the_row_has_it(tmp_path: Path, shape: str) -> None:
    with built(recipe_of(tmp_path, **SHAPES[shape])) as (scorer, prompts):
        scorer.check_references(prompts)
        whole = f"```python\nimport math\ndef root(x):\n{BODY}```"
        for answer, value in ((BODY, 1.0), (whole, 1.0), ("    return 3.0\n", 0.0)):
            assert scorer.explain(prompts[0], answer).value == value


@pytest.mark.parametrize("template", [None, "Go on:\n{stub}"])
def test_a_prompt_column_of_another_name_does_as_well(tmp_path: Path, template: str | None) -> None:
    row = {"stub": STUB, **{key: value for key, value in ROW.items() if key != "prompt"}}
    columns = {"prompt": "stub", "reference": "canonical_solution"}
    path = recipe_of(tmp_path, [row], {"tests": "test", "prepend": "stub"}, columns=columns, template=template)
    with built(path) as (scorer, prompts):
        scorer.check_references(prompts)
        assert scorer.explain(prompts[0], BODY).value == 1.0


def test_code_that_is_whole_is_run_alone_where_what_stands_before_it_makes_it_no_program(tmp_path: Path) -> None:
    rows = [
        {**ROW, "prompt": "def root(x):\n", "canonical_solution": "def root(x):\n    return x ** 0.5\n"},
        {**ROW, "prompt": "def root(x):  # of x\n", "canonical_solution": "    return x ** 0.5\n"},
    ]
    with built(recipe_of(tmp_path, rows)) as (scorer, prompts):
        scorer.check_references(prompts)
        for prompt in prompts:
            assert scorer.explain(prompt, "    return x ** 0.5").value == 1.0
            assert scorer.explain(prompt, "def root(x):\n    return x ** 0.5").value == 1.0
            assert scorer.explain(prompt, "def root(x):\n    return x").value == 0.0
            other = scorer.explain(prompt, "def other(x):\n    return x ** 0.5")
            assert other.value == 0.0
            assert "IndentationError" in other.explanation
            assert scorer.explain(prompt, "    def root(x):\n        return x ** 0.5").value == 0.0


@pytest.mark.parametrize(
    ("params", "near"),
    [
        ({"tests": "tets", "prepend": "prompt"}, "test"),
        ({"tests": "test", "entry_point": "entrypoint"}, "entry_point"),
        ({"tests": "test", "setup": "tst"}, "test"),
        ({"tests": "test", "prepend": "promt"}, "prompt"),
    ],
)
@pytest.mark.parametrize("shape", ["chat", "template, chat"])
def test_a_column_that_no_row_has_is_told_with_the_columns_there_are(
    tmp_path: Path, params: dict[str, Any], near: str, shape: str
) -> None:
    path = recipe_of(tmp_path, params=params, **SHAPES[shape])
    words = rf"there is no column '\w+' \(params.\w+ names it\); rows have: .*test.*; did you mean '{near}'\?$"
    common: dict[str, Any] = {"layers": [], "overrides": [], "unsafe_no_sandbox": False, "as_json": True}
    with pytest.raises(DataError, match=words):
        plan(path)
    with pytest.raises(DataError, match=words):
        show_audit(str(path), sets=(), limit=1, seed=0, **common)
    with pytest.raises(DataError, match=words):
        show_verdict(str(path), set_name="train", prompt=None, reference=None, answer="", file=None, **common)
    with pytest.raises(DataError, match=words):
        write_unusable(str(path), sets=(), folder=tmp_path / "out", **common)


def test_with_a_template_a_prompt_column_that_is_not_there_is_not_taken_for_what_it_makes(tmp_path: Path) -> None:
    row = {"stub": STUB, **{key: value for key, value in ROW.items() if key != "prompt"}}
    with pytest.raises(DataError, match="there is no column 'prompt'"):
        plan(recipe_of(tmp_path, [row], template="{stub}"))


def test_the_columns_of_defaults_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prompt": "A root.", "reference": "def root(x):\n    return x ** 0.5\n", "tests": ["assert root(9) == 3.0"]}
    path = recipe_of(tmp_path, [row], {}, columns={})
    plan(path)
    assert "sandbox: chosen when the run starts" in capsys.readouterr().out
    with built(path) as (scorer, prompts):
        scorer.check_references(prompts)


def test_plan_finds_tests_that_cannot_be_read_and_starts_no_sandbox(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_sandbox(wanted: str) -> None:
        raise AssertionError(f"a sandbox was chosen: {wanted}")

    monkeypatch.setattr(choosing, "choose", no_sandbox)
    rows = [ROW, {**ROW, "prompt": "def a(x):\n", "test": None}, {**ROW, "prompt": "def b(x):\n", "test": "assert ("}]
    path = recipe_of(tmp_path, rows)
    monkeypatch.setattr(sys, "argv", ["selftrain", "plan", str(path), "--runs-dir", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 65
    said = capsys.readouterr().err
    assert "cannot use the tests of 2 prompts:" in said
    assert "(\"def a(x):\"): the column 'test' is null; it holds asserts" in said
    assert "(\"def b(x):\"): the tests cannot be read as Python: '(' was never closed (line 1)" in said
    assert "Plain data alone" not in said


def test_a_solution_that_lacks_the_function_is_told_by_its_name(tmp_path: Path) -> None:
    said = refused(recipe_of(tmp_path, [{**ROW, "entry_point": "zzz"}]))
    assert "scorer code cannot use the tests of 1 prompt:" in said
    assert "(\"import math def root(x): '''The root.'''\")" in said
    assert "the solution defines no function zzz" in said
    assert "Plain data alone" not in said


def test_objects_are_named_where_they_are_the_reason(tmp_path: Path) -> None:
    of_object = {**ROW, "canonical_solution": "    return object()\n"}
    said = refused(recipe_of(tmp_path, [of_object]))
    assert "a object, which is no plain data" in said
    assert "Plain data alone passes" in said


def test_rows_are_named_by_their_identity_or_by_where_their_words_differ(tmp_path: Path) -> None:
    rows = [{**ROW, "task_id": f"T/{n}", "prompt": f"{STUB}    # {n}\n", "test": "root(9) == 3.0"} for n in range(2)]
    columns = {"reference": "canonical_solution", "identity": "task_id"}
    with pytest.raises(UnusablePrompts, match=r'[(]"T/1"[)]: .* did you mean `assert root[(]9[)] == 3.0`[?]'):
        plan(recipe_of(tmp_path, rows, columns=columns))
    with pytest.raises(UnusablePrompts, match=r'[(]"[.]{3}1"[)]: the tests have nothing to check'):
        plan(recipe_of(tmp_path, rows))


def test_where_a_syntax_error_is_stands_there_once(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, [{**ROW, "prompt": "root"}], {"tests": "test"}, columns={"reference": None})
    with built(path) as (scorer, prompts):
        said = scorer.explain(prompts[0], "def root(x) return x").explanation
    assert said.endswith("SyntaxError: expected ':' (line 1)")


def test_code_keeps_its_lines_in_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(
        str(recipe_of(tmp_path)),
        layers=[],
        overrides=[],
        set_name="train",
        prompt=None,
        reference=None,
        answer=f"```python\nimport math\n\ndef root(x):\n{BODY}```",
        file=None,
        unsafe_no_sandbox=False,
        as_json=False,
    )
    page = capsys.readouterr().out
    assert "  taken as the answer:\n    import math\n    \n    def root(x):\n        return math.sqrt(x)\n" in page
