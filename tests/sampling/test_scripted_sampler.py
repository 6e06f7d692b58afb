from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from blocks import block_of, plain

from selftrain.config import SampleConfig
from selftrain.errors import ConfigError, DataError
from selftrain.sampling import Sampler, build


def no_bench() -> NoReturn:
    raise AssertionError("the scripted engine needs no model")


def scripted(folder: Path, body: str | None = None) -> Sampler:
    params = {}
    if body is not None:
        (folder / "answers.py").write_text(f"def answer(prompt, seed, policy_round):\n    return {body}\n")
        params = {"function": "answers.py:answer"}
    return build(SampleConfig(engine="scripted", params=params), no_bench, folder)


def test_the_function_sees_prompt_seed_and_round(tmp_path: Path) -> None:
    sampler = scripted(tmp_path, "f'{prompt.text}|{seed}|{policy_round}'")
    block = block_of(sampler, plain("a"), num_candidates=2, max_new_tokens=100)
    assert [one.text for one in sampler.sample(block)] == [f"a|{seed}|0" for seed in block.seeds[0]]


def test_a_scripted_candidate_ends_with_the_stop_token(tmp_path: Path) -> None:
    (one,) = scripted(tmp_path, "'né'").sample(block_of(scripted(tmp_path), plain("a"), num_candidates=1))
    assert (one.text, one.finish_reason) == ("né", "stop_token")
    assert one.completion_token_ids == (*"né".encode(), 256)
    assert one.logprobs == (0.0,) * 4


def test_a_scripted_answer_is_truncated_at_the_length_limit(tmp_path: Path) -> None:
    sampler = scripted(tmp_path, "'abcd'")
    (one,) = sampler.sample(block_of(sampler, plain("a"), num_candidates=1, max_new_tokens=4))
    assert (one.text, one.finish_reason, one.completion_token_ids) == ("abcd", "length", tuple(b"abcd"))


def test_a_scripted_answer_is_cut_at_a_stop_string(tmp_path: Path) -> None:
    sampler = scripted(tmp_path, "'one##two'")
    (one,) = sampler.sample(block_of(sampler, plain("a"), num_candidates=1, stop_strings=("o##", "##")))
    assert (one.text, one.finish_reason, one.completion_token_ids) == ("one", "stop_string", tuple(b"one##"))


def test_greedy_scripted_candidates_are_all_equal(tmp_path: Path) -> None:
    sampler = scripted(tmp_path, "str(seed)")
    block = block_of(sampler, plain("a"), num_candidates=3, temperature=0.0)
    assert {one.text for one in sampler.sample(block)} == {"0"}


def test_an_answer_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    sampler = scripted(tmp_path, "7")
    with pytest.raises(DataError, match="answered prompt a with 7"):
        sampler.sample(block_of(sampler, plain("a")))


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="functoin"):
        build(SampleConfig(engine="scripted", params={"functoin": "x.py:f"}), no_bench, tmp_path)


def test_an_unknown_engine_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean scripted"):
        build(SampleConfig(engine="scriptd"), no_bench, tmp_path)


def test_the_scripted_engine_takes_under_a_millisecond_per_candidate(tmp_path: Path) -> None:
    sampler = scripted(tmp_path)
    block = block_of(sampler, plain(*"abcdefghij"), num_candidates=100)
    start = time.perf_counter()
    sampler.sample(block)
    assert time.perf_counter() - start < 1.0


def test_the_room_and_the_scripted_engine_import_no_torch() -> None:
    import subprocess

    program = "import sys, selftrain.sampling.scripted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
