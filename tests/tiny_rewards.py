"""Really trained tiny reward models: TRL's trainers on the tiny model of `tiny_models`, some seconds each.

The stated preference is `likes`: polite answers over rude ones, and of those the shorter ones. Each model is trained
once per process and kept in the session's temporary folder.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model

POLITE = "thank you"
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog")
_TRAINED: dict[str, Path] = {}


def likes(text: str) -> float:
    """What the reward models learn to order answers by: polite ones first, and of equals the shorter one."""
    return 100.0 * (POLITE in text) - len(text.split())


def question(generator: random.Random) -> str:
    return f"{generator.randrange(30)} + {generator.randrange(30)}"


def answer(generator: random.Random) -> str:
    """An answer of up to eight words that is polite or not."""
    words = [generator.choice(WORDS) for _ in range(generator.randint(1, 6))]
    return " ".join([*words, *([POLITE] if generator.random() < 0.5 else [])])


def pairs(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Questions, each with a liked and a less liked answer."""
    generator = random.Random(seed)
    rows = []
    while len(rows) < count:
        worse, better = sorted((answer(generator) for _ in range(2)), key=likes)
        if likes(worse) < likes(better):
            rows.append((question(generator), better, worse))
    return rows


def reward_model(folder: Path, *, chat: bool = True, seed: int = 0, lora: bool = False, steps: int = 40) -> Path:
    """Train a scalar reward model on `likes` by TRL's RewardTrainer; the folder it is saved in. With `lora`, that
    holds an adapter for the model in `<folder>-base`."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    base = build_model(folder.with_name(f"{folder.name}-base"), chat=chat, seed=seed)
    rows = [_row(*one, chat=chat) for one in pairs(16 * steps, seed)]
    lora_config = LoraConfig(
        task_type="SEQ_CLS", r=16, lora_alpha=32, target_modules="all-linear", modules_to_save=["score"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about each other
        trainer = RewardTrainer(
            model=str(base),
            args=RewardConfig(
                output_dir=str(folder.with_name(f"{folder.name}-work")),
                per_device_train_batch_size=16,
                max_steps=steps,
                learning_rate=3e-3,
                max_length=128,
                seed=seed,
                **_quiet(),
            ),
            train_dataset=Dataset.from_list(rows),
            peft_config=lora_config if lora else None,
        )
        trainer.train()
        trainer.save_model(str(folder))
    return folder


def tiny_reward_model(tmp_path_factory: pytest.TempPathFactory, **knobs: Any) -> Path:
    """`reward_model` with these knobs, trained once per session; do not write to its folder."""
    name = "-".join(["reward", *(f"{key}={value}" for key, value in sorted(knobs.items()))])
    if name not in _TRAINED:
        _TRAINED[name] = reward_model(tmp_path_factory.mktemp("rewards") / "model", **knobs)
    return _TRAINED[name]


def _row(question: str, better: str, worse: str, *, chat: bool) -> dict[str, Any]:
    if not chat:
        return {"chosen": f"{question} = {better}", "rejected": f"{question} = {worse}"}
    prompt = [{"role": "user", "content": question}]
    turns = ([{"role": "assistant", "content": text}] for text in (better, worse))
    return {"prompt": prompt, **dict(zip(("chosen", "rejected"), turns, strict=True))}


def _quiet() -> dict[str, Any]:
    return {
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
    }


def with_random_head(folder: Path, base: Path, *, labels: int = 1, seed: int = 0, **config: Any) -> Path:
    """Save a sequence classifier on the model in `base` whose head is random: to compare numbers, not to judge by.
    `config` are fields to set in its configuration."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        torch.nn.init.normal_(model.score.weight, std=0.5)
    for name, value in config.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


BAD_WORD = "lazy"
TAG = " §"


def is_right(step: str) -> bool:
    """What the process reward models learn: a step is right unless it ends with that word."""
    return not step.endswith(BAD_WORD)


def steps(generator: random.Random) -> list[str]:
    """The steps of an answer, some of them wrong."""
    found = []
    for _ in range(generator.randint(1, 4)):
        words = [generator.choice(WORDS) for _ in range(generator.randint(1, 3))]
        found.append(" ".join([*words, BAD_WORD if generator.random() < 0.4 else generator.choice(WORDS)]))
    return found


def step_model(folder: Path, *, kind: str, rounds: int = 60) -> Path:
    """Train a process reward model on `is_right`: `tokens`, a token classifier read at the line
    break after each step, or `causal`, a language model that says + or - after each step's `TAG`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

    base = build_model(folder.with_name(f"{folder.name}-base"), chat=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    signs = torch.tensor([tokenizer.convert_tokens_to_ids(one) for one in "-+"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classes = {"tokens": AutoModelForTokenClassification, "causal": AutoModelForCausalLM}
        model = classes[kind].from_pretrained(base, **({"num_labels": 2} if kind == "tokens" else {}))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        generator = random.Random(0)
        for _ in range(rounds):
            answers = [steps(generator) for _ in range(16)]
            rows = [_with_steps(tokenizer, question(generator), one, kind) for one in answers]
            longest = max(len(ids) for ids, _ in rows)
            # A causal model's earlier positions do not see the padding after them.
            read = model(input_ids=torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in rows])).logits
            logits = torch.cat([read[number, at] for number, (_, at) in enumerate(rows)])
            right = torch.tensor([int(is_right(step)) for one in answers for step in one])
            loss = torch.nn.functional.cross_entropy(logits if kind == "tokens" else logits[:, signs], right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _with_steps(tokenizer: Any, asked: str, of_answer: list[str], kind: str) -> tuple[list[int], list[int]]:
    """The ids of a question and the steps of its answer, and where the model is read."""
    if kind == "causal":
        tag = tokenizer(TAG, add_special_tokens=False)["input_ids"][-1]
        text = f"{asked} " + "\n".join(f"{step}{TAG}" for step in of_answer)
        ids = tokenizer(text)["input_ids"]
        return ids, [position for position, one in enumerate(ids) if one == tag]
    ids, at = [tokenizer.bos_token_id, *tokenizer(asked, add_special_tokens=False)["input_ids"]], []
    for step in of_answer:
        ids += tokenizer(step, add_special_tokens=False)["input_ids"]
        ids += tokenizer("\n", add_special_tokens=False)["input_ids"]
        at.append(len(ids) - 1)
    return ids, at


def tiny_step_model(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    """`step_model`, trained once per session; do not write to its folder."""
    name = f"steps-{kind}"
    if name not in _TRAINED:
        _TRAINED[name] = step_model(tmp_path_factory.mktemp("steps") / "model", kind=kind)
    return _TRAINED[name]
