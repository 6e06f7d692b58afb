import json
import os

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.errors import DataError, DiskError
from selftrain.tracking.ledger import Ledger, is_timing, line_of, read, without_timings


def row(round_number, **metrics):
    return {"arm": "main", "round": round_number, "phase": "sample", "key": f"main/{round_number}", **metrics}


ROWS = [row(number, **{"sample/tokens": number * 10, "sample/seconds": 1.5}) for number in range(4)]


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "metrics.jsonl")


def test_what_is_appended_is_what_is_read(ledger):
    ledger.append(ROWS[:2])
    ledger.append([])
    ledger.append(ROWS[2:])
    assert read(ledger.path) == ROWS


def test_a_missing_ledger_holds_no_rows(tmp_path):
    assert read(tmp_path / "none.jsonl") == []


@given(cut=st.integers(min_value=0, max_value=10_000))
def test_a_ledger_cut_anywhere_is_completed_in_place_with_the_same_bytes(tmp_path_factory, cut):
    ledger = Ledger(tmp_path_factory.mktemp("run") / "metrics.jsonl")
    ledger.append(ROWS)
    whole = ledger.path.read_bytes()
    os.truncate(ledger.path, cut % (len(whole) + 1))
    inode = ledger.path.stat().st_ino
    assert read(ledger.path) == ROWS[: len(read(ledger.path))]
    ledger.rebuild(ROWS)
    assert ledger.path.read_bytes() == whole
    assert ledger.path.stat().st_ino == inode


def test_a_ledger_with_rows_that_are_not_committed_is_replaced(ledger):
    ledger.append([*ROWS, row(9)])
    ledger.rebuild(ROWS)
    assert read(ledger.path) == ROWS
    assert os.listdir(ledger.path.parent) == ["metrics.jsonl"]


def test_a_ledger_in_another_order_is_put_in_order(ledger):
    ledger.append(reversed(ROWS))
    ledger.rebuild(ROWS)
    assert read(ledger.path) == ROWS


def test_a_ledger_that_is_right_already_is_not_touched(ledger):
    ledger.append(ROWS)
    before = ledger.path.stat()
    ledger.rebuild(ROWS)
    assert (ledger.path.stat().st_mtime_ns, ledger.path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_rebuild_of_nothing_leaves_an_empty_ledger(ledger):
    ledger.rebuild([])
    assert ledger.path.read_bytes() == b""


def test_a_broken_line_in_the_middle_is_refused_with_its_number_and_rebuilt(ledger):
    ledger.append(ROWS)
    lines = ledger.path.read_bytes().split(b"\n")
    lines[1] = b'{"arm": '
    ledger.path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"metrics\.jsonl:2 .*started again"):
        read(ledger.path)
    ledger.rebuild(ROWS)
    assert read(ledger.path) == ROWS


def test_a_number_that_is_not_finite_is_null_and_named():
    values = {"train/loss": float("nan"), "train/norm": numpy.float32("inf"), "train/steps": numpy.int64(3)}
    line = line_of(row(1, **values))
    assert json.loads(line) == row(
        1, **{"train/loss": None, "train/norm": None, "train/steps": 3, "non_finite": "train/loss train/norm"}
    )


def test_the_order_in_which_metrics_come_does_not_change_the_line():
    assert line_of(ROWS[1]) == line_of(dict(reversed(ROWS[1].items())))
    assert line_of(ROWS[1]).startswith('{"arm": "main", "round": 1, "phase": "sample", "key": ')


def test_a_nested_value_is_refused_by_name():
    with pytest.raises(TypeError, match="sample/what"):
        line_of(row(1, **{"sample/what": [1]}))


def test_a_text_with_a_newline_stays_on_one_line(ledger):
    ledger.append([row(1, **{"sample/why": "a\nb\u2028c"})])
    assert len(ledger.path.read_text("utf-8").splitlines()) == 1
    assert read(ledger.path)[0]["sample/why"] == "a\nb\u2028c"


def test_a_write_that_fails_says_what_to_do_and_leaves_the_rows_before(ledger):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    ledger.append(ROWS)
    whole = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))  # room for a part of a line
    try:
        with pytest.raises(DiskError, match=r"cannot write .* start the same command again"):
            ledger.append(ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert ledger.path.read_bytes() == whole


def test_timings_are_told_from_results():
    timings = ["sample/seconds", "sample/tokens_per_second", "train/peak_memory_bytes", "overhead/model_load_seconds"]
    assert all(is_timing(key) for key in timings)
    assert not any(is_timing(key) for key in ["sample/tokens", "evaluate/test/pass@1", "train/seconds_rate"])
    assert without_timings(ROWS[2]) == row(2, **{"sample/tokens": 20})
