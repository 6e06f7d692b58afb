"""The baseline that selftrain has to beat: expert iteration as one would write it by hand.

transformers + peft + trl in one file: padded `model.generate`, exact check, at most K survivors per prompt, LoRA SFT
with SFTTrainer, greedy evaluation. It imports nothing of selftrain; only the problems are the quickstart's. It is
meant to be good, not a straw man: KV cache on, stops at the newline, no gradient checkpointing, trained on the
sampled token ids, one adapter kept in memory from round to round. What it does not do is what selftrain is for: it
cannot resume, has no control arm, no intervals and no record of what it trained on.

    python benchmarks/handwritten_loop.py --model FOLDER [--seed 0] [--rounds 3] ...
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes" / "quickstart"))

import problems  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from datasets import disable_progress_bars as disable_datasets_progress  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

FEW_SHOT = "28 + 57 = 85\n"


class Clock:
    """Adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder that from_pretrained can read")
    parser.add_argument("--out", help="folder for the adapter of every round; default: none is saved")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few-shot", default=FEW_SHOT, help="text before every problem")
    parser.add_argument("--per-round", type=int, default=128, help="prompts per round")
    parser.add_argument("--num-candidates", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--max-per-prompt", type=int, default=2)
    parser.add_argument("--dedup", action="store_true", help="keep equal answers to one prompt once")
    parser.add_argument("--select", choices=("correct", "random"), default="correct")
    parser.add_argument("--learning-rate", default="1e-3,5e-4,2.5e-4", help="one per round; the last repeats")
    parser.add_argument("--scheduler", default="linear")
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lora-r", type=int, default=16)
    parser.add_argument("--lora-alpha", type=int, default=32)
    parser.add_argument("--generate-batch", type=int, default=32, help="prompts per generate call")
    parser.add_argument("--evaluate-batch", type=int, default=64, help="prompts per generate call of the evaluation")
    parser.add_argument("--validate-size", type=int, default=100)
    parser.add_argument("--test-size", type=int, default=200)
    return parser.parse_args()


def generate(
    model, tokenizer, rows, few_shot: str, config: GenerationConfig, batch: int
) -> Iterator[tuple[dict, list[int], list[int]]]:
    """Yield (row, prompt ids, completion ids), `num_return_sequences` times per row."""
    model.eval()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        texts = [f"{few_shot}{row['a']} + {row['b']} =" for row in part]
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            output = model.generate(**inputs, generation_config=config)
        width = inputs["input_ids"].shape[1]
        for number, ids in enumerate(output[:, width:].tolist()):
            source = number // config.num_return_sequences
            stop = next((at for at, token in enumerate(ids) if token in config.eos_token_id), len(ids) - 1)
            prompt = inputs["input_ids"][source][inputs["attention_mask"][source].bool()].tolist()
            yield part[source], prompt, ids[: stop + 1]


def is_correct(tokenizer, row: dict, completion: list[int], stops: list[int]) -> bool:
    return completion[-1] in stops and tokenizer.decode(completion[:-1]).strip() == row["reference"]


def survivors(tokenizer, sampled, stops: list[int], args, rng: random.Random) -> list[dict]:
    """At most `max_per_prompt` correct candidates per prompt; or as many in all, drawn whatever their score."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    per_prompt: Counter[str] = Counter()
    kept = []
    for row, prompt, completion in sampled:
        key = (row["identity"], tuple(completion))
        if (args.dedup and key in seen) or per_prompt[row["identity"]] == args.max_per_prompt:
            continue
        if is_correct(tokenizer, row, completion, stops):
            seen.add(key)
            per_prompt[row["identity"]] += 1
            kept.append((prompt, completion))
    if args.select == "random":
        finished = [(prompt, completion) for _, prompt, completion in sampled if completion[-1] in stops]
        kept = rng.sample(finished, min(len(kept), len(finished)))
    return [
        {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion} for prompt, completion in kept
    ]


def train(model, tokenizer, examples: list[dict], args, number: int) -> float:
    rates = [float(rate) for rate in args.learning_rate.split(",")]
    config = SFTConfig(
        output_dir=args.out or "unused",
        per_device_train_batch_size=args.train_batch,
        num_train_epochs=args.epochs,
        learning_rate=rates[min(number, len(rates)) - 1],
        lr_scheduler_type=args.scheduler,
        seed=1000 * args.seed + number,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    # Every SFTTrainer wraps forward once more around the last one's wrapper; start each round from the plain one.
    model.get_base_model().__dict__.pop("forward", None)
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(examples), processing_class=tokenizer)
    return trainer.train().training_loss


def accuracy(model, tokenizer, rows, args, config: GenerationConfig, stops: list[int]) -> float:
    answers = generate(model, tokenizer, rows, args.few_shot, config, args.evaluate_batch)
    return sum(is_correct(tokenizer, row, completion, stops) for row, _, completion in answers) / len(rows)


def main() -> None:
    args = arguments()
    clock = Clock()
    clock.seconds["imports"] = time.perf_counter() - STARTED
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_datasets_progress()
    rng = random.Random(args.seed)
    torch.manual_seed(args.seed)

    with clock.phase("load"):
        tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
        base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        lora = LoraConfig(r=args.lora_r, lora_alpha=args.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base, lora)
    stops = [tokenizer.convert_tokens_to_ids("Ċ"), tokenizer.eos_token_id]
    shared = {"eos_token_id": stops, "pad_token_id": tokenizer.pad_token_id, "max_new_tokens": args.max_new_tokens}
    greedy = GenerationConfig(do_sample=False, num_return_sequences=1, **shared)
    sampled = GenerationConfig(
        do_sample=True,
        temperature=args.temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=args.num_candidates,
        **shared,
    )
    pool = list(problems.train(seed=args.seed))
    held_out = {
        "validate": list(problems.validate(size=args.validate_size)),
        "test": list(problems.test(size=args.test_size)),
    }
    rounds = []
    for number in range(args.rounds + 1):
        report: dict[str, object] = {"round": number}
        if number:
            rows = pool[(number - 1) * args.per_round : number * args.per_round]
            with clock.phase("sample"):
                # SFTTrainer reseeds the global generator, so without this every round would draw the same noise.
                torch.manual_seed(1000 * args.seed + number)
                candidates = list(generate(model, tokenizer, rows, args.few_shot, sampled, args.generate_batch))
            with clock.phase("select"):
                examples = survivors(tokenizer, candidates, stops, args, rng)
            report |= {"survivors": len(examples)}
            report |= {
                "acceptance": sum(is_correct(tokenizer, r, c, stops) for r, _, c in candidates) / len(candidates)
            }
            with clock.phase("train"):
                if examples:
                    report["loss"] = train(model, tokenizer, examples, args, number)
                if args.out:
                    model.save_pretrained(Path(args.out) / f"round-{number}")
        with clock.phase("evaluate"):
            for name, rows in held_out.items():
                report[name] = accuracy(model, tokenizer, rows, args, greedy, stops)
        rounds.append(report)
        print(json.dumps(report), file=sys.stderr, flush=True)
    total = time.perf_counter() - STARTED
    seconds = {name: round(value, 1) for name, value in clock.seconds.items()}
    print(json.dumps({"rounds": rounds, "seconds": seconds, "total_seconds": round(total, 1), "args": vars(args)}))


if __name__ == "__main__":
    main()
