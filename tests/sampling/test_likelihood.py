from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest
import torch
from blocks import BASE, block_of, chat, save_adapter
from tiny_models import build_model

from selftrain.config import ModelConfig, SampleConfig
from selftrain.errors import DataError, PhaseError
from selftrain.models import Bench, likelihood
from selftrain.models.likelihood import encode_text, token_logprobs
from selftrain.sampling.transformers_engine import TransformersSampler

QUESTIONS = chat("1 + 2 =", "what is 10 + 20 ?", "the quick brown fox jumps over the lazy dog", "7")
RNG = Random(0)
SEQUENCES = [[RNG.randrange(3, 300) for _ in range(length)] for length in (2, 9, 9, 40, 23, 24, 200, 5)]
STARTS = [1, 1, 8, 30, 2, 24, 150, 4]


@pytest.mark.parametrize("shared", [0, 4])
def test_a_policy_reads_its_own_candidates_as_it_sampled_them(chat_folder: Path, tmp_path: Path, shared: int) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    policies = [BASE, save_adapter(bench, tmp_path / "adapter", 1)]
    sampler = TransformersSampler(SampleConfig(), lambda: bench, Path())
    read = []
    for policy in policies:
        block = block_of(
            sampler, QUESTIONS, num_candidates=8, policy=policy, max_new_tokens=30, shared_prefix_length=shared
        )
        candidates = sampler.sample(block)
        ids = [one.prompt_token_ids + one.completion_token_ids for one in candidates]
        starts = [len(one.prompt_token_ids) for one in candidates]
        read.append(token_logprobs(bench, policy, ids, scored_from=starts))
        for one, logprobs in zip(candidates, read[-1], strict=True):
            assert logprobs == pytest.approx(one.logprobs, abs=1e-4)
        other = token_logprobs(bench, policies[policy is BASE], ids, scored_from=starts)
        assert (
            max(abs(a - b) for one, two in zip(read[-1], other, strict=True) for a, b in zip(one, two, strict=True))
            > 0.1
        )
        assert sampler.sample(block) == candidates, "reading leaves no trace in what is sampled next"


def direct(bench: Bench, ids: list[int], start: int) -> list[float]:
    with torch.no_grad():
        logprobs = bench.mount(BASE)(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [logprobs[at - 1, ids[at]].item() for at in range(start, len(ids))]


def test_likelihoods_are_those_of_a_plain_forward_pass_whatever_else_is_read(chat_bench: Bench) -> None:
    together = token_logprobs(chat_bench, BASE, SEQUENCES, scored_from=STARTS)
    for ids, start, found in zip(SEQUENCES, STARTS, together, strict=True):
        (alone,) = token_logprobs(chat_bench, BASE, [ids], scored_from=[start])
        assert found == pytest.approx(alone, abs=1e-5)
        assert found == pytest.approx(direct(chat_bench, ids, start), abs=1e-5)


@pytest.mark.parametrize("kind", ["full", "window", "eager"])
def test_what_sequences_share_is_read_once_and_equal_ones_are_too(
    kind: str, chat_folder: Path, windowed_bench: Bench
) -> None:
    """A window of 8 tokens forbids sharing; the likelihoods are the same either way."""
    knobs = {"attn_implementation": "eager"} if kind == "eager" else {}
    folder = windowed_bench.config.path if kind == "window" else chat_folder
    bench = Bench(ModelConfig(path=str(folder), device="cpu", **knobs))  # type: ignore[arg-type]
    shapes: list[tuple[int, ...]] = []
    bench.mount(BASE).register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rows = [SEQUENCES[6][:60] + one for one in SEQUENCES if len(one) < 50]
    starts = [61 + number % 2 for number in range(len(rows))]
    found = token_logprobs(bench, BASE, [*rows, *rows, *rows], scored_from=starts * 3)
    longest = max(map(len, rows))
    assert shapes == ([(len(rows), longest)] if kind == "window" else [(1, 60), (len(rows), longest - 60)])
    assert found[: len(rows)] * 3 == found
    for ids, start, logprobs in zip(rows, starts, found, strict=False):
        assert logprobs == pytest.approx(direct(bench, ids, start), abs=1e-5)


def test_the_order_that_sequences_come_in_changes_no_batch_and_no_bit(
    chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many are equally long, and only some of them fit into one batch."""
    monkeypatch.setattr(likelihood, "TOKENS_AT_ONCE", 50)
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    seen: list[list[list[int]]] = []
    bench.mount(BASE).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    sequences = SEQUENCES + [SEQUENCES[6][start : start + 9] for start in range(20)]
    starts = STARTS + [1 + number % 8 for number in range(20)]
    found = token_logprobs(bench, BASE, sequences, scored_from=starts)
    first, seen[:] = list(seen), []
    order = Random(1).sample(range(len(sequences)), len(sequences))
    moved = token_logprobs(bench, BASE, [sequences[one] for one in order], scored_from=[starts[one] for one in order])
    assert moved == [found[one] for one in order]
    assert seen == first
    assert len(first) > 5


def test_batches_stay_within_their_limits_and_logits_are_of_scored_columns_alone(
    chat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    model = bench.mount(BASE)
    inputs: list[tuple[int, ...]] = []
    logits: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    model.lm_head.register_forward_hook(lambda module, args, output: logits.append(tuple(output.shape)))  # type: ignore[union-attr, operator]
    expected = token_logprobs(bench, BASE, SEQUENCES, scored_from=STARTS)
    assert len(inputs) == 1, "all of them fit into one batch, without those that have nothing to score"
    assert inputs[0][0] == len(SEQUENCES) - 1
    token_logprobs(bench, BASE, [SEQUENCES[6]], scored_from=[STARTS[6]])
    assert logits[-1][:2] == (1, len(SEQUENCES[6]) - STARTS[6])
    vocabulary = logits[-1][2]
    for tokens, columns in ((50, 1000), (10_000, 20)):
        monkeypatch.setattr(likelihood, "TOKENS_AT_ONCE", tokens)
        monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", columns * vocabulary)
        inputs.clear()
        logits.clear()
        found = token_logprobs(bench, BASE, SEQUENCES, scored_from=STARTS)
        assert len(inputs) > 3
        assert max(rows for rows, _ in inputs) > 1
        for (rows, length), (_, kept, _) in zip(inputs, logits, strict=True):
            assert rows == 1 or (rows * length <= tokens and rows * kept <= columns)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_nothing_to_score_gives_nothing(chat_bench: Bench) -> None:
    assert token_logprobs(chat_bench, BASE, [], scored_from=[]) == []
    assert token_logprobs(chat_bench, BASE, [[5, 6], [7, 8, 9]], scored_from=[2, 3]) == [[], []]


@pytest.mark.parametrize("start", [0, 3])
def test_the_first_id_and_what_is_past_the_end_cannot_be_scored(chat_bench: Bench, start: int) -> None:
    with pytest.raises(ValueError, match=f"scored_from is {start}"):
        token_logprobs(chat_bench, BASE, [[5, 6]], scored_from=[start])


def test_a_sequence_longer_than_the_context_is_refused(chat_bench: Bench) -> None:
    with pytest.raises(DataError, match="sequence 1 has 257 tokens"):
        token_logprobs(chat_bench, BASE, [[5, 6], [5] * 257], scored_from=[1, 1])
    with pytest.raises(DataError, match="the model's context is 256"):
        encode_text(chat_bench, "the quick brown fox " * 200)


def test_another_adapter_than_the_policys_is_not_read_with(chat_folder: Path, tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(chat_folder), device="cpu"))
    policy = save_adapter(bench, tmp_path / "adapter", 1)
    probe = tmp_path / "adapter" / "probe.json"
    probe.write_text(probe.read_text().replace("-", ""))
    with pytest.raises(PhaseError, match="not the trained policy"):
        token_logprobs(bench, policy, [[5, 6]], scored_from=[1])


def test_a_policy_of_nans_is_named(tmp_path: Path) -> None:
    bench = Bench(ModelConfig(path=str(build_model(tmp_path / "model")), device="cpu"))
    with torch.no_grad():
        next(bench.mount(BASE).parameters()).fill_(math.nan)
    with pytest.raises(PhaseError, match="of round 0 gives NaN"):
        token_logprobs(bench, BASE, [[5, 6]], scored_from=[1])


def test_a_text_gets_bos_as_its_tokenizer_says_and_no_end(chat_bench: Bench, text_bench: Bench) -> None:
    text = "the quick brown fox"
    for bench, bos in ((chat_bench, ()), (text_bench, (text_bench.tokenizer.bos_token_id,))):
        words = tuple(bench.tokenizer(text, add_special_tokens=False)["input_ids"])
        assert encode_text(bench, text) == bos + words


def test_a_text_in_which_nothing_is_predicted_is_refused(chat_bench: Bench) -> None:
    with pytest.raises(DataError, match="has 1 tokens, so there is nothing to predict"):
        encode_text(chat_bench, "#")
