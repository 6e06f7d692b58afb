"""`selftrain curate` asks for nothing that only evaluation or training needs, and keeps what changed knobs leave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from tiny_models import build_model
from typer.testing import CliRunner
from worlds import receipt_of, run_here, scripted_recipe

from selftrain.cli import app
from selftrain.curating import Destination, curate_recipe
from selftrain.errors import ConfigError, DataError
from selftrain.outlook import status_of

ROWS = [
    {"prompt": f"what comes after {n}?", "completion": str(n + more), "reward": 1.0 / more, "source": f"web-{n % 2}"}
    for n in range(12)
    for more in (1, 2, 3)
]


def curate(recipe: Path, *overrides: str, runs_dir: Path, fork: str | None = None, **destination: Any) -> Path:
    place = Destination(**destination)
    return curate_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir, destination=place, fork=fork)


def brought_recipe(folder: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> Path:
    """Candidates of a file, scored by their own column; no model."""
    recipe = scripted_recipe(folder, **{"train": None, "arms": [], **changes})
    data = yaml.safe_load(recipe.read_text())
    data["sample"] = {"policy": {"file": "candidates.jsonl"}}
    data.setdefault("select", {}).setdefault("threshold", 0.4)
    data["score"] = {"scorers": [{"name": "given", "params": {"column": "reward"}}], "correct_at": 1.0}
    recipe.write_text(yaml.safe_dump(data))
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_values_of_a_file_need_no_scorers_for_held_out_prompts_that_nobody_asks(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "recipe")
    assert len(rows_of(curate(recipe, runs_dir=tmp_path), "prompt_completion")) == 24
    with pytest.raises(ConfigError, match=r"answers to held-out\s+prompts bring nothing"):
        run_here(scripted_like(recipe), runs_dir=tmp_path / "runs")


def scripted_like(recipe: Path) -> Path:
    """The same, with something to train."""
    data = yaml.safe_load(recipe.read_text())
    data["sample"] |= {"engine": "scripted", "params": {"function": "answers.py:answer"}}
    data["train"] = {"trainer": "scripted"}
    recipe.write_text(yaml.safe_dump(data))
    return recipe


def test_references_of_held_out_prompts_are_not_asked_for(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", score={"scorers": ["numeric"]})
    rows = [{"prompt": f"what comes after {n}?", "reference": "who knows"} for n in range(200, 206)]
    (tmp_path / "recipe/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert curate(recipe, runs_dir=tmp_path).is_dir()
    with pytest.raises(DataError, match="who knows"):
        run_here(recipe, runs_dir=tmp_path / "runs")


def test_a_prompt_that_is_held_out_too_leaves_where_contamination_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = brought_recipe(tmp_path / "recipe", select={"decontaminate": {"against": ["more.jsonl"]}})
    both = [{"prompt": f"what comes after {n}?", "reference": str(n + 1)} for n in (3, 200)]
    (tmp_path / "recipe/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    (tmp_path / "recipe/more.jsonl").write_text(
        json.dumps({"text": "eight words or more stand in this evaluation text"})
    )
    export = curate(recipe, "curate.pairs=best_worst", runs_dir=tmp_path)
    assert "not asked, as held out too: 1 training prompt\n" in capsys.readouterr().out
    for name in ("prompt_completion", "text", "preference"):
        assert rows_of(export, name)
        assert "what comes after 3?" not in (export / f"{name}.jsonl").read_text()
    assert "dropped_for_overlap: 1" in (export / "README.md").read_text()
    with pytest.raises(DataError, match=r"1 of the train prompts are also in prompts\.test.*overlap: drop_from_train"):
        curate(recipe, "select.decontaminate=null", "name=other", runs_dir=tmp_path)


def test_a_fork_keeps_the_candidates_where_selection_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    curate(recipe, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)select.*--fork NEW$"):
        curate(recipe, "select.max_per_prompt=1", "select.dedup=none", runs_dir=tmp_path)
    capsys.readouterr()
    export = curate(recipe, "select.max_per_prompt=1", "select.dedup=none", runs_dir=tmp_path, fork="tiny-1")
    told = capsys.readouterr().out
    assert "2 of 3 committed phases kept" in told
    assert export == tmp_path / "tiny-1/export"
    receipts = [receipt_of(tmp_path / name, "main/rounds/001/sample-wave-00") for name in ("tiny", "tiny-1")]
    assert receipts[0]["output"] == receipts[1]["output"]
    assert (tmp_path / "tiny/export/README.md").exists(), "the first one stays"
    status = status_of(tmp_path / "tiny-1")
    assert (status["state"], status["planned_phases"]) == ("finished", 3)
    words = ["curate", str(recipe), "select.max_per_prompt=1", "select.dedup=none", "--fork", "tiny-1"]
    again = CliRunner().invoke(app, [*words, "--runs-dir", str(tmp_path)], catch_exceptions=False)
    assert "holds this data set already" in again.stdout


def test_all_rows_without_a_candidate_are_named_at_once(tmp_path: Path) -> None:
    rows = [{**row, "completion": None if number % 4 == 1 else row["completion"]} for number, row in enumerate(ROWS)]
    recipe = brought_recipe(tmp_path / "recipe", rows)
    with pytest.raises(DataError) as error:
        curate(recipe, runs_dir=tmp_path)
    said = str(error.value)
    assert said.startswith("9 rows of sample.policy.file cannot be taken as candidates; the first 5:\n")
    for line in (2, 6, 10, 14, 18):
        assert f"candidates.jsonl, line {line}: completion holds the candidate" in said
    assert "line 22" not in said
    assert said.endswith("a function that yields the other rows (rows.py:FUNCTION)")
    rows[0] = {**rows[0], "completion": None}  # the first one is looked at before anything else
    brought_recipe(tmp_path / "recipe", rows)
    with pytest.raises(DataError, match=r"10 rows of sample\.policy\.file"):
        curate(recipe, runs_dir=tmp_path)


def test_candidates_that_were_read_have_no_speed_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = brought_recipe(tmp_path / "recipe")
    scripted_like(recipe)  # which has tokens to write them in
    curate(recipe, runs_dir=tmp_path)
    told = capsys.readouterr().out
    assert "main · round 1 · sample · 36 candidates" in told
    assert "tokens/s" not in told


def test_a_model_named_over_a_recipe_with_a_file_is_told_how_to_leave_the_file_out(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "recipe")
    with pytest.raises(ConfigError, match=r"given: model, file; .* add sample\.policy\.file=null"):
        curate(recipe, "sample.policy={model: some/model}", runs_dir=tmp_path)


def test_the_card_of_brought_candidates_names_their_file_and_no_model(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "recipe", select={"decontaminate": {}, "quality": {"min_words": 1}})
    (tmp_path / "candidates.jsonl").write_bytes((tmp_path / "recipe/candidates.jsonl").read_bytes())
    long = [{"prompt": f"which number is it that comes right after the number {n}?", "reference": "1"} for n in (1, 2)]
    (tmp_path / "recipe/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    export = curate(recipe, "sample.policy.file=../candidates.jsonl", "curate.pairs=best_worst", runs_dir=tmp_path)
    card = (export / "README.md").read_text()
    content = hashlib.sha256((tmp_path / "candidates.jsonl").read_bytes()).hexdigest()
    assert "Answers that were there before, in candidates.jsonl; selftrain wrote none: it scored" in card
    assert f"- candidates: candidates.jsonl\n  digest: {content}" in card
    assert "../" not in card
    for words in ("model:", "inputs:", "Answers of a language model", "`generator`", "`task`", "against: []"):
        assert words not in card
    assert "  - prompts.validate\n  - prompts.test" in card
    assert "They did not have to pass `quality`: what left there may be the rejected side of a pair." in card
    assert not {"generator", "task", "chosen_generator"} & {*rows_of(export, "preference")[0]}
    assert "generator" not in rows_of(export, "prompt_completion")[0]


def test_the_card_says_of_a_model_only_that_its_tokenizer_was_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = brought_recipe(tmp_path / "recipe", ROWS[:2] + ROWS[3:4])
    model = build_model(tmp_path / "model", context=512)
    overrides = (f"model.path={model}", "model.device=cpu", "sample.engine=transformers", "curate.pairs=best_worst")
    card = (curate(recipe, *overrides, "select.threshold=1.0", runs_dir=tmp_path) / "README.md").read_text()
    generator = card.partition("Generator:")[2].partition("Scorers:")[0]
    assert "tokenizer: 'of model: lengths are in its tokens; the model wrote nothing'" in generator
    assert "inputs" not in card
    told = capsys.readouterr().out
    assert "1 preference pair (best_worst)" in told
    assert "tokens/s" not in told


def test_columns_of_the_file_go_into_the_data_set(tmp_path: Path) -> None:
    rows = [{**row, "by": "m", "turns": number, "tags": ["a"], "cost": 1 if number % 2 else 0.5, "generator": "g"}
            for number, row in enumerate(ROWS)]  # fmt: skip
    recipe = brought_recipe(tmp_path / "recipe", rows)
    wanted = "curate.columns=[source,turns,cost,tags]"
    export = curate(recipe, wanted, "curate.pairs=best_worst", runs_dir=tmp_path)
    schema = pq.read_schema(export / "prompt_completion.parquet")
    assert schema.names[-5:] == ["why", "source", "turns", "cost", "tags"]
    assert [str(schema.field(name).type) for name in schema.names[-4:]] == ["string", "int64", "double", "string"]
    by_answer = {(row["prompt"], row["completion"]): row for row in rows}
    for row in rows_of(export, "prompt_completion"):
        brought = by_answer[row["prompt"], row["completion"]]
        assert [row[name] for name in ("source", "turns", "cost")] == [
            brought[name] for name in ("source", "turns", "cost")
        ]
        assert (row["tags"], row["generator"]) == ('["a"]', "g")
    pair = rows_of(export, "preference")[0]
    assert {"chosen_source", "rejected_source", "chosen_turns"} <= {*pair}
    assert "From the candidates' own file: source, turns, cost, tags." in (export / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("value", "a name that the data set has itself"),
        ("chosen_of", "a name that the data set has itself"),
        ("margin", "means something to TRL's trainers"),
        ("ids", "means something to TRL's trainers"),
        ("sauce", "brings no column 'sauce'; it brings: reward, source"),
    ],
)
def test_columns_that_cannot_be_taken_over_are_refused(tmp_path: Path, name: str, said: str) -> None:
    recipe = brought_recipe(tmp_path / "recipe")
    with pytest.raises(ConfigError, match=said):
        curate(recipe, f"curate.columns=[{name}]", runs_dir=tmp_path)
    assert not (tmp_path / "tiny").exists()


def planned(recipe: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["plan", str(recipe), *words], catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_plan_of_a_curated_round_counts_the_file_and_leaves_out_what_is_not_done(tmp_path: Path, kind: str) -> None:
    recipe = brought_recipe(tmp_path / "recipe", [*ROWS, ROWS[0]])
    table = pa.Table.from_pylist([*ROWS, ROWS[0]])
    pq.write_table(table, tmp_path / "recipe/candidates.parquet")
    pa_csv.write_csv(table, tmp_path / "recipe/candidates.csv")
    told = planned(recipe, "--curate", f"sample.policy.file=candidates.{kind}").partition("train: 12 prompts")[2]
    assert "main 1 12 37" in told
    assert "select by threshold; nothing is trained or evaluated" in told
    for words in ("tokens trained on", "adapters", "evaluation 1", "evaluate greedily", "there is no model to train"):
        assert words not in told
    assert "main 1 12 24" in planned(recipe, "--curate", "sample.num_candidates=2")
    assert "main 1 12 20" in planned(recipe, "--curate", "sample.policy.file={path: candidates.jsonl, limit: 20}")


def test_the_plan_says_where_candidates_are_not_counted(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "recipe")
    (tmp_path / "recipe/rows.py").write_text(
        "def rows():\n    for n in range(12):\n"
        "        yield {'prompt': f'what comes after {n}?', 'completion': str(n), 'reward': 1.0}\n"
    )
    told = planned(recipe, "--curate", "sample.policy.file=rows.py:rows")
    assert "whose candidates are not counted before they are read: the figures take 8 of each prompt" in told
