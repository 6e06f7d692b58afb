import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import scripted_recipe

from selftrain.auditing import FAILED, STOPPED, sample, show_audit
from selftrain.auditing.asking import Asking
from selftrain.auditing.checks import OfTask
from selftrain.auditing.progress import Progress
from selftrain.auditing.results import Audit, Speed, Tally, is_passed
from selftrain.config import ScorerConfig
from selftrain.errors import ConfigError, DataError
from selftrain.records import Message, Prompt, Score
from selftrain.reporting.auditing import audit_lines
from selftrain.scoring.cheats import Subject
from selftrain.scoring.cheats.answers import cheats
from selftrain.scoring.cheats.degenerate import degenerates
from selftrain.scoring.cheats.differing import surely_differ
from selftrain.scoring.cheats.forms import by_pattern, forms_of, is_right_by_form
from selftrain.scoring.cheats.programs import programs
from selftrain.scoring.code.mutants import changed_lines, mutants
from selftrain.scoring.combined import CombinedScorer

VERIFIERS = """
import re
import time

def gullible(text, reference):
    return reference in text

def begins(text, reference):
    return text.strip().startswith(reference)

def strict(text, reference):
    lines = text.strip().splitlines()
    return bool(lines) and lines[-1].strip() == reference

def boxed(text, reference):
    found = re.findall(r"\\\\boxed\\{(.*?)\\}", text)
    return bool(found) and found[-1] == reference

def tolerant(text, reference):
    try:
        return not abs(float(text) - float(reference)) > 0.001
    except ValueError:
        return False

def hangs(text, reference):
    if " or " in text:
        time.sleep(60)
    return text.strip() == reference

def raises(text, reference):
    return float(text) == float(reference)

def never(text):
    return False

def trl_style(completions, solution, **kwargs):
    return [1.0 if one.strip() == solution[0] else 0.0 for one in completions]
"""


def rows_of(*pairs: tuple[str, Any], **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "reference": reference, **columns} for prompt, reference in pairs]


NUMBERS = rows_of(*((f"what comes after {n}?", str(n + 1)) for n in range(20, 25)))


def recipe_of(folder: Path, scorers: Any, rows: Sequence[dict[str, Any]] = NUMBERS, **changes: Any) -> Path:
    """A recipe that is only audited: these scorers on these training rows, and no other set."""
    sets = {"train": "rows.jsonl", "validate": None, "test": None, "format": "text"}
    changes = {"prompts": sets | changes.pop("prompts", {}), "arms": [], **changes}
    path = scripted_recipe(folder, score={"scorers": scorers, "timeout_seconds": 0.3}, **changes)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "verify.py").write_text(VERIFIERS)
    return path


@pytest.fixture
def audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Audits a recipe with these scorers; gives the exit code, and the JSON of its first set."""

    def audit(scorers: Any, rows: Sequence[dict[str, Any]] = NUMBERS, **changes: Any) -> tuple[int, Any]:
        limit = changes.pop("limit", 200)
        path = recipe_of(tmp_path, scorers, rows, **changes)
        code = audit_path(path, limit=limit, as_json=True)
        data = json.loads(capsys.readouterr().out)
        assert data["passed"] == (code == 0)
        return code, data["audits"][0]

    return audit


def audit_path(path: Path, *, limit: int = 200, as_json: bool = False, sets: Sequence[str] = ()) -> int:
    return show_audit(
        str(path), layers=[], overrides=[], sets=sets, limit=limit, seed=0, unsafe_no_sandbox=False, as_json=as_json
    )


def line(audit: Any, name: str, task: str | None = None) -> Any:
    (found,) = [one for one in audit["checks"] if one["name"] == name and one["task"] == task]
    return found


# Verifiers of the user's own


def test_a_gullible_verifier_is_caught_and_every_way_past_it_is_named(audited: Any) -> None:
    code, audit = audited(["verify.py:gullible"])
    assert code == FAILED == 65
    assert line(audit, "references")["verdict"] == "passed"
    cheating = line(audit, "cheating answers")
    assert cheating["verdict"] == "failed"
    assert {"denied, then a wrong answer", "a list as the answer", "hidden in a comment"} <= set(cheating["kinds"])
    denied = next(one for one in cheating["cases"] if one["kind"] == "denied, then a wrong answer")
    reference = int(denied["reference"])
    assert denied["answer"] == f"It is not {reference}.\n{reference + 1}"
    assert f"'{reference + 1}'" in denied["why"]
    assert denied["value"] == 1.0
    assert line(audit, "other references")["accepted"] == 0


def test_the_page_shows_a_wrong_acceptance_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_path(recipe_of(tmp_path, ["verify.py:gullible"], NUMBERS[:1])) == FAILED
    page = capsys.readouterr().out
    assert "cheating answers, not refused: " in page
    assert "asked: what comes after 20?" in page
    assert "It is not 21.\n            22\n" in page
    assert "why: the answer it gives is '22'; the right one only occurs" in page
    assert page.splitlines()[-1].startswith("FAILED: ")
    assert " wrong answers accepted" in page.splitlines()[-1]


@pytest.mark.parametrize("name", ["strict", "boxed", "trl_style"])
def test_a_strict_verifier_passes_whatever_form_it_looks_for(audited: Any, name: str) -> None:
    code, audit = audited([f"verify.py:{name}"])
    assert code == 0
    assert {one["verdict"] for one in audit["checks"]} == {"passed"}
    assert ("\\boxed{}" in line(audit, "references")["words"]) == (name == "boxed")
    assert line(audit, "perturbed references")["asked"] > len(NUMBERS)
    assert audit["speed"]["answers"] >= sum(one["asked"] for one in audit["checks"])


def test_a_verifier_that_looks_at_the_beginning_alone_is_caught_on_words(audited: Any) -> None:
    words = rows_of(("the capital of France?", "Paris"), ("the red planet?", "the planet Mars"))
    code, audit = audited(["verify.py:begins"], words)
    assert code == FAILED
    assert list(line(audit, "cheating answers")["kinds"]) == ["a longer word"]


def test_no_more_references_are_looked_at_than_the_limit_says(audited: Any) -> None:
    rows = rows_of(*((f"unanswerable {n}?", "two words") for n in range(8)))
    (drawn,) = sample(rows, 1, 0)
    drawn["reference"] = "57"
    assert audited(["numeric"], rows, limit=1)[0] == 0
    with pytest.raises(DataError, match="cannot use the references of 7 prompts"):
        audited(["numeric"], rows)


def test_nan_is_within_every_tolerance_of_a_careless_verifier(audited: Any) -> None:
    code, audit = audited(["verify.py:tolerant"])
    assert code == FAILED
    assert list(line(audit, "cheating answers")["kinds"]) == ["no number"]


def test_a_scorer_that_times_out_fails_and_is_not_waited_for_again_and_again(audited: Any) -> None:
    code, audit = audited(["verify.py:hangs"])
    assert code == FAILED
    cheating = line(audit, "cheating answers")
    assert cheating["verdict"] == "failed"
    assert cheating["unscored"] == audit["speed"]["timed_out"] == 5
    assert "stopped after 5" in cheating["words"]
    assert "timed out after 0.3 s" in cheating["cases"][0]["error"]
    assert audit["speed"]["slowest_seconds"] >= 0.3
    assert line(audit, "empty and degenerate")["verdict"] == "passed"


def test_a_scorer_that_raises_fails_where_it_raises(audited: Any) -> None:
    code, audit = audited(["verify.py:raises"])
    assert code == FAILED
    assert line(audit, "perturbed references")["verdict"] == "passed"
    degenerate = line(audit, "empty and degenerate")
    assert degenerate["verdict"] == "failed"
    assert degenerate["accepted"] == 0 < degenerate["unscored"]
    assert "ValueError" in degenerate["cases"][0]["error"]


def test_refusing_everything_shows_nothing_and_does_not_pass(audited: Any) -> None:
    code, audit = audited(["verify.py:never"])
    assert code == FAILED
    assert {one["verdict"] for one in audit["checks"]} == {"unproven"}


def test_a_completion_shows_the_form_in_which_a_good_answer_is_accepted(audited: Any) -> None:
    rows = [{**row, "completion": f"after some thought\n{row['reference']}"} for row in NUMBERS]
    code, audit = audited(["verify.py:strict"], rows)
    assert code == 0
    assert line(audit, "completions")["accepted"] == len(NUMBERS)
    code, audit = audited(["exact"], rows)
    assert code == FAILED
    assert line(audit, "completions")["verdict"] == "failed"


def test_without_references_what_cannot_be_checked_is_skipped_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "write something"}]
    prompts = {"train": {"path": "rows.jsonl", "columns": {"reference": None}}}
    path = recipe_of(tmp_path, ["verify.py:never"], rows, prompts=prompts)
    assert audit_path(path) == 0
    page = capsys.readouterr().out
    assert "references: no prompt has a reference" in page
    assert "skipped, which is not passed: references, perturbed references, other references" in page


# Rules of ours


@pytest.mark.parametrize(
    "scorer",
    [
        "exact",
        "math",
        {"name": "exact", "extract": "boxed"},
        {"name": "math", "extract": {"after": "####"}},
        {"name": "exact", "extract": {"tag": "answer"}},
        {"name": "exact", "extract": "last_line"},
        {"name": "exact", "extract": {"regex": r"(?m)^Answer:\s*(.+?)\.?$"}},
        {"name": "regex", "params": {"pattern": r"(?m)^The answer is\s+(\S+)$"}},
    ],
    ids=str,
)
def test_a_rule_passes_on_sound_data(audited: Any, scorer: Any) -> None:
    code, audit = audited([scorer], NUMBERS[:2])
    assert code == 0, audit
    assert {one["verdict"] for one in audit["checks"]} == {"passed"}


def test_a_recipe_that_takes_the_last_of_many_is_told_what_that_lets_in(audited: Any) -> None:
    code, audit = audited([{"name": "numeric", "params": {"take": "last"}}])
    assert code == FAILED
    assert "a false equation" in line(audit, "cheating answers")["kinds"]


def test_a_reference_that_the_rule_refuses_in_its_own_form_fails(audited: Any) -> None:
    rows = rows_of(("who?", "two\nlines"), ("and who?", "one line"))
    code, audit = audited([{"name": "exact", "extract": "last_line"}], rows)
    assert code == FAILED
    references = line(audit, "references")
    assert (references["accepted"], references["refused"], references["verdict"]) == (1, 1, "failed")
    assert references["cases"][0]["reference"] == "two\nlines"


def test_multiple_choice_is_asked_with_every_other_letter_and_all_of_them(audited: Any) -> None:
    choices = ["red", "green", "blue", "grey"]
    rows = rows_of(("sky?", "C"), ("grass?", "B"), ("blood?", "A"), choices=choices)
    code, audit = audited([{"name": "choice", "params": {"choices": "choices"}}], rows)
    assert code == 0
    assert line(audit, "perturbed references")["asked"] >= 3 * len(rows)
    assert line(audit, "other references")["asked"] == len(rows)
    assert line(audit, "references")["words"] == "of 4 choices, a guess is right 25% of the time"


@pytest.mark.parametrize("match", ["exact", "subset", "none"])
def test_json_is_asked_for_what_its_match_must_refuse(audited: Any, match: str) -> None:
    rows = rows_of(*((f"row {n}?", {"a": n, "b": [n, "x"]}) for n in range(1, 6)))
    params = {"match": match, "schema": {"type": "object", "required": ["a"]}}
    code, audit = audited([{"name": "json_schema", "params": params}], rows)
    assert code == 0
    wanted = "skipped" if match == "none" else "passed"
    assert line(audit, "other references")["verdict"] == line(audit, "perturbed references")["verdict"] == wanted


def test_every_task_of_a_mix_is_audited_with_its_own_scorers(audited: Any) -> None:
    mix = {"plain": {"path": "rows.jsonl", "limit": 2}, "boxes": {"path": "rows.jsonl", "skip": 2}}
    scorers = [
        {"name": "exact", "tasks": ["plain"]},
        {"name": "verify.py:gullible", "tasks": ["boxes"]},
    ]
    code, audit = audited(scorers, prompts={"train": {"mix": mix}})
    assert code == FAILED
    assert line(audit, "cheating answers", "plain")["verdict"] == "passed"
    assert line(audit, "cheating answers", "boxes")["verdict"] == "failed"


def test_several_scorers_are_asked_in_a_form_that_all_of_them_take(audited: Any) -> None:
    scorers = [{"name": "exact", "extract": "boxed"}, {"name": "verify.py:boxed", "gate": True}]
    code, audit = audited(scorers)
    assert code == 0
    assert line(audit, "references")["accepted"] == len(NUMBERS)


def test_a_thinking_model_is_not_paid_for_its_reasoning(audited: Any) -> None:
    code, audit = audited(["exact"], model={"path": "none", "thinking": {}})
    assert code == 0
    without = audited(["exact"])[1]
    more = line(audit, "cheating answers")["asked"] - line(without, "cheating answers")["asked"]
    assert more == 2 * len(NUMBERS)


def test_conversations_are_audited_by_their_last_turn(audited: Any) -> None:
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["reference"]}]}
        for row in NUMBERS
    ]
    code, audit = audited(["exact"], rows, prompts={"format": "chat"})
    assert code == 0
    assert line(audit, "completions")["accepted"] == len(NUMBERS)


@pytest.mark.parametrize("recipe", ["quickstart", "sorting"])
def test_the_shipped_recipes_pass_without_loading_anything_heavy(recipe: str) -> None:
    code = (
        "import sys\nfrom selftrain.cli import app\n"
        f"try:\n    app(['audit', {recipe!r}])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = ('torch', 'transformers', 'peft', 'trl', 'datasets', 'wandb', 'accelerate', 'pyarrow', 'scipy')\n"
        "print('LOADED', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "passed: nothing surely wrong was accepted, and nothing was left unscored" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


def rows_with_tests(*, named: bool = True) -> list[dict[str, Any]]:
    rows = rows_of(("double n", "def double(n):\n    return 2 * n"), ("square n", "def square(n):\n    return n * n"))
    rows[0] |= {"entry_point": "double", "tests": ["assert double(2) == 4", "assert double(5) == 10"]}
    rows[1] |= {"entry_point": "square", "tests": ["assert square(3) == 9", "assert square(4) == 16"]}
    return [{key: value for key, value in one.items() if named or key != "entry_point"} for one in rows]


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_programs_that_solve_nothing_do_not_pass_tests(audited: Any, named: bool) -> None:
    code, audit = audited(["code"], rows_with_tests(named=named))
    assert code == 0, audit
    assert line(audit, "other references")["asked"] == 2
    assert line(audit, "perturbed references")["asked"] > 0
    assert line(audit, "cheating answers")["asked"] > 40


@pytest.mark.slow
def test_tests_in_the_candidates_own_process_are_found_to_be_fooled(audited: Any) -> None:
    code, audit = audited([{"name": "code", "params": {"weak": True}}], rows_with_tests(), limit=1)
    assert code == FAILED
    assert "an object that equals everything" in line(audit, "cheating answers")["kinds"]


def test_what_is_not_surely_wrong_is_to_be_looked_at_and_does_not_fail() -> None:
    tally = Tally(None, "perturbed references", "refused")
    for correct in (True, False):
        score = Score("c", float(correct), correct)
        tally.add(prompt_of("1"), score, kind="mutant", form="code", text="x" * 5000, why="changed")
    noted, sure = tally.check(is_sure=False), tally.check()
    assert (noted.verdict, sure.verdict) == ("noted", "failed")
    assert (noted.accepted, noted.refused, noted.asked, noted.prompts) == (1, 1, 2, 1)
    (case,) = noted.cases
    assert (len(case.answer), case.length) == (2000, 5000)
    assert is_passed([noted])
    assert not is_passed([noted, sure])


def test_several_sets_are_audited_each_with_at_most_so_many_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scripted_recipe(tmp_path)
    assert audit_path(path, limit=4, as_json=True, sets=["train", "test"]) == 0
    train, test = json.loads(capsys.readouterr().out)["audits"]
    assert (train["set"], train["prompts"], train["available"]) == ("train", 4, 12)
    assert (test["set"], test["prompts"], test["available"]) == ("test", 4, 6)


# Mistakes


def test_mistakes_are_told_without_a_traceback(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, ["exact"])
    with pytest.raises(ConfigError, match="it has: train"):
        audit_path(path, sets=["test"])
    with pytest.raises(ConfigError, match="leave it out"):
        show_audit(str(path), layers=[], overrides=[], sets=[], limit=5, seed=0, unsafe_no_sandbox=True, as_json=False)
    with pytest.raises(DataError, match="cannot use the references"):
        audit_path(recipe_of(tmp_path, ["numeric"], rows_of(("who?", "nobody"))))


def test_the_same_prompts_are_drawn_at_every_call_and_others_by_another_seed(tmp_path: Path) -> None:
    pool = [Prompt(str(n), str(n), None, f"prompt {n}") for n in range(100)]
    assert sample(pool, 10, 0) == sample(pool, 10, 0) != sample(pool, 10, 1)
    assert len({one.id for one in sample(pool, 10, 0)}) == 10
    assert {one.id for one in sample(pool, 500, 0)} == {one.id for one in pool}


# What cheats are made of


def prompt_of(reference: str | None, **metadata: Any) -> Prompt:
    return Prompt("id", "id", (Message("user", "what?"),), None, reference, metadata)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"answer is (\d+)", "answer is 42"),
        (r"(?m)^Answer:\s*(\d+)\.?$", "Answer:42"),
        (r"\\boxed\{([^}]*)\}", r"\boxed{42}"),
        (r"(?:The )?final answer:\s+(?P<answer>\S+)", "final answer: 42"),
        (r"\banswer[ \t]*[:=](\d{2})(?:\.|!)?", "answer:42"),
    ],
)
def test_a_pattern_says_what_stands_around_its_group(pattern: str, text: str) -> None:
    assert by_pattern(pattern, "42") == text


def test_forms_are_known_of_rules_and_guessed_of_functions() -> None:
    boxed = ScorerConfig.model_validate({"name": "numeric", "extract": "boxed"})
    mine = ScorerConfig(name="verify.py:judge")
    assert forms_of([boxed], prompt_of("1")).known
    assert [one.wrap("1") for one in forms_of([boxed], prompt_of("1")).forms] == [r"\boxed{1}"]
    guessed = forms_of([mine], prompt_of("1"))
    assert not guessed.known
    assert {"1", "#### 1", r"\boxed{1}"} <= {one.wrap("1") for one in guessed.forms}
    tagged = ScorerConfig.model_validate({"name": "exact", "extract": {"tag": "a"}})
    together = forms_of([boxed, tagged], prompt_of("1"))
    assert not together.known
    assert "\\boxed{1}\n<a>1</a>" in [one.wrap("1") for one in together.forms]


@pytest.mark.parametrize(
    ("scorer", "mine", "theirs", "differ"),
    [
        ("exact", "a", "b", True),
        ("exact", "a", " a ", False),
        ("normalised", "New York", "new york!", False),
        ("numeric", "1,000", "1000.0", False),
        ("numeric", "7", "8", True),
        ("math", "0.5", r"\frac{1}{2}", False),
        ("math", r"\sqrt{8}", r"2\sqrt{2}", False),
        ("math", "3", "4", True),
        ("json_schema", '{"a": 1}', '{"a": 1.0}', False),
        ("json_schema", "[1, 2]", "[2, 1]", True),
        ("reasoning_gym", "1", "2", False),
    ],
)
def test_other_references_are_wrong_only_where_that_is_sure(scorer: str, mine: str, theirs: str, differ: bool) -> None:
    config = ScorerConfig(name=scorer)
    assert surely_differ(prompt_of(mine), prompt_of(theirs), config) is differ


@given(st.integers(-9999, 9999))
def test_no_cheat_is_the_answer_itself(number: int) -> None:
    scorer = ScorerConfig(name="exact")
    subject = Subject("what?", str(number), (str(number + 1), str(number + 10)), "exact")
    made = [*cheats(subject, "{}".format, is_rule=True), *degenerates("what?", "{}".format)]
    assert not any(is_right_by_form(one.text, [scorer], str(number)) for one in made)
    assert all(one.why for one in made)
    assert len(made) > 60


def test_a_question_that_ends_with_its_own_answer_is_no_cheat(audited: Any) -> None:
    rows = rows_of(("Say this word:\nhello", "hello"), ("Say that word:\nyes", "yes"))
    code, audit = audited([{"name": "exact", "extract": "last_line"}], rows)
    assert code == 0, audit


def test_programs_name_the_function_and_are_python_but_for_what_says_that_it_is_not() -> None:
    tests = ["assert double(2) == 4", "assert double(5) == 10"]
    question = "Double it.\nassert double(2) == 4"
    subject = Subject(question, "def double(n): ...", (), "code", metadata={"tests": tests})
    made = list(programs(subject, str))
    broken = []
    for one in made:
        try:
            ast.parse(one.text)
        except SyntaxError:
            broken.append(one.name)
    assert broken == ["no Python", "no code at all"]
    assert sum("def double(" in one.text for one in made) > 15
    shown = next(one for one in made if one.name == "the tests that the question shows")
    spaces: dict[str, Any] = {}
    exec(shown.text, spaces)
    assert (spaces["double"](2), spaces["double"](5)) == (4, None)
    assert "return 4" in next(one.text for one in made if one.name == "the first test's answer to everything")


def test_a_program_for_tests_that_the_question_shows_in_full_would_be_right_and_is_left_out() -> None:
    tests = ["assert double(2) == 4"]
    subject = Subject("Double it.\nassert double(2) == 4", "x", (), "code", metadata={"tests": tests})
    names = {one.name for one in programs(subject, str)}
    assert not names & {"the tests that the question shows", "the first test's answer to everything"}


# Code


def test_what_a_mutant_changes_is_shown_instead_of_all_of_it(tmp_path: Path) -> None:
    source = "def double(n):\n    if n > 0:\n        return 2 * n\n    return n + n\n"
    found = mutants(source, "double")
    changes = [changed_lines(source, one, "double") for one in found]
    assert ("-    if n > 0:", "+    if n >= 0:") in changes
    assert all(len(lines) <= 6 for lines in changes)
    assert "+        return _altered(2 * n)" in changes[0]
    assert not any("def _altered" in line for line in changes[0])
    head = "def double(n):\n"
    whole = mutants("def double(n):\n    return 2 * n\n", "double", prepend=head)
    assert whole == mutants("    return 2 * n\n", "double", prepend=head)


def test_five_mutants_are_shown_and_the_rest_counted() -> None:
    tally = Tally(None, "perturbed references", "refused", kept=7, of_a_kind=7)
    for number in range(9):
        changed = [f"- line {number}", *["+ other"] * 9]
        score = Score("c", 1.0, True)
        tally.add(prompt_of("a\nb"), score, kind="mutant", form="code", text="x", why="changed", changed=changed)
    data = asdict(
        Audit(
            "r",
            "train",
            ("code",),
            1.0,
            1,
            1,
            0,
            (tally.check(is_sure=False),),
            Speed(9, 1.0, 9.0, 0.0, 0, 0.1, ""),
            True,
        )
    )
    page = [one.text for one in audit_lines(data)]
    assert page.count("    changed in the reference:") == 5
    assert [one for one in page if one.startswith("      - line")] == [f"      - line {n}" for n in range(5)]
    assert page.count("      ... 2 more lines") == 5
    assert "  2 more: --json has them, and counts 2 besides" in page
    assert not any("reference: " in one for one in page)


def test_references_of_several_lines_keep_them() -> None:
    tally = Tally(None, "cheating answers", "refused")
    tally.add(prompt_of("def f():\n    return 1"), Score("c", 1.0, True), kind="k", form="f", text="x", why="w")
    speed = Speed(1, 1.0, 1.0, 0.0, 0, 0.1, "")
    data = asdict(Audit("r", "train", ("code",), 1.0, 1, 1, 0, (tally.check(),), speed, False))
    page = [one.text for one in audit_lines(data)]
    at = page.index("    reference:")
    assert page[at + 1 : at + 3] == ["      def f():", "          return 1"]


@pytest.mark.parametrize("tests", [["assert double(2) == 4"], "assert double(2) == 4\nassert double(0) == 0"])
def test_the_function_that_tests_call_is_known_without_a_column_that_names_it(tests: Any) -> None:
    scorer = ScorerConfig(name="code")
    mine = Prompt("a", "a", None, "double", "def double(n):\n    return 2 * n\n", {"tests": tests})
    other = Prompt("b", "b", None, "square", "def square(n):\n    return n * n\n", {"tests": ["assert square(3) == 9"]})
    of_task = OfTask(
        asking=Asking(None),  # type: ignore[arg-type]
        task=None,
        scorers=(scorer,),
        prompts=[mine, other],
        pool=[mine, other],
        thinking=None,
        seed=0,
    )
    assert of_task.rows is not None
    assert (of_task.rows.entry_point(mine), of_task.rows.known(other)["entry_point"]) == ("double", "square")
    assert "_altered(2 * n)" in of_task._near(mine)[0]
    assert surely_differ(of_task._with_known(mine), of_task._with_known(other), scorer)
    assert any("def double(*args" in one.text for one in of_task._cheats_of(mine, slow=False))
    assert of_task.expected() > 50


# How far it is


def test_progress_is_a_line_now_and_then_where_nobody_watches() -> None:
    clock, stream = iter(range(0, 100, 5)), io.StringIO()
    progress = Progress(stream, lambda: float(next(clock)))
    progress.begin("cheating answers", 556)
    for _ in range(8):
        progress.step()
    progress.end()
    assert stream.getvalue() == "cheating answers: 3 of 556\ncheating answers: 6 of 556\n"


def test_progress_on_a_terminal_is_one_line_that_is_taken_away() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock, screen = iter(range(100)), Screen()
    progress = Progress(screen, lambda: float(next(clock)))
    progress.begin("references", 2)
    progress.step()
    progress.step()
    progress.end()
    assert screen.getvalue() == "\r\x1b[2Kreferences: 1 of 2\r\x1b[2Kreferences: 2 of 2\r\x1b[2K"


def test_ctrl_c_shows_what_was_done_and_leaves_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, explain = iter(range(15)), CombinedScorer.explain

    def interrupted(self: CombinedScorer, *args: Any, **named: Any) -> Score:
        if next(answers) == 14:
            raise KeyboardInterrupt
        return explain(self, *args, **named)

    monkeypatch.setattr(CombinedScorer, "explain", interrupted)
    assert audit_path(recipe_of(tmp_path, ["exact"])) == STOPPED == 130
    page = capsys.readouterr().out
    assert re.search(r"references +5 +5 +5 +0 +0  passed", page)
    assert "INCOMPLETE" in page.splitlines()[3]
    assert page.splitlines()[-1].startswith("INCOMPLETE: stopped before everything was asked")


def test_a_long_audit_says_so_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_of(tmp_path, ["exact"])
    assert audit_path(path, limit=3) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("selftrain.auditing.LONG_SECONDS", 0.0)
    assert audit_path(path, limit=3) == 0
    assert re.search(r"warning: about .* for some \d+ answers .* a lower --limit \(here 3\)", capsys.readouterr().err)


# Learned scorers


def given_stars(**knobs: Any) -> dict[str, Any]:
    return {"name": "given", "params": {"column": "stars"}, **knobs}


def test_learned_scorers_are_left_out_and_named(audited: Any, tmp_path: Path) -> None:
    code, audit = audited(["exact", given_stars()])
    assert code == 0
    assert audit["scorers"] == ["exact"]
    assert audit["notes"] == ["not audited: given, for the values that candidates bring belong to no other texts"]
    assert line(audit, "references")["accepted"] == len(NUMBERS)
    alone, without = audited(["exact"])
    assert alone == 0
    assert without["checks"] == audit["checks"]
    assert without["notes"] == []


def test_where_only_learned_scorers_have_weight_an_audit_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, [{"name": "exact", "weight": 0}, given_stars()])
    with pytest.raises(
        ConfigError, match=r"--set train: only given has a weight there, and the values .* tries scorers"
    ):
        audit_path(path)


def test_a_set_judged_by_rules_is_audited_where_a_learned_scorer_judges_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(rows_of(("what comes after 7?", "8"))[0]))
    path = recipe_of(tmp_path, [given_stars()], prompts={"test": "test.jsonl"}, evaluate={"scorers": ["exact"]})
    assert audit_path(path, sets=["test"]) == 0
    assert "not audited" not in capsys.readouterr().out
