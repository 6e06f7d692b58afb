"""Other models as generators: one beside the policy, and an ensemble of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftrain.config import SampleConfig, ThinkingConfig
from selftrain.errors import ConfigError
from selftrain.models import Bench
from selftrain.records import Block, Candidate, Digest, FinishReason, Policy, Prompt, digest
from selftrain.sampling import Generator, Sampler
from selftrain.sampling.texts import Texts
from selftrain.sampling.transformers_engine import TransformersSampler


@dataclass(frozen=True, slots=True)
class Told:
    """What another model wrote, reasoning included."""

    text: str
    finish_reason: FinishReason
    metadata: dict[str, Any]


class OtherModel:
    """Candidates of a model of its own, with a bench of its own.

    Where it has the policy's tokenizer, template and stop tokens, they are as it sampled them; otherwise their texts
    are encoded as the policy would have written them, and have no log-probabilities. `policy_bench` is None where the
    policy is no loaded model.
    """

    def __init__(
        self,
        config: SampleConfig,
        bench: Bench,
        texts: Texts,
        policy_bench: Bench | None,
        who: Digest,
        thinking: ThinkingConfig | None,
    ) -> None:
        self._who, self._bench, self._texts = who, bench, texts
        self._is_alike = policy_bench is not None and tokens_digest(bench) == tokens_digest(policy_bench)
        own = config.model_copy(update={"engine": "transformers", "params": {}, "policy": None})
        # What is encoded anew keeps its reasoning until it is.
        tags = thinking if self._is_alike else None
        self._sampler = TransformersSampler(own, lambda: bench, Path(), tags)

    @property
    def context_length(self) -> int:
        """Of that model."""
        return self._sampler.context_length

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as that model is asked."""
        return self._sampler.render(prompt)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """All candidates of the block, by that model. PhaseError as the engine raises it."""
        policy = Policy(self._bench.config.path, None, block.policy.round, self._who)
        sampled = self._sampler.sample(replace(block, policy=policy))
        if self._is_alike:
            return sampled
        found: list[Candidate] = []
        for position, prompt in enumerate(block.prompts):
            told = [Told(one.text, one.finish_reason, {}) for one in sampled if one.prompt_id == prompt.id]
            found += self._texts.candidates(block, position, told, self._who)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Member:
    """One of an ensemble: its name in the recipe, what samples, and the policy that it mounts (None: the current)."""

    name: str
    sampler: Generator
    policy: Policy | None


class Ensemble:
    """Candidate `i` of a prompt is written by member `i` modulo their number (Yuan et al. 2023, arXiv 2308.01825:
    the right answers of several models are more diverse than as many of one, and teach more).

    The candidates of a block are drawn member by member, so that each is mounted once a block. `metadata` says who
    wrote a candidate.
    """

    def __init__(self, members: Sequence[Member], policy: Sampler) -> None:
        self._members, self._policy = tuple(members), policy

    @property
    def context_length(self) -> int | None:
        """The shortest."""
        lengths = [one.sampler.context_length for one in self._members]
        return min((length for length in lengths if length is not None), default=None)

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as the policy is asked."""
        return self._policy.render(prompt)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """All candidates of the block, in the order of prompts and index."""
        found: dict[str, Candidate] = {}
        for number, member in enumerate(self._members):
            share = range(number, block.num_candidates, len(self._members))
            if share:
                found |= {one.id: one for one in self._share(block, member, share)}
        return tuple(found[name] for names in block.candidate_ids for name in names)

    def _share(self, block: Block, member: Member, share: range) -> list[Candidate]:
        is_own = member.policy is not None or member.sampler is self._policy
        part = replace(
            block,
            prompt_token_ids=block.prompt_token_ids if is_own else tuple(map(member.sampler.render, block.prompts)),
            shared_prefix_length=block.shared_prefix_length if is_own else 0,
            num_candidates=len(share),
            seeds=tuple(tuple(seeds[index] for index in share) for seeds in block.seeds),
            candidate_ids=tuple(tuple(names[index] for index in share) for names in block.candidate_ids),
            policy=member.policy or block.policy,
        )
        try:
            sampled = member.sampler.sample(part)
        except ConfigError as error:
            raise ConfigError(f"sample.policy.checkpoints: {member.name}: {error}") from error
        told = {"checkpoint": member.name}
        return [replace(one, index=share[one.index], metadata={**one.metadata, **told}) for one in sampled]


def tokens_digest(bench: Bench) -> str:
    """Of what decides how texts become ids and where they end: vocabulary, template and its variables, stop tokens."""
    tokenizer = bench.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return digest(
        [
            sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str(),
            sorted(special.items()),
            tokenizer.chat_template,
            bench.config.chat_template_kwargs,
            sorted(bench.stop_token_ids),
        ]
    )
