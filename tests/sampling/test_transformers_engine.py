from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import BASE, block_of, chat, plain, save_adapter
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import build_model

from selftrain.config import ModelConfig, SampleConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.models import Bench
from selftrain.records import Block, Candidate, Prompt
from selftrain.sampling.packed import Packed
from selftrain.sampling.transformers_engine import TransformersSampler, placed

RAGGED = ("1 + 2 =", "what is 10 + 20 ?", "the quick brown fox jumps over the lazy dog", "7")


def sampler_of(bench: Bench, **knobs: object) -> TransformersSampler:
    return TransformersSampler(SampleConfig(**knobs), lambda: bench, Path())  # type: ignore[arg-type]


def generated(bench: Bench, prompt: tuple[int, ...], new_tokens: int) -> tuple[int, ...]:
    """What `model.generate` decodes greedily, alone and unpadded."""
    model = bench.mount(BASE)
    ids = model.generate(  # type: ignore[operator]
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=list(bench.stop_token_ids),
        pad_token_id=0,
    )
    return tuple(ids[0, len(prompt) :].tolist())


def raw_logprobs(bench: Bench, one: Candidate) -> list[float]:
    ids = torch.tensor([one.prompt_token_ids + one.completion_token_ids])
    with torch.no_grad():
        logprobs = bench.mount(BASE)(input_ids=ids).logits[0].log_softmax(-1)
    start = len(one.prompt_token_ids) - 1
    return [logprobs[start + at, token].item() for at, token in enumerate(one.completion_token_ids)]


@pytest.mark.parametrize("shared", [0, 4])
@pytest.mark.parametrize("kind", ["chat", "chat eager", "text", "window"])
def test_greedy_decoding_equals_generate_for_ragged_prompts(
    kind: str, shared: int, chat_bench: Bench, chat_folder: Path, text_bench: Bench, windowed_bench: Bench
) -> None:
    bench = {
        "chat": lambda: chat_bench,
        "chat eager": lambda: Bench(ModelConfig(path=str(chat_folder), device="cpu", attn_implementation="eager")),
        "text": lambda: text_bench,
        "window": lambda: windowed_bench,
    }[kind]()
    prompts = plain(*("1 + 2 and " + text for text in RAGGED)) if kind == "text" else chat(*RAGGED)
    sampler = sampler_of(bench)
    block = block_of(
        sampler, prompts, num_candidates=2, temperature=0.0, max_new_tokens=20, shared_prefix_length=shared
    )
    assert len({ids[:shared] for ids in block.prompt_token_ids}) == 1
    for one in sampler.sample(block):
        assert one.completion_token_ids == generated(bench, one.prompt_token_ids, 20)


@pytest.mark.parametrize("shared", [0, 4])
def test_logprobs_are_those_of_a_plain_forward_pass(chat_bench: Bench, shared: int) -> None:
    sampler = sampler_of(chat_bench)
    block = block_of(
        sampler, chat(*RAGGED), temperature=0.6, top_p=0.8, top_k=20, min_p=0.01, shared_prefix_length=shared
    )
    for one in sampler.sample(block):
        assert one.logprobs == pytest.approx(raw_logprobs(chat_bench, one), abs=1e-4)


def test_sharing_a_prefix_changes_no_candidate(chat_bench: Bench) -> None:
    sampler = sampler_of(chat_bench)
    prompts = chat(*(f"{number} + {number} =" for number in range(20)))
    block = block_of(sampler, prompts, num_candidates=4, max_new_tokens=20)
    shared = replace(block, shared_prefix_length=5)
    assert len({ids[:5] for ids in block.prompt_token_ids}) == 1
    pairs = list(zip(sampler.sample(block), sampler.sample(shared), strict=True))
    same = sum(one.completion_token_ids == other.completion_token_ids for one, other in pairs)
    assert same >= len(pairs) - 1


def test_a_prefix_is_prefilled_once_for_all_blocks_of_a_policy(chat_folder: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    shapes: list[tuple[int, ...]] = []
    bench.mount(BASE).register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    sampler = sampler_of(bench)
    first = block_of(sampler, chat("1 + 2 =", "3 + 4 ="), max_new_tokens=1, shared_prefix_length=4)
    second = block_of(sampler, chat("5 + 6 =", "7 + 8 ="), max_new_tokens=1, shared_prefix_length=4)
    sampler.sample(first)
    sampler.sample(second)
    suffix = (2, len(first.prompt_token_ids[0]) - 4)
    assert shapes == [(1, 4), suffix, suffix]


def test_a_whole_prompt_may_be_the_shared_prefix(chat_bench: Bench) -> None:
    sampler = sampler_of(chat_bench)
    block = block_of(sampler, chat("1 + 2 ="), num_candidates=2, temperature=0.0)
    whole = replace(block, shared_prefix_length=len(block.prompt_token_ids[0]))
    assert [one.text for one in sampler.sample(whole)] == [one.text for one in sampler.sample(block)]


def test_ended_candidates_leave_without_a_trace_in_the_others(chat_bench: Bench) -> None:
    """Half of the vocabulary stops, so that rows leave at almost every step."""
    stops = tuple(range(160, 320))
    sampler = sampler_of(chat_bench, stop_token_ids=stops)
    block = block_of(sampler, chat(*RAGGED), num_candidates=16, max_new_tokens=30)
    candidates = sampler.sample(block)
    lengths = [len(one.completion_token_ids) for one in candidates]
    assert min(lengths) == 1
    assert max(lengths) > 4
    for one in candidates:
        assert one.logprobs == pytest.approx(raw_logprobs(chat_bench, one), abs=1e-4)
        assert not set(one.completion_token_ids[:-1]) & set(stops)
        if one.finish_reason == "stop_token":
            assert one.completion_token_ids[-1] in {*stops, *chat_bench.stop_token_ids}
            assert one.text == chat_bench.decode(one.completion_token_ids[:-1])


def test_a_stop_string_ends_a_sampled_candidate(chat_bench: Bench) -> None:
    sampler = sampler_of(chat_bench)
    free = sampler.sample(block_of(sampler, chat(*RAGGED), num_candidates=8, max_new_tokens=30))
    stopped = sampler.sample(block_of(sampler, chat(*RAGGED), num_candidates=8, max_new_tokens=30, stop_strings=("1",)))
    ended = 0
    for before, after in zip(free, stopped, strict=True):
        if "1" in before.text:
            ended += 1
            assert (after.finish_reason, after.text) == ("stop_string", before.text[: before.text.index("1")])
            assert before.completion_token_ids[: len(after.completion_token_ids)] == after.completion_token_ids
            assert "1" in chat_bench.decode(after.completion_token_ids)
        else:
            assert after.text == before.text
    assert ended > 3


def test_the_models_own_generation_config_changes_nothing(chat_folder: Path, chat_bench: Bench) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    generation = bench.mount(BASE).generation_config
    block = block_of(sampler_of(chat_bench), chat(*RAGGED))
    expected = sampler_of(chat_bench).sample(block)
    sampler = sampler_of(bench)
    sampler.sample(block)
    generation.top_k, generation.temperature, generation.do_sample = 1, 0.01, False
    assert sampler.sample(block) == expected


def test_a_greedy_generation_config_on_disk_does_not_make_sampling_greedy(tmp_path: Path, chat_bench: Bench) -> None:
    folder = build_model(tmp_path / "model", chat=True)
    (folder / "generation_config.json").write_text('{"top_k": 1, "do_sample": true, "eos_token_id": 1}')
    bench = Bench(ModelConfig(path=str(folder), device="cpu"))
    block = block_of(sampler_of(chat_bench), chat(*RAGGED))
    assert sampler_of(bench).sample(block) == sampler_of(chat_bench).sample(block)


def test_top_k_one_is_greedy(chat_bench: Bench) -> None:
    sampler = sampler_of(chat_bench)
    greedy = sampler.sample(block_of(sampler, chat(*RAGGED), temperature=0.0))
    top = sampler.sample(block_of(sampler, chat(*RAGGED), temperature=1.5, top_k=1))
    assert [one.completion_token_ids for one in top] == [one.completion_token_ids for one in greedy]


def test_the_end_of_the_context_is_a_length_limit(tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(build_model(tmp_path / "short", context=80)), device="cpu"))
    sampler = sampler_of(bench)
    for one in sampler.sample(block_of(sampler, chat(*RAGGED), max_new_tokens=200)):
        assert len(one.prompt_token_ids) + len(one.completion_token_ids) <= 80
        if one.finish_reason == "length":
            assert len(one.prompt_token_ids) + len(one.completion_token_ids) == 80


def test_a_prompt_that_fills_the_context_is_refused(tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(build_model(tmp_path / "short", context=16)), device="cpu"))
    sampler = sampler_of(bench)
    with pytest.raises(DataError, match="leaves no room for an answer"):
        sampler.sample(block_of(sampler, chat("a very long question " * 5)))


def test_a_policy_of_nans_fails_the_phase(tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(build_model(tmp_path / "model")), device="cpu"))
    with torch.no_grad():
        next(bench.mount(BASE).parameters()).fill_(math.nan)
    sampler = sampler_of(bench)
    with pytest.raises(PhaseError, match="NaN or infinite logits at step 0"):
        sampler.sample(block_of(sampler, chat("1 + 2 =")))


def test_engine_parameters_are_refused(chat_bench: Bench) -> None:
    with pytest.raises(ConfigError, match="takes none"):
        sampler_of(chat_bench, params={"function": "x.py:f"})


def test_candidates_are_of_the_blocks_policy_whatever_was_sampled_before(chat_folder: Path, tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    policies = [BASE, save_adapter(bench, tmp_path / "one", 1), save_adapter(bench, tmp_path / "two", 2)]
    sampler = sampler_of(bench)
    blocks = [block_of(sampler, chat(*RAGGED), policy=policy, shared_prefix_length=4) for policy in policies]
    once = [sampler.sample(block) for block in blocks]
    assert len({tuple(one.text for one in candidates) for candidates in once}) == 3
    assert [sampler.sample(block) for block in reversed(blocks)] == once[::-1]


def test_a_probe_of_another_adapter_stops_the_phase(chat_folder: Path, tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    policy = save_adapter(bench, tmp_path / "one", 1)
    save_adapter(bench, tmp_path / "two", 2)
    (tmp_path / "one" / "probe.json").write_bytes((tmp_path / "two" / "probe.json").read_bytes())
    sampler = sampler_of(bench)
    with pytest.raises(PhaseError, match="not the trained policy"):
        sampler.sample(block_of(sampler, chat("7"), policy=policy))


def test_render_is_the_benches(chat_bench: Bench) -> None:
    prompt: Prompt = chat("7")[0]
    assert sampler_of(chat_bench).render(prompt) == chat_bench.render(prompt)
    assert sampler_of(chat_bench).context_length == 256


def one_by_one(sampler: TransformersSampler, block: Block) -> list[Candidate]:
    """The block's candidates, each sampled in a block of its own, where there is nothing to share."""
    return [
        one
        for position, prompt in enumerate(block.prompts)
        for index in range(block.num_candidates)
        for one in sampler.sample(
            replace(
                block,
                prompts=(prompt,),
                prompt_token_ids=block.prompt_token_ids[position : position + 1],
                num_candidates=1,
                seeds=((block.seeds[position][index],),),
                candidate_ids=((block.candidate_ids[position][index],),),
            )
        )
    ]


def parted_at(candidates: Sequence[Candidate]) -> set[int]:
    """The steps at which two candidates of a prompt drew different tokens after drawing the same."""
    found = set()
    for one, other in itertools.combinations(candidates, 2):
        if one.prompt_id == other.prompt_id:
            pairs = zip(one.completion_token_ids, other.completion_token_ids, strict=False)
            found |= set(itertools.islice((step for step, (a, b) in enumerate(pairs) if a != b), 1))
    return found


@pytest.mark.parametrize("kind", ["chat", "window"])
@pytest.mark.parametrize("knobs", [{"temperature": 0.1}, {"top_k": 2}, {"top_k": 3, "stop_strings": ("1", "e")}])
def test_candidates_that_share_rows_are_those_sampled_one_by_one(
    kind: str, knobs: dict[str, Any], chat_bench: Bench, windowed_bench: Bench
) -> None:
    """They part at several steps, from ragged prompts, while others end."""
    bench = chat_bench if kind == "chat" else windowed_bench
    sampler = sampler_of(bench, stop_token_ids=tuple(range(100, 140)))
    shared = 4 if kind == "chat" else 0
    block = block_of(sampler, chat(*RAGGED), num_candidates=8, max_new_tokens=24, shared_prefix_length=shared, **knobs)
    together, alone = sampler.sample(block), one_by_one(sampler, block)
    assert len(parted_at(together)) >= 2
    assert len({len(one.completion_token_ids) for one in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert (one.id, one.completion_token_ids, one.text) == (other.id, other.completion_token_ids, other.text)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.entropy == pytest.approx(other.entropy, abs=1e-4)


def test_candidates_that_are_alike_are_computed_once(chat_folder: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    rows: list[int] = []
    bench.mount(BASE).register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    sampler = sampler_of(bench)
    block = block_of(sampler, chat(*RAGGED), num_candidates=5, max_new_tokens=12)
    sampler.sample(replace(block, seeds=tuple((7,) * 5 for _ in RAGGED)))
    assert set(rows) <= {1, 2, 3, 4}
    rows.clear()
    candidates = sampler.sample(block)
    prefixes = [
        len(
            {
                (one.prompt_id, one.completion_token_ids[:step])
                for one in candidates
                if len(one.completion_token_ids) > step
            }
        )
        for step in range(max(len(one.completion_token_ids) for one in candidates))
    ]
    assert rows == prefixes


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=30))
def test_rows_are_only_copied_to_places_that_nothing_is_copied_from(branches: list[tuple[int, int]]) -> None:
    placing = placed(branches)
    assert sorted(placing) == sorted(set(branches))
    moved = {slot: row for slot, (row, _) in enumerate(placing) if row != slot}
    assert not set(moved) & set(moved.values())
    assert not set(moved) & {row for row, _ in placing}


def test_packed_weights_give_the_models_logits_and_leave_no_trace(chat_folder: Path, tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    ids = torch.tensor([[5, 9, 200, 31, 7]])
    for policy in (BASE, save_adapter(bench, tmp_path / "one", 1)):
        model = bench.mount(policy)
        packed = Packed(model)
        with torch.inference_mode():
            before = model(input_ids=ids).logits
            with packed.in_use():
                within = model(input_ids=ids).logits
                changed = [module for module in model.modules() if "forward" in vars(module)]
            after = model(input_ids=ids).logits
        assert changed
        torch.testing.assert_close(within, before, atol=1e-5, rtol=1e-5)
        assert torch.equal(after, before)
        assert not [module for module in model.modules() if "forward" in vars(module)]


def test_packed_weights_follow_the_models(tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(build_model(tmp_path / "model")), device="cpu"))
    model = bench.mount(BASE)
    packed = Packed(model)
    ids = torch.tensor([[5, 9, 30]])
    with torch.inference_mode(), packed.in_use():
        model(input_ids=ids)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        expected = model(input_ids=ids).logits
        with packed.in_use():
            torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_packed_weights_that_compute_something_else_are_not_used(chat_bench: Bench) -> None:
    model = chat_bench.unmount()
    packed = Packed(model)
    answers = iter([[-1.0, -2.0], [-1.0, -2.5]])
    packed.keep_if_same(lambda: next(answers))
    with packed.in_use():
        assert not any("forward" in vars(module) for module in model.modules())
