"""Rows of ids through a model, in batches of so many tokens, sorted by length.

A reward model in transformers gives the logits at the last token that is not `pad_token_id`. Read alone, a text that
ends with that very token is judged one token earlier, which is also how it was trained; so rows are padded on the right
with that id, and a batch gives what each row gives alone. Where a model has no pad id, and where its tokenizer's would
do, an answer's own last token could be taken for padding: then rows are padded with an id that none of them ends with.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from selftrain.errors import PhaseError
from selftrain.scoring.reward_models.loading import Weights
from selftrain.scoring.reward_models.rendering import Row

Vectors = tuple[tuple[float, ...], ...]


class Reader:
    """Reads rows with one model. `max_batch_tokens`, padding included, is lowered for good where memory runs out: the
    rows at hand are then all read again, so that their numbers do not depend on where it did. `columns` are the tokens
    of a causal model's vocabulary whose logits are wanted."""

    def __init__(self, weights: Weights, max_batch_tokens: int, columns: Sequence[int] = ()) -> None:
        self.weights, self._columns = weights, tuple(columns)
        self.max_batch_tokens = max_batch_tokens

    def read(self, rows: Sequence[Row]) -> list[Vectors]:
        """The logits of each row, in order: one vector for all of it, or one for each position that it wants.

        Equal rows are read once; batches depend on the rows alone, not on their order. PhaseError: a single row does
        not fit into memory.
        """
        distinct = sorted(set(rows), key=lambda row: (-len(row.ids), row))
        while True:
            try:
                found = {row: one for batch in self._batches(distinct) for row, one in self._read(batch)}
            except _DoesNotFit as error:
                if error.rows == 1:
                    raise PhaseError(
                        f"a text of {error.longest} tokens does not fit into memory with reward model "
                        f"{self.weights.wanted.name}; set score.one_model_at_a_time, a smaller dtype in its params, or "
                        "free some memory"
                    ) from None
                self.max_batch_tokens = error.rows // 2 * error.longest
                _free_memory()
                continue
            return [found[row] for row in rows]

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Longest first, so that what does not fit is found at once."""
        start = 0
        while start < len(rows):
            size = max(1, self.max_batch_tokens // max(1, len(rows[start].ids)))
            yield list(rows[start : start + size])
            start += size

    def _read(self, batch: Sequence[Row]) -> list[tuple[Row, Vectors]]:
        does_not_fit = None
        try:
            return list(zip(batch, forward(self.weights, batch, self._columns), strict=True))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            does_not_fit = _DoesNotFit(len(batch), len(batch[0].ids))
        raise does_not_fit  # outside of `except`, whose error holds on to the batch's tensors


class _DoesNotFit(Exception):  # noqa: N818
    def __init__(self, rows: int, longest: int) -> None:
        super().__init__()
        self.rows, self.longest = rows, longest


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.inference_mode()
def forward(weights: Weights, batch: Sequence[Row], columns: Sequence[int] = ()) -> list[Vectors]:
    """One batch, padded on the right to its longest row."""
    model = weights.model
    longest = max(len(row.ids) for row in batch)
    with _padding(model, batch) as pad:
        inputs = {
            "input_ids": _padded([row.ids for row in batch], longest, pad),
            "attention_mask": _padded([(1,) * len(row.ids) for row in batch], longest, 0),
        }
        if batch[0].type_ids:
            inputs["token_type_ids"] = _padded([row.type_ids for row in batch], longest, 0)
        wanted = sorted({position for row in batch for position in row.at}) if columns else range(longest)
        if columns:  # of a whole vocabulary, only where somebody looks
            inputs["logits_to_keep"] = torch.tensor(wanted)
        logits = model(**{name: one.to(weights.device) for name, one in inputs.items()}).logits
    if logits.dim() == 2:
        return [(tuple(one),) for one in logits.float().tolist()]
    place = {position: number for number, position in enumerate(wanted)}
    where = [(number, place[position]) for number, row in enumerate(batch) for position in row.at]
    taken = logits[[row for row, _ in where], [position for _, position in where]]
    if columns:
        taken = taken[:, list(columns)]
    vectors = iter(taken.float().tolist())
    return [tuple(tuple(next(vectors)) for _ in row.at) for row in batch]


@contextmanager
def _padding(model: Any, batch: Sequence[Row]) -> Iterator[int]:
    """The id to pad with, which the model knows as such meanwhile."""
    config = model.config.get_text_config()
    own, size = config.pad_token_id, model.get_input_embeddings().weight.shape[0]
    last = {row.ids[-1] for row in batch}
    pad = own if own is not None and 0 <= own < size else next(one for one in range(size) if one not in last)
    config.pad_token_id = pad
    try:
        yield pad
    finally:
        config.pad_token_id = own


def _padded(rows: Sequence[Sequence[int]], longest: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
