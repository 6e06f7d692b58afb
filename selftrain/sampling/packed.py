"""Linear layers of a float32 model on a CPU, multiplied in the layout that oneDNN works in.

A plain `linear` brings the weights into that layout anew at every step, which costs up to half of it where rows are few
or the vocabulary is large. Here a copy of each weight is brought into it once. An adapter's product is added to the
copy, in float32 and from the pristine weights every time, so that a step does not go through two small layers beside
each large one; the model's own weights stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import Linear

# More than these, in weights, are not copied: the copy takes as much memory as they do.
MAX_WEIGHTS = 1 << 30
# Nats by which the log-probabilities of packed weights may differ from those of the model's own.
ROUNDING = 1e-3
# Smaller layers gain nothing.
MIN_SIDE = 64


class Packed:
    """The copies of one model's weights, made when first needed and again when weights have changed."""

    def __init__(self, model: Any) -> None:
        self._layers = _layers(model)
        self._versions: list[tuple[int, int]] = []
        self._forwards: list[Callable[[Tensor], Tensor]] = []

    def keep_if_same(self, probe: Callable[[], Sequence[float]]) -> None:
        """Pack nothing, from here on, unless the copies compute what the mounted model does, by its probe."""
        if not self._layers:
            return
        plain = probe()
        with self.in_use():
            packed = probe()
        if max(abs(one - other) for one, other in zip(plain, packed, strict=True)) > ROUNDING:
            self._layers = []

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the model multiplies with the copies. It cannot be trained there."""
        tensors = [tensor for layer in self._layers for tensor in layer.parameters()]
        versions = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if versions != self._versions:
            self._forwards = [_packed(layer) for layer in self._layers]
            self._versions = versions
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward


def _layers(model: Any) -> list[Any]:
    """The linear layers that can be packed, those with an adapter as a whole; none where there is nothing to gain."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return []
    adapted = [module for module in model.modules() if type(module) is LoraLinear and _is_plain(module)]
    within = {id(inner) for module in adapted for inner in module.modules()}
    plain = [module for module in model.modules() if type(module) is Linear and id(module) not in within]
    found = [one for one in adapted + plain if _is_worth_it(_base(one)) and "forward" not in vars(one)]
    return found if sum(_base(one).weight.numel() for one in found) <= MAX_WEIGHTS else []


def _base(layer: Any) -> Any:
    return layer.get_base_layer() if isinstance(layer, LoraLinear) else layer


def _is_worth_it(layer: Any) -> bool:
    weight = layer.weight
    return (
        type(layer) is Linear
        and weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and min(weight.shape) >= MIN_SIDE
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


def _is_plain(module: Any) -> bool:
    """Whether what the adapters do is the addition of a product to the weight."""
    return (
        not module.training
        and not module.merged
        and not module.disable_adapters
        and not module.lora_variant
        and not any(module.lora_bias.values())
    )


def _packed(layer: Any) -> Callable[[Tensor], Tensor]:
    base = _base(layer)
    weight = base.weight.detach()
    if isinstance(layer, LoraLinear):
        deltas = [layer.get_delta_weight(name).detach() for name in layer.active_adapters if name in layer.lora_A]
        weight = sum(deltas, weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    bias = None if base.bias is None else base.bias.detach()

    def forward(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
        return output

    return forward
