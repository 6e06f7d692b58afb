"""`selftrain init` writes recipes that `plan` accepts, from every kind of data, and says what it chose."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import receipt_of, run_here, selftrain

from selftrain import beginning
from selftrain.beginning import Wishes, begin
from selftrain.beginning.looking import kind_of_references, look
from selftrain.beginning.scorers import KINDS
from selftrain.compose import compose
from selftrain.config import Config
from selftrain.errors import ConfigError, DataError, SelftrainError
from selftrain.preflight import check
from selftrain.prompts import PromptSets

ECHO = '''
def answer(prompt, seed, policy_round):
    """What the prompt's metadata say is right, three times out of four."""
    right = prompt.metadata.get("right") or {right}
    return right if seed % 4 else "something else"
'''
COUNT = range(40)
QUESTIONS = [{"question": f"What comes after {n}?", "answer": str(n + 1)} for n in range(40)]


class Says(beginning.Asker):
    """Keeps what is said; answers from a list, or takes proposals."""

    def __init__(self, answers: Iterable[str] | None = None) -> None:
        super().__init__(is_there=False)
        self.said: list[str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.answers = None if answers is None else list(answers)
        self.is_there = answers is not None

    def ask(self, question: str, proposal: str | None, allowed: Sequence[str] = ()) -> str | None:
        if self.answers is None:
            return proposal
        self.asked.append((question, proposal))
        answer = self.answers.pop(0)
        assert not answer or not allowed or answer in allowed
        return answer or proposal

    def tell(self, line: str) -> None:
        self.said.append(line)


def data(folder: Path, rows: Iterable[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(folder: Path, **wishes: Any) -> tuple[Config, PromptSets, Says]:
    """Write a recipe, which `begin` checks; return what it says."""
    said = Says()
    begin(folder, Wishes(**wishes), asker=said)
    composed = compose(str(folder))
    prompts, _ = check(composed)
    return composed.config, prompts, said


def asked_of(prompts: PromptSets, number: int = 0) -> str:
    prompt = prompts.train.prompts[number]
    return prompt.messages[-1].content if prompt.messages else str(prompt.text)


def scorer_of(config: Config) -> Any:
    assert len(config.score.scorers) == 1
    return config.score.scorers[0]


# Every kind of data

ROWS: dict[str, list[dict[str, Any]]] = {
    "numbers": QUESTIONS,
    "short": [{"prompt": f"Capital of land {n}?", "reference": f"City {n}"} for n in range(40)],
    "gsm8k": [
        {"question": f"Q{n}?", "answer": f"It is {n}+1=<<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"} for n in range(40)
    ],
    "math": [
        {"problem": f"Half of {n}?", "solution": "long", "answer": f"\\frac{{{n}}}{{2}}"} for n in range(1, 81, 2)
    ],
    "boxed": [{"problem": f"A half of {n}?", "solution": f"So:\n\\boxed{{\\frac{{{n}}}{{2}}}}"} for n in COUNT],
    "arc": [
        {
            "id": f"r{n}",
            "question": f"Which is {n}?",
            "choices": {"text": [f"{n}x", f"{n}y", f"{n}z"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        }
        for n in range(40)
    ],
    "mmlu": [
        {"question": f"Which is {n}?", "choices": [f"a{n}", f"b{n}", f"c{n}", f"d{n}"], "answer": 2} for n in range(40)
    ],
    "json": [{"prompt": f"Give a = {n}", "expected": json.dumps({"a": n})} for n in range(40)],
    "chat": [{"messages": [{"role": "user", "content": f"After {n}?"}], "reference": str(n + 1)} for n in range(40)],
    "trl": [{"prompt": [{"role": "user", "content": f"After {n}?"}], "answer": str(n + 1)} for n in range(40)],
    "context": [
        {"context": f"Box {n} has {n + 1} balls.", "question": f"How many in {n}?", "answer": str(n + 1)}
        for n in range(40)
    ],
}
ROWS["squad"] = [
    {"context": f"Box {n} is red{n}.", "question": f"What is box {n}?", "answers": {"text": [f"red{n}"], "start": [9]}}
    for n in COUNT
]
ROWS["several"] = [{"question": f"After {n}?", "answers": [str(n + 1), "x"]} for n in COUNT]
ROWS["truth"] = [{"passage": f"Box {n}.", "question": f"Is it {n}?", "answer": n % 2 == 0} for n in COUNT]
ROWS["mbpp"] = [
    {
        "text": f"Write a function that adds {n}.",
        "code": f"def add_{n}(a):\r\n    return a + {n}",
        "task_id": n,
        "test_setup_code": "",
        "test_list": [f"assert add_{n}({a}) == {n + a}" for a in (1, 5)],
    }
    for n in COUNT
]
SCORER = {
    "mbpp": "code",
    "squad": "normalised",
    "several": "numeric",
    "truth": "normalised",
    "numbers": "numeric",
    "short": "normalised",
    "gsm8k": "math",
    "math": "math",
    "boxed": "math",
    "arc": "choice",
    "mmlu": "choice",
    "json": "json_schema",
    "chat": "numeric",
    "trl": "numeric",
    "context": "numeric",
}


@pytest.mark.parametrize("fmt", ["chat", "text"])
@pytest.mark.parametrize(
    "shape", [pytest.param(shape, marks=[pytest.mark.slow] * (shape in ("boxed", "math"))) for shape in ROWS]
)
def test_every_shape_of_data_becomes_a_recipe_that_plan_accepts(tmp_path: Path, shape: str, fmt: str) -> None:
    source = data(tmp_path, ROWS[shape])
    config, prompts, said = made(tmp_path / "mine", data=str(source), format=fmt)
    assert scorer_of(config).name == SCORER[shape]
    is_text = config.prompts.format == "text"
    assert is_text == (fmt == "text" and shape not in ("chat", "trl"))
    assert (len(prompts.test.prompts), len(prompts.validate.prompts)) == ((3, 3) if is_text else (4, 4))
    assert len(prompts.train.prompts) == (33 if is_text else 32)
    assert len((tmp_path / "mine/recipe.yaml").read_text().splitlines()) <= 45
    assert any(line.strip().startswith("scorer: ") for line in said.said)
    assert any("selftrain run" in line for line in said.said)


def test_the_prompt_shows_options_and_context_and_says_how_to_answer(tmp_path: Path) -> None:
    _, prompts, _ = made(tmp_path / "a", data=str(data(tmp_path, ROWS["mmlu"])))
    assert asked_of(prompts).startswith("Which is 8?\nA. a8\nB. b8\nC. c8\nD. d8\n\nEnd with a line that says Answer:")
    _, prompts, _ = made(tmp_path / "b", data=str(data(tmp_path, ROWS["arc"])))
    assert "\nC. 8z\n" in asked_of(prompts)
    _, prompts, _ = made(tmp_path / "c", data=str(data(tmp_path, ROWS["context"])))
    assert asked_of(prompts).startswith("Box 8 has 9 balls.\n\nHow many in 8?\n\nEnd with a line that says ####")


def test_conversations_are_told_the_form_of_the_answer_by_the_system(tmp_path: Path) -> None:
    config, prompts, _ = made(tmp_path / "a", data=str(data(tmp_path, ROWS["chat"])))
    assert config.prompts.system == "End with a line that says #### and the number."
    assert asked_of(prompts) == "After 8?"
    own = [{**row, "messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]} for row in ROWS["chat"]]
    config, _, said = made(tmp_path / "b", data=str(data(tmp_path, own)))
    assert config.prompts.system is None
    assert any("system messages of their own, which must ask" in line for line in said.said)


def test_a_worked_example_is_in_no_set_and_is_right_by_its_own_scorer(tmp_path: Path) -> None:
    config, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, ROWS["gsm8k"])), format="text")
    shown = config.prompts.few_shot[0]
    assert shown.prompt == "Question: Q0?\nAnswer:"
    assert shown.completion == " It is 0+1=<<0+1=1>>1.\n#### 1"
    assert config.sample.stop_strings == ("\nQuestion:",)
    sets = (prompts.train, prompts.validate, prompts.test)
    assert not [one for of in sets for one in of.prompts if str(one.text).count("Q0?") != 1]
    assert sum(len(of.prompts) for of in sets) == 39


@pytest.mark.parametrize(("answer", "letter"), [(2, "C"), ("2", "C"), ("c0", "C"), ("C", "C")])
def test_a_worked_example_of_choices_shows_the_letter(tmp_path: Path, answer: object, letter: str) -> None:
    rows = [{**row, "answer": answer if answer != "c0" else f"c{n}"} for n, row in enumerate(ROWS["mmlu"])]
    config, _, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)), format="text")
    assert config.prompts.few_shot[0].completion == f" {letter}"


def test_labels_of_the_data_are_what_the_prompt_shows(tmp_path: Path) -> None:
    rows = [{**row, "choices": {**row["choices"], "label": [1, 2, 3]}, "answerKey": "2"} for row in ROWS["arc"]]
    _, prompts, _ = made(tmp_path / "a", data=str(data(tmp_path, rows)))
    assert "\n2. 8y\n3. 8z\n" in asked_of(prompts)
    config, _, _ = made(tmp_path / "b", data=str(data(tmp_path, rows)), format="text")
    assert config.prompts.few_shot[0].completion == " 2"


@pytest.mark.parametrize("flags", [{"prompt_column": "q.t"}, {"template": "Say {q.t}:"}])
@pytest.mark.parametrize("fmt", ["chat", "text"])
def test_columns_inside_of_columns_can_be_asked(tmp_path: Path, flags: dict[str, str], fmt: str) -> None:
    rows = [{"q": {"t": f"After {n}?"}, "a": {"v": str(n + 1)}} for n in COUNT]
    _, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)), reference_column="a.v", format=fmt, **flags)
    assert f"After {8 if fmt == 'chat' else 7}?" in asked_of(prompts)


def test_conversations_are_chat_whatever_the_format_and_take_no_template(tmp_path: Path) -> None:
    source = str(data(tmp_path, ROWS["chat"]))
    config, _, _ = made(tmp_path / "mine", data=source, format="text")
    assert config.prompts.system == "End with a line that says #### and the number."
    assert config.sample.max_new_tokens == 256
    with pytest.raises(ConfigError, match="--template: the rows hold conversations"):
        made(tmp_path / "other", data=source, template="{messages}")


# Every kind of scorer


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("math", "reasoning_gym"))) for kind in KINDS]
)
def test_every_scorer_can_be_asked_for_and_runs_with_scripted_answers(tmp_path: Path, kind: str) -> None:
    shape = {"choice": "mmlu", "math": "gsm8k", "json_schema": "json", "code": "mbpp"}.get(kind, "numbers")
    shape = "gym" if kind == "reasoning_gym" else shape
    folder = tmp_path / "mine"
    if shape == "gym":
        config, prompts, _ = made(folder, data="reasoning_gym:basic_arithmetic", holdout=4)
        assert (len(prompts.validate.prompts), len(prompts.test.prompts)) == (4, 4)
    else:
        config, prompts, _ = made(folder, data=str(data(tmp_path, ROWS[shape])), scorer=kind)
    assert scorer_of(config).name == ("verify.py:judge" if kind == "function" else kind)
    right = {
        "numeric": "'so it is\\n#### ' + prompt.reference",
        "regex": "'I think.\\nAnswer: ' + prompt.reference",
        "choice": "'Answer: C'",
        "reasoning_gym": "'<answer>' + prompt.reference + '</answer>'",
    }.get(kind, "prompt.reference")
    (folder / "answers.py").write_text(ECHO.replace("{right}", right))
    engine = ("sample.engine=scripted", "sample.params.function=answers.py:answer", "train.trainer=scripted")
    small = ("prompts.per_round=8", "rounds=1", "evaluate.sampled_rounds=none", "evaluate.resamples=100")
    run = run_here(folder, *engine, *small, "arms=[]", "sample.max_new_tokens=512", runs_dir=tmp_path / "runs")
    metrics = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert 0.5 < metrics["score/correct_rate"] < 1.0
    assert receipt_of(run, "main/rounds/001/round")


@pytest.mark.slow
def test_a_function_comes_with_a_test_that_passes(tmp_path: Path) -> None:
    made(tmp_path / "a", data=str(data(tmp_path, QUESTIONS)), scorer="function")
    alone = data(tmp_path, [{"prompt": f"Tell me of {n}."} for n in range(20)], "alone.jsonl")
    config, _, _ = made(tmp_path / "b", data=str(alone), scorer="function")
    assert config.prompts.train.columns.reference is None
    for folder in ("a", "b"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_verify.py"]
        done = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_verifier_is_only_written_if_asked_for(tmp_path: Path) -> None:
    made(tmp_path / "mine", data=str(data(tmp_path, QUESTIONS)))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["README.md", "recipe.yaml"]


# The example


def test_without_data_there_is_an_example_with_the_settings_of_the_quick_start(tmp_path: Path) -> None:
    config, prompts, _ = made(tmp_path / "mine")
    quick = compose("quickstart").config
    assert [len(one.prompts) for one in (prompts.train, prompts.validate, prompts.test)] == [1000, 100, 200]
    assert asked_of(prompts).startswith("28 + 57 = 85\n")
    assert config.train.learning_rate == quick.train.learning_rate
    assert config.sample.num_candidates == quick.sample.num_candidates
    assert config.select == quick.select
    assert config.name == "mine"
    assert "Measured" in (tmp_path / "mine/README.md").read_text()


def test_the_example_for_another_model_or_as_chat_takes_settings_that_fit_any(tmp_path: Path) -> None:
    config, _, _ = made(tmp_path / "a", model="someone/larger")
    assert (config.model.path, config.train.learning_rate, config.train.batch_size) == ("someone/larger", 1e-4, 16)
    config, prompts, _ = made(tmp_path / "b", format="chat", scorer="numeric")
    assert config.train.learning_rate == 1e-4
    assert asked_of(prompts).endswith("=\n\nEnd with a line that says #### and the number.")


# Sets


def test_held_out_sets_can_be_files_of_their_own(tmp_path: Path) -> None:
    train = data(tmp_path, QUESTIONS[:20])
    test = data(tmp_path, QUESTIONS[20:30], "test.jsonl")
    config, prompts, _ = made(tmp_path / "mine", data=str(train), test=str(test), holdout=5)
    assert [len(one.prompts) for one in (prompts.train, prompts.validate, prompts.test)] == [15, 5, 10]
    assert config.prompts.train.path == "../rows.jsonl"
    assert config.prompts.test.path == "../test.jsonl"


def test_nothing_is_held_out_if_so_asked_or_if_there_are_few_rows(tmp_path: Path) -> None:
    _, prompts, _ = made(tmp_path / "a", data=str(data(tmp_path, QUESTIONS)), holdout=0)
    assert not prompts.held_out()
    _, prompts, said = made(tmp_path / "b", data=str(data(tmp_path, QUESTIONS[:7])))
    assert not prompts.held_out()
    assert any("too few rows" in line for line in said.said)
    with pytest.raises(DataError, match="leaves nothing to train on: the data have 7 rows"):
        made(tmp_path / "c", data=str(data(tmp_path, QUESTIONS[:7])), holdout=4)


def test_a_function_is_named_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.py").write_text(
        "def made():\n    return [{'question': f'{n}?', 'answer': n} for n in range(50)]\n"
    )
    monkeypatch.chdir(tmp_path)
    config, prompts, _ = made(Path("mine"), data="rows.py:made")
    assert config.prompts.train.path == "../rows.py:made"
    assert len(prompts.train.prompts) == 40


def test_parts_of_a_hub_data_set_are_named_after_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def read(source: Any, base: Path, where: str) -> Any:
        seen.append(source)
        return [(f"row {n}", row) for n, row in enumerate(ROWS["gsm8k"])]

    monkeypatch.setattr(beginning, "read", read)
    monkeypatch.setattr(beginning, "_check", lambda folder: None)
    wishes = Wishes(data="openai/gsm8k,subset=main,split=train", test="split=test", holdout=10)
    begin(tmp_path / "mine", wishes, asker=Says())
    assert (seen[0].path, seen[0].subset, seen[0].split) == ("openai/gsm8k", "main", "train")
    prompts = compose(str(tmp_path / "mine")).config.prompts
    assert (prompts.test.subset, prompts.test.split, prompts.test.limit) == ("main", "test", None)
    assert (prompts.validate_.split, prompts.validate_.limit, prompts.train.skip) == ("train", 10, 10)


def test_many_rows_are_asked_in_parts(tmp_path: Path) -> None:
    rows = [{"question": f"What comes after {n}?", "answer": str(n + 1)} for n in range(600)]
    config, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    assert config.prompts.per_round == 256
    assert len(prompts.train.prompts) == 480


def test_a_thinking_model_gets_room_to_think(tmp_path: Path) -> None:
    config, _, _ = made(tmp_path / "mine", data=str(data(tmp_path, QUESTIONS)), thinking=True)
    assert config.model.thinking is not None
    assert (config.sample.max_new_tokens, config.sample.temperature) == (4096, 1.0)


def test_a_local_model_is_named_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    config, _, _ = made(Path("mine"), data=str(data(tmp_path, QUESTIONS)), model="model")
    assert config.model.path == str(tmp_path / "model")


def test_a_template_of_ones_own_says_where_the_answer_is(tmp_path: Path) -> None:
    source = str(data(tmp_path, QUESTIONS))
    config, prompts, _ = made(tmp_path / "a", data=source, template="{question}\nPut it in <answer></answer>.")
    assert scorer_of(config).extract.by == "tag"
    assert asked_of(prompts) == "What comes after 8?\nPut it in <answer></answer>."
    config, _, _ = made(tmp_path / "b", data=source, template="{question} The number alone:")
    assert scorer_of(config).extract.by == "whole"


# Columns


def test_columns_are_found_whatever_the_case_and_taken_as_said(tmp_path: Path) -> None:
    rows = [{"Question": f"{n}?", "Expected Answer": str(n), "other": str(n + 1)} for n in range(20)]
    config, _, said = made(tmp_path / "a", data=str(data(tmp_path, rows)))
    assert (config.prompts.train.columns.prompt, config.prompts.train.columns.reference) == (
        "Question",
        "Expected Answer",
    )
    assert any("Expected Answer is by its name the answer" in line for line in said.said)
    config, prompts, said = made(tmp_path / "b", data=str(data(tmp_path, rows)), reference_column="other")
    assert prompts.train.prompts[0].reference == "5"
    assert any("reference: other, as you said" in line for line in said.said)


def test_what_nobody_can_guess_is_one_error_that_lists_the_flags(tmp_path: Path) -> None:
    rows = [{"x": f"Tell {n}", "y": str(n)} for n in range(20)]
    with pytest.raises(ConfigError) as error:
        made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    assert "--prompt-column" in str(error.value)
    assert "--reference-column" in str(error.value)
    assert "the columns are x, y" in str(error.value)
    assert not (tmp_path / "mine").exists()
    config, _, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)), prompt_column="x", reference_column="y")
    assert scorer_of(config).name == "numeric"


def test_long_references_need_a_scorer_that_somebody_chose(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Tell {n}", "response": f"{n}: once upon a time there was somebody who. " * 3} for n in range(20)
    ]
    with pytest.raises(ConfigError, match="--scorer: one of exact"):
        made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    made(tmp_path / "mine", data=str(data(tmp_path, rows)), scorer="function")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such file": ({"data": "nowhere.jsonl"}, "there is no file or folder"),
    "no such column": ({"prompt_column": "nowhere"}, "--prompt-column 'nowhere': there is no such column"),
    "an unknown scorer": ({"scorer": "exakt"}, "--scorer 'exakt' is unknown; known: exact"),
    "an unknown format": ({"format": "xml"}, "--format 'xml' is unknown"),
    "a name for no folder": ({"name": "../up"}, "cannot name a run"),
    "a template without its column": ({"template": "{nowhere}"}, "no column 'nowhere'"),
    "flags about no data": ({"data": None, "holdout": 3}, "give that"),
    "worked answers as numbers": ({"data": "gsm8k", "scorer": "numeric"}, "use --scorer math"),
    "a source without a path": ({"test": "split=test"}, "split"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_clear_error(tmp_path: Path, mistake: str) -> None:
    wishes, said = WRONG[mistake]
    flags = {"data": str(data(tmp_path, QUESTIONS)), **wishes}
    if flags["data"] == "gsm8k":
        flags["data"] = str(data(tmp_path, ROWS["gsm8k"]))
    with pytest.raises(SelftrainError) as error:
        made(tmp_path / "mine", **flags)
    assert said in str(error.value)


def answered(number: int, said: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": f"After {number}?"}, {"role": "assistant", "content": said}],
    }


def test_the_last_turn_of_the_assistant_is_the_reference_and_is_not_asked(tmp_path: Path) -> None:
    short = data(tmp_path, [answered(n, f"No {n + 1}") for n in COUNT])
    config, prompts, said = made(tmp_path / "mine", data=str(short))
    assert scorer_of(config).name == "normalised"
    one = prompts.train.prompts[0]
    assert [message.role for message in one.messages or ()] == ["system", "user"]
    assert one.reference == one.completion
    assert str(one.reference) not in json.dumps([message.content for message in one.messages or ()])
    assert any(
        "the assistant's last turn in messages, which is not part of what is asked" in line for line in said.said
    )
    long = data(tmp_path, [answered(n, f"It comes after {n}, as everyone knows. " * 4) for n in COUNT], "long.jsonl")
    config, _, _ = made(tmp_path / "long", data=str(long))
    assert scorer_of(config).name == "verify.py:judge"
    none, prompts, _ = made(tmp_path / "none", data=str(short), reference_column="none", scorer="function")
    assert none.prompts.train.columns.reference is None
    assert prompts.train.prompts[0].reference is None


def test_conversations_of_which_some_are_answered_are_refused(tmp_path: Path) -> None:
    rows = [answered(n, "No") for n in COUNT]
    rows[3] = {"messages": rows[3]["messages"][:1]}
    with pytest.raises(DataError, match=r"some conversations end with the assistant's turn"):
        made(tmp_path / "mine", data=str(data(tmp_path, rows)))


OPTIONS: dict[str, tuple[list[str], object, str]] = {
    "letters": (["A", "B", "C", "D"], "B", "B. b3"),
    "small letters": (["a", "b", "c"], "c", "C. c3"),
    "option_a": (["option_a", "option_b", "option_c"], 2, "C. c3"),
    "choice1": (["choice1", "choice2"], "2", "2. b3"),
    "text": (["Option A", "Option B"], "b{n}", "B. b3"),
}


@pytest.mark.parametrize("fmt", ["chat", "text"])
@pytest.mark.parametrize("shape", OPTIONS)
def test_options_in_columns_of_their_own_are_shown_and_compared(tmp_path: Path, shape: str, fmt: str) -> None:
    names, answer, shown = OPTIONS[shape]
    right = answer.format(n="{n}") if isinstance(answer, str) else answer
    rows = [
        {
            "stem": f"Which is {n}?",
            "answerKey": right.replace("{n}", str(n)) if isinstance(right, str) else right,
            **{name: f"{letter}{n}" for name, letter in zip(names, "abcd", strict=False)},
        }
        for n in COUNT
    ]
    config, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)), format=fmt)
    scorer = scorer_of(config)
    assert (scorer.name, scorer.params) == ("choice", {"choices": names})
    texts = [asked_of(prompts, number) for number in range(len(prompts.train.prompts))]
    assert any(shown in text for text in texts)
    if fmt == "text":
        assert config.prompts.few_shot[0].completion.strip() == shown[0]


def test_columns_that_are_merely_called_by_letters_are_no_options(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 1?", "answer": n + 1, "a": "x", "b": "y", "c": "z"} for n in COUNT]
    assert scorer_of(made(tmp_path / "mine", data=str(data(tmp_path, rows)))[0]).name == "numeric"


def test_a_list_of_labelled_texts_is_recognised(tmp_path: Path) -> None:
    rows = [
        {"stem": f"Which {n}?", "answerKey": "B", "choices": [{"label": one, "text": f"{one}{n}"} for one in "AB"]}
        for n in COUNT
    ]
    config, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    assert scorer_of(config).params == {"choices": "choices"}
    assert "A. A9\nB. B9" in " ".join(asked_of(prompts, number) for number in range(10))


@pytest.mark.parametrize("value", [{"a": 1, "b": [2]}, [{"a": 1}]])
def test_references_that_are_objects_are_compared_as_json(tmp_path: Path, value: object) -> None:
    rows = [{"prompt": f"Give {n}", "target": value} for n in COUNT]
    config, prompts, _ = made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    assert scorer_of(config).name == "json_schema"
    assert json.loads(str(prompts.train.prompts[0].reference)) == value


def split_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for start, name in enumerate(names):
        rows = [{"question": f"After {n}?", "answer": str(n + 1)} for n in range(40 * start, 40 * start + 40)]
        data(folder, rows, f"{name}.jsonl")
    (folder / "recipe.yaml").write_text("name: another")
    return folder


def test_the_splits_of_a_folder_are_the_sets(tmp_path: Path) -> None:
    source = split_folder(tmp_path / "rows", "train", "test", "dev")
    config, prompts, said = made(tmp_path / "mine", data=str(source))
    sets = config.prompts
    assert sets.validate_ is not None
    assert sets.test is not None
    assert (sets.train.split, sets.validate_.split, sets.test.split) == ("train", "validation", "test")
    assert [len(one.prompts) for one in (prompts.train, *prompts.held_out().values())] == [40, 40, 40]
    lines = "\n".join(said.said)
    assert "test: split=test of the data" in lines
    assert "files of test: test.jsonl" in lines


def test_a_folder_of_other_things_is_an_error_that_names_what_was_read(tmp_path: Path) -> None:
    data(tmp_path, [{"question": "x", "answer": "1"}], "one.jsonl")
    data(tmp_path, [{"cities": {"a": 1}}], "two.jsonl")
    with pytest.raises(DataError, match=r"of that folder were taken: one.jsonl, two.jsonl; name one of them"):
        made(tmp_path / "mine", data=str(tmp_path))


def test_without_a_split_to_validate_it_comes_from_the_training_rows(tmp_path: Path) -> None:
    source = split_folder(tmp_path / "rows", "train", "test")
    config, prompts, said = made(tmp_path / "mine", data=str(source))
    assert config.prompts.validate_ is not None
    assert (config.prompts.validate_.split, len(prompts.train.prompts)) == ("train", 36)
    none, _, said = made(tmp_path / "none", data=str(source), holdout=0)
    assert (none.prompts.validate_, none.prompts.test) == (None, None)
    assert any("not used: split=test of the data" in line for line in said.said)


def model_folder(folder: Path, settings: str = "{}") -> str:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer_config.json").write_text(settings)
    return str(folder)


def test_a_model_without_a_chat_template_is_for_text(tmp_path: Path) -> None:
    source = str(data(tmp_path, QUESTIONS))
    base = model_folder(tmp_path / "base")
    with pytest.raises(ConfigError, match="has no chat template, as base models have none; give --format text"):
        made(tmp_path / "mine", data=source, model=base)
    assert not (tmp_path / "mine").exists()
    made(tmp_path / "mine", data=source, model=base, format="text")
    made(tmp_path / "chat", data=source, model=model_folder(tmp_path / "tuned", '{"chat_template": "x"}'))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown column in a template": ({"template": "{nope}"}, "row 1 of the data has no column 'nope' (--template"),
    "a template that is none": ({"template": "{question"}, "--template '{question' does not fit row 1"),
    "a template without columns": ({"template": "Answer:"}, "--template 'Answer:' names no column"),
    "no references for a rule": ({"reference_column": "none", "scorer": "numeric"}, "--scorer numeric compares with"),
    "choices without letters": ({"scorer": "choice"}, "--scorer choice: row 1 of the data: the reference '1' is no"),
    "no such split": ({"data": "rows", "validate": "split=nowhere"}, "--validate: "),
    "a split of a file": ({"validate": "split=test"}, "split is for a hub data set or folder"),
    "a model that is not there": ({"model": "./nofolder"}, "--model './nofolder': there is no such file or folder"),
    "a file that is not there": ({"model": "model.gguf"}, "--model 'model.gguf': there is no such file or folder"),
    "an object as prompt": ({"prompt_column": "extra"}, "--prompt-column 'extra': row 1 of the data holds no text"),
}


@pytest.mark.parametrize("fmt", ["chat", "text"])
@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path: Path, mistake: str, fmt: str) -> None:
    wishes, said = REFUSED[mistake]
    rows = [{**row, "extra": {"a": 1}} for row in QUESTIONS]
    flags = {"data": str(data(tmp_path, rows)), "format": fmt, **wishes}
    if flags["data"] == "rows":
        flags["data"] = str(split_folder(tmp_path / "rows", "train", "test"))
    with pytest.raises(ConfigError) as error:
        made(tmp_path / "mine", **flags)
    assert said in str(error.value)
    assert not (tmp_path / "mine").exists()


def test_a_column_of_images_cannot_be_asked(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": b"x", "path": None}] * 20
    table = pa.table({"image": images, "answer": [str(n) for n in range(20)]})
    pq.write_table(table, tmp_path / "rows.parquet")  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match="--prompt-column 'image' holds images or sound, which is not read"):
        made(tmp_path / "mine", data=str(tmp_path / "rows.parquet"), prompt_column="image")


@pytest.mark.parametrize("key", [KeyboardInterrupt, EOFError])
def test_leaving_a_question_is_one_line(key: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            raise key

        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            raise key

    monkeypatch.setattr("sys.stdin", Left())
    with pytest.raises(ConfigError, match="stopped at a question; nothing was written") as error:
        beginning.Asker(is_there=True).ask("Model", "m")
    assert error.value.exit_code == 2


def test_long_answers_are_trained_on_a_few_at_a_time(tmp_path: Path) -> None:
    long, _, _ = made(tmp_path / "long", data=str(data(tmp_path, ROWS["gsm8k"])))
    assert (long.sample.max_new_tokens > 128, long.train.micro_batch_size) == (True, 4)
    short, _, _ = made(tmp_path / "short", data=str(data(tmp_path, ROWS["short"])))
    assert (short.sample.max_new_tokens > 128, short.train.micro_batch_size) == (False, None)


def test_references_that_no_scorer_can_use_are_found_at_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "reference": f"about {n} or {n + 1}"} for n in range(20)]
    with pytest.raises(DataError, match="is written, and cannot be run as it is") as error:
        made(tmp_path / "mine", data=str(data(tmp_path, rows)), scorer="numeric")
    assert "--force" in str(error.value)


# Files


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    made(tmp_path / "mine", data=str(data(tmp_path, QUESTIONS)))
    (tmp_path / "mine/notes.txt").write_text("kept")
    (tmp_path / "mine/recipe.yaml").write_text("mine: own\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml.*--force"):
        made(tmp_path / "mine")
    assert (tmp_path / "mine/recipe.yaml").read_text() == "mine: own\n"
    begin(tmp_path / "mine", Wishes(), force=True, asker=Says())
    assert compose(str(tmp_path / "mine")).config.name == "mine"
    assert (tmp_path / "mine/notes.txt").read_text() == "kept"


def test_a_read_only_place_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(SelftrainError) as error:
        begin(Path("/proc/selftrain-test"), Wishes(), asker=Says())
    assert error.value.exit_code == 74


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_whatever_stands_in_the_data_the_recipe_is_read_back_as_it_was_meant(
    tmp_path_factory: pytest.TempPathFactory, question: str, answer: str
) -> None:
    if not question.strip() or not answer.strip():
        return
    folder = tmp_path_factory.mktemp("text")
    rows = [{"prompt": f"{question}{n}", "reference": answer} for n in range(4)]
    begin(folder / "mine", Wishes(data=str(data(folder, rows)), format="text", scorer="exact"), asker=Says())
    shown = compose(str(folder / "mine")).config.prompts.few_shot[0]
    assert shown.prompt == f"Question: {question}0\nAnswer:"
    assert shown.completion == f" {answer}"


# The terminal


def test_on_a_terminal_it_asks_what_no_flag_says(tmp_path: Path) -> None:
    rows = [{"x": f"Tell {n}", "answer": str(n), "y": "z"} for n in range(20)]
    asker = Says([str(data(tmp_path, rows)), "x", "", "exact", ""])
    begin(tmp_path / "mine", Wishes(), asker=asker)
    questions = [question.split(" (")[0] for question, _ in asker.asked]
    assert questions == [
        "Data: a file, folder, hub id or reasoning_gym:TASK",
        *["Column that is asked", "Column with the known answer", "Scorer", "Model"],
    ]
    assert [proposal for _, proposal in asker.asked][1:4] == [None, "answer", "numeric"]
    config = compose(str(tmp_path / "mine")).config
    assert scorer_of(config).name == "exact"
    assert config.prompts.train.columns.prompt == "x"


def test_flags_answer_the_questions(tmp_path: Path) -> None:
    asker = Says([])
    wishes = Wishes(
        data=str(data(tmp_path, QUESTIONS)),
        prompt_column="question",
        reference_column="answer",
        scorer="numeric",
        model="someone/model",
    )
    begin(tmp_path / "mine", wishes, asker=asker)
    assert not asker.asked


@pytest.mark.slow
def test_the_questions_are_asked_on_a_real_terminal(tmp_path: Path) -> None:
    source = data(tmp_path, [{"x": f"Tell {n}", "answer": str(n)} for n in range(20)])
    command = [sys.executable, "-m", "selftrain", "init", str(tmp_path / "mine")]
    master, slave = os.openpty()
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True) as program:
        os.close(slave)
        seen = ""
        answers = iter([str(source), "nowhere", "x", "", "", ""])
        marks = iter(["an example)", "asked (x, answer)", "is none of", "known answer", "Scorer (", "Model ["])
        mark = next(marks)
        position = 0
        while True:
            try:
                piece = os.read(master, 4096).decode()
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
            if mark and mark in seen[position:] and seen.rstrip(" ").endswith(":"):
                position = len(seen)
                os.write(master, f"{next(answers)}\n".encode())
                mark = next(marks, "")
        code = program.wait(60)
    os.close(master)
    assert code == 0, seen
    assert "'nowhere' is none of: x, answer" in seen
    assert compose(str(tmp_path / "mine")).config.prompts.train.columns.prompt == "x"


@pytest.mark.slow
def test_the_command_line_writes_a_recipe_that_plan_accepts(tmp_path: Path) -> None:
    done = selftrain("init", tmp_path / "mine", "--name", "first")
    assert done.returncode == 0, done.stderr
    assert f"selftrain run {tmp_path / 'mine'}" in done.stdout
    assert selftrain("plan", tmp_path / "mine").returncode == 0
    again = selftrain("init", tmp_path / "mine")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert "Traceback" not in again.stderr


# Looking


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2,000", "-3.5", "$4", "50%"], "number"),
        ([1, 2.5], "number"),
        ([True, False], "short"),
        (["so\n#### 1", "so\n#### 2"], "marked"),
        (['{"a": 1}', "[1]"], "json"),
        (["\\frac{1}{2}", "x=3", "7"], "math"),
        (["Paris", "New York"], "short"),
        (["a" * 61, "b"], "text"),
        ([None, None], "none"),
    ],
)
def test_kinds_of_references_are_told_apart(values: list[object], kind: str) -> None:
    rows = [{"question": "q", "answer": value} for value in values]
    assert kind_of_references(rows, look(rows, prompt="question", reference="answer"))[0] == kind


def test_options_that_are_not_as_many_in_every_row_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [{**row, "choices": row["choices"][: 3 + n % 2]} for n, row in enumerate(ROWS["mmlu"])]
    _, prompts, said = made(tmp_path / "mine", data=str(data(tmp_path, rows)))
    assert "\nOptions: ['a8', 'b8', 'c8']\n" in asked_of(prompts)
    assert any("not as many in every row" in line for line in said.said)


def test_the_recipe_is_plain_yaml_with_comments(tmp_path: Path) -> None:
    made(tmp_path / "mine", data=str(data(tmp_path, QUESTIONS)))
    text = (tmp_path / "mine/recipe.yaml").read_text()
    assert yaml.safe_load(text)["train"]["lora"] == {"r": 16}
    assert "# decides: best round, stopping" in text
