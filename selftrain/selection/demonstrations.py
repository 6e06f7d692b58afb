"""Training examples that were not sampled: the data's own completions, as many as a control has to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from selftrain.errors import DataError
from selftrain.records import Prompt, Survivor, digest, seed_from

TokenIds = tuple[int, ...]
MIXED = "seed_data"
"""Why a demonstration of `prompts.seed_data` that `select.mix_seed_data` added is among the training examples."""


def answer_of(prompt: Prompt) -> str | None:
    """What a demonstration of this prompt shows: its completion, else its reference; None where it has neither."""
    return prompt.completion if prompt.completion is not None else prompt.reference


def num_without_answer(prompts: Sequence[Prompt]) -> int:
    """How many of the prompts have nothing to demonstrate, so that `demonstrations` leaves them out."""
    return sum(answer_of(one) is None for one in prompts)


def num_to_mix(share: float, num_survivors: int) -> int:
    """How many demonstrations make up that share of the training examples, to the nearest: share / (1 - share) times
    the survivors, so none beside no survivors. ReST (Gulcehre et al. 2023, arXiv 2308.08998) and RFT (Yuan et al. 2023,
    arXiv 2308.01825) keep all of the original data in the mixture; here its share is set."""
    return round(share / (1 - share) * num_survivors)


def demonstrations(
    prompts: Sequence[Prompt],
    *,
    count: int,
    seed: int,
    round_number: int,
    encode: Callable[[Prompt, str], tuple[TokenIds, TokenIds]],
    why: str,
) -> list[Survivor]:
    """Exactly `count` training examples from the prompts' completions; prompts without any are left out.

    By whole shuffles one after another: each of n completions is used floor(count / n) or ceil(count / n) times. Which
    and in what order depends on the seed, the round and the content, not on the order of prompts. `encode` gives prompt
    and completion ids; all completion ids are trained on. Raises DataError if no prompt has a completion or a
    reference.
    """
    if count == 0:
        return []
    shown = [(prompt, answer) for prompt in prompts if (answer := answer_of(prompt)) is not None]
    if not shown:
        raise DataError(
            f"none of the {len(prompts)} prompts has a completion or a reference, so there is nothing to demonstrate; "
            "name their column in columns.completion, or take out the arm or the select.mix_seed_data that trains on "
            "them"
        )
    encoded: dict[tuple[str, str], tuple[TokenIds, TokenIds]] = {}
    survivors = []
    for number, prompt, answer in _drawn(shown, count, seed, round_number):
        key = prompt.id, answer
        if key not in encoded:
            encoded[key] = encode(prompt, answer)
        prompt_ids, completion_ids = encoded[key]
        survivors.append(
            Survivor(
                candidate_id=digest(["demonstration", why, round_number, number, *key])[:20],
                prompt_id=prompt.id,
                round=round_number,
                token_ids=prompt_ids + completion_ids,
                label_mask=(False,) * len(prompt_ids) + (True,) * len(completion_ids),
                weight=1.0,
                why=why,
                prompt_text=words_of(prompt),
                text=answer,
            )
        )
    return survivors


def _drawn(
    shown: Sequence[tuple[Prompt, str]], count: int, seed: int, round_number: int
) -> Iterator[tuple[int, Prompt, str]]:
    """The number of the pass, the prompt and its answer, `count` times."""
    for start in range(0, count, len(shown)):
        number = start // len(shown)

        def place(one: tuple[Prompt, str], number: int = number) -> tuple[int, str, str]:
            prompt, answer = one
            return seed_from(seed, "demonstrations", round_number, number, prompt.id, answer), prompt.id, answer

        for prompt, answer in sorted(shown, key=place)[: count - start]:
            yield number, prompt, answer


def words_of(prompt: Prompt) -> str:
    """The prompt as a person would read it."""
    if prompt.text is not None:
        return prompt.text
    return "\n".join(f"{one.role}: {one.content}" for one in prompt.messages or ())
