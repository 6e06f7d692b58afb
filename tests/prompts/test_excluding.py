"""Prompts that leave their set by id: counted, seen by the digest, and refused where an id means nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PromptsConfig
from selftrain.errors import ConfigError, DataError, SelftrainError
from selftrain.parsing import parse
from selftrain.prompts import PromptSets, load


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}?", "reference": str(n + 1)} for n in numbers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, some in (("a", rows(*range(6))), ("b", rows(*range(10, 14)))):
        write(tmp_path / f"{name}.jsonl", some)
    return tmp_path


def write(path: Path, some: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in some))


def loaded(folder: Path, **sets: Any) -> PromptSets:
    return load(PromptsConfig.model_validate({"format": "text", **sets}), folder)


def ids(folder: Path, name: str = "a") -> list[str]:
    return [one.id for one in loaded(folder, train=f"{name}.jsonl").train.prompts]


def texts(sets: PromptSets) -> list[str | None]:
    return [one.text for one in sets.train.prompts]


def test_excluded_prompts_leave_and_the_digest_is_that_of_data_without_them(folder: Path) -> None:
    out = ids(folder)[1:3]
    train = loaded(folder, train={"path": "a.jsonl", "exclude": out}).train
    assert [one.text for one in train.prompts] == ["0?", "3?", "4?", "5?"]
    assert (train.num_excluded, train.num_duplicates) == (2, 0)
    assert train.digest != loaded(folder, train="a.jsonl").train.digest
    write(folder / "fewer.jsonl", rows(0, 3, 4, 5))
    assert train.digest == loaded(folder, train="fewer.jsonl").train.digest


def test_a_file_of_ids_may_have_comments_blank_lines_and_windows_line_ends(folder: Path) -> None:
    first, second, *_ = ids(folder)
    (folder / "out.txt").write_bytes(f"# broken\r\n{first}\r\n\r\n  {second}   # no answer\r\n{first}\r\n".encode())
    sets = loaded(folder, train={"path": "a.jsonl", "exclude": "out.txt"})
    assert texts(sets)[0] == "2?"
    assert sets.train.num_excluded == 2
    (folder / "none.txt").write_text("# none\n")
    assert loaded(folder, train={"path": "a.jsonl", "exclude": "none.txt"}).train.num_excluded == 0


def test_an_excluded_prompt_that_stands_twice_is_one_prompt_and_no_duplicate(folder: Path) -> None:
    write(folder / "twice.jsonl", rows(0, 1, 1, 1, 2, 2))
    out = ids(folder)[1]
    train = loaded(folder, train={"path": "twice.jsonl", "exclude": [out]}).train
    assert (len(train.prompts), train.num_excluded, train.num_duplicates) == (2, 1, 1)


def test_what_is_excluded_may_contradict_itself_or_stand_in_another_set(folder: Path) -> None:
    write(folder / "two.jsonl", [*rows(0, 1), {"prompt": "1?", "reference": "7"}])
    with pytest.raises(DataError, match="another reference"):
        loaded(folder, train="two.jsonl")
    one = ids(folder)[1]
    sets = loaded(folder, train={"path": "two.jsonl", "exclude": [one]}, test={"path": "a.jsonl", "skip": 1})
    assert texts(sets) == ["0?"]


@pytest.mark.parametrize("name", ["validate", "test", "seed_data", "retention"])
def test_every_set_can_leave_prompts_out(folder: Path, name: str) -> None:
    out = ids(folder, "b")[0]
    sets = loaded(folder, train="a.jsonl", **{name: {"path": "b.jsonl", "exclude": [out]}})
    of_set = sets.retention.prompts if name == "retention" and sets.retention else getattr(sets, name)
    assert (len(of_set.prompts), of_set.num_excluded) == (3, 1)


def test_every_task_of_a_mix_has_its_own(folder: Path) -> None:
    of_a, of_b = ids(folder)[0], ids(folder, "b")[0]
    mix = {"first": {"path": "a.jsonl", "exclude": [of_a]}, "second": {"path": "b.jsonl", "exclude": [of_b]}}
    train = loaded(folder, train={"mix": mix}).train
    assert (len(train.prompts), train.num_excluded, train.tasks) == (8, 2, ("first", "second"))
    mix["second"]["exclude"] = [of_a]
    with pytest.raises(ConfigError, match=rf"prompts\.train\.mix\.second\.exclude: 1 of 1 ids .*second: {of_a}"):
        loaded(folder, train={"mix": mix})
    with pytest.raises(SelftrainError, match="exclude stands beside mix"):
        parse({"name": "x", "model": {"path": "m"}, "prompts": {"train": {"mix": mix, "exclude": [of_a]}}})


def test_an_id_without_a_prompt_is_named_with_the_nearest(folder: Path) -> None:
    one, *_ = ids(folder)
    wrong = one[:-1] + ("0" if one[-1] != "0" else "1")
    with pytest.raises(ConfigError) as caught:
        loaded(folder, train={"path": "a.jsonl", "exclude": [wrong, *ids(folder)[2:4]]})
    assert f"1 of 3 ids match no prompt of prompts.train: {wrong} (did you mean {one} instead" in str(caught.value)
    many = [f"none-{number}" for number in range(9)]
    with pytest.raises(ConfigError, match=r"9 of 9 ids .*: none-0, none-1, none-2, none-3, none-4, \.\.\.;"):
        loaded(folder, train={"path": "a.jsonl", "exclude": many})


def test_a_set_of_which_nothing_is_left_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"prompts\.train: every one of its 6 prompts is excluded"):
        loaded(folder, train={"path": "a.jsonl", "exclude": ids(folder)})


def test_ids_that_are_no_ids_and_files_that_are_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.txt: No such file.*list of ids: \[ID\]"):
        loaded(folder, train={"path": "a.jsonl", "exclude": "nowhere.txt"})
    (folder / "words.txt").write_text("# fine\nabc def\n")
    with pytest.raises(ConfigError, match=r"line 2 is no id: 'abc def'; write one id per line"):
        loaded(folder, train={"path": "a.jsonl", "exclude": "words.txt"})
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        loaded(folder, train={"path": "a.jsonl", "exclude": "bytes.txt"})
    with pytest.raises(SelftrainError, match=r"12345 is a int, and ids are texts; put it in quotes"):
        parse({"name": "x", "model": {"path": "m"}, "prompts": {"train": {"path": "a.jsonl", "exclude": [12345]}}})


def test_texts_have_no_ids(folder: Path) -> None:
    write(folder / "texts.jsonl", [{"text": "Once."}])
    with pytest.raises(ConfigError, match=r"prompts\.retention: exclude is for prompts, and its rows are texts"):
        loaded(folder, train="a.jsonl", retention={"path": "texts.jsonl", "exclude": ["x"]})


def test_the_prompt_column_beside_a_template_is_kept_as_metadata(folder: Path) -> None:
    with_template = loaded(folder, train="a.jsonl", template="Say: {prompt}").train.prompts[0]
    assert with_template.metadata == {"prompt": "0?"}
    assert loaded(folder, train="a.jsonl").train.prompts[0].metadata == {}
