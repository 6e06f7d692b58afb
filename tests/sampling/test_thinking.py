"""Reasoning cut off: by characters from the text, by tokens from what may be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from blocks import block_of, plain
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import SampleConfig, ThinkingConfig
from selftrain.records import Candidate
from selftrain.sampling import build
from selftrain.sampling.thinking import Answer, cut

TAGS = ThinkingConfig()
# Tokens of any width: some end inside a tag, some hold a tag's end and what follows.
TOKENS = [
    "<think>",
    "<thi",
    "nk>",
    "\n",
    "so ",
    "é",
    "</think>",
    "</",
    "thi",
    "nk>4",
    "</think>\n\n5",
    "4",
    " 2",
    "<",
    ">",
]
IDS = st.lists(st.integers(0, len(TOKENS) - 1), max_size=12)
PROMPTS = st.sampled_from(["ask\n", "ask <think>\n", "ask <think>", "ask <think>\n\n</think>\n\n"])


def decode(ids: Sequence[int]) -> str:
    return "".join(TOKENS[one] for one in ids)


def of(*tokens: str, after: str = "ask\n", tags: ThinkingConfig | None = TAGS) -> Answer:
    ids = [TOKENS.index(one) for one in tokens]
    return cut(tags, decode(ids), ids, after=after, decode=decode)


@pytest.mark.parametrize(
    ("tokens", "after", "expected"),
    [
        (("<think>", "so ", "</think>", "4"), "ask\n", Answer("4", "so ", 3)),
        (("\n", "<think>", "so ", "</think>", "\n", "4"), "ask\n", Answer("\n4", "so ", 4)),
        (("<thi", "nk>", "so ", "</", "thi", "nk>4", " 2"), "ask\n", Answer("4 2", "so ", 6)),
        (("so ", "</think>\n\n5"), "ask <think>\n", Answer("\n\n5", "so ", 2)),
        (("<think>", "so ", "</think>", "4"), "ask <think>\n", Answer("4", "so ", 3)),
        (("</think>", "4"), "ask <think>", Answer("4", "", 1)),
        (("<think>", "so ", "4"), "ask\n", Answer("", "so 4", 3)),
        (("so ", "4"), "ask <think>\n", Answer("", "so 4", 2)),
        ((), "ask <think>\n", Answer("", "", 0)),
        (("4", " 2"), "ask <think>\n\n</think>\n\n", Answer("4 2", None, 0)),
        (("4", "</think>", " 2"), "ask\n", Answer("4</think> 2", None, 0)),
        (("<think>", "so ", "</think>", "4", "</think>", " 2"), "ask\n", Answer("4</think> 2", "so ", 3)),
        (("<thi", "4"), "ask\n", Answer("<thi4", None, 0)),
    ],
)
def test_reasoning_ends_with_the_first_closing_tag(tokens: tuple[str, ...], after: str, expected: Answer) -> None:
    assert of(*tokens, after=after) == expected


def test_a_model_that_does_not_think_has_no_reasoning() -> None:
    assert of("<think>", "so ", "</think>", "4", tags=None) == Answer("<think>so </think>4", None, 0)


@given(IDS, PROMPTS)
def test_nothing_of_the_text_is_lost_and_the_counted_tokens_are_the_fewest_that_close(
    ids: list[int], after: str
) -> None:
    text = decode(ids)
    found = cut(TAGS, text, ids, after=after, decode=decode)
    if found.reasoning is None:
        assert (found.text, found.reasoning_tokens) == (text, 0)
        return
    closed = f"{found.reasoning}{TAGS.close}{found.text}"
    if text.endswith(closed):
        assert TAGS.close not in found.reasoning
        assert TAGS.close in decode(ids[: found.reasoning_tokens])
        assert (
            decode(ids[found.reasoning_tokens :])
            == found.text[len(found.text) - len(decode(ids[found.reasoning_tokens :])) :]
        )
        before = decode(ids[: found.reasoning_tokens - 1])
        assert TAGS.close not in before.removeprefix(text[: len(text) - len(closed)])
    else:
        assert text.endswith(found.reasoning)
        assert (found.text, found.reasoning_tokens) == ("", len(ids))


def scripted(answer: str, folder: Path, **knobs: object) -> Candidate:
    (folder / "say.py").write_text(f"def say(prompt, seed, policy_round):\n    return {answer!r}\n")
    config = SampleConfig(engine="scripted", params={"function": "say.py:say"})
    sampler = build(config, lambda: pytest.fail("no model is needed"), folder, TAGS)
    (candidate,) = sampler.sample(
        block_of(sampler, plain("ask\n"), num_candidates=1, **{"max_new_tokens": 99, **knobs})
    )  # type: ignore[arg-type]
    return candidate


def test_the_scripted_engine_cuts_the_same_way(tmp_path: Path) -> None:
    one = scripted("<think>é</think>4", tmp_path)
    assert (one.text, one.reasoning, one.finish_reason) == ("4", "é", "stop_token")
    assert one.reasoning_tokens == len("<think>é</think>".encode())
    assert one.completion_token_ids[one.reasoning_tokens :] == (ord("4"), 256)


def test_reasoning_without_an_end_leaves_no_answer_however_it_ended(tmp_path: Path) -> None:
    stopped = scripted("<think>so 4", tmp_path)
    assert (stopped.text, stopped.reasoning, stopped.finish_reason) == ("", "so 4", "stop_token")
    assert stopped.reasoning_tokens == len(stopped.completion_token_ids)
    truncated = scripted("<think>so</think>4", tmp_path, max_new_tokens=9)
    assert (truncated.text, truncated.reasoning, truncated.finish_reason) == ("", "so", "length")


def test_a_stop_string_inside_the_reasoning_ends_the_candidate(tmp_path: Path) -> None:
    one = scripted("<think>so 4\n\nthen</think>5", tmp_path, stop_strings=("\n\n",))
    assert (one.text, one.reasoning, one.finish_reason) == ("", "so 4", "stop_string")
    assert one.reasoning_tokens == len(one.completion_token_ids) == len("<think>so 4\n\n")


def test_a_stop_string_after_the_reasoning_cuts_the_answer(tmp_path: Path) -> None:
    one = scripted("<think>so</think>4\n\nmore", tmp_path, stop_strings=("\n\n",))
    assert (one.text, one.reasoning, one.finish_reason) == ("4", "so", "stop_string")
    assert bytes(one.completion_token_ids[one.reasoning_tokens :]) == b"4\n\n"
