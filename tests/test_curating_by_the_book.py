"""What a curated round does with the odd rows and names that people have."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner
from worlds import scripted_recipe

from selftrain.beginning import Wishes, begin
from selftrain.cli import app
from selftrain.curating import Destination, curate_recipe
from selftrain.errors import ConfigError

ROWS = [
    {"prompt": f"what comes after {n}?", "completion": str(n + more), "reward": 1.0 / more}
    for n in range(12)
    for more in (1, 2)
]


def curate(recipe: Path, *overrides: str, runs_dir: Path) -> Path:
    return curate_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir, destination=Destination())


def brought_recipe(folder: Path, rows: list[dict[str, Any]], **select: Any) -> Path:
    """Candidates of a file with values of their own; no model is loaded."""
    recipe = scripted_recipe(folder, train=None, arms=[], model={"path": "none"})
    data = yaml.safe_load(recipe.read_text())
    data["sample"] = {"policy": {"file": "candidates.jsonl"}}
    data["select"] = {"rule": "best_of_n", **select}
    data["score"] = {"scorers": [{"name": "given", "params": {"column": "reward"}}], "max_unscored_rate": 0.2}
    recipe.write_text(yaml.safe_dump(data))
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe


def answers(export: Path) -> list[str]:
    rows = (export / "prompt_completion.jsonl").read_text().splitlines()
    return [json.loads(row)["completion"] for row in rows]


def test_the_card_has_the_command_as_a_shell_takes_it(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "my recipe", ROWS)
    title = 'curate.title=Costs $HOME and `id` in "quotes", it\'s so; \\n'
    card = (curate(recipe, title, "curate.tags=[a, b]", runs_dir=tmp_path) / "README.md").read_text()
    command = card.partition("```bash\n")[2].partition("\n```")[0]
    assert shlex.split(command) == ["selftrain", "curate", "my recipe", title, "curate.tags=[a, b]"]
    assert shlex.quote(title) in command, "a double quote would leave $HOME to the shell"


def test_what_init_tells_to_type_is_quoted(tmp_path: Path) -> None:
    from selftrain.beginning.asking import Asker

    said: list[str] = []

    class Says(Asker):
        def tell(self, line: str) -> None:
            said.append(line)

    folder = tmp_path / "my $recipe"
    begin(folder, Wishes(name="mine"), asker=Says(is_there=False))
    assert said[-1] == f"  selftrain run '{folder}'"
    assert f"selftrain plan '{folder}'" in (folder / "README.md").read_text()


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_a_blank_answer_is_no_demonstration_whatever_it_is_worth(
    tmp_path: Path, blank: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blanks = [{"prompt": f"what comes after {n}?", "completion": blank, "reward": 100.0} for n in (0, 1)]
    recipe = brought_recipe(tmp_path / "recipe", [*ROWS, *blanks])
    export = curate(recipe, "curate.pairs=best_worst", runs_dir=tmp_path)
    assert sorted(answers(export), key=int) == [str(n + 1) for n in range(12)]
    assert "26 sampled > 26 scored > 26 finished > 24 answered" in " ".join(capsys.readouterr().out.split())
    assert "| answered | 24 |" in (export / "README.md").read_text()
    rejected = next((tmp_path / "tiny").glob("**/rejected.jsonl")).read_text().splitlines()
    assert sum(json.loads(one)["why"] == "blank answer" for one in rejected) == 2
    assert 'rejected": ""' not in (export / "preference.jsonl").read_text()


def test_without_blank_answers_there_is_no_step_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curate(brought_recipe(tmp_path / "recipe", ROWS), runs_dir=tmp_path)
    assert "answered" not in capsys.readouterr().out


def test_a_reward_that_is_nan_or_too_large_leaves_its_candidate_unscored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [
        {"prompt": "what comes after 0?", "completion": "x", "reward": value, "note": math.nan}
        for value in (math.nan, math.inf, 1e308, 1e308)
    ]
    recipe = brought_recipe(tmp_path / "recipe", [*odd, *ROWS])  # the first row has no number, and others have
    export = curate(recipe, "curate.columns=[note]", runs_dir=tmp_path)  # where a warning is an error
    assert sorted(answers(export), key=int) == [str(n + 1) for n in range(12)]
    assert "28 sampled > 24 scored" in " ".join(capsys.readouterr().out.split())


def test_decimals_are_rewards_and_dates_columns(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    recipe = brought_recipe(tmp_path / "recipe", ROWS)
    day = datetime.date(2024, 5, 6)
    rows = [{**row, "reward": Decimal(str(row["reward"])), "day": day, "raw": b"x"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "recipe/candidates.parquet")
    file = "sample.policy.file=candidates.parquet"
    export = curate(recipe, file, "curate.columns=[day]", runs_dir=tmp_path)
    assert len(answers(export)) == 12
    assert {row["day"] for row in pq.read_table(export / "prompt_completion.parquet").to_pylist()} == {"2024-05-06"}
    said = r"the column 'raw' of sample\.policy\.file holds values of type bytes .* write it as one of those, or name"
    with pytest.raises(ConfigError, match=rf"curate\.columns: {said}"):
        curate(recipe, file, "curate.columns=[raw]", "name=other", runs_dir=tmp_path)
    scorers = "score.scorers=[{name: given, params: {column: raw}}]"
    with pytest.raises(ConfigError, match=rf"params\.column: {said}"):
        curate(recipe, file, scorers, "name=other", runs_dir=tmp_path)


def test_the_plan_says_that_texts_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    recipe = brought_recipe(tmp_path / "recipe", ROWS)
    done = CliRunner().invoke(app, ["plan", str(recipe), "--curate"], catch_exceptions=False)
    assert done.exit_code == 0
    told = " ".join(done.stdout.partition("estimate")[2].split())
    assert "(in bytes, as no model is loaded that has tokens)" in told
    assert "tokens of an answer none (texts of sample.policy.file, taken as they are; nothing is sampled)" in told
    for words in ("scripted engine", "upper bound", "max_new_tokens", "tokens sampled"):
        assert words not in told
    assert "main 1 12 24 in all 12 24 tokens of a prompt" in told, "none of them has tokens"
