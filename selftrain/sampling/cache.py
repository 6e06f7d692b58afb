"""The key-value cache of a block, with room for the tokens to come.

transformers' dynamic cache copies all of its keys and values at every step; this one only when its room is used up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values (rows, heads, columns, size) as views into buffers with more columns."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add columns on the right; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
            self._room = 0
        added = key_states.shape[-2]
        if self._room < added:
            self._widen(added)
        used = self.keys.shape[-2]
        self._key_buffer[..., used : used + added, :] = key_states
        self._value_buffer[..., used : used + added, :] = value_states
        self.keys = self._key_buffer[..., : used + added, :]
        self.values = self._value_buffer[..., : used + added, :]
        self._room -= added
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times, side by side."""
        self.keys, self.values = (one.repeat_interleave(repeats, dim=0) for one in (self.keys, self.values))
        self._room = 0

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows, in this order."""
        self.keys, self.values = self.keys[indices], self.values[indices]
        self._room = 0

    def copied(self, rows: int) -> RoomyLayer:
        """A layer of its own with the only row of this one `rows` times."""
        copy = RoomyLayer()
        copy.lazy_initialization(self.keys, self.values)
        copy.keys, copy.values = (one.expand(rows, -1, -1, -1) for one in (self.keys, self.values))
        copy._room = 0
        return copy

    def _widen(self, added: int) -> None:
        rows, heads, used, size = self.keys.shape
        self._room = added + ROOM
        self._key_buffer = self.keys.new_empty(rows, heads, used + self._room, size)
        self._value_buffer = self.values.new_empty(rows, heads, used + self._room, self.values.shape[-1])
        self._key_buffer[..., :used, :] = self.keys
        self._value_buffer[..., :used, :] = self.values


def empty_cache(config: Any, *, attends_to_all: bool) -> Cache:
    """A cache for a model with this (text) config; roomy layers are for models whose every layer attends to all."""
    if attends_to_all:
        return Cache(layers=[RoomyLayer() for _ in range(config.num_hidden_layers)])
    return DynamicCache(config=config)


def copied(cache: Cache, rows: int) -> Cache:
    """A new cache with the only row of this one `rows` times; this one stays as it is."""
    return Cache(layers=[layer.copied(rows) for layer in cache.layers])


def keep_rows(cache: Cache, rows: list[int], device: torch.device) -> None:
    """Drop all other rows."""
    cache.batch_select_indices(torch.tensor(rows, device=device))
