import pytest
from rows import CONTROL, MadeRun, candidate, survivor

from selftrain import tables
from selftrain.errors import DataError
from selftrain.records import Survivor
from selftrain.store import write_jsonl
from selftrain.tracking.wandb_tables import COLUMNS, TEXT_LENGTH, candidate_tables, cut

KEY = "arms/main/rounds/001/select-improve-00"


def column(rows, name):
    return [row[COLUMNS.index(name)] for row in rows]


def test_kept_and_rejected_candidates_are_shown_with_their_scores(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    found = candidate_tables(run.directory, KEY, limit=100)
    assert found["kept"] == [
        [1, f"the words of p{n // 4}", f"answer {n} of main in round 1", 1.0, f"a{n}", "value 1.0", n + 1]
        for n in (1, 3, 5)
    ]
    assert found["rejected"] == [
        [1, f"the words of p{n // 4}", f"answer {n} of main in round 1", 0.0, f"a{n}", "value 0.0 under 1.0", n + 1]
        for n in (0, 2, 4)
    ]


def test_a_control_that_shares_mains_candidates_finds_them_there(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    run.round(1, arm=CONTROL, shares=True)
    run.round(2, arm=CONTROL)
    shared = candidate_tables(run.directory, f"arms/{CONTROL}/rounds/001/select-improve-00", limit=100)
    assert column(shared["rejected"], "completion") == [f"answer {n} of main in round 1" for n in (0, 2, 4)]
    own = candidate_tables(run.directory, f"arms/{CONTROL}/rounds/002/select-improve-00", limit=100)
    assert column(own["rejected"], "completion") == [f"answer {n} of {CONTROL} in round 2" for n in (0, 2, 4)]


def test_of_many_candidates_the_same_few_are_shown_every_time(tmp_path):
    for name in ("one", "other"):
        MadeRun(tmp_path / name).round(1, candidates=200)
    one, other = (candidate_tables(MadeRun(tmp_path / name).directory, KEY, limit=7) for name in ("one", "other"))
    assert one == other
    assert [len(rows) for rows in one.values()] == [7, 7]
    shown = column(one["kept"], "answer")
    assert shown == sorted(shown, key=lambda answer: int(answer[1:])), "in the order of the file"
    assert shown != [f"a{n}" for n in range(1, 15, 2)], "and not the first ones"
    more = candidate_tables(MadeRun(tmp_path / "one").directory, KEY, limit=20)
    assert set(shown) <= set(column(more["kept"], "answer"))


def test_survivors_of_earlier_rounds_are_not_shown_again(tmp_path):
    run = MadeRun(tmp_path)
    selected, _ = run.round(2)
    before = [survivor(candidate(1, n), 1) for n in (1, 3)]
    place = next(name for name in selected.files if name.endswith(".parquet"))
    every = [*before, *tables.read(tmp_path / place, Survivor)]
    files = {**selected.files, place: tables.write(tmp_path / place, every, Survivor, fingerprint="f")}
    appended = run.commit("main", 2, "select", files, selected.ingredients["inputs"])
    found = candidate_tables(run.directory, appended.key, limit=100)
    assert column(found["kept"], "completion") == [f"answer {n} of main in round 2" for n in (1, 3, 5)]


def test_demonstrations_have_a_table_of_kept_ones_without_scores(tmp_path):
    run = MadeRun(tmp_path)
    folder = tmp_path / "arms/gold/rounds/001/survivors/improve-00"
    kept = [survivor(candidate(1, n, "gold"), 1) for n in range(2)]
    files = {
        "arms/gold/rounds/001/survivors/improve-00/survivors.parquet": tables.write(
            folder / "survivors.parquet", kept, Survivor, fingerprint="f"
        ),
        "arms/gold/rounds/001/survivors/improve-00/rejected.jsonl": write_jsonl(folder / "rejected.jsonl", []),
    }
    selected = run.commit("gold", 1, "select", files, {"demonstrations": "d"})
    found = candidate_tables(run.directory, selected.key, limit=100)
    assert (column(found["kept"], "value"), found["rejected"]) == ([None, None], [])


def test_a_prompt_that_no_survivor_has_is_shown_by_the_text_that_select_left_or_by_its_id(tmp_path):
    run = MadeRun(tmp_path)
    selected, _ = run.round(1, candidates=13)  # the last candidate is alone with its prompt, and is rejected
    found = candidate_tables(run.directory, KEY, limit=100)
    assert column(found["rejected"], "prompt")[-1] == "prompt p3"
    place = "arms/main/rounds/001/survivors/improve-00/prompts.jsonl"
    texts = [{"prompt_id": f"p{n}", "text": f"left by select: p{n}"} for n in range(4)]
    files = {**selected.files, place: write_jsonl(tmp_path / place, texts)}
    run.commit("main", 1, "select", files, selected.ingredients["inputs"])
    found = candidate_tables(MadeRun(tmp_path).directory, KEY, limit=100)
    assert column(found["rejected"], "prompt")[-1] == "left by select: p3"


def test_long_texts_are_cut():
    assert cut("a" * TEXT_LENGTH) == "a" * TEXT_LENGTH
    assert cut("a" * (TEXT_LENGTH + 1)) == "a" * TEXT_LENGTH + " ..."
    assert cut(None) is None


@pytest.mark.parametrize("place", ["survivors/improve-00/survivors.parquet", "candidates/000.parquet"])
def test_a_file_that_is_not_what_the_receipt_says_is_an_error_with_its_name(tmp_path, place):
    run = MadeRun(tmp_path)
    run.round(1)
    path = tmp_path / "arms/main/rounds/001" / place
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=f"{path.name} is damaged"):
        candidate_tables(run.directory, KEY, limit=100)


def test_candidates_that_cannot_be_found_are_an_error(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    run.directory.receipt_path("arms/main/rounds/001/sample-wave-00").unlink()
    with pytest.raises(DataError, match="3 of the rejected candidates"):
        candidate_tables(MadeRun(tmp_path).directory, KEY, limit=100)
    with pytest.raises(DataError, match="is missing"):
        candidate_tables(run.directory, KEY.replace("001", "009"), limit=100)
