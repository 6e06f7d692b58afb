"""Turns between threads that load models and threads that compute with them.

`from_pretrained` is not for threads: while it runs, transformers replaces `PreTrainedModel.tie_weights` and torch's
initialisers, and sets torch's default dtype, for all of the process. A second load meanwhile finds tied weights missing
or leaves tying switched off for good, and tensors made meanwhile may get the other model's dtype.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_CHANGED = threading.Condition()
_COMPUTING: Counter[int] = Counter()
_LOADER: list[int] = []
_WAITING: list[int] = []


@contextmanager
def loading() -> Iterator[None]:
    """Within, no other thread loads or computes. Waits for those that do; may be nested. RuntimeError inside of
    `computing`: two threads that wait for each other's computing to end would wait for ever."""
    me = threading.get_ident()
    with _CHANGED:
        if me not in _LOADER:
            if _COMPUTING[me]:
                raise RuntimeError("a model is to be loaded while this thread computes with another")
            _WAITING.append(me)
            try:
                _CHANGED.wait_for(lambda: not _LOADER and not _COMPUTING.total())
            finally:
                _WAITING.remove(me)
        _LOADER.append(me)
    try:
        yield
    finally:
        with _CHANGED:
            _LOADER.pop()
            _CHANGED.notify_all()


@contextmanager
def computing() -> Iterator[None]:
    """Within, no other thread loads. Waits for those that do, or wait to; may be nested, also in `loading`. No lock
    that a loading thread may hold is to be taken within."""
    me = threading.get_ident()
    with _CHANGED:
        if me not in _LOADER and not _COMPUTING[me]:
            _CHANGED.wait_for(lambda: not _LOADER and not _WAITING)
        _COMPUTING[me] += 1
    try:
        yield
    finally:
        with _CHANGED:
            _COMPUTING[me] -= 1
            if not _COMPUTING[me]:
                del _COMPUTING[me]
            _CHANGED.notify_all()
