"""Folders and hub data sets, read by the `datasets` library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from selftrain.config import PromptsConfig
from selftrain.errors import ConfigError, DataError, DependencyError
from selftrain.prompts import PromptSet, load

COLUMNS = {"prompt": "question", "reference": "answer"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(start: int, count: int) -> list[dict[str, str]]:
    return [{"question": f"{n} + 1 = ?", "answer": f"{n}\n#### {n + 1}"} for n in range(start, start + count)]


def lines(path: Path, data: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two splits beside the recipe."""
    lines(tmp_path / "sums/train.jsonl", rows(0, 9))
    lines(tmp_path / "sums/test.jsonl", rows(100, 4))
    return tmp_path


def train(folder: Path, **source: Any) -> PromptSet:
    data = {"format": "text", "train": {"columns": COLUMNS, **source}}
    return load(PromptsConfig.model_validate(data), folder).train


def test_a_folder_gives_the_same_prompts_as_its_file(folder: Path) -> None:
    by_default, named = train(folder, path="sums"), train(folder, path="sums", split="train")
    streamed, as_file = train(folder, path="sums", stream=True), train(folder, path="sums/train.jsonl")
    assert by_default.digest == named.digest == streamed.digest == as_file.digest
    assert train(folder, path="sums", split="test").digest == train(folder, path="sums/test.jsonl").digest
    assert train(folder, path=str(folder / "sums")).digest == as_file.digest


@pytest.mark.parametrize("stream", [False, True])
def test_skip_and_limit_take_a_part_and_places_count_from_the_beginning(folder: Path, stream: bool) -> None:
    part = train(folder, path="sums", skip=3, limit=2, stream=stream)
    assert [one.text for one in part.prompts] == ["3 + 1 = ?", "4 + 1 = ?"]
    with pytest.raises(DataError, match=r"row 4 of sums \(train\) has no column 'reply'"):
        train(folder, path="sums", skip=3, stream=stream, columns={**COLUMNS, "reference": "reply"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_split_or_subset_that_is_not_there_is_met_with_those_that_are(folder: Path, stream: bool) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.train: sums has no split 'valid'; it has: train, test"):
        train(folder, path="sums", split="valid", stream=stream)
    with pytest.raises(ConfigError, match="sums has no subset 'main'; it has: default; leave subset out"):
        train(folder, path="sums", subset="main", stream=stream)
    if stream:
        with pytest.raises(ConfigError, match=r"no split 'train\[:3\]'; .*give skip and limit"):
            train(folder, path="sums", split="train[:3]", stream=True)


def test_several_splits_without_train_or_several_subsets_have_to_be_named(tmp_path: Path) -> None:
    lines(tmp_path / "held/validation.jsonl", rows(0, 2))
    lines(tmp_path / "held/test.jsonl", rows(2, 2))
    with pytest.raises(ConfigError, match="held has several splits: validation, test; name one in split"):
        train(tmp_path, path="held")
    lines(tmp_path / "two/main.jsonl", rows(0, 2))
    lines(tmp_path / "two/hard.jsonl", rows(5, 3))
    (tmp_path / "two/README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: main.jsonl\n"
        "- config_name: hard\n  data_files: hard.jsonl\n---\n"
    )
    with pytest.raises(ConfigError, match="two has several subsets: main, hard; name one in subset"):
        train(tmp_path, path="two")
    hard = train(tmp_path, path="two", subset="hard")
    assert [one.text for one in hard.prompts] == ["5 + 1 = ?", "6 + 1 = ?", "7 + 1 = ?"]


def test_what_save_to_disk_wrote_is_opened(tmp_path: Path) -> None:
    whole, other = datasets.Dataset.from_list(rows(0, 9)), datasets.Dataset.from_list(rows(50, 2))
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "test": other}).save_to_disk(tmp_path / "two")
    lines(tmp_path / "a.jsonl", rows(0, 9))
    expected = train(tmp_path, path="a.jsonl").digest
    assert train(tmp_path, path="one").digest == train(tmp_path, path="two", stream=True).digest == expected
    assert len(train(tmp_path, path="two", split="test").prompts) == 2
    with pytest.raises(ConfigError, match="two has no split 'valid'; it has: train, test"):
        train(tmp_path, path="two", split="valid")
    with pytest.raises(ConfigError, match="one has no split 'valid'; it has: one without a name"):
        train(tmp_path, path="one", split="valid")
    with pytest.raises(ConfigError, match="written by save_to_disk and has no subsets"):
        train(tmp_path, path="one", subset="main")


@pytest.mark.parametrize("stream", [False, True])
def test_images_are_never_decoded_and_only_matter_where_they_are_used(tmp_path: Path, stream: bool) -> None:
    broken = {"bytes": b"no image at all", "path": None}
    table = datasets.Dataset.from_list([{**row, "image": broken, "seen": [broken]} for row in rows(0, 3)])
    features = datasets.Features({**table.features, "image": datasets.Image(), "seen": datasets.List(datasets.Image())})
    (tmp_path / "pictures").mkdir()
    table.cast(features).to_parquet(tmp_path / "pictures/train.parquet")
    found = train(tmp_path, path="pictures", stream=stream)
    assert [dict(one.metadata) for one in found.prompts] == [{}, {}, {}]
    assert found.digest == train(tmp_path, path="pictures/train.parquet").digest
    for name in ("image", "seen"):
        with pytest.raises(DataError, match=rf"row 1 of pictures \(train\): the column '{name}' holds images"):
            train(tmp_path, path="pictures", stream=stream, columns={**COLUMNS, "prompt": name})


@pytest.mark.parametrize("stream", [False, True])
def test_rows_of_mixed_types_keep_them(tmp_path: Path, stream: bool) -> None:
    """`datasets` stores such columns as JSON text; what is read is what it says."""
    content = [{"type": "text", "text": "3 + "}, {"type": "text", "text": "4"}]
    data = [
        {"prompt": [{"role": "user", "content": content}], "reference": 7},
        {"prompt": [{"role": "user", "content": "plain"}], "reference": "seven"},
    ]
    lines(tmp_path / "mixed/train.jsonl", data)
    found = train(tmp_path, path="mixed", stream=stream, columns={}).prompts
    assert [(one.text, one.reference) for one in found] == [("3 + 4", "7"), ("plain", "seven")]


def test_a_folder_that_holds_nothing_or_something_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"prompts\.train: datasets cannot read empty"):
        train(tmp_path, path="empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.jsonl").write_text('{"question": \n')
    for stream in (False, True):
        with pytest.raises(DataError, match=r"prompts\.train: datasets cannot read broken"):
            train(tmp_path, path="broken", stream=stream)
    lines(tmp_path / "sums/train.jsonl", rows(0, 1))
    with pytest.raises(ConfigError, match="revision is for a hub data set, and sums is a folder"):
        train(tmp_path, path="sums", revision="abc")


def test_a_data_set_that_the_hub_does_not_have_is_a_mistake_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        assert arguments == ("nobody/nothing",)
        assert options == {"name": "main", "revision": "v1", "split": "test", "streaming": True}
        raise DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConfigError, match=r"'nobody/nothing' is no local .*\(revision v1\): .* exist on the Hub"):
        train(tmp_path, path="nobody/nothing", subset="main", revision="v1", split="test", stream=True)


def test_without_the_hub_a_data_set_that_is_not_here_is_a_missing_dependency(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom selftrain.config import PromptsConfig\nfrom selftrain.prompts import load\n"
        "from selftrain.errors import DependencyError\n"
        "try:\n    load(PromptsConfig.model_validate({'train': 'nobody/nothing'}), Path('.'))\n"
        "except DependencyError as error:\n    print(error.exit_code, error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.startswith(f"{DependencyError.exit_code} prompts.train: 'nobody/nothing' is no local"), done
    assert "download the data set and give its folder" in done.stdout
