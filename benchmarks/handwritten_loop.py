"""The baseline that selftrain has to beat: one round of expert iteration as one would write it by hand.

transformers + peft + trl in one file: padded `model.generate`, a rule that keeps answers, at most K per prompt, LoRA
SFT with SFTTrainer, greedy evaluation. It imports nothing of selftrain. It is meant to be good, not a straw man: KV
cache on, stops by token id, batches of a good size, padded to similar lengths, no gradient checkpointing, trained
on the sampled token ids, the adapter stays in memory, no merging. What it does not do is what selftrain is for:
it cannot resume, has no control arm, no intervals and no record of what it trained on.

The job (JSON) says model, prompts and settings. Loading and a first evaluation, which warms the process up, come before
the clock. Prints seconds by part and the lengths of what was sampled.

    python benchmarks/handwritten_loop.py JOB
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from datasets import Dataset
from datasets import disable_progress_bars as disable_datasets_progress
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from trl import SFTConfig, SFTTrainer


class Clock:
    """Adds up the seconds of each part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def generate(model, tokenizer, rows: list[dict], config: GenerationConfig, batch: int) -> list[tuple[dict, list[int]]]:
    """(row, completion ids), `num_return_sequences` times per row; prompts of similar lengths are padded together."""
    model.eval()
    rows = sorted(rows, key=lambda row: len(row["ids"]))
    answers = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        inputs = tokenizer.pad({"input_ids": [row["ids"] for row in part]}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, generation_config=config)
        width = inputs["input_ids"].shape[1]
        for number, ids in enumerate(output[:, width:].tolist()):
            stop = next((at for at, token in enumerate(ids) if token in config.eos_token_id), len(ids) - 1)
            answers.append((part[number // config.num_return_sequences], ids[: stop + 1]))
    return answers


def is_right(tokenizer, row: dict, completion: list[int], job: dict) -> bool:
    if completion[-1] not in job["stops"]:
        return False
    return job["rule"] == "finished" or tokenizer.decode(completion[:-1]).strip() == row["reference"]


def select(tokenizer, sampled: list[tuple[dict, list[int]]], job: dict) -> list[dict]:
    """At most `max_per_prompt` of the right answers to each prompt, as examples for SFTTrainer."""
    per_prompt: Counter[tuple[int, ...]] = Counter()
    examples = []
    for row, completion in sampled:
        key = tuple(row["ids"])
        if per_prompt[key] < job["max_per_prompt"] and is_right(tokenizer, row, completion, job):
            per_prompt[key] += 1
            examples.append(
                {"input_ids": row["ids"] + completion, "labels": [-100] * len(row["ids"]) + completion},
            )
    return examples


def train(model, tokenizer, examples: list[dict], job: dict) -> float:
    config = SFTConfig(
        output_dir="unused",
        per_device_train_batch_size=job["train_batch"],
        num_train_epochs=1,
        learning_rate=job["learning_rate"],
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        max_length=None,
        seed=job["seed"],
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(examples), processing_class=tokenizer)
    return trainer.train().training_loss


def accuracy(tokenizer, answers: list[tuple[dict, list[int]]], job: dict) -> float:
    return sum(is_right(tokenizer, row, completion, job) for row, completion in answers) / len(answers)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    clock = Clock()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_datasets_progress()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    shared = {
        "eos_token_id": job["stops"],
        "pad_token_id": tokenizer.pad_token_id,
        "max_new_tokens": job["max_new_tokens"],
    }
    greedy = GenerationConfig(do_sample=False, num_return_sequences=1, **shared)
    sampled = GenerationConfig(
        do_sample=True,
        temperature=job["temperature"],
        top_k=0,
        top_p=1.0,
        num_return_sequences=job["num_candidates"],
        **shared,
    )
    generate(model, tokenizer, job["held_out"], greedy, job["evaluate_batch"])
    torch.manual_seed(job["seed"])
    started = time.perf_counter()
    with clock.part("sample"), model.disable_adapter():  # which adds nothing yet, and takes its time
        candidates = generate(model, tokenizer, job["prompts"], sampled, job["generate_batch"])
    with clock.part("select"):
        chosen = select(tokenizer, candidates, job)
    with clock.part("train"):
        # As many updates, on the same tokens: the examples of the other side.
        train(model, tokenizer, job["examples"], job)
    with clock.part("evaluate"):
        answers = generate(model, tokenizer, job["held_out"], greedy, job["evaluate_batch"])
        right = accuracy(tokenizer, answers, job)
    clock.seconds["whole"] = time.perf_counter() - started
    report = {
        "seconds": clock.seconds,
        "lengths": [len(completion) for _, completion in candidates],
        "evaluated_lengths": [len(completion) for _, completion in answers],
        "chosen": len(chosen),
        "accuracy": right,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
