"""How likely a policy finds given token ids: for texts that nobody sampled, and for candidates of another policy.

Sequences are padded on the right: nothing attends to what comes after it, so neither a mask nor positions are needed,
and rows of one batch do not touch each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from selftrain.errors import DataError, PhaseError
from selftrain.models.bench import Bench
from selftrain.models.probe import check_probe
from selftrain.models.turns import computing
from selftrain.records import Policy

# Of one batch: logits (256 MiB in float32), and tokens through the model. A longer sequence is a batch of its own.
LOGITS_AT_ONCE = 1 << 26
TOKENS_AT_ONCE = 1 << 13
# So many positions are turned into float32 at a time.
POSITIONS_AT_ONCE = 64
# What rows share is read once if that saves as many tokens: a call of its own reads all weights again.
SAVING_PAYS = 256

# Where to score from, and the ids.
_Row = tuple[int, tuple[int, ...]]


def encode_text(bench: Bench, text: str) -> tuple[int, ...]:
    """The ids of a text to be scored from position 1 on, at least two.

    BOS is there if and only if the model's tokenizer itself puts it before texts (`add_bos_token`, or its
    post-processor); without it, the text's first token only stands before the others. No EOS is added: a text may go
    on. DataError: fewer than two tokens, or more than the model's context.
    """
    ids = bench.encode(text)
    if len(ids) < 2:
        raise DataError(f"the text {text!r} has {len(ids)} tokens, so there is nothing to predict; give a longer one")
    if len(ids) > bench.context_length:
        raise DataError(
            f"the text {text[:60]!r}... has {len(ids)} tokens, and the model's context is {bench.context_length}; "
            "shorten it, or split it in two"
        )
    return ids


def token_logprobs(
    bench: Bench, policy: Policy, sequences: Sequence[Sequence[int]], *, scored_from: Sequence[int]
) -> list[list[float]]:
    """Natural log-probabilities, at temperature 1, of the ids `scored_from[i]:` of each sequence under the policy.

    In the order given; `scored_from[i]` is at least 1, for nothing predicts the first id. What a sequence gets depends
    on the others only by rounding, and on their order not at all. DataError: longer than the context. PhaseError:
    another adapter answers than the policy's, NaN, or not enough memory.
    """
    for number, (ids, start) in enumerate(zip(sequences, scored_from, strict=True)):
        if not 1 <= start <= len(ids):
            raise ValueError(f"sequence {number}: scored_from is {start}, and there are {len(ids)} ids")
        if len(ids) > bench.context_length:
            raise DataError(
                f"sequence {number} has {len(ids)} tokens, and the model's context is {bench.context_length}; "
                "shorten it"
            )
    model: Any = bench.mount(policy)
    _ = bench.tokenizer  # made now: Python 3.11 holds one lock for all benches while it is
    with computing():
        return _logprobs(model, bench, policy, sequences, scored_from)


def _logprobs(
    model: Any, bench: Bench, policy: Policy, sequences: Sequence[Sequence[int]], scored_from: Sequence[int]
) -> list[list[float]]:
    check_probe(model, policy, bench)
    wanted = [(start, tuple(ids)) for start, ids in zip(scored_from, sequences, strict=True)]
    vocabulary = model.config.get_text_config().vocab_size
    found: dict[_Row, list[float]] = {}
    # Equal rows are read once, and batches do not depend on the order that sequences come in.
    for batch in _batches(sorted(set(wanted), key=lambda row: (len(row[1]), row)), vocabulary):
        for row, logprobs in zip(batch, _score(model, bench, batch), strict=True):
            if not all(map(math.isfinite, logprobs)):
                raise PhaseError(
                    f"policy {policy.digest[:12]} of round {policy.round} gives NaN or infinite log-probabilities; try "
                    "model.dtype: float32, or a lower learning rate"
                )
            found[row] = logprobs
    return [list(found.get(row, ())) for row in wanted]


def _batches(rows: Sequence[_Row], vocabulary: int) -> Iterator[list[_Row]]:
    """Rows, which come sorted by length, in batches within the limits, or of one row; those with nothing to score
    left out."""
    batch: list[_Row] = []
    for start, ids in rows:
        if start == len(ids):
            continue
        size, first = len(batch) + 1, min([start, *(one for one, _ in batch)])
        if batch and (size * len(ids) > TOKENS_AT_ONCE or size * (len(ids) - first) * vocabulary > LOGITS_AT_ONCE):
            yield batch
            batch = []
        batch.append((start, ids))
    if batch:
        yield batch


def _score(model: Any, bench: Bench, rows: Sequence[_Row]) -> list[list[float]]:
    """Log-probabilities of each row's ids from its start on. Only columns that some row needs get logits."""
    longest, first = max(len(ids) for _, ids in rows), min(start for start, _ in rows)
    padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in rows], device=bench.device)
    try:
        with torch.inference_mode():
            logits = _logits(model, bench, padded, first, _shared(rows, first) if bench.attends_to_all else 0)
            parts = [
                _chosen(logits[row, start - first : len(ids) - first], padded[row, start : len(ids)])
                for row, (start, ids) in enumerate(rows)
            ]
            taken = iter(torch.cat(parts).tolist())  # one wait for the accelerator
    except torch.OutOfMemoryError as error:
        raise PhaseError(
            f"reading {len(rows)} sequences of up to {longest} tokens does not fit into the accelerator's memory; free "
            "some of it, or give shorter texts (prompts.retention, sample.max_new_tokens)"
        ) from error
    return [[next(taken) for _ in part] for part in parts]


def _shared(rows: Sequence[_Row], first: int) -> int:
    """How many leading ids to read once for all rows: what they share, where that saves more than a call costs."""
    columns = zip(*(ids[: first - 1] for _, ids in rows), strict=True)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return common if common * (len(rows) - 1) >= SAVING_PAYS else 0


def _logits(model: Any, bench: Bench, ids: Tensor, first: int, shared: int) -> Tensor:
    """Logits (rows, columns, vocabulary) that predict the ids (rows, columns) from column `first` on."""
    columns = torch.arange(first - 1, ids.shape[1] - 1, device=bench.device) - shared
    if not shared:
        logits: Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
        return logits
    cache = DynamicCache(config=model.config)
    model(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(ids))
    rest = ids[:, shared:]
    logits = model(input_ids=rest, past_key_values=cache, use_cache=True, logits_to_keep=columns).logits
    return logits


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """The log-probability of each id (positions,) under its row of logits (positions, vocabulary)."""
    parts = []
    for start in range(0, len(ids), POSITIONS_AT_ONCE):
        some, of = logits[start : start + POSITIONS_AT_ONCE].float(), ids[start : start + POSITIONS_AT_ONCE]
        parts.append(some.gather(-1, of[:, None])[:, 0] - some.logsumexp(-1))
    return torch.cat(parts)
