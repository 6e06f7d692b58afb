"""Models that a run lends to its scorers: loaded when first asked, answering greedily by our own sampling engine."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import sampling
from selftrain.config import ModelConfig, SampleConfig
from selftrain.errors import Interrupted, PhaseError
from selftrain.planning import Draw, blocks
from selftrain.records import Candidate, Message, Policy, Prompt, SamplingParameters, digest
from selftrain.scoring import Answered, Means

if TYPE_CHECKING:
    from selftrain.models import Bench

CONVERSATIONS_AT_A_TIME = 16


@dataclass(slots=True)
class _Loaded:
    bench: Bench
    sampler: sampling.Sampler


class Lender:
    """Answers conversations with models on this machine: `scoring.Generate`. Several threads may ask; they take turns.

    `config` is the run's model, for device, dtype and attention; a lent model is named as `model.path` is.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._lock = threading.RLock()
        self._loaded: dict[str, _Loaded] = {}

    def __call__(
        self,
        model: str,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Answered]:
        """One answer per conversation, in order. Those of one call are answered in batches of like length, which depend
        on them alone. A conversation that leaves no room for an answer has an empty one, that is not whole. Raises
        Interrupted where `should_stop()`, which is asked before each batch, says so."""
        with self._lock:
            lent = self._lent(model)
            prompts = [_as_prompt(one, lent.bench) for one in conversations]
            lengths = [len(lent.sampler.render(one)) for one in prompts]
            context = lent.sampler.context_length
            found = {
                index: Answered("", False, length, 0, context)
                for index, length in enumerate(lengths)
                if context is not None and length >= context
            }
            open_still = sorted(set(range(len(prompts))) - set(found), key=lambda index: (lengths[index], index))
            for start in range(0, len(open_still), CONVERSATIONS_AT_A_TIME):
                if should_stop is not None and should_stop():
                    raise Interrupted("the scorer is closed")
                batch = open_still[start : start + CONVERSATIONS_AT_A_TIME]
                candidates = _drawn(lent, [prompts[index] for index in batch], max_new_tokens)
                for index, one in zip(batch, candidates, strict=True):
                    is_whole, said = one.finish_reason != "length", len(one.completion_token_ids)
                    full = None if is_whole or said == max_new_tokens else context
                    found[index] = Answered(one.text, is_whole, lengths[index], said, full)
            return [found[index] for index in range(len(prompts))]

    def special_tokens(self, model: str) -> tuple[str, ...]:
        """The control tokens of the model's tokenizer, longest first. The weights are not loaded."""
        with self._lock:
            tokenizer = self._lent(model).bench.tokenizer
            added = tokenizer.added_tokens_decoder.values()
            found = {*tokenizer.all_special_tokens, *(str(one.content) for one in added if one.special)}
            return tuple(sorted(found, key=lambda one: (-len(one), one)))

    def release(self) -> None:
        """Free the memory of all lent models; they are loaded again when asked."""
        with self._lock:
            self._loaded.clear()
        gc.collect()

    def _lent(self, model: str) -> _Loaded:
        if model not in self._loaded:
            from selftrain.models import Bench

            update = {"path": model, "revision": None, "adapter": None, "quantization": None, "thinking": None}
            bench = Bench(
                self._config.model_copy(update={**update, "chat_template_kwargs": {}}),
                where="score.scorers: llm_judge: params.model",
            )
            self._loaded[model] = _Loaded(bench, sampling.build(SampleConfig(), lambda: bench, Path()))
        return self._loaded[model]


def means_of(config: ModelConfig, lender: Lender) -> Means:
    """What a run with that model lends its scorers."""
    return Means(device=config.device, dtype=config.dtype, generate=lender)


def _as_prompt(conversation: Sequence[Message], bench: Bench) -> Prompt:
    """By the chat template; a model without one is asked in plain text."""
    name = digest([[one.role, one.content] for one in conversation])
    if bench.tokenizer.chat_template is not None:
        return Prompt(name, name, tuple(conversation), None)
    return Prompt(name, name, None, "\n\n".join(one.content for one in conversation) + "\n\n")


def _drawn(lent: _Loaded, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Candidate]:
    """One greedy answer per prompt; in smaller batches where memory is short."""
    draw = Draw(
        stream="lent",
        prompts=tuple(prompts),
        num_candidates=1,
        parameters=SamplingParameters(0.0, 1.0, 0, 0.0, max_new_tokens),
        block_size=len(prompts),
        policy=Policy(lent.bench.config.path, None, 0, lent.bench.digest),
    )
    (block,) = blocks(draw, seed=0, render=lent.sampler.render, context=None)
    try:
        return list(lent.sampler.sample(block))
    except PhaseError as error:
        import torch

        if len(prompts) == 1 or not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
    half = len(prompts) // 2
    return [*_drawn(lent, prompts[:half], max_new_tokens), *_drawn(lent, prompts[half:], max_new_tokens)]
