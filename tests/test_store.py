from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from selftrain import tables
from selftrain.errors import DataError, DiskError, RunLocked
from selftrain.records import Receipt, Score, digest
from selftrain.store import RunDirectory, disk_errors, output_digest, publish_bytes, publish_folder

KEY = "arms/main/rounds/001/score-wave-00"


def receipt(**changes: object) -> Receipt:
    plain = Receipt(
        key=KEY,
        phase="score",
        arm="main",
        round=1,
        fingerprint="f",
        ingredients={"config": {}, "inputs": {}},
        output="o",
        rows=1,
        files={},
        metrics={"score/correct_rate": 0.5},
        seconds=1.0,
        versions={},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.lock()
    return directory


def test_a_phase_is_done_when_its_receipt_is_there_and_reads_back_equal(run: RunDirectory) -> None:
    assert run.receipt(KEY) is None
    run.commit(receipt())
    assert RunDirectory(run.path).receipt(KEY) == receipt()
    assert run.journal_keys() == [KEY]
    run.unlock()


def test_published_bytes_are_there_whole_under_their_name_alone(tmp_path: Path) -> None:
    publish_bytes(tmp_path / "a" / "b.json", b"one")
    publish_bytes(tmp_path / "a" / "b.json", b"two")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    assert (tmp_path / "a/b.json").read_bytes() == b"two"


def test_a_published_folder_replaces_what_a_kill_left_in_its_place(tmp_path: Path) -> None:
    for name, content in (("final", "old"), (".tmp-final", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(content)
    assert set(publish_folder(tmp_path / ".tmp-final", tmp_path / "final")) == {"weights"}
    assert (tmp_path / "final/weights").read_text() == "new"


def test_a_second_writer_is_told_who_holds_the_run_and_a_reader_is_not_stopped(run: RunDirectory) -> None:
    with pytest.raises(RunLocked, match=r"in use by pid \d+ on "):
        RunDirectory(run.path).lock()
    assert (RunDirectory(run.path).holder() or "").startswith("pid ")
    run.unlock()
    assert RunDirectory(run.path).holder() is None


def test_who_looks_at_a_run_is_neither_taken_for_its_holder_nor_in_the_way_of_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.lock()
    run.unlock()
    with (run.path / "run.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert RunDirectory(run.path).holder() is None
        leaves = threading.Timer(0.06, fcntl.flock, (looking, fcntl.LOCK_UN))
        leaves.start()
        run.lock()
        leaves.join()
    run.unlock()


def test_leftovers_of_a_kill_go_and_published_files_stay(run: RunDirectory) -> None:
    (run.path / "arms").mkdir()
    (run.path / "arms/.tmp-block").write_text("half")
    (run.path / "arms/block").write_text("whole")
    run.unlock()
    again = RunDirectory(run.path)
    again.lock()
    assert [path.name for path in (run.path / "arms").iterdir()] == ["block"]
    again.unlock()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_named_with_the_receipt_to_delete(run: RunDirectory, damage: str) -> None:
    path = run.path / "file"
    sha256 = publish_bytes(path, b"0123456789")
    committed = run.commit(receipt(files={"file": sha256}))
    assert run.verified(committed) == [path]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"01234" if damage == "truncated" else b"0123456780")
    with pytest.raises(DataError, match=r"file is .*or delete .*score-wave-00\.json"):
        run.verified(committed)
    run.unlock()


def test_a_broken_receipt_is_named(run: RunDirectory) -> None:
    run.commit(receipt())
    run.receipt_path(KEY).write_text(json.dumps({"key": KEY}))
    with pytest.raises(DataError, match=r"is no receipt .*delete it to redo"):
        RunDirectory(run.path).receipt(KEY)
    run.unlock()


def test_a_torn_last_journal_line_is_dropped_and_a_broken_middle_one_is_named(run: RunDirectory) -> None:
    run.commit(receipt())
    run.unlock()
    journal = run.path / "events.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event": "com')
    again = RunDirectory(run.path)
    again.lock()
    assert again.journal_keys() == [KEY]
    again.unlock()
    journal.write_bytes(b"garbage\n" + journal.read_bytes())
    with pytest.raises(DataError, match="line 1 is damaged"):
        again.journal_keys()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_refusing_disk_is_exit_74_with_the_next_step(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskError, match="run the same command again") as error, disk_errors(tmp_path):
        raise OSError(number, "refused")
    assert error.value.exit_code == 74


def test_another_error_of_the_system_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), disk_errors(tmp_path):
        raise OSError(errno.EIO + 1000, "odd")


def test_the_output_digest_is_of_contents_and_not_of_the_place() -> None:
    assert output_digest({"here/a": "1", "here/b": "2"}) == output_digest({"there/b": "2", "there/a": "1"})
    assert output_digest({"a": "1"}) != output_digest({"a": "2"})


def test_tables_read_back_equal_and_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    scores = [
        Score("c1", 0.5, False, "4", "no", {"exact": 0.0, "numeric": 1.0}, None),
        Score("c2", None, None, None, None, {}, "ValueError: \ud800"),
    ]
    for name in "ab":
        tables.write(tmp_path / name, scores, Score, fingerprint="f1")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert tables.fingerprint_of(tmp_path / "a") == "f1"
    first, second = tables.read(tmp_path / "a", Score)
    assert first == scores[0]
    assert second == replace(scores[1], error="ValueError: \\ud800"), "a lone surrogate is kept readable"


def test_a_file_that_is_no_table_has_no_fingerprint_and_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PAR1 half")
    assert tables.fingerprint_of(tmp_path / "a") is None
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        tables.read(tmp_path / "a", Score)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})


@pytest.mark.slow
def test_a_full_disk_ends_with_74_keeps_what_is_committed_and_goes_on_when_freed(tmp_path: Path) -> None:
    """On a real small file system; making one needs root."""
    from worlds import scripted_recipe, selftrain

    recipe = scripted_recipe(tmp_path / "recipe")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=True)
    try:
        full = selftrain("run", recipe, "--runs-dir", disk)
        assert full.returncode == 74, full.stderr
        assert "No space left on device; free some space" in full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        done = selftrain("run", recipe, "--runs-dir", disk)
        assert done.returncode == 0, done.stderr
        assert "already done" in done.stdout
    finally:
        subprocess.run(["umount", disk], check=True)
