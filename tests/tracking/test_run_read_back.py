"""A whole run mirrored offline, killed and resumed: read back, it holds every row of every arm once, and no secret."""

import pytest
from reading import alerts, fragments, history, is_of, shown, tables
from rows import CANARY, CONTROL
from worlds import scripted_recipe, selftrain

from selftrain.tracking import read_rows

PROMPTS = '''
def train(token):
    """Rows that somebody needs a token to get."""
    assert token.startswith("canary")
    for number in range(12):
        yield {"prompt": f"what comes after {number}?", "reference": str(number + 1)}
'''


def numbers_in(rows, arm):
    """Every number of an arm's rows as it is to be seen: (axis, its value, key, value)."""
    names = ("arm", "round", "phase", "key", "global_step", "round_step")
    for row in rows:
        if row["arm"] == arm and row["phase"] not in ("summary", "alarm"):
            axis = "global_step" if "global_step" in row else "round"
            for key, value in row.items():
                if key not in names and isinstance(value, int | float):
                    yield (axis, row[axis], key.replace("train/", "train_step/") if axis != "round" else key, value)


@pytest.mark.slow
def test_a_killed_and_resumed_run_holds_every_row_once_and_nothing_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", f"hf_{CANARY}")
    track = {"wandb": {"mode": "offline", "project": "tests", "table_rows": 5}}
    recipe = scripted_recipe(tmp_path / "recipe", track=track, alarms={"coverage_growth": 1.0})
    (recipe.parent / "made.py").write_text(PROMPTS)
    given = ["prompts.train.path=made.py:train", f"prompts.train.params={{token: {CANARY}}}"]
    killed = selftrain("run", recipe, *given, "--runs-dir", tmp_path, SELFTRAIN_FAULT="150")
    assert killed.returncode == -9, killed.stderr
    done = selftrain("run", recipe, *given, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "tiny"
    rows = read_rows(run / "metrics.jsonl")
    for arm in (None, CONTROL):
        assert history(run, arm) == sorted(numbers_in(rows, arm or "main"))
        raised = [row for row in rows if row["phase"] == "alarm" and row["arm"] == (arm or "main")]
        assert [text for _, text in alerts(run, arm)] == [row["words"] for row in raised]
        found = tables(run, arm)
        assert found.keys() == {(f"tables/{kind}", number) for kind in ("kept", "rejected") for number in (1, 2, 3)}
        assert all(0 < len(table) <= 5 for table in found.values())
    ids = {shown(fragment)["run_id"] for fragment in fragments(run) if is_of(fragment, None)}
    assert len(ids) == 1, "one run id across resumes"
    last = [fragment for fragment in fragments(run) if is_of(fragment, None)][-1]
    assert {"best_round", "headline_round", "artifacts/adapter/round-3"} <= shown(last)["summary"].keys()
    assert CANARY in (run / "config.json").read_text(), "there was something to leak"
    for path in (run / "wandb").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
