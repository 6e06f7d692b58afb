"""Knobs of the method: how a round samples and trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selftrain.config.generator import GeneratorConfig
from selftrain.config.knobs import GUARD, PerRound, Section


class SampleConfig(Section):
    """How candidates are drawn from the policy."""

    engine: str = "transformers"
    """`transformers` (built in), or `scripted` (answers from a function; no model: for tests)."""
    policy: GeneratorConfig | None = None
    """Who writes the candidates. Null: the current policy. Others: {model: ...}, {endpoint: {url, model}},
    {checkpoints: [...]}, {file: candidates.parquet}. Held-out prompts are always answered by the policy."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of an engine that takes any (`scripted`: {function: file.py:function})."""
    num_candidates: PerRound[Literal["all"] | Annotated[int, Field(ge=1, le=100_000)]] = 8
    """Candidates per prompt. With `policy.file`: at most so many, the first ones; `all`, which is then the default,
    takes as many as there are."""
    temperature: PerRound[Annotated[float, Field(ge=0)]] = 1.0
    """0 is greedy."""
    top_p: PerRound[Annotated[float, Field(gt=0, le=1)]] = 1.0
    """Nucleus sampling; 1 keeps the whole vocabulary."""
    top_k: PerRound[Annotated[int, Field(ge=0)]] = 0
    """0 keeps the whole vocabulary."""
    min_p: PerRound[Annotated[float, Field(ge=0, le=1)]] = 0.0
    """Drop tokens less likely than this share of the likeliest one's probability."""
    max_new_tokens: PerRound[Annotated[int, Field(ge=1)]] = 512
    """Longer answers are cut, and cut answers do not survive unless `select.finish_reasons` says so."""
    stop_strings: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """A candidate ends when its text contains one of these; scored text stops before it."""
    stop_token_ids: tuple[int, ...] = ()
    """More stop tokens than the model's own."""
    block_size: PerRound[Annotated[int, Field(ge=1)]] = 32
    """Prompts per block. Changes results in the last bits, so it is in the fingerprint."""

    @model_validator(mode="before")
    @classmethod
    def _file_decides(cls, data: Any) -> Any:
        policy = data.get("policy") if isinstance(data, Mapping) else None
        has_file = isinstance(policy, Mapping) and policy.get("file") is not None
        return {**data, "num_candidates": "all"} if has_file and "num_candidates" not in data else data

    @model_validator(mode="after")
    def _all_are_there(self) -> SampleConfig:
        asked = self.num_candidates if isinstance(self.num_candidates, tuple) else (self.num_candidates,)
        if "all" in asked and (self.policy is None or self.policy.file is None):
            raise ValueError("num_candidates: all takes what sample.policy.file holds; without one, give a number")
        return self


class TrainConfig(Section):
    """Fine-tuning on the survivors: LoRA SFT through TRL's SFTTrainer."""

    trainer: str = "sft"
    """`sft`, or `scripted` (writes a tiny adapter folder without a model: for tests)."""
    init_from: PerRound[Literal["base", "previous", "best"]] = "base"
    """A new adapter on the base model (with `model.adapter`, a copy of that), the previous round's adapter, or the best
    validated one so far."""
    epochs: PerRound[Annotated[float, Field(gt=0)]] = 1.0
    """Passes over the round's training examples."""
    steps: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """Optimizer steps; replaces epochs."""
    learning_rate: PerRound[Annotated[float, Field(gt=0)]] = 1e-4
    """Peak value; the schedule is `sft.lr_scheduler_type`."""
    batch_size: int = Field(default=16, ge=1)
    """Examples per optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """Examples per forward pass; null: the whole batch of a rank. Must divide `batch_size`."""
    max_length: int | None = Field(default=None, ge=1, json_schema_extra=GUARD)
    """Longer examples are refused (never cut). Null: the model's context."""
    checkpoint_steps: int | None = Field(default=None, ge=1, json_schema_extra=GUARD)
    """Save a full checkpoint every so many steps, so that a killed phase goes on from it."""
    lora: dict[str, Any] = Field(default_factory=dict)
    """Any field of peft.LoraConfig. Ours by default: r 16, lora_alpha 32, target_modules all-linear. With
    `model.adapter` its own shape; what is set here must agree with that."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """Any other field of trl.SFTConfig: warmup_steps, lr_scheduler_type, weight_decay, optim, ..."""

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> TrainConfig:
        sizes = self.micro_batch_size if isinstance(self.micro_batch_size, tuple) else (self.micro_batch_size,)
        for size in sizes:
            if size is not None and self.batch_size % size:
                raise ValueError(f"micro_batch_size {size} does not divide batch_size {self.batch_size}")
        return self
