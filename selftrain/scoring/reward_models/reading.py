"""Rows of ids through a model, in batches of so many tokens, sorted by length.

A reward model in transformers gives the logits at the last token that is not `pad_token_id`. Read alone, a text that
ends with that very token is judged one token earlier, which is also how it was trained; so rows are padded on the right
with that id, and a batch gives what each row gives alone. Where a model has no pad id, and where its tokenizer's would
do, an answer's own last token could be taken for padding: then rows are padded with an id that none of them ends with.
"""

from __future__ import annotations

import gc
import inspect
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from selftrain.errors import Interrupted, PhaseError
from selftrain.models.turns import computing
from selftrain.scoring.reward_models.loading import Weights
from selftrain.scoring.reward_models.rendering import Row

LOGGER = logging.getLogger("selftrain")
ON_CPU = 1 << 8
ELSEWHERE = 1 << 14
# What rows share is read once if that saves as many tokens: a call of its own reads all weights again.
SAVING_PAYS_ON_CPU = 64
SAVING_PAYS_ELSEWHERE = 2048

Vectors = tuple[tuple[float, ...], ...]


class Reader:
    """Reads rows with one model. `max_batch_tokens`, padding included, is lowered where memory runs out, for the rows
    at hand, which are then all read again: their numbers depend neither on where it did nor on what was read before.
    None: 256 on a CPU, whose caches larger batches leave, and 16,384 elsewhere. `columns` are the tokens of a causal
    model's vocabulary whose logits are wanted. Close it, from any thread: who reads then raises Interrupted, after the
    batch in hand."""

    def __init__(self, weights: Weights, max_batch_tokens: int | None, columns: Sequence[int] = ()) -> None:
        self.weights, self._columns = weights, tuple(columns)
        is_cpu = weights.device.type == "cpu"
        self.max_batch_tokens = max_batch_tokens or (ON_CPU if is_cpu else ELSEWHERE)
        self._is_closed = threading.Event()
        self._has_told = False
        self._saving_pays = SAVING_PAYS_ON_CPU if is_cpu else SAVING_PAYS_ELSEWHERE

    def read(self, rows: Sequence[Row], prompts: Sequence[str] | None = None) -> list[Vectors]:
        """The logits of each row, in order: one vector for all of it, or one for each position that it wants.

        Equal rows are read once. What rows of one of `prompts` (one name per row) begin with alike is read once too,
        where that saves more than a call of its own costs. Batches depend on the rows and prompts alone, not on their
        order. PhaseError: a single row does not fit into memory. Interrupted: it was closed.
        """
        limit = self.max_batch_tokens
        while True:
            try:
                found = {row: one for batch in self._batches(rows, prompts, limit) for row, one in self._read(batch)}
            except _DoesNotFit as error:
                if error.rows == 1:
                    raise PhaseError(
                        f"a text of {error.longest} tokens does not fit into memory with reward model "
                        f"{self.weights.wanted.name}; set score.one_model_at_a_time, a smaller dtype in its params, or "
                        "free some memory"
                    ) from None
                limit = error.rows // 2 * error.longest
                self._tell(limit)
                _free_memory()
                continue
            return [found[row] for row in rows]

    def close(self) -> None:
        """Read nothing more."""
        self._is_closed.set()

    def _tell(self, limit: int) -> None:
        if not self._has_told:
            self._has_told = True
            LOGGER.warning(
                "score.scorers: %s: batches of %d tokens do not fit into memory, and are read again in smaller ones; "
                "set max_batch_tokens=%d in its params to save that",
                self.weights.wanted.name,
                self.max_batch_tokens,
                limit,
            )

    def _batches(self, rows: Sequence[Row], prompts: Sequence[str] | None, limit: int) -> Iterator[_Batch]:
        """Those that share a beginning, by prompt, and then all others."""
        alone = dict.fromkeys(rows)
        if prompts is not None and self._can_share:
            by_prompt: dict[str, dict[Row, None]] = {}
            for row, prompt in zip(rows, prompts, strict=True):
                by_prompt.setdefault(prompt, {})[row] = None
            for of_prompt in sorted(map(sorted, by_prompt.values())):
                shared = _beginning(of_prompt)
                if shared * (len(of_prompt) - 1) >= self._saving_pays:
                    yield from self._of_length(of_prompt, shared, limit)
                    alone = {row: None for row in alone if row not in set(of_prompt)}
        yield from self._of_length(list(alone), 0, limit)

    def _of_length(self, rows: Sequence[Row], shared: int, limit: int) -> Iterator[_Batch]:
        """Longest first, so that what does not fit is found at once."""
        rows, start = sorted(rows, key=lambda row: (-len(row.ids), row)), 0
        while start < len(rows):
            size = max(1, limit // max(1, len(rows[start].ids) - shared))
            yield _Batch(tuple(rows[start : start + size]), shared)
            start += size

    def _read(self, batch: _Batch) -> list[tuple[Row, Vectors]]:
        if self._is_closed.is_set():
            raise Interrupted("the scorer is closed")
        does_not_fit = None
        try:
            return list(zip(batch.rows, forward(self.weights, batch.rows, self._columns, batch.shared), strict=True))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            does_not_fit = _DoesNotFit(len(batch.rows), len(batch.rows[0].ids) - batch.shared)
        raise does_not_fit  # outside of `except`, whose error holds on to the batch's tensors

    @cached_property
    def _can_share(self) -> bool:
        """Whether the model reads from left to right and can go on from what it has read. A sliding window counts
        columns, padding included, and recurrent layers have none."""
        model = self.weights.model
        config = model.config.get_text_config()
        knobs = vars(config)
        kinds = set(knobs.get("layer_types") or ()) or {"full_attention"}
        windowed = "layer_types" not in knobs and knobs.get("sliding_window") is not None
        return (
            self.weights.wanted.kind == "sequence"
            and "past_key_values" in inspect.signature(model.forward).parameters
            and not model.config.is_encoder_decoder
            and not knobs.get("use_bidirectional_attention")
            and knobs.get("is_causal", True) is not False
            and kinds == {"full_attention"}
            and not windowed
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows to be read at once, whose first `shared` ids are the same and are read once."""

    rows: tuple[Row, ...]
    shared: int


def _beginning(rows: Sequence[Row]) -> int:
    """How many leading ids all of them share; of each, at least two are left, unlike each other, so that a model that
    takes the last token that is no padding finds one."""
    columns = zip(*(row.ids for row in rows), strict=False)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    for row in rows:
        while common and len(set(row.ids[common:])) < 2:
            common -= 1
    return 0 if any(row.type_ids for row in rows) else common


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
def forward(weights: Weights, batch: Sequence[Row], columns: Sequence[int] = (), shared: int = 0) -> list[Vectors]:
    """One batch, padded on the right to its longest row; the first `shared` ids, alike in all rows, are read once."""
    model = weights.model
    longest = max(len(row.ids) for row in batch)
    with computing(), _padding(model, batch) as pad:
        inputs: dict[str, Any] = {
            "input_ids": _padded([row.ids[shared:] for row in batch], longest - shared, pad),
            "attention_mask": _padded([(1,) * len(row.ids) for row in batch], longest, 0),
        }
        if batch[0].type_ids:
            inputs["token_type_ids"] = _padded([row.type_ids for row in batch], longest, 0)
        if shared:
            cache = DynamicCache(config=model.config)
            before = torch.tensor([batch[0].ids[:shared]], device=weights.device)
            model(input_ids=before, past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(batch))
            inputs |= {"past_key_values": cache, "use_cache": True}
        wanted = sorted({position for row in batch for position in row.at}) if columns else range(longest)
        if columns:  # of a whole vocabulary, only where somebody looks
            inputs["logits_to_keep"] = torch.tensor(wanted)
        moved = {name: one.to(weights.device) if isinstance(one, Tensor) else one for name, one in inputs.items()}
        logits = model(**moved).logits
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
