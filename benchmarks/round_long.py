"""A round with long answers of uneven length against the same round written by hand.

    python benchmarks/round_long.py --data FOLDER_OR_HUB_ID [--repeats 3] [--out pairs.json] [--questions 24] ...

Questions of GSM8K (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems") through the model's chat
template, 4 candidates each at temperature 0.8, at most 256 tokens. The 135M model solves next to none, so at most two
finished answers per prompt, right or not, are trained on: the work is that of a round, what it teaches is not measured.
As many held-out questions are answered greedily. `--data`: a folder with train.jsonl and test.jsonl (`question`,
`answer`), or the data set's id on the hub (openai/gsm8k).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from rounds import HERE, compare, parser
from transformers import AutoTokenizer

from selftrain.compose import compose
from selftrain.models.sources import locate
from selftrain.whereabouts import cache_dir

VERIFIER = '''def finished(text, finish_reason):
    """Every answer that ended by itself is good enough."""
    return finish_reason == "stop_token"
'''
RATE = 1e-4
BATCH = 8


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--data", required=True, help="folder with train.jsonl and test.jsonl, or a hub id")
    options.add_argument("--questions", type=int, default=24)
    options.add_argument("--held-out", type=int, default=16)
    options.add_argument("--candidates", type=int, default=4)
    options.add_argument("--temperature", type=float, default=0.8)
    options.add_argument("--max-new-tokens", type=int, default=256)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    quickstart = compose(str(HERE.parent / "recipes" / "quickstart" / "recipe.yaml")).config
    model = locate(quickstart.model, cache_dir()).path
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder), args, model)
        job = {
            "model": model,
            "seed": args.seed,
            "num_candidates": args.candidates,
            "temperature": args.temperature,
            "max_new_tokens": args.max_new_tokens,
            "stops": [tokenizer.eos_token_id],
            "rule": "finished",
            "max_per_prompt": 2,
            "train_batch": BATCH,
            "learning_rate": RATE,
            "generate_batch": 32,
            "evaluate_batch": 32,
        }
        compare(str(recipe), [], job, repeats=args.repeats, out=args.out)


def write_recipe(folder: Path, args: Any, model: str) -> Path:
    """A recipe in a folder of its own, with its questions and its verifier; the path of its recipe.yaml."""
    for name, size in (("train", args.questions), ("test", args.held_out)):
        rows = [json.dumps({"question": one["question"]}) for one in questions(args.data, name, size)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "verify.py").write_text(VERIFIER)
    recipe = {
        "name": "long",
        "seed": args.seed,
        "model": {"path": model},
        "prompts": {
            "train": {"path": "train.jsonl", "columns": {"reference": None}},
            "validate": {"path": "test.jsonl", "columns": {"reference": None}},
            "format": "chat",
            "template": "{question}",
        },
        "sample": {
            "num_candidates": args.candidates,
            "temperature": args.temperature,
            "max_new_tokens": args.max_new_tokens,
        },
        "score": {"scorers": ["verify.py:finished"]},
        "select": {"max_per_prompt": 2, "dedup": "none"},
        "train": {"learning_rate": RATE, "batch_size": BATCH, "lora": {"r": 16, "lora_alpha": 32}},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


def questions(data: str, name: str, size: int) -> list[dict[str, str]]:
    """The first `size` rows of a split."""
    path = Path(data) / f"{name}.jsonl"
    if path.exists():
        with path.open() as lines:
            return [json.loads(next(lines)) for _ in range(size)]
    from datasets import load_dataset

    return list(load_dataset(data, "main", split=f"{name}[:{size}]"))


if __name__ == "__main__":
    main()
