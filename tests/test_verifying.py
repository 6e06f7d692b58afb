import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from worlds import scripted_recipe

from selftrain import cli, verifying
from selftrain.config import ThinkingConfig
from selftrain.errors import ConfigError, DataError
from selftrain.opening import opened
from selftrain.verifying import HOW, show_verdict

VERIFIER = """
def judge(text, reference):
    if text == "crash":
        raise KeyError("no such thing")
    return {"value": text.strip() == reference, "explanation": f"read {text.strip()!r}; exact: nothing"}
"""


class Typed(io.TextIOWrapper):
    """Standard input with these bytes, on a terminal or not."""

    def __init__(self, data: bytes, *, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = scripted_recipe(tmp_path)
    (tmp_path / "verify.py").write_text(VERIFIER)
    return path


def verdict(path: Path, *overrides: str, **options: Any) -> int:
    given: dict[str, Any] = {
        "set_name": "train",
        "prompt": None,
        "reference": None,
        "answer": None,
        "file": None,
        "unsafe_no_sandbox": False,
        "as_json": False,
    }
    return show_verdict(str(path), layers=[], overrides=list(overrides), **{**given, **options})


def test_the_first_training_prompt_is_asked_and_right_or_wrong_is_said_with_the_reason(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(recipe, answer=" 1 ") == 0
    page = capsys.readouterr().out
    assert "what comes after 0?" in page
    assert "exact: 1: the text equals the reference" in page
    assert page.splitlines()[-1] == "right: value 1, and right from 1 up"
    assert verdict(recipe, answer="2") == 0
    page = capsys.readouterr().out
    assert "the text is '2', the reference '1'" in page
    assert page.splitlines()[-1].startswith("wrong: value 0")


def test_a_prompt_is_found_by_its_id_or_its_words_in_any_set(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(recipe, set_name="test", prompt="after 203", answer="204", as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["correct"], found["set"], found["reference"]) == (True, "test", "204")
    assert verdict(recipe, set_name="test", prompt=found["prompt_id"], answer="204") == 0
    with pytest.raises(ConfigError, match="6 prompts contain 'after'; give more of the text, or an id"):
        verdict(recipe, set_name="validate", prompt="after", answer="1")
    with pytest.raises(ConfigError, match="no prompt of the train set has the id 'nonsense'"):
        verdict(recipe, prompt="nonsense", answer="1")
    with pytest.raises(ConfigError, match="it has: train, validate, test"):
        verdict(recipe, set_name="tests", answer="1")


def test_another_reference_can_be_given_and_is_checked_first(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(recipe, reference="seven", answer="seven") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("right")
    with pytest.raises(DataError, match="cannot use the references"):
        verdict(recipe, "score.scorers=[numeric]", reference="seven", answer="7")


def test_the_answer_comes_from_a_file_or_a_pipe_without_its_last_line_break(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answer.txt").write_text("two\nlines\n")
    assert verdict(recipe, file=tmp_path / "answer.txt", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "two\nlines"
    monkeypatch.setattr(sys, "stdin", Typed(b"1\n"))
    assert verdict(recipe, as_json=True) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["correct"] is True
    assert err == ""


def test_on_a_terminal_the_question_is_shown_with_how_to_answer(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(b"1", is_terminal=True))
    assert verdict(recipe) == 0
    err = capsys.readouterr().err
    assert "what comes after 0?" in err
    assert HOW in err


def test_answers_that_cannot_be_read_are_refused_in_words(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        verdict(recipe, answer="1", file=tmp_path / "x")
    with pytest.raises(ConfigError, match="No such file"):
        verdict(recipe, file=tmp_path / "absent.txt")
    monkeypatch.setattr(sys, "stdin", Typed(b"\xff\xfe"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        verdict(recipe)


def test_an_answer_that_cannot_be_judged_leaves_with_70_and_says_why(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(recipe, "score.scorers=[verify.py:judge]", answer="crash") == 70
    assert "could not be judged: KeyError: 'no such thing'" in capsys.readouterr().out.splitlines()[-1]


def test_each_scorer_has_its_own_value_and_words(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scorers = "score.scorers=[{name: numeric, gate: true}, verify.py:judge, {name: exact, weight: 0}]"
    assert verdict(recipe, scorers, answer="1", as_json=True) == 0
    numeric, own, exact = json.loads(capsys.readouterr().out)["scorers"]
    assert (numeric["value"], numeric["gate"], numeric["explanation"]) == (
        1.0,
        True,
        "the number '1' is the reference's",
    )
    assert own["explanation"].startswith("read '1'")
    assert (exact["weight"], exact["value"]) == (0.0, 1.0)
    assert verdict(recipe, scorers, answer="2") == 0
    assert "verify.py:judge (weight 1): –: not asked, as numeric did not find it right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "text", "reasoning", "note"),
    [
        ("<think>2?</think>1", "1", "2?", None),
        ("2?</think>1", "1", "2?", "as if the chat template had opened it"),
        ("<think>1", "", "1", "the reasoning never ends"),
        ("1", "1", None, None),
    ],
)
def test_reasoning_is_cut_off_as_in_a_run(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    text: str,
    reasoning: str | None,
    note: str | None,
) -> None:
    assert verdict(recipe, "model.thinking={}", answer=answer, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["reasoning"], found["correct"]) == (text, reasoning, text == "1")
    assert (note is None and not found["notes"]) or note in found["notes"][0]


def test_an_answer_ends_at_a_stop_string_as_in_a_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(recipe, 'sample.stop_strings=["\\n"]', answer="1\nand more") == 0
    page = capsys.readouterr().out
    assert page.splitlines()[-1].startswith("right")
    assert "a run stops sampling at '\\n'" in page


def test_what_an_answer_holds_cannot_move_the_cursor(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(recipe, answer="\x1b[2J\u202e\ud800") == 0
    assert not {"\x1b", "\u202e", "\ud800"} & set(capsys.readouterr().out)


def test_the_command_hands_the_exit_code_on(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, code, words in [
        (["verify", str(recipe), "--answer", "1"], 0, "right"),
        (["verify", str(recipe), "score.scorers=[verify.py:judge]", "--answer", "crash"], 70, "could not be judged"),
        (["audit", str(recipe), "--limit", "3"], 0, "passed"),
        (["audit", str(recipe), "--set", "nowhere"], 2, "selftrain: --set 'nowhere'"),
    ]:
        monkeypatch.setattr(sys, "argv", ["selftrain", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        assert left.value.code == code
        assert words in shown.out + shown.err
        assert "Traceback" not in shown.err


def test_text_before_a_prompt_that_opens_the_reasoning_counts(tmp_path: Path) -> None:
    path = scripted_recipe(tmp_path, model={"path": "none", "thinking": {}}, prompts={"template": "{prompt} <think>"})
    composed, prompts = opened(str(path), layers=[], overrides=[])
    answer, notes = verifying.as_in_a_run(composed.config, prompts.train.prompts[0], "so</think>1")
    assert composed.config.model.thinking == ThinkingConfig()
    assert (answer.reasoning, answer.text, notes) == ("so", "1", [])
