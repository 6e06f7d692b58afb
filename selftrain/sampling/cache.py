"""The key-value cache of a block, with room for the tokens to come and for rows that part.

transformers' dynamic cache copies all of its keys and values at every step, and again when rows leave; this one copies
all of them only when its columns are used up, and else the rows that move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values (rows, heads, columns, size) as views into buffers with room for `capacity` rows."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._room = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add columns on the right; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        rows, added = key_states.shape[0], key_states.shape[-2]
        if self._room < added:
            self._widen(added)
        used = self.keys.shape[-2]
        self._key_buffer[:rows, :, used : used + added] = key_states
        self._value_buffer[:rows, :, used : used + added] = value_states
        self._room -= added
        self._show(rows, used + added)
        return self.keys, self.values

    def move(self, sources: Tensor, targets: Tensor, rows: int) -> None:
        """Copy rows `sources` to `targets`, none of which is a source; `rows` rows stay, from the first on."""
        used = self.keys.shape[-2]
        if len(sources):
            for buffer, filled in ((self._key_buffer, self.keys), (self._value_buffer, self.values)):
                buffer[:, :, :used].index_copy_(0, targets, filled.index_select(0, sources))
        self._show(rows, used)

    def copied(self, rows: int, capacity: int) -> RoomyLayer:
        """A layer of its own with the only row of this one `rows` times."""
        copy = RoomyLayer(capacity)
        copy.lazy_initialization(self.keys, self.values)
        copy.keys, copy.values = (one.expand(rows, -1, -1, -1) for one in (self.keys, self.values))
        return copy

    def _show(self, rows: int, columns: int) -> None:
        self.keys, self.values = self._key_buffer[:rows, :, :columns], self._value_buffer[:rows, :, :columns]

    def _widen(self, added: int) -> None:
        rows, heads, used, size = self.keys.shape
        self._room = added + ROOM
        self._key_buffer = self.keys.new_empty(self._capacity, heads, used + self._room, size)
        self._value_buffer = self.values.new_empty(self._capacity, heads, used + self._room, self.values.shape[-1])
        self._key_buffer[:rows, :, :used] = self.keys
        self._value_buffer[:rows, :, :used] = self.values


def empty_cache(config: Any, *, attends_to_all: bool, capacity: int) -> Cache:
    """A cache for a model with this (text) config; roomy layers are for models whose every layer attends to all."""
    if attends_to_all:
        return Cache(layers=[RoomyLayer(capacity) for _ in range(config.num_hidden_layers)])
    return DynamicCache(config=config)


def copied(cache: Cache, rows: int, capacity: int) -> Cache:
    """A new cache with the only row of this one `rows` times; this one stays as it is."""
    return Cache(layers=[layer.copied(rows, capacity) for layer in cache.layers])


def arrange(cache: Cache, sources: Sequence[int], device: torch.device) -> None:
    """Make row i what row `sources[i]` was. A row that others are made from must stay where it is, or leave."""
    moved = [row for row, source in enumerate(sources) if row != source]
    targets = torch.tensor(moved, dtype=torch.long, device=device)
    origins = torch.tensor([sources[row] for row in moved], dtype=torch.long, device=device)
    every = torch.tensor(sources, device=device)
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.move(origins, targets, len(sources))
        else:
            layer.batch_select_indices(every)
