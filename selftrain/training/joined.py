"""What a training batch on a CPU need not compute: the output layer of untrained positions, shared beginnings twice.

TRL's fused head scores every position on devices without Triton, the prompt's and the padding's included, three times
per step (forward, recomputed, gradient). And what all examples of a batch begin with, worked examples or a system
prompt, is computed once per example, as padding is. A joined batch is one row: the shared beginning, then what follows
it in each example, with a mask under which each token sees what it would see alone. Loss and gradients are the same to
rounding, but for dropout, which would be drawn once for what is shared: so there is none where batches are joined.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selftrain.training.examples import IGNORED

# Log-probabilities of a joined batch further than this from the plain ones are not rounding: the model needs its rows.
ROUNDING = 1e-3
# A joined row pays where it saves at least this share of its own length.
WORTH = 1 / 8


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch as TRL's fused head takes it, and which positions of its hidden states predict the trained tokens.

    `predictors` index the flattened (rows, columns) of the hidden states, in the order of the batch's labels.
    """

    inputs: dict[str, Any]
    predictors: Tensor

    @contextlib.contextmanager
    def within(self, backbone: Any) -> Iterator[dict[str, Any]]:
        """Within, the head sees the predicting positions alone. `backbone` is the model without its output layer."""

        def keep(module: Any, args: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[self.predictors][None]
            return output

        handle = backbone.register_forward_hook(keep)
        try:
            yield self.inputs
        finally:
            handle.remove()


def trained_only(inputs: Mapping[str, Any]) -> Scored:
    """The batch as it is, scored where it is trained."""
    trained = _trained(inputs)
    rows, columns = trained.nonzero(as_tuple=True)
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    rest["shift_labels"] = inputs["labels"][:, 1:][trained][None]
    return Scored(rest, rows * inputs["labels"].shape[1] + columns)


def joined(inputs: Mapping[str, Any], hidden_size: int) -> Scored | None:
    """The batch as one row; None where that would save little, or cost more in attention than it saves.

    `inputs` are ids, labels and attention mask, (examples, columns) each, padded on the right.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    examples, columns = ids.shape
    lengths = mask.sum(1)
    if not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    alike = (ids == ids[:1]).all(0)[: int(lengths.min()) - 1]
    shared = int(alike.long().cumprod(0).sum())
    length = shared + int((lengths - shared).sum())
    saved = examples * columns - length
    # Per layer, a column costs about 24 hidden_size^2 operations, and attention over the row 4 hidden_size length^2,
    # which a CPU does at a quarter of the speed.
    if saved < WORTH * length or length**2 > hidden_size * saved:
        return None
    own = mask.clone()
    own[1:, :shared] = False  # the first example's beginning stands for all
    rows, positions = own.nonzero(as_tuple=True)
    # Where each example's tokens are in the row.
    places = torch.zeros_like(ids)
    places[rows, positions] = torch.arange(len(rows), device=ids.device)
    places[1:, :shared] = places[0, :shared]
    of_all = positions < shared
    sees = ((rows[:, None] == rows) | of_all) & (positions[:, None] >= positions)
    trained = _trained(inputs)
    joint = {
        "input_ids": ids[rows, positions][None],
        "position_ids": positions[None],
        "attention_mask": sees[None, None],
        "shift_labels": inputs["labels"][:, 1:][trained][None],
    }
    return Scored(joint, places[:, :-1][trained])


def may_join(model: Any, attention: str) -> bool:
    """Whether the model is of a kind whose batches can be joined: masks and positions are all that tells rows apart."""
    dropouts = [module.p for module in model.modules() if isinstance(module, torch.nn.modules.dropout._DropoutNd)]
    config = model.config.get_text_config()
    return attention == "sdpa" and not any(dropouts) and not getattr(config, "attention_dropout", 0.0)


@torch.no_grad()
def joins(model: Any, backbone: Any, inputs: Mapping[str, Any], scored: Scored) -> bool:
    """Whether the joined batch has the log-probabilities of the plain one: some models ignore masks or positions."""
    found = []
    for one in (trained_only(inputs), scored):
        with one.within(backbone) as given:
            found.append(model(**given, use_cache=False, fused_lm_head=True).log_probs)
    return bool(torch.allclose(found[0], found[1], rtol=0.0, atol=ROUNDING))


@dataclass(slots=True)
class Trimming:
    """What the batches of one training leave out. `joins`: whether they may be joined, once one that can be has shown
    it."""

    joins: bool | None = None

    def of(
        self, model: Any, inputs: Mapping[str, Any], *, by_rows: bool = False
    ) -> contextlib.AbstractContextManager[dict[str, Any]]:
        """The batch with what is not needed for its loss left out; joined where that pays, unless `by_rows`. `model` is
        the adapter's, unwrapped; within, it is called with what this gives."""
        backbone = model.get_base_model().base_model
        if self.joins is not False and "attention_mask" in inputs and not by_rows:
            together = joined(inputs, backbone.config.get_text_config().hidden_size)
            if together is not None:
                if self.joins is None:
                    attention = backbone.config._attn_implementation
                    self.joins = may_join(model, attention) and joins(model, backbone, inputs, together)
                if self.joins:
                    return together.within(backbone)
        return trained_only(inputs).within(backbone)


def _trained(inputs: Mapping[str, Any]) -> Tensor:
    trained: Tensor = inputs["labels"][:, 1:] != IGNORED
    return trained
