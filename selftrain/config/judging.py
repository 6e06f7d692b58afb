"""Knobs of judging: how a candidate's answer is scored, and which candidates become training examples."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from selftrain.config.filtering import DecontaminateConfig, NearDuplicatesConfig, QualityConfig
from selftrain.config.generator import EndpointConfig
from selftrain.config.knobs import GUARD, PerRound, Section
from selftrain.records import FINISH_REASONS, FinishReason


class ExtractConfig(Section):
    """Where in a candidate's text its answer stands. What is taken out is what the scorer compares."""

    by: Literal["whole", "first_line", "last_line", "boxed", "after", "tag", "code", "json", "regex"] = "whole"
    """The whole text; a line that is not blank; `\\boxed{...}`; the rest of the line `after` a mark (`"####"`); the
    inside of a `tag` (`<answer>...</answer>`); a fenced block of code; a JSON value; or the group of a `regex`."""
    argument: str | None = None
    """The mark, the tag's name, or the pattern."""
    take: Literal["only", "first", "last"] = "only"
    """Which one, where there are several. `only` makes several no answer: a candidate cannot list many and be paid for
    one."""

    @model_validator(mode="after")
    def _argument_is_there(self) -> ExtractConfig:
        needs = self.by in ("after", "tag", "regex")
        if needs and not self.argument:
            raise ValueError(f"extract by {self.by} needs its argument, as {{{self.by}: ...}}")
        if not needs and self.argument is not None:
            raise ValueError(f"extract by {self.by} takes no argument (got {self.argument!r})")
        if self.by == "regex":
            try:
                one_group(str(self.argument))
            except ValueError as error:
                raise ValueError(f"extract: {self.argument!r} {error}") from None
        if self.by in ("whole", "first_line", "last_line") and self.take != "only":
            raise ValueError(f"extract by {self.by} finds one answer, so take: {self.take} has no effect; leave it out")
        return self


def one_group(pattern: str) -> str:
    """The pattern, if its match says what the answer is: by its only group, or by one named `answer`. ValueError."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if compiled.groups != 1 and "answer" not in compiled.groupindex:
        raise ValueError(
            f"needs one group, or one named (?P<answer>...), to say what the answer is; it has {compiled.groups}"
        )
    return pattern


def as_extract(value: Any) -> Any:
    """`boxed`, `{after: "####"}`, `{tag: answer, take: last}` as ExtractConfig's data."""
    if isinstance(value, str):
        value = {"by": value}
    elif isinstance(value, dict) and "by" not in value:
        named = [name for name in value if name != "take"]
        if len(named) == 1:
            value = {"by": named[0], "argument": value[named[0]], **{k: v for k, v in value.items() if k == "take"}}
    ways: tuple[str, ...] = get_args(ExtractConfig.model_fields["by"].annotation)
    if isinstance(value, dict) and "by" in value and value["by"] not in ways:
        near = difflib.get_close_matches(str(value["by"]), ways, n=1)
        raise ValueError(
            f"there is no extract by {value['by']!r}; known: {', '.join(ways)}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return value


class ScorerConfig(Section):
    """One scorer of the list."""

    name: str
    """A built-in one (exact, normalised, numeric, regex, choice, math, json_schema, reasoning_gym, code, majority,
    given, llm_judge, reward_model, process_reward_model), or `file.py:function`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the scorer. Those of a built-in one are documented at its function in selftrain/scoring:
    rules.py, choice.py, mathematics.py, structured.py, gym.py, majority.py; `code` (tests, entry_point, setup,
    prepend, partial, weak, float_tolerance) in code/judge.py; `given` (column, minimum, scale) in given.py;
    `llm_judge` in llm_judge/judge.py; `reward_model` and `process_reward_model` in reward_models/scorers.py."""
    weight: float = Field(default=1.0, ge=0)
    """Share in the candidate's value, which is the weighted mean over scorers. 0: only looked at, or only a gate."""
    extract: Annotated[ExtractConfig, BeforeValidator(as_extract)] = ExtractConfig()
    """What of the text is judged: `boxed`, `last_line`, {after: "####"}, {tag: answer}. A text without it is wrong.
    With `whole`, `math` looks for the one final answer itself, and `json_schema` for the JSON value."""
    gate: bool = False
    """A candidate that this scorer does not find right (value under 1) has value 0, and no later scorer is asked."""
    cost: float | None = Field(default=None, ge=0)
    """Cheaper scorers are asked first. Null: 1 for a built-in rule, 10 for one that runs in a process of its own,
    100 for one that is a model or asks one."""
    tasks: tuple[str, ...] = ()
    """Of a `mix`: judges only these. Empty: all."""

    def without_guards(self, values: dict[str, Any]) -> dict[str, Any]:
        """Less where an endpoint is and how patiently it is asked, and how often a judge may be fooled."""
        params = {name: value for name, value in values["params"].items() if name != "max_canary_rate"}
        if isinstance(endpoint := params.get("endpoint"), dict):
            fields = EndpointConfig.model_fields
            patience = {name for name, one in fields.items() if one.json_schema_extra == GUARD}
            # A server that was started again elsewhere serves the same model.
            params["endpoint"] = {name: value for name, value in endpoint.items() if name not in {"url", *patience}}
        return {**values, "params": params}


def as_scorer(value: Any) -> Any:
    """A bare name is short for a scorer without parameters."""
    return {"name": value} if isinstance(value, str) else value


class SandboxConfig(Section):
    """In what code that a model wrote is run, and what one candidate may use up, all its tests together. The sandbox is
    chosen by a self-test before anything is loaded; without one that passes, nothing is executed."""

    tier: Literal["auto", "bubblewrap", "landlock"] = Field(default="auto", json_schema_extra=GUARD)
    """`bubblewrap`: namespaces, with Landlock and seccomp inside. `landlock`: Landlock and seccomp alone, as in most
    containers. `auto`: the first of them that works here. A run keeps the one it began with."""
    cpu_seconds: float = Field(default=5.0, gt=0)
    """Seconds of processor time; over it the candidate is wrong (a time-out)."""
    wall_seconds: float = Field(default=20.0, gt=0)
    """Seconds of wall time. Where only these ran out, it is judged once more, alone."""
    memory_mb: int = Field(default=1024, ge=128)
    """MiB of address space."""
    output_kb: int = Field(default=1024, ge=1)
    """KiB that it may print, and KiB of each value it returns; over it the candidate is wrong."""
    scratch_mb: int = Field(default=64, ge=1)
    """MiB of files it may write in its own folder, which is wiped afterwards."""
    modules: tuple[str, ...] = ()
    """Packages that it may import beside the standard library, as `numpy`."""


class ScoreConfig(Section):
    """How a candidate's answer is judged."""

    scorers: tuple[Annotated[ScorerConfig, BeforeValidator(as_scorer)], ...] = Field(min_length=1)
    """One or more; a candidate's value is their weighted mean."""
    correct_at: float = 1.0
    """A candidate is correct when its value is at least this."""
    timeout_seconds: float = Field(default=10.0, gt=0)
    """Per candidate, for scorers in a process of their own. A function of yours that takes longer leaves the candidate
    unscored; a built-in rule is given twice as long once more, alone, and then the answer is wrong. A function with
    TRL's signature has that long for each candidate of its group, all together. `code` has `sandbox` instead."""
    max_unscored_rate: float = Field(default=0.05, ge=0, le=1, json_schema_extra=GUARD)
    """The phase fails when a larger share of its candidates could not be scored."""
    max_infra_error_rate: float = Field(default=0.01, ge=0, le=1, json_schema_extra=GUARD)
    """The same of candidates that could not be scored because the sandbox itself failed, twice."""
    workers: int | None = Field(default=None, ge=1, json_schema_extra=GUARD)
    """Candidates judged at a time, by as many processes of each scorer that needs them. Null: one per processor core of
    this process, at most 8, and 1 for functions of your own, which may keep state."""
    overlap: bool = Field(default=True, json_schema_extra=GUARD)
    """Judge a block of candidates while the next ones are sampled. The results are the same without."""
    one_model_at_a_time: bool = Field(default=False, json_schema_extra=GUARD)
    """While a learned scorer judges, the policy leaves the accelerator's memory, and the other way round. Then nothing
    is judged while candidates are sampled, as with `overlap: false`."""
    sandbox: SandboxConfig = SandboxConfig()
    """For the scorer `code`."""

    @property
    def overlaps(self) -> bool:
        """Whether candidates are judged while others are sampled."""
        return self.overlap and not self.one_model_at_a_time

    @field_validator("scorers")
    @classmethod
    def _weights_make_a_mean(cls, value: tuple[ScorerConfig, ...]) -> tuple[ScorerConfig, ...]:
        return require_weights(value)


def require_weights(scorers: tuple[ScorerConfig, ...]) -> tuple[ScorerConfig, ...]:
    """The scorers; ValueError where those of a task, or all of them, have no weight."""
    for task in {*(name for one in scorers for name in one.tasks), None}:
        asked = [one for one in scorers if task is None or not one.tasks or task in one.tasks]
        if scorers and not any(one.weight for one in asked):
            raise ValueError(f"no scorer{f' of task {task}' if task else ''} has a weight above 0")
    return scorers


class SelectConfig(Section):
    """Which candidates become training examples, and which of their tokens are trained on."""

    buffer: Literal["replace", "append", "window", "latest_per_prompt", "best_per_prompt"] = "replace"
    """Train on this round's survivors; on those of all rounds so far; on those of the last `window` rounds; or, of all
    rounds so far, on those of each prompt's latest round with any, or on each prompt's best values (`per_prompt`)."""
    window: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """Buffer `window`: so many rounds, this one among them."""
    per_prompt: PerRound[Annotated[int, Field(ge=1)]] = 1
    """Buffer `best_per_prompt`: so many of each prompt; of equal values the latest round's."""
    rule: Literal["threshold", "best_of_n", "top_k", "top_fraction", "above_mean", "all", "random"] = "threshold"
    """By value: all from `threshold` up; each prompt's best, or `top_k` best; the best `top_fraction` of the round;
    those above their prompt's mean; or all, or `count` at random."""
    normalise: Literal["none", "global_minmax", "per_prompt_minmax", "zscore"] = "none"
    """What rules see instead of the raw values of the scored candidates: moved to [0, 1] by the least and greatest
    value of the round, or of the prompt (all equal: 0.5); or minus the round's mean, over its standard deviation (all
    equal: 0). Duplicates and caps go by it too; filters, buffers and files have the raw value."""
    kl_beta: PerRound[Annotated[float, Field(ge=0)]] = 0.0
    """Rules see the value minus this times log(p / p0), where p is the probability of the completion under the policy
    that wrote it and p0 under the policy of round 0 (RAFT, Dong et al. 2023, arXiv 2304.06767, equation 5). For ranking
    alone; before `normalise`. Takes candidates of the policy (no `sample.policy`)."""
    threshold: PerRound[float] = 1.0
    """Rule `threshold`: keep values of at least this."""
    top_k: PerRound[Annotated[int, Field(ge=1)]] = 1
    """Rule `top_k`: the K best values of each prompt."""
    top_fraction: PerRound[Annotated[float, Field(gt=0, le=1)]] | None = None
    """Rule `top_fraction`: this share of all candidates that are left, rounded up, the best values first; of equal
    values each prompt's first one before any second."""
    above_mean: PerRound[float] = 0.0
    """Rule `above_mean`: keep values more than so many standard deviations above the mean of their prompt's candidates,
    as sampled and scored. A prompt whose values are all equal keeps none."""
    count: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """Rule `random`: how many in all."""
    finish_reasons: tuple[FinishReason, ...] = ("stop_token", "stop_string")
    """Candidates that ended otherwise leave: without `length`, truncated candidates never survive."""
    min_completion_tokens: int = Field(default=1, ge=0)
    """Shorter candidates leave; the stop token counts."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longer candidates leave."""
    quality: QualityConfig | None = None
    """Bounds on lengths in words, repetition, symbols; asked before `filters`."""
    filters: tuple[str, ...] = ()
    """Functions of your own, `file.py:function`, asked after the length: True keeps a candidate, False or a reason in
    words lets it leave. They run in this process. Controls leave them out, as they leave out the rule."""
    decontaminate: DecontaminateConfig | None = None
    """Candidates that share long word n-grams with evaluation sets leave, after the filters."""
    dedup: Literal["none", "exact", "normalised"] = "exact"
    """Among the candidates of a prompt: equal token text, or equal but for case and white space."""
    near_duplicates: NearDuplicatesConfig | None = None
    """Of candidates that are nearly the same the best one stays, after `dedup`."""
    max_per_prompt: PerRound[Annotated[int, Field(ge=1)]] | None = None
    """The best values first; ties by candidate index."""
    mix_seed_data: PerRound[Annotated[float, Field(ge=0, lt=1)]] = 0.0
    """Demonstrations of `prompts.seed_data` are added until they are this share of the training examples; other ones in
    each round, and none where nothing survived."""
    train_on: Literal["completion", "answer"] = "completion"
    """All that was sampled, or only what follows the reasoning (`model.thinking`)."""
    min_survivors: int = Field(default=0, ge=0, json_schema_extra=GUARD)
    """Fewer is an error. With 0, a round without survivors skips training, keeps the policy and goes on."""

    def without_guards(self, values: dict[str, Any]) -> dict[str, Any]:
        """A step that is off is not there."""
        off = {"quality": None, "decontaminate": None, "near_duplicates": None, "normalise": "none", "kl_beta": 0.0}
        return {name: value for name, value in values.items() if name not in off or value != off[name]}

    @model_validator(mode="after")
    def _rule_has_what_it_needs(self) -> SelectConfig:
        if self.rule == "random" and self.count is None:
            raise ValueError("rule: random needs count, the number of survivors to draw")
        if self.rule == "top_fraction" and self.top_fraction is None:
            raise ValueError("rule: top_fraction needs top_fraction, the share of candidates to keep")
        if (self.buffer == "window") != (self.window is not None):
            raise ValueError("buffer: window and window, its number of rounds, go together; give both, or neither")
        if not self.finish_reasons:
            raise ValueError(f"finish_reasons is empty, so nothing could survive; name some of {FINISH_REASONS}")
        return self
