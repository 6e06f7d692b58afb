from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_prompt

from selftrain.config import SelectConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.records import Group, Message, Score
from selftrain.selection import Selection, filters, select

Write = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "mine.py").write_text(text)
        return tmp_path

    return write


def a_group() -> Group:
    prompt = replace(
        make_prompt("p", "57", {"level": 3}), task="sums", text=None, messages=(Message("user", "what is 50 + 7?"),)
    )
    candidates = tuple(
        replace(make_candidate("p", index, text), logprobs=(-0.5, -1.0, -1.5), entropy=0.75, reasoning="hm")
        for index, text in enumerate(["57", "it is 57", "58", "I cannot"])
    )
    scores = tuple(
        Score(one.id, float("57" in one.text), "57" in one.text, one.text[-2:], parts={"exact": 1.0})
        for one in candidates
    )
    return Group(prompt, candidates, scores)


def chosen(base: Path, *names: str, **knobs: Any) -> Selection:
    config = SelectConfig.model_validate({"rule": "all", "filters": names, **knobs})
    filters.check(config, base)
    return select([a_group()], config, seed=0, filters=filters.load(config, base))


def test_filters_are_asked_in_order_after_the_length_and_before_dedup_each_a_step_of_its_own(source: Write) -> None:
    base = source(
        "def brief(text):\n    return len(text) < 5 or f'{len(text)} characters'\n\n"
        "def right(correct, value):\n    assert correct == (value == 1.0)\n    return correct\n"
    )
    selection = chosen(base, "mine.py:brief", "mine.py:right", dedup="normalised")
    names = [name for name, _ in selection.funnel.steps]
    assert names == ["sampled", "scored", "finished", "length", "filter/brief", "filter/right", "dedup"]
    assert [left for _, left in selection.funnel.steps] == [4, 4, 4, 4, 2, 1, 1]
    assert selection.metrics["select/filter/brief"] == 2.0
    assert selection.reasons["p/1"] == "brief: 8 characters"
    assert selection.reasons["p/2"] == "right says no"


def test_a_filter_is_given_what_it_names_and_nothing_else(source: Write) -> None:
    base = source(
        "SEEN = []\n\ndef everything(**given):\n    SEEN.append(given)\n    return True\n\n"
        "def some(answer, *, logprob, weight=2):\n    SEEN.append({'answer': answer, 'logprob': logprob})\n"
        "    return True\n"
    )
    config = SelectConfig(filters=("mine.py:everything", "mine.py:some"))
    everything, some = filters.load(config, base)
    assert everything.takes == filters.OFFERED
    assert some.takes == ("answer", "logprob")
    chosen(base, "mine.py:everything", "mine.py:some")
    seen = everything.function.__globals__["SEEN"]
    assert seen[0] == {
        "text": "57",
        "reasoning": "hm",
        "prompt": [{"role": "user", "content": "what is 50 + 7?"}],
        "reference": "57",
        "metadata": {"level": 3},
        "task": "sums",
        "value": 1.0,
        "correct": True,
        "answer": "57",
        "parts": {"exact": 1.0},
        "num_tokens": 3,
        "finish_reason": "stop_token",
        "entropy": 0.75,
        "logprob": -1.0,
    }
    assert seen[4] == {"answer": "57", "logprob": -1.0}


@pytest.mark.parametrize("returned", ["None", "1", "0.0", "[]", "b'no'"])
def test_anything_but_true_false_or_words_is_refused_naming_the_candidate(source: Write, returned: str) -> None:
    base = source(f"def odd(text):\n    return {returned}\n")
    with pytest.raises(DataError, match=r"mine\.py:odd returned .* for candidate p/0; return True to keep it"):
        chosen(base, "mine.py:odd")


@pytest.mark.parametrize("failure", ["1 / 0", "raise SystemExit(3)", "import no_such_package"])
def test_a_filter_that_fails_stops_the_phase_with_function_candidate_and_line(source: Write, failure: str) -> None:
    base = source(f"def broken(text):\n    if text == '58':\n        {failure}\n    return True\n")
    with pytest.raises(PhaseError, match=r"mine\.py:broken failed on candidate p/2 with \w+: .* \(mine\.py, line 3\)"):
        chosen(base, "mine.py:broken")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("def other(text):\n    return True\n", "mine.py:missing", "defines no function 'missing'; it has: other"),
        ("", "gone.py:keep", "there is no file"),
        ("def keep(colour):\n    return True\n", "mine.py:keep", "nothing is known for the argument 'colour'"),
        ("def keep():\n    return True\n", "mine.py:keep", "takes nothing of a candidate"),
        ("async def keep(text):\n    return True\n", "mine.py:keep", "is async"),
        ("def keep(text, /):\n    return True\n", "mine.py:keep", "nothing is known for the argument 'text'"),
    ],
)
def test_a_filter_that_cannot_be_called_is_refused(source: Write, text: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chosen(source(text), name)


def test_whether_a_filter_is_there_is_seen_without_running_its_file(source: Write) -> None:
    base = source("raise RuntimeError\n\nif True:\n    def keep(text):\n        return True\n")
    filters.check(SelectConfig(filters=("mine.py:keep",)), base)
    base = source("from os.path import *\n")
    filters.check(SelectConfig(filters=("mine.py:exists",)), base)
    with pytest.raises(DataError, match="line 1, is no Python"):
        filters.check(SelectConfig(filters=("mine.py:keep",)), source("def keep(\n"))


def test_two_filters_of_one_name_would_be_one_step_and_are_refused(source: Write) -> None:
    base = source("def keep(text):\n    return True\n")
    (base / "other.py").write_text("def keep(text):\n    return True\n")
    with pytest.raises(ConfigError, match=r"mine\.py:keep and other\.py:keep would be one step"):
        chosen(base, "mine.py:keep", "other.py:keep")
