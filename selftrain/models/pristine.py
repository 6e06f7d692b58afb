"""The base model as it was when it was loaded, and the way back to it.

Training leaves traces on a base model: adapter layers in place of linear ones, hooks, a `forward` that TRL wraps once
more per trainer, `use_cache=False`, stop ids that transformers aligns with the tokenizer. The snapshot undoes them
whoever left them: structure, attributes and configs are put back from what was recorded.
"""

from __future__ import annotations

import copy
from typing import Any


class Pristine:
    """A snapshot of everything but the tensors' values, which training an adapter does not change."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._attributes = set(vars(model))
        self._children = [(module, dict(module.named_children())) for module in model.modules()]
        self._parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._embeddings = model.get_input_embeddings()
        self._hooks = dict(self._embeddings._forward_hooks)
        self._config = model.config, _copied(vars(model.config))
        self._generation = model.generation_config, _copied(vars(model.generation_config))

    def restore(self) -> None:
        """Bring the model back to the snapshot, in eval mode and without gradients."""
        # PEFT and TRL each hook the embeddings so that gradients reach the adapters; transformers forgets the first.
        self._embeddings._forward_hooks.clear()
        self._embeddings._forward_hooks.update(self._hooks)
        for module, children in self._children:
            for name, child in children.items():
                if getattr(module, name) is not child:
                    setattr(module, name, child)
        if self._model.is_activation_checkpointing:
            self._model.activation_checkpointing_disable()
        for name in set(vars(self._model)) - self._attributes:
            delattr(self._model, name)
        for parameter, requires_grad in self._parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
        self._model.config, self._model.generation_config = self._config[0], self._generation[0]
        for config, values in (self._config, self._generation):
            vars(config).clear()
            vars(config).update(_copied(values))
        self._model.eval()


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    # One level: nested config objects are shared with submodules and must stay the same objects.
    return {key: copy.copy(value) if isinstance(value, list | dict) else value for key, value in values.items()}
