"""The normaliser and the entropy of the distributions that logits stand for."""

from __future__ import annotations

import torch
from torch import Tensor

# A CPU works through as many rows at once as stay in its cache; whole batches cost three times as much.
CPU_ROWS = 8
# Probabilities below exp(-1000) are 0 in float32; a logit of -inf would otherwise add 0 * inf.
FLOOR = -1000.0


def normalisers_and_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of float32 logits (rows, vocabulary): log sum exp, and the entropy in nats, of each row; both (rows,) float32.

    H = -sum p log p with log p = logit - log sum exp (Shannon 1948, section 6). A row of NaN gives NaN.
    """
    rows = CPU_ROWS if logits.device.type == "cpu" else len(logits)
    parts = [_of_rows(logits[start : start + rows]) for start in range(0, len(logits), rows)]
    return torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])


def _of_rows(logits: Tensor) -> tuple[Tensor, Tensor]:
    normalisers = logits.logsumexp(-1)
    logprobs = (logits - normalisers[:, None]).clamp_(min=FLOOR)
    return normalisers, -logprobs.exp().mul_(logprobs).sum(-1)
