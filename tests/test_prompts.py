from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PromptsConfig
from selftrain.errors import ConfigError, DataError, SelftrainError
from selftrain.prompts import load, of_round


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}?", "reference": n + 1} for n in range(start, start + count)]


def config(**knobs: Any) -> PromptsConfig:
    return PromptsConfig.model_validate({"format": "text", **knobs})


def test_text_prompts_take_template_examples_and_numbers_as_references(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"a": 1, "b": 2, "reference": 3}])
    few_shot = [{"prompt": "0 + 1 =", "completion": " 1"}]
    sets = load(config(train="a.jsonl", template="{a} + {b} =", few_shot=few_shot), tmp_path)
    (prompt,) = sets.train.prompts
    assert prompt.text == "0 + 1 = 1\n1 + 2 ="
    assert prompt.reference == "3"
    assert prompt.metadata == {"a": 1, "b": 2}


def test_chat_prompts_put_the_system_message_and_examples_first(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    knobs = {"format": "chat", "system": "Be brief.", "few_shot": [{"prompt": "q", "completion": "r"}]}
    (prompt,) = load(config(train="a.jsonl", **knobs), tmp_path).train.prompts
    assert prompt.messages is not None
    assert [(one.role, one.content) for one in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "q"),
        ("assistant", "r"),
        ("user", "0?"),
    ]


def test_an_id_is_of_the_content_without_reference_examples_or_place(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": "1"}])
    write(tmp_path / "b.jsonl", [{"prompt": "y", "reference": "1"}, {"prompt": "x", "reference": "2"}])
    first = load(config(train="a.jsonl"), tmp_path).train.prompts[0]
    second = load(config(train="b.jsonl", few_shot=[{"prompt": "q", "completion": "r"}]), tmp_path).train.prompts[1]
    assert first.id == second.id


def test_duplicates_collapse_and_are_counted_but_not_with_two_references(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 3) + rows(0, 2))
    train = load(config(train="a.jsonl"), tmp_path).train
    assert (len(train.prompts), train.num_duplicates) == (3, 2)
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": "1"}, {"prompt": "x", "reference": "2"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: the same prompt came before with another reference"):
        load(config(train="a.jsonl"), tmp_path)


def test_overlap_is_an_error_that_names_the_prompt_or_leaves_training(tmp_path: Path) -> None:
    def source(name: str, pairs: list[tuple[int, int]]) -> dict[str, Any]:
        data = [{"prompt": f"{a}+{b}", "reference": a + b, "key": sorted((a, b))} for a, b in pairs]
        return {"path": write(tmp_path / name, data), "columns": {"identity": "key"}}

    sets = {"train": source("a.jsonl", [(1, 2), (3, 4)]), "test": source("b.jsonl", [(2, 1), (5, 6)])}
    with pytest.raises(DataError, match=r"1 of the train prompts are also in prompts\.test, for example '1\+2'"):
        load(config(**sets), tmp_path)
    train = load(config(**sets, overlap="drop_from_train"), tmp_path).train
    assert [one.text for one in train.prompts] == ["3+4"]
    assert train.num_overlapping == 1


@pytest.mark.parametrize("keyed", ["train", "test"])
def test_the_same_words_overlap_where_only_one_set_has_an_identity(tmp_path: Path, keyed: str) -> None:
    for name, data in (("train", rows(0, 3)), ("test", rows(2, 2))):
        write(tmp_path / f"{name}.jsonl", [{**row, "key": row["prompt"]} for row in data])
    sets = {name: {"path": f"{name}.jsonl"} for name in ("train", "test")}
    sets[keyed]["columns"] = {"identity": "key"}
    with pytest.raises(DataError, match=r"1 of the train prompts are also in prompts\.test"):
        load(config(**sets), tmp_path)
    train = load(config(**sets, overlap="drop_from_train"), tmp_path).train
    assert (len(train.prompts), train.num_overlapping) == (2, 1)


def test_held_out_sets_may_never_overlap_each_other(tmp_path: Path) -> None:
    for name, data in (("a", rows(0, 2)), ("b", rows(5, 2)), ("c", rows(6, 2))):
        write(tmp_path / f"{name}.jsonl", data)
    with pytest.raises(DataError, match=r"validate prompts are also in prompts\.test"):
        load(config(train="a.jsonl", validate="b.jsonl", test="c.jsonl", overlap="drop_from_train"), tmp_path)


def test_rounds_take_fresh_prompts_until_the_set_is_used_up(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 10))
    knobs = config(train="a.jsonl", per_round=4)
    train = load(knobs, tmp_path).train
    drawn = [of_round(train, knobs, seed=1, round_number=number) for number in (1, 2, 3)]
    assert [len(one) for one in drawn] == [4, 4, 4]
    first_ten = [one.id for part in drawn for one in part][:10]
    assert len(set(first_ten)) == 10
    assert all(len({one.id for one in part}) == 4 for part in drawn)
    assert of_round(train, knobs, seed=2, round_number=1) != drawn[0]


def test_which_prompts_a_round_uses_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 10))
    write(tmp_path / "b.jsonl", rows(0, 10)[::-1])
    knobs = config(train="a.jsonl", per_round=4)
    one = of_round(load(knobs, tmp_path).train, knobs, seed=1, round_number=2)
    other = of_round(load(config(train="b.jsonl"), tmp_path).train, knobs, seed=1, round_number=2)
    assert one == other


@pytest.mark.parametrize(
    ("content", "knobs", "said"),
    [
        ("", {}, "it is empty"),
        ("{}\n", {}, "has no column 'prompt'"),
        ('{"reference": 1, "question": "x"}\n', {}, "has no column 'prompt'.*it has: reference, question"),
        ('{"reference": 1}\n', {"template": "{question}"}, "has no column 'question'"),
        ("not json\n", {}, "line 1 is not JSON"),
        ("[1]\n", {}, "every line must be an object"),
        ('{"prompt": ["x"], "reference": 1}\n', {}, "the prompt must be text or a number, not list"),
        ('{"prompts": "x", "reference": 1}\n', {}, "it has: prompts, reference; did you mean 'prompts'"),
        ('{"messages": "x", "reference": 1}\n', {}, "must be a list of"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}], "reference": 1}\n', {}, "images are not"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}], "reference": 1}\n',
            {},
            "messages holds the assistant's turn alone",
        ),
        ('{"prompt": "x", "reference": 1, "reference": 2}\n', {}, "a.jsonl, line 1 names 'reference' twice in one"),
        ('{"prompt": "x", "reference": 1, "b": [{"c": 1, "c": 1}]}\n', {}, "line 1 names 'c' twice in one object"),
        (
            '{"prompt": "\\ud800", "reference": 1}\n',
            {},
            r"line 1: the column 'prompt' holds half a character \('.ud800'\)",
        ),
        ('{"prompt": "x", "reference": NaN}\n', {}, "line 1: the column 'reference' holds NaN or infinity"),
        ('{"prompt": 1e999, "reference": 1}\n', {}, "the column 'prompt' holds NaN or infinity"),
        ('{"q": null, "reference": 1}\n', {"template": "Q: {q}"}, "line 1: the column 'q' is null"),
    ],
)
def test_bad_data_is_refused_with_file_line_and_column(
    tmp_path: Path, content: str, knobs: dict[str, Any], said: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        load(config(train="a.jsonl", **knobs), tmp_path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.jsonl", "there is no file"),
        ("data.txt", r"cannot read 'data\.txt' .*give a file \(\.jsonl, \.json, \.csv, \.parquet\)"),
        ("nowhere/at/all", "cannot read 'nowhere/at/all'"),
        ("missing.py:rows", "there is no file"),
        ("rows.py:nothing", "defines no function 'nothing'; it has: fail, numbers"),
        ("rows.py:fail", "raised RuntimeError: no disk"),
        ("rows.py:numbers", "row 1 of .* is a int"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "rows.py").write_text(
        "def fail():\n    raise RuntimeError('no disk')\ndef numbers():\n    return [1]\n"
    )
    with pytest.raises((ConfigError, DataError), match=said) as error:
        load(config(train=source), tmp_path)
    assert isinstance(error.value, SelftrainError)


@pytest.mark.parametrize("template", ["{prompt", "{prompt.x}", "{prompt!z}", "{}"])
def test_a_template_that_does_not_fit_says_how_to_write_a_plain_brace(tmp_path: Path, template: str) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    with pytest.raises((ConfigError, DataError), match=r"plain brace"):
        load(config(train="a.jsonl", template=template), tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "caf\xe9", "reference": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1 is not UTF-8"):
        load(config(train="a.jsonl"), tmp_path)


def test_a_completion_is_kept_beside_the_prompt_and_changes_neither_id_nor_metadata(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": "1", "k": 2}])
    write(tmp_path / "b.jsonl", [{"prompt": "x", "reference": "1", "k": 2, "completion": " 1"}])
    write(tmp_path / "c.jsonl", [{"prompt": "x", "reference": "1", "k": 2, "shown": " 1", "completion": None}])
    (without,) = load(config(train="a.jsonl"), tmp_path).train.prompts
    (having,) = load(config(train="b.jsonl"), tmp_path).train.prompts
    source = {"path": "c.jsonl", "columns": {"completion": "shown"}}
    (named,) = load(config(train=source), tmp_path).train.prompts
    assert (without.completion, having.completion, named.completion) == (None, " 1", " 1")
    assert without.id == having.id == named.id
    assert without.metadata == having.metadata == {"k": 2}


def test_completions_count_in_the_digest_of_demonstrations_alone(tmp_path: Path) -> None:
    digests = []
    for completion in (None, " 1", " one"):
        for name, prompt in (("a", "x"), ("b", "y"), ("c", "z"), ("d", "w")):
            row = {"prompt": prompt, "reference": "1"}
            write(tmp_path / f"{name}.jsonl", [row if completion is None else {**row, "completion": completion}])
        sets = load(config(train="a.jsonl", validate="b.jsonl", test="c.jsonl", seed_data="d.jsonl"), tmp_path)
        assert sets.validate is not None
        assert sets.test is not None
        assert sets.seed_data is not None
        digests.append([one.digest for one in (sets.train, sets.seed_data, sets.validate, sets.test)])
    train, seed_data, validate, test = zip(*digests, strict=True)
    assert (len(set(train)), len(set(seed_data)), len(set(validate)), len(set(test))) == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("completion", "said"), [([1], "the completion .* must be text or a number"), (" \n", "the completion is empty")]
)
def test_a_completion_that_is_none_is_refused_with_its_row(tmp_path: Path, completion: Any, said: str) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": "1", "completion": completion}])
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1: {said}"):
        load(config(train="a.jsonl"), tmp_path)


def test_demonstrations_are_asked_like_training_prompts_and_show_a_completion_or_a_reference(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"a": 1, "reference": 2}])
    write(tmp_path / "b.jsonl", [{"a": 5, "completion": " 6"}, {"a": 6, "reference": 7}])
    sets = load(config(train="a.jsonl", seed_data="b.jsonl", template="{a} + 1 ="), tmp_path)
    assert sets.seed_data is not None
    shown = [(one.text, one.completion, one.reference) for one in sets.seed_data.prompts]
    assert shown == [("5 + 1 =", " 6", None), ("6 + 1 =", None, "7")]


def test_a_demonstration_that_shows_no_answer_is_refused_with_its_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    for bad in ({"prompt": "y"}, {"prompt": "y", "reference": None, "completion": None}):
        write(tmp_path / "b.jsonl", [{"prompt": "x", "completion": "1"}, bad])
        with pytest.raises(DataError, match=r"b\.jsonl, line 2 shows no answer: .*'completion'.*it has: prompt"):
            load(config(train="a.jsonl", seed_data="b.jsonl"), tmp_path)


def test_a_prompt_may_be_demonstrated_in_several_ways_but_trained_on_once(tmp_path: Path) -> None:
    answers = [{"prompt": "x", "reference": "1", "completion": one} for one in ("1", "one", "1")]
    write(tmp_path / "a.jsonl", answers)
    sets = load(config(train="a.jsonl", seed_data="a.jsonl"), tmp_path)
    assert sets.seed_data is not None
    assert [one.completion for one in sets.seed_data.prompts] == ["1", "one"]
    assert (len(sets.train.prompts), sets.train.num_duplicates, sets.seed_data.num_duplicates) == (1, 2, 1)


@pytest.mark.parametrize("held_out", ["validate", "test"])
def test_what_is_held_out_may_not_be_demonstrated(tmp_path: Path, held_out: str) -> None:
    write(tmp_path / "train.jsonl", rows(0, 5))
    write(tmp_path / "held_out.jsonl", rows(10, 5))
    write(tmp_path / "shown.jsonl", rows(14, 2) + rows(0, 2))
    knobs = {"train": "train.jsonl", held_out: "held_out.jsonl", "seed_data": "shown.jsonl"}
    with pytest.raises(DataError, match=rf"1 of the seed_data prompts .* in prompts\.{held_out}, .*drop_from_train"):
        load(config(**knobs), tmp_path)
    shown = load(config(**knobs, overlap="drop_from_train"), tmp_path).seed_data
    assert shown is not None
    assert [one.text for one in shown.prompts] == ["15?", "0?", "1?"]
    assert shown.num_overlapping == 1
    write(tmp_path / "shown.jsonl", rows(14, 1))
    with pytest.raises(DataError, match=r"prompts\.seed_data: every one of them is also a held-out prompt"):
        load(config(**knobs, overlap="drop_from_train"), tmp_path)


def test_retention_rows_with_a_text_column_are_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    write(tmp_path / "b.jsonl", [{"text": "One.", "prompt": "x"}, {"text": "Two."}, {"text": "One."}])
    kept = load(config(train="a.jsonl", retention={"path": "b.jsonl", "limit": 2}), tmp_path).retention
    assert kept is not None
    assert (kept.texts, kept.prompts) == (("One.", "Two."), None)
    whole = load(config(train="a.jsonl", retention="b.jsonl"), tmp_path).retention
    assert whole is not None
    assert whole.texts == ("One.", "Two.", "One.")
    assert whole.digest != kept.digest


def test_retention_prompts_are_asked_without_template_and_worked_examples(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"a": 0, "reference": 1}])
    write(tmp_path / "b.jsonl", [{"prompt": "Capital of France?", "reference": "Paris", "text": None}])
    shown = [{"prompt": "q", "completion": "r"}]
    source = {"path": "b.jsonl", "columns": {"text": "body"}}
    knobs = {"train": "a.jsonl", "retention": source, "template": "{a}", "few_shot": shown}
    kept = load(config(**knobs), tmp_path).retention
    assert kept is not None
    assert kept.prompts is not None
    (prompt,) = kept.prompts.prompts
    assert (prompt.text, prompt.reference, kept.texts) == ("Capital of France?", "Paris", ())
    assert kept.digest == kept.prompts.digest
    kept = load(config(**knobs | {"format": "chat", "system": "Be brief."}), tmp_path).retention
    assert kept is not None
    assert kept.prompts is not None
    (prompt,) = kept.prompts.prompts
    assert [(one.role, one.content) for one in prompt.messages or ()] == [
        ("system", "Be brief."),
        ("user", "Capital of France?"),
    ]


def test_a_text_column_that_is_named_as_the_prompts_holds_prompts(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    write(tmp_path / "b.jsonl", [{"text": "Capital of France?", "reference": "Paris"}])
    source = {"path": "b.jsonl", "columns": {"prompt": "text"}}
    kept = load(config(train="a.jsonl", retention=source), tmp_path).retention
    assert kept is not None
    assert kept.prompts is not None
    assert kept.prompts.prompts[0].text == "Capital of France?"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{"text": "One."}, *rows(0, 1)], r"b\.jsonl, line 2 has no column 'text'"),
        ([*rows(0, 2), {"text": "One."}], r"b\.jsonl, line 3 has a column 'text'"),
        ([{"text": "One."}, {"text": " "}], r"b\.jsonl, line 2: the text is empty"),
        ([{"text": None}], r"b\.jsonl, line 1: the text must be text"),
        ([{"prompt": "x"}], "has no column 'reference'"),
        ([], "it is empty"),
    ],
)
def test_retention_that_is_neither_texts_nor_prompts_is_refused(tmp_path: Path, data: list[Any], said: str) -> None:
    write(tmp_path / "a.jsonl", rows(0, 1))
    write(tmp_path / "b.jsonl", data)
    with pytest.raises(DataError, match=said):
        load(config(train="a.jsonl", retention="b.jsonl"), tmp_path)


def test_a_function_may_fill_one_row_again_and_again_and_never_end(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(
        "import itertools\ndef numbers():\n    row = {}\n    for n in itertools.count():\n"
        "        row.update(prompt=f'{n}?', reference=n)\n        yield row\n"
    )
    train = load(config(train={"path": "rows.py:numbers", "limit": 3}), tmp_path).train
    assert [one.text for one in train.prompts] == ["0?", "1?", "2?"]


def test_the_quickstart_can_show_every_answer_and_measure_what_is_kept() -> None:
    from selftrain.compose import compose

    composed = compose("quickstart")
    sets = load(composed.config.prompts, composed.folder)
    for prompts in (sets.train, *sets.held_out().values()):
        assert all(one.completion == f" {one.reference}" for one in prompts.prompts)
    assert sets.retention is not None
    assert len(set(sets.retention.texts)) == 40
    assert all(2 <= text.count(". ") + 1 <= 4 for text in sets.retention.texts)
