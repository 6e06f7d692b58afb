"""The transformers engine: a decode loop of our own over a transformers model.

What all prompts begin with is prefilled once per policy and each prompt's rest once per block. Candidates of a prompt
share one row until they draw different tokens: then the row is copied; a row without candidates leaves. The batch is
formed from the block alone and each candidate draws with noise of its own, so a block gives the same candidates bit by
bit wherever and whenever it runs.
The model's own generation config is never consulted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.config import SampleConfig, ThinkingConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.models import Bench, check_probe, probe_logprobs
from selftrain.models.turns import computing
from selftrain.records import Block, Candidate, FinishReason, Policy, Prompt
from selftrain.sampling.cache import arrange, copied, empty_cache
from selftrain.sampling.entropy import normalisers_and_entropies
from selftrain.sampling.packed import Packed
from selftrain.sampling.race import draw, seed_tensor
from selftrain.sampling.stopping import Completion, StopRule
from selftrain.sampling.thinking import cut
from selftrain.sampling.written import encode_completion, encode_written


@dataclass(slots=True)
class _Batch:
    """What is being decoded. Open completion c is so far what row `rows[c]` holds, and draws with `seeds[c]`.

    `lengths` are the prompts' lengths and `logits` the next token's, by row; `column_mask` is None without padding.
    """

    completions: list[Completion]
    rows: list[int]
    seeds: Tensor
    lengths: Tensor
    cache: Any
    column_mask: Tensor | None
    logits: Tensor


class TransformersSampler:
    """Draws candidates from the bench's model with the block's policy mounted."""

    def __init__(
        self,
        config: SampleConfig,
        bench_factory: Callable[[], Bench],
        plugin_dir: Path,
        thinking: ThinkingConfig | None = None,
    ) -> None:
        if config.params:
            raise ConfigError(f"sample.params: the transformers engine takes none (got {config.params!r}); remove them")
        self._config = config
        self._thinking = thinking
        self._bench = bench_factory()
        self._model: Any = None
        self._packed: Any = None
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

    def encode_written(
        self, prompt: Prompt, texts: Sequence[tuple[str, FinishReason]]
    ) -> list[tuple[int, ...] | DataError]:
        """The completions that others wrote as token ids, or why they have none."""
        return encode_written(self._bench, self._stop_rule(self._config.stop_strings), prompt, texts)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids that stand after others."""
        return self._bench.decode_after(token_ids)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """All candidates of the block. PhaseError: NaN, not enough memory, or not the policy's adapter."""
        model = self._bench.mount(block.policy)
        rule = self._stop_rule(block.parameters.stop_strings)
        try:
            with computing():
                self._take(model, block.policy)
                with torch.inference_mode(), self._packed.in_use():
                    completions = self._decode(block, rule)
        except torch.OutOfMemoryError as error:
            self._prefix = None
            raise PhaseError(
                f"block {block.index} ({len(block.prompts)} prompts x {block.num_candidates} candidates) does not fit "
                "into the accelerator's memory; lower sample.block_size (evaluate.block_size in an evaluation; a list "
                "changes the former from this round on) or the number of candidates"
            ) from error
        return tuple(self._candidates(block, completions))

    def release(self) -> None:
        """Let go of what is kept of the model: copies of its weights, the prefix that was read, the model itself."""
        self._model = self._packed = self._prefix = None

    def _take(self, model: Any, policy: Policy) -> None:
        if model is not self._model:
            check_probe(model, policy, self._bench)
            self._model, self._prefix, self._packed = model, None, Packed(model)
            if policy.adapter is not None:  # its product is added to the copies, which the probe has not seen
                self._packed.keep_if_same(lambda: probe_logprobs(model, self._bench))

    def _stop_rule(self, stop_strings: tuple[str, ...]) -> StopRule:
        return StopRule(
            decode=self._bench.decode_after,
            stop_token_ids=frozenset(self._bench.stop_token_ids) | frozenset(self._config.stop_token_ids),
            stop_strings=stop_strings,
            hidden_token_ids=self._bench.hidden_token_ids,
        )

    def _candidates(self, block: Block, completions: list[list[Completion]]) -> Iterator[Candidate]:
        for position, group in enumerate(completions):
            asked = block.prompt_token_ids[position]
            shown = self._bench.decode(asked) if self._thinking is not None else ""
            for index, one in enumerate(group):
                assert one.finish_reason is not None
                answer = cut(self._thinking, one.text, one.token_ids, after=shown, decode=self._bench.decode_after)
                yield Candidate(
                    id=block.candidate_ids[position][index],
                    prompt_id=block.prompts[position].id,
                    index=index,
                    wave=block.wave,
                    text=answer.text,
                    prompt_token_ids=asked,
                    completion_token_ids=tuple(one.token_ids),
                    finish_reason=one.finish_reason,
                    seed=block.seeds[position][index],
                    policy_digest=block.policy.digest,
                    logprobs=tuple(one.logprobs),
                    entropy=one.entropy,
                    reasoning=answer.reasoning,
                    reasoning_tokens=answer.reasoning_tokens,
                )

    def _decode(self, block: Block, rule: StopRule) -> list[list[Completion]]:
        """Completions by prompt and index."""
        # Greedy candidates of a prompt are all the same one.
        per_prompt = block.num_candidates if block.parameters.temperature else 1
        batch = self._prefill(block, per_prompt)
        completions = batch.completions
        step = 0
        while True:
            tokens = self._draw(batch, step, block, rule)
            if all(one.finish_reason is not None for one in batch.completions):
                break
            self._forward(batch, self._part(batch, tokens), step)
            step += 1
        grouped = [completions[at : at + per_prompt] for at in range(0, len(completions), per_prompt)]
        return [group * (block.num_candidates // per_prompt) for group in grouped]

    def _draw(self, batch: _Batch, step: int, block: Block, rule: StopRule) -> list[int]:
        """Draw a token for every open completion and hand it over."""
        rows = torch.tensor(batch.rows, device=batch.logits.device)
        tokens = draw(batch.logits, batch.seeds, step, block.parameters, rows)
        normalisers, entropies = normalisers_and_entropies(batch.logits)
        logprobs = batch.logits[rows, tokens] - normalisers[rows]
        # One transfer, hence one wait for the accelerator, per step; float64 holds all three exactly.
        drawn = torch.stack([tokens.double(), logprobs.double(), entropies[rows].double()], dim=1).tolist()
        for completion, (token, logprob, entropy) in zip(batch.completions, drawn, strict=True):
            if not math.isfinite(logprob):
                raise PhaseError(
                    f"policy {block.policy.digest[:12]} of round {block.policy.round} gives NaN or infinite logits at "
                    f"step {step} of block {block.index}; try model.dtype: float32, or a lower learning rate"
                )
            completion.add(int(token), logprob, entropy, rule)
        return [int(token) for token, _, _ in drawn]

    def _part(self, batch: _Batch, tokens: list[int]) -> Tensor:
        """Leave the open completions, a row for those that are alike so far; return what goes into the rows."""
        going = [place for place, one in enumerate(batch.completions) if one.finish_reason is None]
        wanted = [(batch.rows[place], tokens[place]) for place in going]
        branches = placed(wanted)
        slots = {branch: slot for slot, branch in enumerate(branches)}
        sources = [row for row, _ in branches]
        device = batch.seeds.device
        if sources != list(range(len(batch.lengths))):
            arrange(batch.cache, sources, device)
            index = torch.tensor(sources, device=device)
            batch.lengths = batch.lengths[index]
            batch.column_mask = None if batch.column_mask is None else batch.column_mask[index]
        if len(going) < len(batch.completions):
            batch.completions = [batch.completions[place] for place in going]
            batch.seeds = batch.seeds[torch.tensor(going, device=device)]
        batch.rows = [slots[branch] for branch in wanted]
        return torch.tensor([token for _, token in branches], device=device)

    def _forward(self, batch: _Batch, tokens: Tensor, step: int) -> None:
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=_widened(batch, step + 1),
            position_ids=batch.lengths[:, None] + step,
            past_key_values=batch.cache,
            use_cache=True,
        )
        batch.logits = output.logits[:, -1].float()

    def _prefill(self, block: Block, per_prompt: int) -> _Batch:
        """The batch before its first draw: a row for each prompt, which its completions share."""
        device = self._bench.device
        lengths = [len(ids) for ids in block.prompt_token_ids]
        limits = [self._limit(block, position) for position in range(len(lengths))]
        shared = min(block.shared_prefix_length, min(lengths) - 1) if self._bench.attends_to_all else 0
        ids, positions, mask = _padded(block.prompt_token_ids, shared)
        mask = None if mask is None else mask.to(device)
        output = self._model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=positions.to(device),
            past_key_values=(cache := self._prefix_cache(block, shared, per_prompt)),
            use_cache=True,
            logits_to_keep=1,
        )
        return _Batch(
            completions=[Completion(limit) for limit in limits for _ in range(per_prompt)],
            rows=[row for row in range(len(lengths)) for _ in range(per_prompt)],
            seeds=seed_tensor([seed for seeds in block.seeds for seed in seeds[:per_prompt]], device),
            lengths=torch.tensor(lengths, device=device),
            cache=cache,
            column_mask=mask,
            logits=output.logits[:, -1].float(),
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

    def _prefix_cache(self, block: Block, shared: int, per_prompt: int) -> Any:
        """A cache with one row per prompt that holds the first `shared` tokens, and room for all candidates."""
        capacity = len(block.prompts) * per_prompt
        if not shared:
            return self._empty_cache(capacity)
        prefix = block.prompt_token_ids[0][:shared]
        if self._prefix is None or self._prefix[:2] != (block.policy.digest, prefix):
            cache = self._empty_cache(1)
            ids = torch.tensor([prefix], device=self._bench.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._prefix = block.policy.digest, prefix, cache
        return copied(self._prefix[2], len(block.prompts), capacity)

    def _empty_cache(self, capacity: int) -> Any:
        config = self._model.config.get_text_config()
        return empty_cache(config, attends_to_all=self._bench.attends_to_all, capacity=capacity)


def placed(branches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The distinct (row, token) in the order of the rows to come: where one can go on in its row, it stays there.

    So only what parts from a row that goes on, and rows from behind that close a gap, are copied.
    """
    distinct = list(dict.fromkeys(branches))
    order: list[tuple[int, int] | None] = [None] * len(distinct)
    moving = []
    for branch in distinct:
        row = branch[0]
        if row < len(order) and order[row] is None:
            order[row] = branch
        else:
            moving.append(branch)
    coming = iter(moving)
    return [one if one is not None else next(coming) for one in order]


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
