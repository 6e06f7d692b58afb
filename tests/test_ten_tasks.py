"""Ten kinds of task, each a recipe as a user would have it, run for one round: with a tiny real model, to see that
every part fits, and with scripted answers, to see that the right ones are kept and no others."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny_models import build_model
from typer.testing import CliRunner
from worlds import receipt_of, run_here

from selftrain.cli import app

NUMBER_OF_ROWS = 16
# What a model with random weights is asked: few, short, and kept whatever it says.
SMALL = (
    "rounds=1",
    "prompts.per_round=6",
    "sample.num_candidates=2",
    "sample.max_new_tokens=8",
    "train.batch_size=4",
    "train.lora.r=4",
    "evaluate.sampled_rounds=none",
    "evaluate.resamples=100",
    "arms=[]",
)
ANY_ANSWER = ("select.rule=best_of_n", "select.finish_reasons=[stop_token,stop_string,length]")
SCRIPTED = ("sample.engine=scripted", "sample.params={function: answers.py:answer}", "train.trainer=scripted")
ANSWERS = '''
import zlib


def answer(prompt, seed, policy_round):
    """Right where the prompt's checksum is even."""
    return right(prompt) if zlib.crc32(prompt.id.encode()) % 2 == 0 else "no idea"
'''


@dataclass(frozen=True)
class Task:
    """`write` makes the recipe in a folder; `right` is the source of a function that answers a prompt rightly."""

    write: Callable[[Path], None]
    right: str = "def right(prompt):\n    return prompt.reference\n"
    model: str = "chat"
    overrides: tuple[str, ...] = ()


def init(folder: Path, *arguments: str) -> None:
    held_out = ["--holdout", "4"] if arguments else []
    result = CliRunner().invoke(app, ["init", str(folder), *arguments, *held_out], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_recipe(folder: Path, rows: list[dict[str, Any]], **recipe: Any) -> None:
    """Rows for training, and others held out, beside a recipe."""
    write_rows(folder / "train.jsonl", rows[:-4])
    write_rows(folder / "test.jsonl", rows[-4:])
    sections = {"prompts": {"train": "train.jsonl", "test": "test.jsonl", **recipe.pop("prompts", {})}}
    whole = {"name": folder.name, "model": {"path": "overridden"}, **sections, **recipe}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))


def arithmetic(folder: Path) -> None:
    init(folder)


def reasoning_gym_task(folder: Path) -> None:
    init(folder, "--data", "reasoning_gym:lcm")


def gsm8k_folder(folder: Path) -> None:
    rows = [
        {
            "question": f"Ann has {n} apples and buys {n + 1} more. How many has she?",
            "answer": f"She has {n} + {n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1}.\n#### {2 * n + 1}",
        }
        for n in range(2, 2 + NUMBER_OF_ROWS)
    ]
    data = folder.parent / "gsm8k"
    write_rows(data / "train.jsonl", rows[:-4])
    write_rows(data / "test.jsonl", rows[-4:])
    init(folder, "--data", str(data), "--test", "split=test")


def multiple_choice(folder: Path) -> None:
    rows = [
        {"question": f"Which number is {n} + 1?", "choices": [str(n), str(n + 1), str(n + 2)], "answer": "B"}
        for n in range(NUMBER_OF_ROWS)
    ]
    init(folder, "--data", str(write_rows(folder.parent / "choice.jsonl", rows)))


def json_extraction(folder: Path) -> None:
    rows = [
        {"text": f"Mr {name} is {age} years old.", "answer": json.dumps({"name": name, "age": age})}
        for age, name in enumerate((chr(65 + n) + "da" for n in range(NUMBER_OF_ROWS)), 20)
    ]
    data = write_rows(folder.parent / "people.jsonl", rows)
    init(folder, "--data", str(data), "--scorer", "json_schema", "--prompt-column", "text")


def mixture(folder: Path) -> None:
    letters = [{"prompt": f"letter {n} of the alphabet?", "reference": chr(97 + n)} for n in range(NUMBER_OF_ROWS)]
    write_rows(folder / "letters.jsonl", letters[:-4])
    write_rows(folder / "held_out.jsonl", letters[-4:])
    sums = [{"prompt": f"{n} + 1 =", "reference": str(n + 1)} for n in range(NUMBER_OF_ROWS)]
    write_recipe(
        folder,
        sums,
        prompts={
            "train": {"mix": {"sums": {"path": "train.jsonl", "weight": 2}, "letters": "letters.jsonl"}},
            "test": {"mix": {"sums": "test.jsonl", "letters": "held_out.jsonl"}},
            "per_round": 6,
        },
        score={"scorers": [{"name": "numeric", "tasks": ["sums"]}, {"name": "exact", "tasks": ["letters"]}]},
    )


def conversation(folder: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Remember the number {n}."},
                {"role": "assistant", "content": "I do."},
                {"role": "user", "content": "Which number was it?"},
            ],
            "reference": str(n),
        }
        for n in range(NUMBER_OF_ROWS)
    ]
    init(folder, "--data", str(write_rows(folder.parent / "turns.jsonl", rows)), "--scorer", "numeric")


def thinking(folder: Path) -> None:
    rows = [{"prompt": f"{n} + {n} =", "reference": str(2 * n)} for n in range(NUMBER_OF_ROWS)]
    write_recipe(folder, rows, score={"scorers": ["numeric"]}, select={"train_on": "answer"})
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["model"]["thinking"] = {"open": "<think>", "close": "</think>"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def base_model(folder: Path) -> None:
    rows = [{"a": n, "b": n + 3, "reference": str(2 * n + 3)} for n in range(NUMBER_OF_ROWS)]
    shown = [{"prompt": "1 + 2 =", "completion": " 3"}]
    asked = {"format": "text", "template": "{a} + {b} =", "few_shot": shown}
    write_recipe(folder, rows, prompts=asked, sample={"stop_strings": ["\n"]}, score={"scorers": ["exact"]})


REWARD = '''
def reward_func(prompts, completions, ground_truth, **kwargs):
    """As in TRL's documentation of custom reward functions: no argument of it is selftrain's."""
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if content.strip() == gt else 0.0 for content, gt in zip(contents, ground_truth)]
'''


def trl_reward(folder: Path) -> None:
    rows = [{"prompt": f"{n} + 5 =", "ground_truth": str(n + 5)} for n in range(NUMBER_OF_ROWS)]
    sets = {name: {"path": f"{name}.jsonl", "columns": {"reference": None}} for name in ("train", "test")}
    write_recipe(folder, rows, prompts=sets, score={"scorers": ["rewards.py:reward_func"]})
    (folder / "rewards.py").write_text(REWARD)


TASKS = {
    "arithmetic": Task(arithmetic),
    "reasoning_gym": Task(
        reasoning_gym_task, 'def right(prompt):\n    return f"Let me see: <answer>{prompt.reference}</answer>"\n'
    ),
    "gsm8k_folder": Task(gsm8k_folder),
    "multiple_choice": Task(multiple_choice, 'def right(prompt):\n    return "The next is it.\\nAnswer: B"\n'),
    "json_extraction": Task(
        json_extraction, 'def right(prompt):\n    return "Here it is:\\n```json\\n" + prompt.reference + "\\n```"\n'
    ),
    "mixture": Task(mixture),
    "conversation": Task(conversation, 'def right(prompt):\n    return "It was\\n#### " + prompt.reference\n'),
    "thinking": Task(
        thinking, 'def right(prompt):\n    return "<think>is it 7? no</think>" + prompt.reference\n', "thinking"
    ),
    "base_model": Task(base_model, model="base"),
    "trl_reward": Task(trl_reward, 'def right(prompt):\n    return prompt.metadata["ground_truth"]\n'),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models by kind."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "chat": build_model(folder / "chat", context=2048),
        "thinking": build_model(folder / "thinking", context=2048),
        "base": build_model(folder / "base", chat=False, context=2048),
    }


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Task, Path]:
    """A task and the folder of its recipe."""
    one = TASKS[request.param]
    folder = tmp_path / request.param
    one.write(folder)
    return one, folder


def test_a_tiny_model_goes_through_a_round(task: tuple[Task, Path], models: dict[str, Path], tmp_path: Path) -> None:
    one, folder = task
    path = f"model.path={models[one.model]}"
    run = run_here(folder, path, *SMALL, *ANY_ANSWER, *one.overrides, runs_dir=tmp_path / "runs")
    receipts = {name: receipt_of(run, f"main/rounds/001/{name}") for name in ("sample-wave-00", "evaluate")}
    assert receipts["sample-wave-00"]["metrics"]["sample/candidates"] == 12
    assert receipts["evaluate"]["metrics"]["evaluate/test/prompts"] >= 4
    trained = receipt_of(run, "main/rounds/001/train-improve-00")["metrics"]
    assert trained["train/steps"] >= 1
    assert trained["train/update_norm"] > 0


def test_right_answers_are_kept_and_no_others(task: tuple[Task, Path], tmp_path: Path) -> None:
    one, folder = task
    (folder / "answers.py").write_text(ANSWERS + one.right)
    whole = [name for name in SMALL if not name.startswith("sample.max_new_tokens")]
    run = run_here(folder, *whole, *SCRIPTED, "sample.max_new_tokens=512", runs_dir=tmp_path / "runs")
    scored = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert scored["score/unscored_rate"] == 0
    asked = run / "arms/main/rounds/001/survivors/improve-00/prompts.jsonl"
    names = {json.loads(line)["prompt_id"] for line in asked.read_text().splitlines()}
    survivors = pq.read_table(asked.parent / "survivors.parquet").to_pylist()
    assert {row["prompt_id"] for row in survivors} == {name for name in names if zlib.crc32(name.encode()) % 2 == 0}
    assert 0 < len(survivors) < len(names) * 2
