"""The records that phases exchange: frozen, slotted dataclasses, one glossary word each.

Ground floor: stdlib only. Shapes are given as plain tuples so that a record can be hashed, compared and written to
Parquet without conversion rules; token ids are ints of the policy's own tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NewType

FinishReason = Literal["stop_token", "stop_string", "length"]
FINISH_REASONS: tuple[FinishReason, ...] = ("stop_token", "stop_string", "length")
# `Candidate.logprobs_of` where there are none: of texts that were not sampled in the policy's tokens.
NO_LOGPROBS = "nothing"
Digest = NewType("Digest", str)


# Made once: json.dumps makes one at every call, which takes longer than a short text.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: keys sorted, no spaces, NaN refused. Hash this, never `str()` of a dict."""
    return _CANONICAL.encode(value)


def digest(value: Any) -> Digest:
    """Sha256 (hex) of the canonical JSON of `value`."""
    return Digest(hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest())


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is asked. Exactly one of `messages` (rendered by the chat template) and `text` is set.

    `id` hashes the content without the reference; `identity` is what makes two prompts the same problem across sets
    (the id, unless the data names something wider: `a + b` and `b + a`). `completion` is a known good answer in full,
    where the data has one. `task` is the name in a mix of several.
    """

    id: str
    identity: str
    messages: tuple[Message, ...] | None
    text: str | None
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    completion: str | None = None
    task: str | None = None

    @property
    def question(self) -> str:
        """What is asked, without the turns before it."""
        return self.messages[-1].content if self.messages else self.text or ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A model plus, usually, an adapter directory. `digest` covers the adapter's tensors and its canonical config."""

    model: str
    adapter: str | None
    round: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """The distribution that candidates are drawn from. `temperature == 0` is greedy decoding."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """The unit of sampling: a fixed list of prompts, `num_candidates` each, planned from the config alone.

    `prompt_token_ids[i]` renders `prompts[i]`. The first `shared_prefix_length` ids are equal in every prompt of the
    whole phase (not just of this block), so that a block gives the same candidates alone and in a full run.
    `seeds[i][j]` (64 bit) belongs to candidate `j` of prompt `i`, `candidate_ids[i][j]` names it.
    """

    index: int
    prompts: tuple[Prompt, ...]
    prompt_token_ids: tuple[tuple[int, ...], ...]
    shared_prefix_length: int
    num_candidates: int
    seeds: tuple[tuple[int, ...], ...]
    candidate_ids: tuple[tuple[str, ...], ...]
    wave: int
    parameters: SamplingParameters
    policy: Policy


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled answer.

    `completion_token_ids` include the stop token, or the tokens that complete the stop string; `text`, which is what
    scorers see, excludes them. `logprobs[t]` is the natural log-probability of `completion_token_ids[t]` under the
    raw policy (temperature 1, no truncation of the vocabulary), as `logprobs_of` says. `entropy` is the mean over the
    completion's tokens of the entropy, in nats, of that same distribution over the whole vocabulary. `reasoning` is
    what a thinking model wrote before its answer, between the tags; `text` is what follows, and the first
    `reasoning_tokens` of the completion are not it (0: no reasoning). `base_logprob` is the log-probability of the
    whole completion under the policy of round 0, where selection asks for it. `metadata` are the other columns of a
    candidate that was brought from elsewhere.
    """

    id: str
    prompt_id: str
    index: int
    wave: int
    text: str
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seed: int
    policy_digest: str
    logprobs: tuple[float, ...]
    logprobs_of: str = "temperature=1"
    entropy: float = 0.0
    reasoning: str | None = None
    reasoning_tokens: int = 0
    base_logprob: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unsampled(
        cls, text: str, *, id: str, prompt_id: str, index: int = 0, reasoning: str | None = None
    ) -> Candidate:
        """An answer that no policy sampled, as one that ended by itself, without token ids: to be judged, no more."""
        return cls(
            id=id,
            prompt_id=prompt_id,
            index=index,
            wave=0,
            text=text,
            prompt_token_ids=(),
            completion_token_ids=(),
            finish_reason="stop_token",
            seed=0,
            policy_digest="",
            logprobs=(),
            reasoning=reasoning,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of a candidate. `value=None` is unscored: never counted wrong, never selected.

    `parts` has the value of each scorer that judges this prompt's task: None where it could not judge, did not apply (a
    reward function that returned None), or was not asked because a gate had decided. `extras` is what reward functions
    logged of the candidate, as plain JSON data by name.
    """

    candidate_id: str
    value: float | None
    correct: bool | None
    answer: str | None = None
    explanation: str | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with all its candidates: the unit that scorers and selectors see. `scores` is empty before scoring."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Survivor:
    """One training example: `token_ids` are the sampled prompt and completion ids, `label_mask[t]` says whether
    token t is trained on. `prompt_text` and `text` are for people; training reads the ids alone. `value` is the
    candidate's score, None for a demonstration."""

    candidate_id: str
    prompt_id: str
    round: int
    token_ids: tuple[int, ...]
    label_mask: tuple[bool, ...]
    weight: float
    why: str
    prompt_text: str
    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A right and a wrong candidate of one prompt, as the trained verifier learns from them. Token ids are as sampled;
    the texts are for people. `chosen_round` and `rejected_round` are the rounds in which they were sampled."""

    prompt_id: str
    chosen_id: str
    rejected_id: str
    chosen_round: int
    rejected_round: int
    prompt_token_ids: tuple[int, ...]
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]
    prompt_text: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many candidates were left after each step of selection, in order, and why the others left."""

    steps: tuple[tuple[str, int], ...]

    @property
    def kept(self) -> int:
        """Candidates left after the last step."""
        return self.steps[-1][1] if self.steps else 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the policy did on one held-out prompt. `greedy` is the greedy answer's correctness (None: unscored);
    `num_samples` and `num_correct` count the scored sampled answers (0 where none were drawn). `right_answers` and
    `wrong_answers` say how often each distinct extracted answer was given, most often first; sampled answers in which
    the scorer found none are in neither. `value` and `parts` are the greedy answer's, as in its Score, or the
    means over the sampled answers that have them."""

    prompt_id: str
    greedy: bool | None
    num_samples: int
    num_correct: int
    right_answers: tuple[int, ...] = ()
    wrong_answers: tuple[int, ...] = ()
    value: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: flat metrics (`evaluate/test/pass@1`) and per-prompt outcomes by set name."""

    arm: str
    round: int
    metrics: Mapping[str, float]
    outcomes: Mapping[str, tuple[Outcome, ...]]


@dataclass(frozen=True, slots=True)
class Training:
    """What a trainer reports: totals (`train/loss`, ...) and one row of metrics per optimizer step."""

    metrics: Mapping[str, float]
    steps: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a phase is done; written last, by the store alone.

    `fingerprint` is the digest of `ingredients` (the config that can change the output, and the hashes of the
    inputs); `files` maps each artifact's path, relative to the run directory, to its sha256; `output` is the digest of
    the artifacts' content and stands for them in the ingredients of later phases.
    """

    key: str
    phase: str
    arm: str
    round: int
    fingerprint: str
    ingredients: Mapping[str, Any]
    output: str
    rows: int
    files: Mapping[str, str]
    metrics: Mapping[str, float]
    seconds: float
    versions: Mapping[str, str]


def seed_from(*parts: object) -> int:
    """A 63-bit seed from the named parts (run seed, arm, round, ...): equal parts, equal seed, on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
