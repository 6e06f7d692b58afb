"""Sampling: candidates drawn from the current policy, block by block.

- `transformers_engine`  our own decode loop over a transformers model: shared prefix and prompts prefilled once
- `scripted`             answers from a function, no model: for tests of recipes and of the loop
- `race`                 how a token is drawn: an exponential race that rounding does not disturb
- `entropy`              how undecided the policy was
- `cache`                the key-value cache of a block, with rows that part
- `packed`               weights in the layout that a CPU multiplies in
- `stopping`             when a candidate ends, and what its text is
- `thinking`             the reasoning before an answer, cut off
- `written`              completions that were not sampled, as the ids a policy would have left

An engine is a class made from (SampleConfig, a function that gives the bench, the recipe's folder, ThinkingConfig).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from selftrain.config import SampleConfig, ThinkingConfig
from selftrain.errors import ConfigError, DataError
from selftrain.records import Block, Candidate, FinishReason, Prompt

if TYPE_CHECKING:
    from selftrain.models import Bench

SAMPLERS: dict[str, str] = {
    "transformers": "selftrain.sampling.transformers_engine:TransformersSampler",
    "scripted": "selftrain.sampling.scripted:ScriptedSampler",
}


class Sampler(Protocol):
    """Draws candidates. The same block and policy give the same candidates, alone or after others, in any order."""

    @property
    def context_length(self) -> int | None:
        """Longest prompt and completion together, in tokens; None: no limit."""

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as token ids, ready for completion."""

    def encode_completion(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The ids, stop included, that a policy which answers the prompt with this text would have left."""

    def encode_written(
        self, prompt: Prompt, texts: Sequence[tuple[str, FinishReason]]
    ) -> list[tuple[int, ...] | DataError]:
        """The same of many texts that others wrote, each with how it ended: one that ended by `length` has no stop, and
        for one that cannot be encoded there is the reason."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids that stand after others, with the tags of `model.thinking`."""

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """`num_candidates` per prompt, in the order of prompts and, within one, of index."""


class Generator(Protocol):
    """Writes the training candidates: the policy's sampler, or another."""

    @property
    def context_length(self) -> int | None:
        """As a Sampler's."""

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """As a Sampler's."""

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """As a Sampler's."""


@runtime_checkable
class Holding(Generator, Protocol):
    """A generator whose candidates exist already."""

    def num_held(self, prompt: Prompt) -> int:
        """How many candidates of that prompt there are."""


def check(config: SampleConfig) -> None:
    """Raise ConfigError for an engine that does not exist."""
    if config.engine not in SAMPLERS:
        close = difflib.get_close_matches(config.engine, SAMPLERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(SAMPLERS)}"
        raise ConfigError(f"sample.engine: there is no engine {config.engine!r}; {hint}")


def build(
    config: SampleConfig, bench_factory: Callable[[], Bench], plugin_dir: Path, thinking: ThinkingConfig | None = None
) -> Sampler:
    """The engine that `sample.engine` names. `plugin_dir`: where relative plug-in paths start. `thinking`: the bench's,
    for engines that have none."""
    check(config)
    module, _, name = SAMPLERS[config.engine].partition(":")
    sampler: Sampler = getattr(importlib.import_module(module), name)(config, bench_factory, plugin_dir, thinking)
    return sampler
