"""Blocks for the sampling tests, as the corridor would plan them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from selftrain.models import Bench, adapter_digest, write_probe
from selftrain.records import Block, Digest, Message, Policy, Prompt, SamplingParameters, seed_from
from selftrain.sampling import Sampler

BASE = Policy(model="tiny", adapter=None, round=0, digest=Digest("base"))


def save_adapter(bench: Bench, folder: Path, seed: int) -> Policy:
    """A policy with an adapter of its own, far enough from the base model to be told from it."""
    torch.manual_seed(seed)
    model = get_peft_model(bench.unmount(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    write_probe(folder, model, bench)
    bench.unmount()
    return Policy(model="tiny", adapter=str(folder), round=1, digest=adapter_digest(folder))


def chat(*questions: str) -> list[Prompt]:
    return [Prompt(id=text, identity=text, messages=(Message("user", text),), text=None) for text in questions]


def plain(*texts: str) -> list[Prompt]:
    return [Prompt(id=text, identity=text, messages=None, text=text) for text in texts]


def block_of(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    *,
    num_candidates: int = 3,
    policy: Policy = BASE,
    shared_prefix_length: int = 0,
    wave: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    max_new_tokens: int = 12,
    stop_strings: tuple[str, ...] = (),
) -> Block:
    return Block(
        index=0,
        prompts=tuple(prompts),
        prompt_token_ids=tuple(sampler.render(prompt) for prompt in prompts),
        shared_prefix_length=shared_prefix_length,
        num_candidates=num_candidates,
        seeds=tuple(tuple(seed_from("run", prompt.id, index) for index in range(num_candidates)) for prompt in prompts),
        candidate_ids=tuple(tuple(f"{prompt.id}/{index}" for index in range(num_candidates)) for prompt in prompts),
        wave=wave,
        parameters=SamplingParameters(temperature, top_p, top_k, min_p, max_new_tokens, stop_strings),
        policy=policy,
    )
