"""How many sampled tokens and candidates change when the same prompts are sampled in blocks of another size.

    python benchmarks/block_flip_rate.py [--sizes 8,16,32,64] [--prompts 128] [--candidates 4] [--temperature 0.7]

Prompts, seeds and policy (the quickstart's base model, or an adapter on it) stay as they are; only the batch that a
candidate is computed in changes, and with it the last bits of the logits. Every size is compared with the first. A
token counts as compared up to the first that differs in its candidate: what comes after a flip is another text.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from selftrain import prompts, sampling
from selftrain.adapters import adapter_digest
from selftrain.compose import compose
from selftrain.models import Bench
from selftrain.planning import Draw, blocks
from selftrain.records import Candidate, Policy, SamplingParameters

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", default="8,16,32,64", help="prompts per block; the first is compared with the others"
    )
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--free", action="store_true", help="no stop string: every candidate runs to --max-new-tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapter", help="an adapter folder to sample with")
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "quickstart" / "recipe.yaml"))
    args = parser.parse_args()

    composed = compose(args.recipe)
    config = composed.config
    bench = Bench(config.model)
    sampler = sampling.build(config.sample, lambda: bench, composed.folder)
    digest = adapter_digest(Path(args.adapter)) if args.adapter else bench.digest
    draw: dict[str, Any] = {
        "stream": "benchmark",
        "prompts": prompts.load(config.prompts, composed.folder).train.prompts[: args.prompts],
        "num_candidates": args.candidates,
        "parameters": SamplingParameters(
            temperature=args.temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            max_new_tokens=args.max_new_tokens,
            stop_strings=() if args.free else config.sample.stop_strings,
        ),
        "policy": Policy(config.model.path, args.adapter, 0, digest),
    }
    first: list[Candidate] = []
    for size in map(int, args.sizes.split(",")):
        start = time.perf_counter()
        planned = blocks(
            Draw(**draw, block_size=size), seed=args.seed, render=sampler.render, context=sampler.context_length
        )
        candidates = [one for block in planned for one in sampler.sample(block)]
        row = {"block_size": size, "seconds": round(time.perf_counter() - start, 1)}
        first = first or candidates
        print(json.dumps(row | compared(first, candidates)), flush=True)


def compared(first: list[Candidate], second: list[Candidate]) -> dict[str, float]:
    """Flips per compared token and per candidate, and the largest difference of a log-probability before a flip."""
    tokens = flips = 0
    largest = 0.0
    for one, other in zip(first, second, strict=True):
        assert one.id == other.id
        pairs = zip_longest(one.completion_token_ids, other.completion_token_ids)
        for position, (token, other_token) in enumerate(pairs):
            tokens += 1
            if token != other_token:
                flips += 1
                break
            largest = max(largest, abs(one.logprobs[position] - other.logprobs[position]))
    return {
        "tokens": tokens,
        "candidates": len(first),
        "flipped": flips,
        "per_token": flips / tokens,
        "per_candidate": flips / len(first),
        "largest_logprob_difference": largest,
    }


if __name__ == "__main__":
    main()
