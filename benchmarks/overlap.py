"""What scoring costs beside sampling: the wall time of both phases, one after the other and overlapped.

    python benchmarks/overlap.py [--sampler scripted|model] [--score-ms 5] [--workers 1] [--repeats 3]

The sampler is one that waits (`--sample-ms` per candidate, as for a GPU), or a tiny model with random weights on one
thread. Scorers of known cost per candidate: a function that waits, one that computes, and the rule `exact`, which is
judged in the trainer's own process. Prints, as medians over repeats, the seconds of sampling alone, of scoring alone
and of both phases overlapped, and how many times the longer of the two that is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

ANSWERS = """
import time


def answer(prompt, seed, policy_round):
    time.sleep({seconds})
    return prompt.reference if seed % 2 else "no"
"""
# Nothing that a random model wrote is right, so nothing is trained.
SCORERS = {
    "waits": "import time\n\ndef judge(text):\n    time.sleep({seconds})\n    return 0.5 * (len(text) % 2)\n",
    "computes": (
        "import time\n\ndef judge(text):\n    until = time.process_time() + {seconds}\n"
        "    while time.process_time() < until:\n        pass\n    return 0.5 * (len(text) % 2)\n"
    ),
}


def recipe_of(folder: Path, options: argparse.Namespace, scorer: str) -> Path:
    """A recipe of one round with a short evaluation before it, which loads and warms up the model."""
    from worlds import write_recipe

    folder.mkdir(parents=True)
    (folder / "answers.py").write_text(ANSWERS.format(seconds=options.sample_ms / 1000))
    for name, source in SCORERS.items():
        (folder / f"{name}.py").write_text(source.format(seconds=options.score_ms / 1000))
    for name, start, count in (("train", 0, options.prompts), ("validate", 1000, options.block_size)):
        rows = [{"prompt": f"what comes after {n}?", "reference": str(n + 1)} for n in range(start, start + count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample: dict[str, Any] = {"num_candidates": options.candidates, "block_size": options.block_size}
    sample["max_new_tokens"] = options.max_new_tokens
    if options.sampler == "scripted":
        sample |= {"engine": "scripted", "params": {"function": "answers.py:answer"}}
    recipe = {
        "name": "overlap",
        "model": {"path": str(options.model) if options.sampler == "model" else "none"},
        "prompts": {"train": "train.jsonl", "validate": "validate.jsonl", "format": "text"},
        "sample": sample,
        "score": {"scorers": [scorer if scorer == "exact" else f"{scorer}.py:judge"], "workers": options.workers},
        "train": {"trainer": "scripted"},
        "evaluate": {"sampled_rounds": "none", "trained_prompts": 0, "drift_candidates": 0},
        "rounds": 1,
    }
    return write_recipe(folder, recipe, {})


def seconds_of(recipe: Path, runs_dir: Path, *, overlap: bool) -> tuple[float, float, dict[str, float]]:
    """The seconds of the sample phase and of the score phase, and the score phase's metrics."""
    from worlds import receipt_of, run_here

    run = run_here(recipe, f"score.overlap={str(overlap).lower()}", runs_dir=runs_dir)
    sample, score = (receipt_of(run, f"main/rounds/001/{name}-wave-00") for name in ("sample", "score"))
    return sample["seconds"], score["seconds"], score["metrics"]


def main() -> None:
    """Measure every scorer and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", choices=("scripted", "model"), default="scripted")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--sample-ms", type=float, default=10.0, help="of a candidate, by the scripted sampler")
    parser.add_argument("--score-ms", type=float, default=5.0, help="of a candidate")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scorers", nargs="+", default=[*SCORERS, "exact"])
    parser.add_argument("--each", action="store_true", help="print every repeat too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.sampler == "model":
            from tiny_models import build_model

            options.model = build_model(folder / "model")
        lines = [f"load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores, {vars(options)}"]
        for scorer in options.scorers:
            recipe = recipe_of(folder / f"recipe-{scorer}", options, scorer)
            apart, together = [], []
            for repeat in range(options.repeats):
                apart.append(seconds_of(recipe, folder / f"{scorer}-{repeat}-apart", overlap=False))
                together.append(seconds_of(recipe, folder / f"{scorer}-{repeat}-together", overlap=True))
                if options.each:
                    lines.append(f"{scorer:>8}: apart {apart[-1][:2]}, overlapped {together[-1][:2]}")
            sampling = statistics.median(one[0] for one in apart)
            scoring = statistics.median(one[1] for one in apart)
            both = statistics.median(one[0] + one[1] for one in together)
            beside = statistics.median(one[0] for one in together)
            share = statistics.median(one[2]["score/overlapped_share_of_seconds"] for one in together)
            lines.append(
                f"{scorer:>8}: sampling {sampling:.2f} s, scoring {scoring:.2f} s; overlapped both {both:.2f} s = "
                f"{both / max(sampling, scoring):.3f} x the longer (sampling beside scoring {beside / sampling:.3f} x "
                f"itself alone); {share:.0%} of the scoring hidden"
            )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
