"""Knobs of the trained verifier."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from selftrain.config.knobs import GUARD, Section, fingerprinted
from selftrain.config.measures import RoundNames


class VerifierConfig(Section):
    """A model that learns from right and wrong candidates of all rounds which answers to trust (V-STaR, Hosseini et
    al. 2024, arXiv 2402.06457): a LoRA trained by DPO on pairs, used at evaluation alone, to choose among the sampled
    answers of `evaluate.sampled_rounds`. It starts at the policy of round 0, which stays its reference."""

    rounds: RoundNames = ("last",)
    """After which rounds one is trained, on main's candidates of all rounds so far: all, or a list of numbers from 1 on
    and `last`. Enters no fingerprint."""
    pairs_per_prompt: int = Field(default=16, ge=1)
    """At most so many pairs of a right and a wrong candidate of each prompt, drawn by the seed."""
    beta: float = Field(default=0.1, gt=0)
    """Of DPO: how far it may go from its reference."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak value; the schedule is `dpo.lr_scheduler_type`."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per optimizer step, over all ranks and accumulation steps."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Pairs, of two sequences each, per forward pass; null: the whole batch of a rank. Must divide `batch_size`."""
    checkpoint_steps: int | None = Field(default=None, ge=1, json_schema_extra=GUARD)
    """Save a full checkpoint every so many steps, so that a killed phase goes on from it."""
    score: Literal["likelihood", "implicit_reward"] = "likelihood"
    """What an answer is ranked by: `likelihood`, the sum of its tokens' log-probabilities under the verifier, as V-STaR
    does; `implicit_reward`, beta times what that sum is above the reference's (Rafailov et al. 2023, arXiv
    2305.18290, equation 5, without the term that all answers to a prompt share)."""
    lora: dict[str, Any] = Field(default_factory=dict)
    """Any field of peft.LoraConfig, with defaults as for `train.lora`. With `model.adapter` its own shape; what is set
    here must agree with that."""
    dpo: dict[str, Any] = Field(default_factory=dict)
    """Any other field of trl.DPOConfig: warmup_steps, lr_scheduler_type, loss_type, label_smoothing, ..."""

    def of_training(self) -> dict[str, Any]:
        """What of it the trained adapter depends on."""
        knobs = fingerprinted(self)
        return {name: value for name, value in knobs.items() if name not in ("rounds", "score")}

    def of_score(self) -> dict[str, Any]:
        """What of it the score of an answer depends on, beside the adapter."""
        return {"score": self.score} | ({"beta": self.beta} if self.score == "implicit_reward" else {})

    @model_validator(mode="after")
    def _fits(self) -> VerifierConfig:
        if not isinstance(self.rounds, str) and {0, "first"} & set(self.rounds):
            raise ValueError(
                "rounds names round 0, which has no candidates to learn from; name rounds from 1 on, or last"
            )
        if self.rounds == "none" or self.rounds == ():
            raise ValueError("rounds names none; leave the section out, or name rounds from 1 on, or last")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")
        return self
