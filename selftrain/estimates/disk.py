"""Bytes of a run directory.

The sizes of Parquet files are a + b x rows + c x tokens + d x prompt tokens, fitted to files of 4 to 512 rows with 8 to
256 tokens each (English text in SmolLM2's vocabulary, zstd): right to 14 % for candidates, 8 % for scores and a third
for survivors, whose texts repeat.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from selftrain.arms import arms_of, names_round
from selftrain.config import Config
from selftrain.estimates.amounts import Amounts
from selftrain.estimates.saved import SavedModel
from selftrain.estimates.work import Asking, Choosing, Work

CANDIDATES_FILE, CANDIDATE, COMPLETION_TOKEN, PROMPT_TOKEN = 6050.0, 38.0, 8.9, 2.0
SCORES_FILE, SCORE = 2470.0, 19.0
SURVIVORS_FILE, SURVIVOR, SURVIVOR_TOKEN, SURVIVOR_PROMPT_TOKEN = 4830.0, 33.0, 3.1, 4.7
OUTCOMES_FILE, OUTCOME = 2500.0, 25.0
REJECTED = 90.0  # a row of rejected.jsonl: the candidate's id and the reason
ASKED = 60.0  # of prompts.jsonl and solved.jsonl beside the text, a prompt
TEXT_TOKEN = 25.0  # of retention's texts.jsonl, which holds words and log-probabilities as JSON
STEP = 2 * 220.0  # an optimizer step, in the adapter's steps file and in metrics.jsonl
# A receipt with its line in the journal and its row in metrics.jsonl, and what its files are named in it.
RECEIPT, FILE_IN_RECEIPT = 3900.0, 130.0
RUN = 12_000.0  # config.json, logs, the verdict
ADAPTER_NUMBER, ADAPTER_FOLDER = 4, 12_000  # PEFT keeps adapters in float32
OF_GREEDY = ("greedy", "retention")


def disk(config: Config, work: Work, amounts: Amounts, model: SavedModel | None) -> dict[str, float]:
    """Bytes by kind, as `selftrain.disk.weight` names them, at the end of the run."""
    answers = [asking for asking in work.askings if asking.kind != "candidates"]
    sampled = [asking for asking in work.askings if asking.kind == "candidates"]
    texts = TEXT_TOKEN * sum(len(text) / 4 for text in work.texts) * len(work.text_rounds)
    chosen = [one for one in work.trainings if one.has_selection]
    evaluation = sum(_candidates(one, amounts) + _scores(one) + _outcomes(one) for one in answers)
    steps = sum(STEP * amounts.num_steps(one) for one in work.trainings)
    return {
        "candidates": sum(_candidates(one, amounts) for one in sampled),
        "scores": sum(_scores(one) + ASKED * len(one.prompts) for one in sampled),
        "survivors": sum(_survivors(one, amounts) for one in chosen),
        "adapters": adapters(config, work, model) + steps / 2,
        "evaluation": evaluation + texts,
        "other": RUN + steps / 2 + _receipts(work),
    }


def adapters(config: Config, work: Work, model: SavedModel | None) -> float:
    """Bytes of the adapters that stay, verifiers included; 0 where the model is not known.

    With `keep: best_and_last` two of each arm stay, or all of fewer rounds.
    """
    if model is None or config.train.trainer != "sft":
        return 0.0
    found = 0.0
    for arm in arms_of(config):
        rounds = sum(one.arm == arm.name for one in work.trainings)
        number = rounds if config.keep == "all" else min(2, rounds)
        found += number * (ADAPTER_NUMBER * model.lora_parameters(arm.config.train.lora) + ADAPTER_FOLDER)
    if config.verifier is not None:
        named = config.verifier.rounds
        rounds = sum(names_round(named, number, last=config.rounds) for number in range(1, config.rounds + 1))
        number = rounds if config.keep == "all" else min(2, rounds)
        found += number * (ADAPTER_NUMBER * model.lora_parameters(config.verifier.lora) + ADAPTER_FOLDER)
    return found


def _candidates(asking: Asking, amounts: Amounts) -> float:
    of_tokens = COMPLETION_TOKEN * amounts.sampled_tokens(asking) + PROMPT_TOKEN * amounts.read_tokens(asking)
    return CANDIDATES_FILE * asking.num_blocks + CANDIDATE * asking.answers + of_tokens


def _scores(asking: Asking) -> float:
    return SCORES_FILE * asking.num_blocks + SCORE * asking.answers


def _outcomes(asking: Asking) -> float:
    return OUTCOMES_FILE + OUTCOME * len(asking.prompts)


def _survivors(choosing: Choosing, amounts: Amounts) -> float:
    examples = amounts.examples(choosing)
    prompt = amounts.prompts["train"].mean
    completion = amounts.example_tokens(choosing) - prompt
    # Prompts that several survivors share are stored once or nearly so: Parquet keeps a dictionary of them.
    texts = SURVIVOR_PROMPT_TOKEN * prompt * min(examples, float(choosing.prompts))
    beside = REJECTED * max(0.0, choosing.candidates - examples) + choosing.prompts * (ASKED + 4 * prompt)
    return SURVIVORS_FILE + examples * (SURVIVOR + SURVIVOR_TOKEN * completion) + texts + beside


def _receipts(work: Work) -> float:
    blocks = sum(one.num_blocks for one in work.askings)
    phases = len({(one.arm, one.round, one.kind) for one in work.askings}) + len(work.text_rounds)
    sampled = sum(one.kind == "candidates" for one in work.askings)
    own = 2 * len(work.trainings) + sum(one.has_selection for one in work.trainings)
    return RECEIPT * (phases + sampled + own) + 2 * FILE_IN_RECEIPT * blocks


def in_all(kinds: Iterable[float]) -> int:
    """Bytes, rounded up."""
    return ceil(sum(kinds))
