"""The verifier's training, for real, of a two-layer model on a CPU: what goes in, what comes out, what stays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_sft import train as train_sft
from tiny_models import build_model

from selftrain.adapters import adapter_digest
from selftrain.config import ModelConfig, VerifierConfig
from selftrain.errors import ConfigError, Interrupted, PhaseError
from selftrain.models import Bench, check_probe, token_logprobs
from selftrain.records import Digest, Pair, Policy, Training
from selftrain.training import dpo
from selftrain.training.dpo import VerifierTrainer
from selftrain.training.joined import Trimming
from selftrain.world import World

SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 6, "learning_rate": 3e-3, "lora": {"r": 4}}


def pair(number: int, length: int = 4) -> Pair:
    """The right answer begins with a token that the wrong one lacks."""
    prompt = tuple(20 + (7 * number + 3 * place) % 200 for place in range(5))
    right = (12, *(30 + (number + place) % 100 for place in range(length + number % 3)))
    wrong = (13, *(31 + (number + place) % 100 for place in range(length + number % 2)))
    names = f"right-{number}", f"wrong-{number}"
    return Pair(f"prompt-{number}", *names, 1, 1, prompt, right, wrong, "", "", "")


PAIRS = [pair(number) for number in range(10)]  # in batches of 4: the last one of an epoch is short


def make_bench(folder: Path, **options: Any) -> Bench:
    model = build_model(folder / "tiny", context=64, **options)
    return Bench(ModelConfig(path=str(model)), cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trained(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    folder = tmp_path_factory.mktemp("trained")
    return folder / "out", train(bench, folder)


def base_policy(bench: Bench) -> Policy:
    return Policy(bench.config.path, None, 0, Digest("base"))


def train(
    bench: Bench,
    folder: Path,
    pairs: Sequence[Pair] = PAIRS,
    *,
    start: Policy | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Mapping[str, float]], None] = lambda row: None,
    **settings: Any,
) -> Training:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return VerifierTrainer(lambda: bench).train(
        pairs,
        start=start or base_policy(bench),
        out=folder / "out",
        work=folder / "work",
        config=VerifierConfig(**{**SETTINGS, **settings}),
        seed=2**62 + 5,
        should_stop=should_stop,
        on_step=on_step,
        world=World(),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def margins(bench: Bench, policy: Policy, pairs: Sequence[Pair] = PAIRS) -> list[float]:
    """Log-likelihood of the right answers less that of the wrong ones."""
    sides = [dpo._sides(one) for one in pairs]
    starts = [len(one.prompt_token_ids) for one in pairs]
    right, wrong = (token_logprobs(bench, policy, [two[side] for two in sides], scored_from=starts) for side in (0, 1))
    return [math.fsum(one) - math.fsum(other) for one, other in zip(right, wrong, strict=True)]


def test_right_answers_become_likelier_than_wrong_ones_than_they_were(
    bench: Bench, trained: tuple[Path, Training]
) -> None:
    folder, training = trained
    verifier = Policy(bench.config.path, str(folder), 1, adapter_digest(folder))
    before, after = margins(bench, base_policy(bench)), margins(bench, verifier)
    assert all(later > earlier + 1 for earlier, later in zip(before, after, strict=True))
    first, last = training.steps[0], training.steps[-1]
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-4), "it starts as its own reference"
    assert first["train/margin"] == pytest.approx(0, abs=1e-4)
    assert last["train/loss"] < 0.6
    # What TRL says of the last batch is what the published adapter gives, but for its last update.
    assert last["train/margin"] == pytest.approx(0.1 * (sum(after) - sum(before)) / len(PAIRS), rel=0.3)
    assert training.metrics["train/accuracy"] == 1.0
    assert training.metrics["train/examples"] == len(PAIRS)
    assert training.metrics["train/steps"] == 18


def test_the_adapter_is_published_with_its_probe_and_nothing_else(bench: Bench, trained: tuple[Path, Training]) -> None:
    folder, _ = trained
    assert sorted(files_of(folder)) == ["adapter_config.json", "adapter_model.safetensors", "probe.json"]
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    verifier = Policy(bench.config.path, str(folder), 1, adapter_digest(folder))
    model = bench.mount(verifier)
    check_probe(model, verifier, bench)
    assert isinstance(model, PeftModel)
    assert set(model.peft_config) == {"default"}


@pytest.mark.parametrize("chat", [True, False], ids=["chat model", "a tokenizer that puts BOS before texts"])
def test_the_ids_that_the_model_sees_are_the_ids_that_were_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool
) -> None:
    bench = make_bench(tmp_path, chat=chat)
    seen = set()
    plain = dpo._PairTrainer.compute_loss

    def looked_at(self: Any, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        rows = zip(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True)
        for ids, there, trained in rows:
            assert not bool((trained & ~there.bool()).any())
            seen.add((tuple(ids[there.bool()].tolist()), tuple(ids[trained.bool()].tolist())))
        return plain(self, model, inputs, *others, **named)

    monkeypatch.setattr(dpo._PairTrainer, "compute_loss", looked_at)
    ends = bench.tokenizer.eos_token_id
    pairs = [*PAIRS[:4], Pair("p", "a", "b", 1, 1, (20, 21), (22, ends), (22,), "", "", "")]
    train(bench, tmp_path, pairs, epochs=1)
    wanted = {(side, side[len(one.prompt_token_ids) :]) for one in pairs for side in dpo._sides(one)}
    assert seen == wanted


def test_micro_batches_share_a_batch_evenly(bench: Bench, trained: tuple[Path, Training], tmp_path: Path) -> None:
    train(bench, tmp_path, micro_batch_size=1)
    whole, shared = (load_file(one / "adapter_model.safetensors") for one in (trained[0], tmp_path / "out"))
    assert whole.keys() == shared.keys()
    assert all(torch.allclose(whole[name], shared[name], atol=2e-4) for name in whole)


def test_interrupted_and_gone_on_with_it_is_the_same_to_the_byte(
    bench: Bench, trained: tuple[Path, Training], tmp_path: Path
) -> None:
    rows: list[Mapping[str, float]] = []
    with pytest.raises(Interrupted, match="stopped after optimizer step 7 of 18"):
        train(bench, tmp_path, on_step=rows.append, should_stop=lambda: len(rows) >= 6)
    assert not list((tmp_path / "out").iterdir())
    again = train(bench, tmp_path, on_step=rows.append)
    assert len(rows) == 18
    assert files_of(tmp_path / "out") == files_of(trained[0])
    assert again.steps == trained[1].steps


def test_the_bench_and_the_generators_are_left_as_they_were(bench: Bench, tmp_path: Path) -> None:
    before, state = margins(bench, base_policy(bench)), torch.get_rng_state()
    pad = bench.tokenizer.pad_token
    train(bench, tmp_path, epochs=1)
    assert margins(bench, base_policy(bench)) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert bench.tokenizer.pad_token == pad
    assert not any("lora" in name for name, _ in bench.unmount().named_parameters())


def test_it_starts_from_the_adapter_of_round_0_which_stays_the_reference(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "model")
    train_sft(bench, tmp_path / "warm")
    start = Policy(bench.config.path, str(tmp_path / "warm/out"), 0, adapter_digest(tmp_path / "warm/out"))
    untouched = files_of(tmp_path / "warm/out")
    training = train(bench, tmp_path / "verifier", start=start)
    assert training.steps[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-4)
    folder = tmp_path / "verifier/out"
    verifier = Policy(bench.config.path, str(folder), 1, adapter_digest(folder))
    gained = [later - earlier for earlier, later in zip(margins(bench, start), margins(bench, verifier), strict=True)]
    assert min(gained) > 1
    assert files_of(tmp_path / "warm/out") == untouched
    assert sorted(files_of(folder)) == ["adapter_config.json", "adapter_model.safetensors", "probe.json"]


def test_what_cannot_be_trained_on_is_refused_with_the_candidates_name(bench: Bench, tmp_path: Path) -> None:
    long = pair(1, length=80)
    with pytest.raises(PhaseError, match=r"candidate right-1 has 87 tokens with its prompt, more than .* 64"):
        train(bench, tmp_path, [*PAIRS, long])
    empty = Pair("p", "a", "b", 1, 1, (20, 21), (), (22,), "", "", "")
    with pytest.raises(PhaseError, match="candidate a has no token ids"):
        train(bench, tmp_path, [empty])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dpo": {"beta": 0.2}}, r"verifier\.dpo\.beta: selftrain sets this itself; use verifier\.beta"),
        ({"dpo": {"max_length": 10}}, "pairs are never cut"),
        ({"dpo": {"learning_rate": 1.0}}, r"use verifier\.learning_rate"),
        ({"dpo": {"lossy_type": "ipo"}}, r"trl\.DPOConfig has no such field; did you mean loss_type"),
        ({"lora": {"rank": 4}}, r"verifier\.lora\.rank: peft\.LoraConfig has no such field"),
        ({"lora": {"target_modules": ["lm_head"]}}, r"verifier\.lora\.target_modules"),
        ({"dpo": {"loss_type": "no_such"}}, r"verifier\.dpo\.loss_type: 'no_such' is none of sigmoid, "),
    ],
)
def test_fields_that_trl_or_peft_would_refuse_are_named(
    bench: Bench, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(bench, tmp_path, **settings)


def test_what_a_batch_leaves_out_changes_no_figure(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = tuple(20 + 7 * place % 200 for place in range(40))
    pairs = [dataclasses.replace(one, prompt_token_ids=begin + one.prompt_token_ids) for one in PAIRS]
    joined = []
    plain = Trimming.of

    def looked_at(self: Trimming, *inputs: Any, **named: Any) -> Any:
        found = plain(self, *inputs, **named)
        joined.append(self.joins)
        return found

    monkeypatch.setattr(Trimming, "of", looked_at)
    short = train(bench, tmp_path / "short", pairs, epochs=1)
    assert joined[-1] is True, "what the prompts begin with is read once"
    monkeypatch.setattr(dpo, "_Trimmed", lambda model, *others: model)
    whole = train(bench, tmp_path / "whole", pairs, epochs=1)
    for one, other in zip(short.steps, whole.steps, strict=True):
        for name in ("train/loss", "train/margin", "train/tokens"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
        assert one["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=1e-3)
