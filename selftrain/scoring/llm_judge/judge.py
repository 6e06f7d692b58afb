"""The scorer `llm_judge`: its params, and what is done with a block of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError

from selftrain.config import EndpointConfig
from selftrain.contents import require_generator
from selftrain.endpoint import check_endpoint
from selftrain.errors import ConfigError, UnusablePrompts
from selftrain.parsing import near_key
from selftrain.records import Prompt
from selftrain.scoring import MAX_CANARY_RATE, Asked, Means, Verdict
from selftrain.scoring.llm_judge.asking import RUBRIC, Questionnaire, check_template, default_template
from selftrain.scoring.llm_judge.canaries import SHARE, canaries_of, is_chosen
from selftrain.scoring.llm_judge.hearing import Hearing
from selftrain.scoring.llm_judge.pairwise import judge_pairs
from selftrain.scoring.llm_judge.single import judge_each
from selftrain.scoring.llm_judge.voices import LocalVoice, ServerVoice, Voice
from selftrain.whereabouts import beside

WHERE = "score.scorers: llm_judge: params"
CANARY_VALUE, CANARY_VALUE_OF_PAIRS = 0.5, 0.75

Share = Annotated[float, Ge(0), Le(1)]


def llm_judge(
    base: Path,
    means: Means,
    *,
    endpoint: dict[str, Any] | None = None,
    model: str | None = None,
    rubric: str = RUBRIC,
    template: str | None = None,
    scale: list[float] | None = None,
    pairwise: bool = False,
    opponents: Annotated[int, Ge(1)] | None = None,
    reference: bool = False,
    max_new_tokens: Annotated[int, Ge(1)] = 512,
    temperature: Annotated[float, Ge(0)] = 0.0,
    second_attempt: bool = True,
    canaries: Share = SHARE,
    swapped_canaries: bool = True,
    canary_value: Annotated[float, Gt(0), Le(1)] | None = None,
    max_canary_rate: Share = MAX_CANARY_RATE,
) -> LlmJudge:
    """A language model gives each candidate a score.

    `endpoint`: {url, model, key_variable, ...} as `EndpointConfig`; or `model`: a folder, hub id, .gguf file or
    package:NAME/FILE, run here (greedy). `template`: what it reads, with {question} (the last turn; {conversation} has
    all), {answer}, {reference}, {rubric}, {low}, {high}; how to answer is added unless it says so itself. It must end
    its answer with {"score": n}, n within `scale` ([1, 10]); the value is n moved to [0, 1]. An answer that cannot be
    read leaves the candidate unscored, after a `second_attempt` (endpoints alone; with another seed, at temperature 0.5
    or more). `reference`: it is shown the reference.

    `pairwise`: it is asked which of two candidates ({answer_a}, {answer_b}) is better, in both orders, and ends with
    {"winner": "A"}, B or tie. The value is the share won against the prompt's other distinct candidates, or against
    about twice `opponents` of them; a verdict that changes with the order is half.

    Empty answers and those of punctuation alone have value 0 without being asked about. `canaries`: at this share of
    the prompts the judge is also asked about master keys and (`swapped_canaries`) an answer to another prompt; one with
    at least `canary_value` (0.5; with `pairwise` 0.75) has fooled it. Where more than `max_canary_rate` did, the phase
    fails.
    """
    voice: Voice
    if endpoint is not None:
        config = _endpoint_of(endpoint)
        voice = ServerVoice(config, where=f"{WHERE}.endpoint", max_new_tokens=max_new_tokens, temperature=temperature)
    else:
        name = str(model)
        path = beside(name, base)
        voice = LocalVoice(str(path) if path.exists() else name, means, max_new_tokens=max_new_tokens)
    low, high = scale or (1.0, 10.0)
    questionnaire = Questionnaire(
        template=template or default_template(pairwise=pairwise, reference=reference),
        rubric=rubric,
        low=low,
        high=high,
        pairwise=pairwise,
    )
    return LlmJudge(
        Hearing(voice, questionnaire, second_attempt=second_attempt),
        opponents=opponents,
        needs_reference=reference,
        canaries=canaries,
        swapped_canaries=swapped_canaries,
        canary_value=canary_value or (CANARY_VALUE_OF_PAIRS if pairwise else CANARY_VALUE),
    )


def check(
    base: Path | None,
    *,
    endpoint: Mapping[str, Any] | None = None,
    model: str | None = None,
    template: str | None = None,
    scale: Sequence[float] | None = None,
    pairwise: bool = False,
    opponents: int | None = None,
    reference: bool = False,
    temperature: float = 0.0,
    **others: Any,
) -> None:
    """Raise ConfigError for params that do not go together, DependencyError without the package of the endpoint's
    client. Nothing is asked or loaded. `others` need no check but that of their types."""
    if (endpoint is None) == (model is None):
        said = "neither" if model is None else "both"
        raise ConfigError(f"{WHERE}: give one of endpoint: {{url: ..., model: ...}} and model: NAME (given: {said})")
    if endpoint is not None:
        check_endpoint(_endpoint_of(endpoint), f"{WHERE}.endpoint")
    if model is not None and temperature:
        raise ConfigError(
            f"{WHERE}.temperature: a model on this machine answers greedily; remove it (got {temperature})"
        )
    if model is not None and base is not None:
        require_generator(model, base, what=f"{WHERE}.model")
    if scale is not None and (len(scale) != 2 or not scale[0] < scale[1]):
        raise ConfigError(f"{WHERE}.scale: {list(scale)!r} is not [low, high] with low < high")
    if pairwise and scale is not None:
        raise ConfigError(
            f"{WHERE}.scale has no effect with pairwise, whose value is the share won; remove one of them"
        )
    if opponents is not None and not pairwise:
        raise ConfigError(f"{WHERE}.opponents has no effect without pairwise: true")
    if template is not None:
        check_template(template, pairwise=pairwise, reference=reference)


def _endpoint_of(given: Mapping[str, Any]) -> EndpointConfig:
    try:
        return EndpointConfig.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors()[0]
        knob = ".".join(str(part) for part in ("endpoint", *problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = near_key(str(problem["loc"][0]), list(EndpointConfig.model_fields))
            message = "there is no such key" + (f"; did you mean {near}?" if near else "")
        known = ", ".join(EndpointConfig.model_fields)
        raise ConfigError(f"{WHERE}.{knob}: {message}; known: {known}") from None


class LlmJudge:
    """A BlockJudge."""

    def __init__(
        self,
        hearing: Hearing,
        *,
        opponents: int | None,
        needs_reference: bool,
        canaries: float,
        swapped_canaries: bool,
        canary_value: float,
    ) -> None:
        self._hearing, self._opponents, self._needs_reference = hearing, opponents, needs_reference
        self._share, self._swapped, self._canary_value = canaries, swapped_canaries, canary_value

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        return self.judge_block([(prompt, asked)])[0]

    def judge_block(self, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> Sequence[Sequence[Verdict]]:
        """One Verdict per candidate of each prompt, in order. Raises Interrupted once it is closed."""
        canaries = {
            index: canaries_of(block, index, swapped=self._swapped)
            for index, (prompt, asked) in enumerate(block)
            # What no policy wrote is an answer that a person asks about.
            if asked and asked[0].candidate.policy_digest and is_chosen(prompt.id, self._share)
        }
        if self._hearing.pairwise:
            return judge_pairs(block, canaries, self._hearing, self._opponents, self._canary_value)
        return judge_each(block, canaries, self._hearing, self._canary_value)

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise UnusablePrompts for prompts without a reference, where the judge is to be shown it."""
        without = [one.id for one in prompts if one.reference is None] if self._needs_reference else []
        if without:
            raise UnusablePrompts.of(
                f"scorer llm_judge is to show its judge the reference, which {len(without)} prompts do not have:",
                dict.fromkeys(without, "there is no reference"),
                "name its column in prompts.<set>.columns.reference, or set params.reference: false",
            )

    def release(self) -> None:
        """Free the memory of a model on this machine."""
        self._hearing.voice.release()

    def close(self) -> None:
        """Ask nothing more."""
        self._hearing.voice.close()
