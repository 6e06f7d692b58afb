"""The transformers engine: a decode loop of our own over a transformers model.

What all prompts begin with is prefilled once per policy, each prompt's rest once per block, and only then are rows
multiplied by the number of candidates; ended rows leave the batch. The batch is formed from the block alone and each
candidate draws with noise of its own, so a block gives the same candidates bit by bit wherever and whenever it runs.
The model's own generation config is never consulted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.config import SampleConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.models import Bench, check_probe
from selftrain.records import Block, Candidate, Policy, Prompt
from selftrain.sampling.cache import copied, empty_cache, keep_rows
from selftrain.sampling.entropy import normalisers_and_entropies
from selftrain.sampling.race import draw, seed_tensor
from selftrain.sampling.stopping import Completion, StopRule
from selftrain.sampling.written import encode_completion

# Ended rows are dropped when they are this share of the batch: dropping copies the cache, keeping computes in vain.
ENDED_SHARE = 0.25


@dataclass(slots=True)
class _Batch:
    """The rows that are being decoded. Row r continues `completions[r]`; `column_mask` is None without padding."""

    completions: list[Completion]
    seeds: Tensor
    lengths: Tensor
    cache: Any
    column_mask: Tensor | None
    logits: Tensor


class TransformersSampler:
    """Draws candidates from the bench's model with the block's policy mounted."""

    def __init__(self, config: SampleConfig, bench_factory: Callable[[], Bench], plugin_dir: Path) -> None:
        if config.params:
            raise ConfigError(f"sample.params: the transformers engine takes none (got {config.params!r}); remove them")
        self._config = config
        self._bench = bench_factory()
        self._model: Any = None
        self._prefix: tuple[str, tuple[int, ...], Any] | None = None

    @property
    def context_length(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self._bench.context_length

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as token ids: by the chat template, or as plain text."""
        return self._bench.render(prompt)

    def encode_completion(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The completion as token ids, stop included. DataError: the policy would stop before the text's end."""
        return encode_completion(self._bench, self._stop_rule(self._config.stop_strings), prompt, text)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """All candidates of the block. PhaseError: NaN, not enough memory, or not the policy's adapter."""
        self._mount(block.policy)
        rule = self._stop_rule(block.parameters.stop_strings)
        try:
            with torch.inference_mode():
                completions = self._decode(block, rule)
        except torch.OutOfMemoryError as error:
            self._prefix = None
            raise PhaseError(
                f"block {block.index} ({len(block.prompts)} prompts x {block.num_candidates} candidates) does not fit "
                "into the accelerator's memory; lower sample.block_size (evaluate.block_size in an evaluation; a list "
                "changes the former from this round on) or the number of candidates"
            ) from error
        return tuple(_candidates(block, completions))

    def _mount(self, policy: Policy) -> None:
        model = self._bench.mount(policy)
        if model is not self._model:
            check_probe(model, policy, self._bench)
            self._model, self._prefix = model, None

    def _stop_rule(self, stop_strings: tuple[str, ...]) -> StopRule:
        special = self._bench.tokenizer.added_tokens_decoder.items()
        return StopRule(
            decode=self._bench.decode,
            stop_token_ids=frozenset(self._bench.stop_token_ids) | frozenset(self._config.stop_token_ids),
            stop_strings=stop_strings,
            hidden_token_ids=frozenset(number for number, token in special if token.special),
        )

    def _decode(self, block: Block, rule: StopRule) -> list[list[Completion]]:
        """Completions by prompt and index."""
        # Greedy candidates of a prompt are all the same one.
        rows_per_prompt = block.num_candidates if block.parameters.temperature else 1
        batch = self._prefill(block, rows_per_prompt)
        completions = list(batch.completions)
        step = 0
        while True:
            tokens = self._draw(batch, step, block, rule)
            going = [row for row, one in enumerate(batch.completions) if one.finish_reason is None]
            if not going:
                break
            if len(going) <= (1 - ENDED_SHARE) * len(batch.completions):
                tokens = tokens[torch.tensor(going, device=tokens.device)]
                self._drop(batch, going)
            self._forward(batch, tokens, step)
            step += 1
        grouped = [completions[at : at + rows_per_prompt] for at in range(0, len(completions), rows_per_prompt)]
        return [group * (block.num_candidates // rows_per_prompt) for group in grouped]

    def _draw(self, batch: _Batch, step: int, block: Block, rule: StopRule) -> Tensor:
        """Draw a token for every row and hand it to the rows that are not ended yet."""
        tokens = draw(batch.logits, batch.seeds, step, block.parameters)
        normalisers, entropies = normalisers_and_entropies(batch.logits)
        logprobs = batch.logits.gather(-1, tokens[:, None])[:, 0] - normalisers
        # One transfer, hence one wait for the accelerator, per step; float64 holds all three exactly.
        drawn = torch.stack([tokens.double(), logprobs.double(), entropies.double()], dim=1).tolist()
        for completion, (token, logprob, entropy) in zip(batch.completions, drawn, strict=True):
            if completion.finish_reason is not None:
                continue
            if not math.isfinite(logprob):
                raise PhaseError(
                    f"policy {block.policy.digest[:12]} of round {block.policy.round} gives NaN or infinite logits at "
                    f"step {step} of block {block.index}; try model.dtype: float32, or a lower learning rate"
                )
            completion.add(int(token), logprob, entropy, rule)
        return tokens

    def _forward(self, batch: _Batch, tokens: Tensor, step: int) -> None:
        # Ended rows that are still there must not run past a table of positions.
        positions = (batch.lengths + step).clamp(max=self.context_length - 1)
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=_widened(batch, step + 1),
            position_ids=positions[:, None],
            past_key_values=batch.cache,
            use_cache=True,
        )
        batch.logits = output.logits[:, -1].float()

    def _drop(self, batch: _Batch, going: list[int]) -> None:
        index = torch.tensor(going, device=batch.seeds.device)
        keep_rows(batch.cache, going, batch.seeds.device)
        batch.completions = [batch.completions[row] for row in going]
        batch.seeds, batch.lengths = batch.seeds[index], batch.lengths[index]
        if batch.column_mask is not None:
            batch.column_mask = batch.column_mask[index]

    def _prefill(self, block: Block, rows_per_prompt: int) -> _Batch:
        """The batch before its first draw: each prompt computed once, its row then repeated."""
        device = self._bench.device
        lengths = [len(ids) for ids in block.prompt_token_ids]
        limits = [self._limit(block, position) for position in range(len(lengths))]
        shared = min(block.shared_prefix_length, min(lengths) - 1) if self._bench.attends_to_all else 0
        ids, positions, mask = _padded(block.prompt_token_ids, shared)
        output = self._model(
            input_ids=ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            position_ids=positions.to(device),
            past_key_values=(cache := self._prefix_cache(block, shared)),
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(rows_per_prompt)
        return _Batch(
            completions=[Completion(limit) for limit in limits for _ in range(rows_per_prompt)],
            seeds=seed_tensor([seed for seeds in block.seeds for seed in seeds[:rows_per_prompt]], device),
            lengths=torch.tensor(lengths, device=device).repeat_interleave(rows_per_prompt),
            cache=cache,
            column_mask=None if mask is None else mask.to(device).repeat_interleave(rows_per_prompt, dim=0),
            logits=output.logits[:, -1].float().repeat_interleave(rows_per_prompt, dim=0),
        )

    def _limit(self, block: Block, position: int) -> int:
        length = len(block.prompt_token_ids[position])
        room = self.context_length - length
        if not length or room < 1:
            raise DataError(
                f"prompt {block.prompts[position].id} has {length} tokens, which leaves no room for an answer in the "
                f"model's {self.context_length}; remove it, or shorten it"
            )
        return min(block.parameters.max_new_tokens, room)

    def _prefix_cache(self, block: Block, shared: int) -> Any:
        """A cache with one row per prompt that holds the first `shared` tokens."""
        if not shared:
            return self._empty_cache()
        prefix = block.prompt_token_ids[0][:shared]
        if self._prefix is None or self._prefix[:2] != (block.policy.digest, prefix):
            cache = self._empty_cache()
            ids = torch.tensor([prefix], device=self._bench.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._prefix = block.policy.digest, prefix, cache
        return copied(self._prefix[2], len(block.prompts))

    def _empty_cache(self) -> Any:
        return empty_cache(self._model.config.get_text_config(), attends_to_all=self._bench.attends_to_all)


def _padded(prompts: tuple[tuple[int, ...], ...], shared: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids and positions (prompts, longest suffix), padded on the left, and the mask of columns (prefix included).

    The mask is None where nothing is padded: attention without a mask is faster.
    """
    suffixes = [ids[shared:] for ids in prompts]
    longest = max(map(len, suffixes))
    pads = [longest - len(suffix) for suffix in suffixes]
    ids = torch.tensor([[0] * pad + list(suffix) for pad, suffix in zip(pads, suffixes, strict=True)])
    columns = torch.arange(longest)
    offsets = torch.tensor(pads)[:, None]
    positions = shared + (columns - offsets).clamp(min=0)
    if not any(pads):
        return ids, positions, None
    mask = torch.cat([torch.ones(len(pads), shared, dtype=torch.bool), columns >= offsets], dim=1)
    return ids, positions, mask.long()


def _widened(batch: _Batch, added: int) -> Tensor | None:
    """The mask of columns after `added` steps: what is sampled is never masked."""
    if batch.column_mask is None:
        return None
    return torch.nn.functional.pad(batch.column_mask, (0, added), value=1)


def _candidates(block: Block, completions: list[list[Completion]]) -> Iterator[Candidate]:
    for position, group in enumerate(completions):
        for index, completion in enumerate(group):
            assert completion.finish_reason is not None
            yield Candidate(
                id=block.candidate_ids[position][index],
                prompt_id=block.prompts[position].id,
                index=index,
                wave=block.wave,
                text=completion.text,
                prompt_token_ids=block.prompt_token_ids[position],
                completion_token_ids=tuple(completion.token_ids),
                finish_reason=completion.finish_reason,
                seed=block.seeds[position][index],
                policy_digest=block.policy.digest,
                logprobs=tuple(completion.logprobs),
                entropy=completion.entropy,
            )
