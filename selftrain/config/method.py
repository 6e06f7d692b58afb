"""Knobs of the method: how a round samples, scores, selects and trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selftrain.config.knobs import GUARD, PerRound, Section
from selftrain.records import FINISH_REASONS, FinishReason


class SampleConfig(Section):
    """How candidates are drawn from the policy."""

    engine: str = "transformers"
    """`transformers` (built in), or `scripted` (answers from a function; no model: for tests)."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of an engine that takes any (`scripted`: {function: file.py:function})."""
    num_candidates: PerRound[Annotated[int, Field(ge=1, le=100_000)]] = 8
    """Candidates per prompt."""
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


class ScorerConfig(Section):
    """One scorer of the list."""

    name: str
    """exact, normalised, numeric, regex, or `file.py:function`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the scorer."""
    weight: float = Field(default=1.0, gt=0)
    """Share in the candidate's value, which is the weighted mean over scorers."""


def as_scorer(value: Any) -> Any:
    """A bare name is short for a scorer without parameters."""
    return {"name": value} if isinstance(value, str) else value


class ScoreConfig(Section):
    """How a candidate's answer is judged."""

    scorers: tuple[Annotated[ScorerConfig, BeforeValidator(as_scorer)], ...] = Field(min_length=1)
    """One or more; a candidate's value is their weighted mean."""
    correct_at: float = 1.0
    """A candidate is correct when its value is at least this."""
    timeout_seconds: float = Field(default=10.0, gt=0)
    """Per candidate, for scorers from a file; over it the candidate is unscored."""
    max_unscored_rate: float = Field(default=0.05, ge=0, le=1, json_schema_extra=GUARD)
    """The phase fails when a larger share of its candidates could not be scored."""


class SelectConfig(Section):
    """Which candidates become training examples."""

    buffer: Literal["replace", "append"] = "replace"
    """Train on this round's survivors, or on those of all rounds so far."""
    rule: Literal["threshold", "best_of_n", "top_k", "all", "random"] = "threshold"
    """By value: all from `threshold` up, each prompt's best or `top_k` best; or all, or `count` at random."""
    threshold: PerRound[float] = 1.0
    """Rule `threshold`: keep values of at least this."""
    top_k: PerRound[Annotated[int, Field(ge=1)]] = 1
    """Rule `top_k`: the K best values of each prompt."""
    count: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """Rule `random`: how many in all."""
    finish_reasons: tuple[FinishReason, ...] = ("stop_token", "stop_string")
    """Candidates that ended otherwise leave: without `length`, truncated candidates never survive."""
    min_completion_tokens: int = Field(default=1, ge=0)
    """Shorter candidates leave; the stop token counts."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longer candidates leave."""
    dedup: Literal["none", "exact", "normalised"] = "exact"
    """Among the candidates of a prompt: equal token text, or equal but for case and white space."""
    max_per_prompt: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """The best values first; ties by candidate index."""
    min_survivors: int = Field(default=0, ge=0, json_schema_extra=GUARD)
    """Fewer is an error. With 0, a round without survivors skips training, keeps the policy and goes on."""

    @model_validator(mode="after")
    def _rule_has_what_it_needs(self) -> SelectConfig:
        if self.rule == "random" and self.count is None:
            raise ValueError("rule: random needs count, the number of survivors to draw")
        if not self.finish_reasons:
            raise ValueError(f"finish_reasons is empty, so nothing could survive; name some of {FINISH_REASONS}")
        return self


class TrainConfig(Section):
    """Fine-tuning on the survivors: LoRA SFT through TRL's SFTTrainer."""

    trainer: str = "sft"
    """`sft`, or `scripted` (writes a tiny adapter folder without a model: for tests)."""
    init_from: PerRound[Literal["base", "previous", "best"]] = "base"
    """A new adapter on the base model, the previous round's adapter, or the best validated one so far."""
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
    """Any field of peft.LoraConfig. Ours by default: r 16, lora_alpha 32, target_modules all-linear."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """Any other field of trl.SFTConfig: warmup_steps, lr_scheduler_type, weight_decay, optim, ..."""

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> TrainConfig:
        sizes = self.micro_batch_size if isinstance(self.micro_batch_size, tuple) else (self.micro_batch_size,)
        for size in sizes:
            if size is not None and self.batch_size % size:
                raise ValueError(f"micro_batch_size {size} does not divide batch_size {self.batch_size}")
        return self
