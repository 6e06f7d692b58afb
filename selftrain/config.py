"""The schema of a run: every knob, its default, and what it means. Ground floor: stdlib and pydantic only.

Groups are orthogonal: what data is trained on (`select.buffer`), what weights training starts from (`train.init_from`)
and who samples are independent choices. A knob typed `PerRound[...]` takes one value or a list, one value per round,
of which the last repeats. A knob changes the fingerprint of the phases its group feeds unless it is marked `GUARD`
here: it decides whether a phase goes on, never what it publishes. `rounds`, `stop`, `track` and `name` enter none.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from selftrain.records import FINISH_REASONS, FinishReason

T = TypeVar("T")
PerRound: TypeAlias = T | tuple[T, ...]
GUARD: JsonDict = {"fingerprinted": False}
RUN_NAME = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,64}(?<!\.)")


def _is_schedule(section: type[BaseModel], name: str) -> bool:
    return "PerRound" in str(section.__annotations__.get(name, ""))


class Section(BaseModel):
    """A frozen group of knobs that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    @model_validator(mode="after")
    def _schedules_are_not_empty(self) -> Section:
        for name in type(self).model_fields:
            if getattr(self, name) == () and _is_schedule(type(self), name):
                raise ValueError(f"{name} is an empty list; give one value, or one per round")
        return self


class ModelConfig(Section):
    """The base model. Its weights never change during a LoRA run."""

    path: str
    """Hub id, local folder, a `.gguf` file, or `package:NAME/FILE` for a file inside an installed Python package."""
    revision: str | None = None
    """Hub revision; pin a commit for a run that others should repeat."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights. `auto`: float32 on CPU, the checkpoint's own elsewhere."""
    attn_implementation: str = "sdpa"
    """As transformers names it: sdpa, eager, flash_attention_2, ..."""
    device: str = "auto"
    """`auto` (a CUDA device if there is one), `cpu`, `cuda`, `cuda:1`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never on by default."""


class Columns(Section):
    """Which column of a row holds what."""

    prompt: str = "prompt"
    """The text asked. Not used where `prompts.template` or a `messages` column makes the prompt."""
    messages: str = "messages"
    """A list of {role, content}; used instead of the prompt column where a row has it."""
    reference: str | None = "reference"
    """The known answer, as text. Null: there is none."""
    identity: str | None = None
    """What makes two rows the same problem across sets; null: their content."""


class SourceConfig(Section):
    """Where a set of prompts comes from."""

    path: str
    """A `.jsonl` file, or `path/to/file.py:function` (relative to the recipe) that yields rows as dicts."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    limit: int | None = Field(default=None, ge=1)
    """Take the first rows only."""
    columns: Columns = Columns()
    """Which column of a row holds what."""


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Source = Annotated[SourceConfig, BeforeValidator(_source)]


class FewShot(Section):
    """One worked example shown before every prompt."""

    prompt: str
    """As it is asked; `prompts.template` is not applied."""
    completion: str
    """As it is answered; in format text, with the space before it."""


class PromptsConfig(Section):
    """What the policy is asked. `validate` decides (best round, stopping); `test` is only reported."""

    train: Source
    """Asked in the rounds."""
    validate_: Source | None = Field(default=None, alias="validate")
    """Held out, to decide with."""
    test: Source | None = None
    """Held out, to report on."""
    per_round: PerRound[Literal["all"] | Annotated[int, Field(ge=1)]] = "all"
    """`all`, or K prompts per round: fresh ones until the set is used up, then it is shuffled again."""
    overlap: Literal["error", "drop_from_train"] = "error"
    """What to do when a training prompt is the same problem as a held-out one."""
    format: Literal["chat", "text"] = "chat"
    """`chat`: rendered by the model's chat template. `text`: plain text, for base models."""
    system: str | None = None
    """System message, before everything else (chat only)."""
    template: str | None = None
    """Makes the prompt from a row's columns: `"{question}\\nAnswer:"`. Null: the prompt column as it is."""
    few_shot: tuple[FewShot, ...] = ()
    """Worked examples shown before every prompt: earlier turns (chat), or text before it."""
    few_shot_separator: str = "\n"
    """Between worked examples, and before the prompt (text only)."""

    @model_validator(mode="after")
    def _system_needs_chat(self) -> PromptsConfig:
        if self.system is not None and self.format == "text":
            raise ValueError('system needs format: chat; with format: text put the words into "template" or "few_shot"')
        return self


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


def _scorer(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ScoreConfig(Section):
    """How a candidate's answer is judged."""

    scorers: tuple[Annotated[ScorerConfig, BeforeValidator(_scorer)], ...] = Field(min_length=1)
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


RoundNames: TypeAlias = Literal["all", "none"] | tuple[Annotated[int, Field(ge=0)] | Literal["first", "last"], ...]


class EvaluateConfig(Section):
    """How the policy is measured, at round 0 and after every round."""

    sampled_rounds: RoundNames = ("first", "last")
    """Rounds with sampled pass@k beside greedy pass@1: all, none, or a list of numbers, `first` (0) and `last`."""
    num_samples: int = Field(default=8, ge=1)
    """Sampled answers per prompt in those rounds."""
    ks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8)
    """The k of pass@k; none above `num_samples`."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the sampled answers."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Null: as in `sample` in the first round."""
    block_size: int = Field(default=64, ge=1)
    """Prompts per block of evaluation."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples over prompts."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of every interval."""

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        if self.sampled_rounds != "none" and max(self.ks, default=1) > self.num_samples:
            raise ValueError(f"ks asks for pass@{max(self.ks)} of num_samples {self.num_samples}; raise num_samples")
        return self


class StopConfig(Section):
    """When to end before `rounds` are done. Enters no fingerprint."""

    patience: int | None = Field(default=None, ge=1)
    """End after so many rounds in a row without a new best on validation."""
    min_gain: float = Field(default=0.0, ge=0)
    """What counts as a new best: at least so much above the old one."""
    target: float | None = Field(default=None, gt=0, le=1)
    """End when greedy pass@1 on validation reaches this."""
    max_hours: float | None = Field(default=None, gt=0)
    """Do not start another round once the run's phases took this long in all."""
    max_sampled_tokens: int | None = Field(default=None, ge=1)
    """Do not start another round once so many tokens were sampled for training."""


class ArmConfig(Section):
    """A control: a loop of its own with the main arm's number of survivors and updates in every round."""

    name: str
    evaluate_rounds: RoundNames = ("last",)
    """Rounds at which the arm is measured; the main arm's headline round is always among them."""


def _arm(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class WandbConfig(Section):
    """Weights & Biases: a mirror of metrics.jsonl, written by a process of its own."""

    mode: Literal["online", "offline", "disabled"] = "disabled"
    """The environment's WANDB_MODE can turn this down, never up."""
    project: str = "selftrain"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


class TrackConfig(Section):
    """Where metrics go besides metrics.jsonl. Enters no fingerprint."""

    wandb: WandbConfig = WandbConfig()
    """Weights & Biases."""


class Config(Section):
    """One run, whole."""

    name: str
    """Of the run and its directory under `runs/`."""
    seed: int = Field(default=0, ge=0)
    """Of everything random: prompts, candidates, selection, training."""
    rounds: int = Field(default=3, ge=1)
    """How many; raise it to go on with a finished run. Enters no fingerprint."""
    model: ModelConfig
    prompts: PromptsConfig
    sample: SampleConfig = SampleConfig()
    score: ScoreConfig
    select: SelectConfig = SelectConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stop: StopConfig = StopConfig()
    arms: tuple[Annotated[ArmConfig, BeforeValidator(_arm)], ...] = ()
    track: TrackConfig = TrackConfig()

    @field_validator("name")
    @classmethod
    def _name_is_a_safe_folder(cls, value: str) -> str:
        if not RUN_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot name a folder; use letters, digits, '.', '_', '-' (at most 64)")
        return value

    @model_validator(mode="after")
    def _arms_are_known(self) -> Config:
        names = [arm.name for arm in self.arms]
        for name in names:
            if name not in ARMS:
                raise ValueError(f"arms: unknown arm {name!r}; known: {', '.join(ARMS)}")
            if names.count(name) > 1:
                raise ValueError(f"arms: {name!r} is named twice")
        needs_decision = self.stop.patience is not None or self.stop.target is not None
        starts = self.train.init_from if isinstance(self.train.init_from, tuple) else (self.train.init_from,)
        if self.prompts.validate_ is None and (needs_decision or "best" in starts):
            what = "train.init_from: best" if "best" in starts else "stop.patience and stop.target"
            raise ValueError(f"{what} needs prompts.validate: test prompts are only reported, they decide nothing")
        return self


ARMS: dict[str, str] = {
    "random_selection": "survivors drawn at random, in the same number as main's, whatever their score",
}


def at_round(section: Section, round_number: int) -> dict[str, Any]:
    """The section as plain JSON data with every schedule replaced by its value in that round (1-based)."""
    values = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        if _is_schedule(type(section), name) and isinstance(values[field.alias or name], list):
            schedule = values[field.alias or name]
            values[field.alias or name] = schedule[min(round_number, len(schedule)) - 1]
    return values


def fingerprinted(section: Section, round_number: int = 1) -> dict[str, Any]:
    """What of the section enters fingerprints in that round: all of it but the guards."""
    values = at_round(section, round_number)
    for name, field in type(section).model_fields.items():
        if field.json_schema_extra == GUARD:
            del values[field.alias or name]
    return values


def resolved(section: T, round_number: int) -> T:
    """The section with every schedule replaced by its value in that round (1-based)."""
    assert isinstance(section, Section)
    return type(section).model_validate(at_round(section, round_number))


def one(value: PerRound[T]) -> T:
    """The value of a schedule that `resolved` has reduced to one."""
    assert not isinstance(value, tuple)
    return value
