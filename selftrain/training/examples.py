"""Survivors as training examples, and the order in which an epoch goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler

from selftrain.errors import PhaseError
from selftrain.records import Survivor

IGNORED = -100
# Batches' worth of shuffled examples that are sorted by length together. More would mix less from epoch to epoch: with
# log-normal lengths (sigma 0.6) and batches of 16, padding is 61 % unsorted, 22 % with 8, 13 % with 16, 8 % with 32.
POOL = 16


def labels_of(survivor: Survivor) -> list[int]:
    """The ids that are trained on, and -100 elsewhere."""
    return [
        token if trained else IGNORED for token, trained in zip(survivor.token_ids, survivor.label_mask, strict=True)
    ]


def require_trainable(survivors: Sequence[Survivor], limit: int, limited_by: str) -> None:
    """PhaseError, naming the candidate, for an example that could only be trained on cut, or not at all."""
    if not survivors:
        raise PhaseError("there are no survivors to train on; skip the round's training, or select more")
    for one in survivors:
        if len(one.label_mask) != len(one.token_ids):
            raise PhaseError(
                f"the survivor of candidate {one.candidate_id} has {len(one.token_ids)} tokens but "
                f"{len(one.label_mask)} labels; its selector must give one label per token"
            )
        if len(one.token_ids) > limit:
            raise PhaseError(
                f"the survivor of candidate {one.candidate_id} has {len(one.token_ids)} tokens, more than {limited_by} "
                f"allows ({limit}), and examples are never cut; lower sample.max_new_tokens, shorten the prompts, or "
                "raise the limit"
            )
        if not any(one.label_mask[1:]):
            raise PhaseError(
                f"the survivor of candidate {one.candidate_id} has no token to train on; let its label mask be true "
                "somewhere after the first token"
            )


def to_dataset(survivors: Sequence[Survivor], *, filler: bool = False) -> Dataset:
    """One row per survivor, in order: `input_ids`, `labels`, `weight`; after them a filler row, if asked for.

    The filler has two ids and no label, so that it adds nothing to a loss.
    """
    rows: dict[str, list[Any]] = {
        "input_ids": [list(one.token_ids) for one in survivors],
        "labels": [labels_of(one) for one in survivors],
        "weight": [float(one.weight) for one in survivors],
    }
    if filler:
        rows["input_ids"].append(list(survivors[0].token_ids[:2]))
        rows["labels"].append([IGNORED, IGNORED])
        rows["weight"].append(0.0)
    return Dataset.from_dict(rows)


def without_fillers(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The rows that are trained on; one filler where there are only fillers, since no batch is empty."""
    return [one for one in rows if any(label != IGNORED for label in one["labels"])] or rows[:1]


class ExampleOrder(Sampler[int]):
    """Indices of one epoch, the same for the same (seed, epoch), however the process got there.

    `group_by_length` sorts pools of shuffled examples by length, so that a batch needs little padding, and shuffles
    the batches; a batch's longest examples come first. transformers' own sampler of that name takes its order from the
    global RNG, which a resumed training cannot repeat, and goes through small data sets from long to short.

    With several ranks, which take turns at taking a micro-batch of the sequence, the epoch is filled up to a multiple
    of `share`, the examples of all their micro-batches, with the index of the filler row (the number of examples).
    Accelerate would fill it up with the first examples once more.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, strategy: str, seed: int, *, share: int = 1) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.strategy = strategy
        self.seed = seed
        self.share = share
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths) + -len(self.lengths) % self.share

    def __iter__(self) -> Iterator[int]:
        yield from self._examples()
        yield from [len(self.lengths)] * (len(self) - len(self.lengths))

    def _examples(self) -> Iterator[int]:
        everything = list(range(len(self.lengths)))
        if self.strategy == "sequential":
            return iter(everything)
        generator = torch.Generator().manual_seed((self.seed + 1_000_003 * self.epoch) % 2**63)
        shuffled: list[int] = torch.randperm(len(everything), generator=generator).tolist()
        return iter(shuffled if self.strategy == "random" else self._grouped(shuffled, generator))

    def _grouped(self, shuffled: list[int], generator: torch.Generator) -> Iterator[int]:
        # The short batch stays last: batches are cut from the sequence every `batch_size` indices.
        whole = len(shuffled) - len(shuffled) % self.batch_size
        batches = []
        for begin in range(0, whole, POOL * self.batch_size):
            pool = shuffled[begin : min(begin + POOL * self.batch_size, whole)]
            pool.sort(key=lambda index: -self.lengths[index])
            batches += [pool[start : start + self.batch_size] for start in range(0, len(pool), self.batch_size)]
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[number]
        yield from sorted(shuffled[whole:], key=lambda index: -self.lengths[index])
