"""A round of the quick start against the same round written by hand: short answers after a worked example.

    python benchmarks/round_short.py [--repeats 3] [--out pairs.json] [--prompts 128] [--held-out 100]

128 problems x 4 candidates at temperature 0.7, at most 8 tokens; at most two right answers per prompt are trained on;
100 held-out problems are answered greedily. Both sides have the same model, prompts, settings and examples to train on.
"""

from __future__ import annotations

import json

from rounds import HERE, compare, parser
from transformers import AutoTokenizer

from selftrain.compose import compose
from selftrain.models.sources import locate
from selftrain.whereabouts import cache_dir

RECIPE = str(HERE.parent / "recipes" / "quickstart" / "recipe.yaml")


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--prompts", type=int, default=128)
    options.add_argument("--held-out", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    held_out = {"path": "problems.py:validate", "params": {"size": args.held_out}, "columns": {"identity": "identity"}}
    config = compose(RECIPE).config
    model = locate(config.model, cache_dir()).path  # a GGUF file is converted once, before any clock starts
    overrides = [
        f"model.path={model}",
        f"seed={args.seed}",
        f"prompts.per_round={args.prompts}",
        f"prompts.validate={json.dumps(held_out)}",
        "train.learning_rate=1e-3",
    ]
    tokenizer = AutoTokenizer.from_pretrained(model)
    job = {
        "model": model,
        "seed": args.seed,
        "num_candidates": config.sample.num_candidates,
        "temperature": config.sample.temperature,
        "max_new_tokens": config.sample.max_new_tokens,
        "stops": [tokenizer.convert_tokens_to_ids("Ċ"), tokenizer.eos_token_id],
        "rule": "exact",
        "max_per_prompt": config.select.max_per_prompt,
        "train_batch": config.train.batch_size,
        "learning_rate": 1e-3,
        "generate_batch": 32,
        "evaluate_batch": 64,
    }
    compare(RECIPE, overrides, job, repeats=args.repeats, out=args.out)


if __name__ == "__main__":
    main()
