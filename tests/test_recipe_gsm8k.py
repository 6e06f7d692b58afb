"""recipes/gsm8k as it is shipped, on a few rows of its shape: a folder in place of the hub's data set."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
from tiny_models import build_model
from worlds import receipt_of, run_here

from selftrain.compose import compose, recipes
from selftrain.launch import run_recipe

ROWS = 24
HELD_OUT = 6
TINY = (
    "rounds=1",
    "prompts.train.skip=6",
    "prompts.validate.limit=6",
    "prompts.per_round=6",
    "sample.num_candidates=2",
    "evaluate.sampled_rounds=none",
    "evaluate.resamples=100",
    "evaluate.trained_prompts=0",
    "evaluate.drift_candidates=0",
    "train.batch_size=4",
    "train.micro_batch_size=null",
    "train.lora.r=4",
    "score.workers=1",
)
# Half of the prompts are solved, in the forms that a policy may choose; the others get what looks like an answer.
ANSWERS = r"""
import zlib


def answer(prompt, seed, policy_round):
    number = prompt.reference.rpartition("#### ")[2]
    kind = zlib.crc32(prompt.id.encode()) % 6
    right = [f"So it is $\\boxed{{{number}}}$.", f"\\boxed{{{number}}}", f"Adding up.\n#### {number}"]
    wrong = [f"\\boxed{{{int(number) + 1}}} \\boxed{{{number}}}", f"not {number}", f"\\boxed{{0+{number}}}"]
    return f"Step {seed}. " + (right + wrong)[kind]
"""


def write_rows(folder: Path, names: tuple[str, ...] = ("train", "test")) -> list[str]:
    """A folder like the data set; the overrides that put it in place of the hub's, as the README has them."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        rows = [
            {
                "question": f"Ben has {start} cards and wins {start + 2} more. How many has he?",
                "answer": f"He has {start}+{start + 2}=<<{start}+{start + 2}={2 * start + 2}>>{2 * start + 2}.\n"
                f"#### {2 * start + 2}",
            }
            for start in range(100 * number, 100 * number + (ROWS if name == "train" else HELD_OUT))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = ("train", "validate", "test")
    return [text for one in sets for text in (f"prompts.{one}.path={folder}", f"prompts.{one}.subset=null")]


def test_the_recipe_carves_validation_from_the_training_split_and_asks_for_one_form() -> None:
    config = compose("gsm8k").config
    train, validate, test = config.prompts.train, config.prompts.validate_, config.prompts.test
    assert validate is not None
    assert test is not None
    assert (train.split, validate.split, test.split) == ("train", "train", "test")
    assert validate.limit == train.skip == 500
    assert (validate.skip, test.skip, test.limit) == (0, 0, None)
    assert "\\boxed{" in str(config.prompts.template)


def test_right_answers_in_either_form_are_kept_and_no_others(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "data")
    (tmp_path / "answers.py").write_text(ANSWERS)
    scripted = ("sample.engine=scripted", f"sample.params={{function: '{tmp_path}/answers.py:answer'}}")
    run = run_here(
        recipes()["gsm8k"],
        *folder,
        *TINY,
        *scripted,
        "model.path=none",
        "train.trainer=scripted",
        "prompts.per_round=18",
        runs_dir=tmp_path / "runs",
    )
    scored = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert scored["score/unscored_rate"] == 0
    survivors = run / "arms/main/rounds/001/survivors/improve-00/survivors.parquet"
    rows = pq.read_table(survivors).to_pylist()
    sampled = pq.read_table(run / "arms/main/rounds/001/candidates/wave-00").column("text").to_pylist()
    right = [text for text in sampled if re.search(r"(?<!\} )(\\boxed\{|#### )\d+\}?\$?\.?\Z", text)]
    assert sorted(row["text"] for row in rows) == sorted(right)
    assert 0 < len(rows) < len(sampled)
    assert all(row["prompt_text"].endswith("in \\boxed{}.") for row in rows)


def test_a_tiny_model_goes_through_the_recipe_at_the_scale_of_a_smoke_test(tmp_path: Path) -> None:
    model = build_model(tmp_path / "model", context=2048)
    overrides = [
        *write_rows(tmp_path / "data"),
        *TINY,
        f"model.path={model}",
        "sample.max_new_tokens=8",
        "select.rule=best_of_n",
        "select.finish_reasons=[stop_token,stop_string,length]",
    ]
    recipe = str(recipes()["gsm8k"])
    run_recipe(recipe, layers=["scale/smoke"], overrides=overrides, runs_dir=tmp_path / "runs", fork=None)
    run = tmp_path / "runs" / "gsm8k"
    assert receipt_of(run, "main/rounds/001/train-improve-00")["metrics"]["train/steps"] >= 1
    assert receipt_of(run, "main/rounds/001/evaluate")["metrics"]["evaluate/test/prompts"] == HELD_OUT
    assert not (run / "arms/random_selection").exists()
