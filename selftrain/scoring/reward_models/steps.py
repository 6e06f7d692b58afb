"""The value of an answer from those of its steps: process reward models.

Two kinds. A token classifier (as TRL's PRMTrainer trains them) gives logits of "wrong" and "right" at the last token of
a separator after each step. A causal model (Math-Shepherd, Wang et al. 2023, arXiv 2312.08935) is read at the last
token of the separator too, where it says a good or a bad token next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selftrain.errors import ConfigError, Interrupted
from selftrain.records import Prompt
from selftrain.scoring import Asked, Verdict
from selftrain.scoring.reward_models.members import raw_output, sigmoid
from selftrain.scoring.reward_models.rendering import Row, by_template, text_of, turns, without_special

if TYPE_CHECKING:
    from selftrain.scoring.reward_models.reading import Reader

Reduce = Literal["min", "prod", "mean", "last"]
SHOWN = 12
NO_STEPS = "an answer without any step is worth nothing"


@dataclass(frozen=True, slots=True)
class StepSettings:
    """As the parameters of `process_reward_model`."""

    model: str
    adapter: str | None
    revision: str | None
    split: str
    step_separator: str
    good_token: str | None
    bad_token: str | None
    good_label: int | None
    reads: Literal["chat", "text"]
    system: str | None
    reduce: Reduce
    max_batch_tokens: int | None
    device: str
    dtype: str


class ProcessRewardModel:
    """A BlockJudge. `Verdict.extras["steps"]` has each step with its probability of being right."""

    def __init__(self, base: Path, settings: StepSettings) -> None:
        self._base, self._settings = base, settings
        self._is_closed = False

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """As `judge_block`, of one prompt."""
        return self.judge_block([(prompt, asked)])[0]

    def judge_block(self, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> Sequence[Sequence[Verdict]]:
        """One Verdict per candidate of each prompt, in order."""
        if self._is_closed:
            raise Interrupted("the scorer is closed")
        weights = self._reader.weights
        with weights.lock:
            context = weights.context_length
            steps = [[self._steps(one.text) for one in asked] for _, asked in block]
            rows = [
                self._row(prompt, of_it, context)
                for (prompt, _), of_prompt in zip(block, steps, strict=True)
                for of_it in of_prompt
            ]
            found = iter(self._reader.read([row for row in rows if isinstance(row, Row)]))
            read = iter([row if isinstance(row, str) else next(found) for row in rows])
        return [[self._verdict(of_it, next(read)) for of_it in of_prompt] for of_prompt in steps]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Nothing: reward models read no references."""

    def release(self) -> None:
        """Free the memory that the model takes."""
        if "_reader" in self.__dict__:
            self._reader.weights.release()

    def close(self) -> None:
        """Read nothing more. What reads meanwhile raises Interrupted after the batch in hand."""
        self._is_closed = True
        if "_reader" in self.__dict__:
            self._reader.close()
            self._reader.weights.drop()

    @property
    def _is_causal(self) -> bool:
        return self._settings.good_token is not None

    @cached_property
    def _reader(self) -> Reader:
        from selftrain.scoring.reward_models.loading import wanted_model, weights_of
        from selftrain.scoring.reward_models.reading import Reader

        knobs = self._settings
        wanted = wanted_model(
            knobs.model,
            self._base,
            adapter=knobs.adapter,
            revision=knobs.revision,
            kind="causal" if self._is_causal else "tokens",
            device=knobs.device,
            dtype=knobs.dtype,
            what="score.scorers: process_reward_model: params.model",
        )
        weights = weights_of(wanted)
        columns: tuple[int, ...] = ()
        if knobs.good_token is not None and knobs.bad_token is not None:
            columns = tuple(token_id(weights.tokenizer, one) for one in (knobs.bad_token, knobs.good_token))
        return Reader(weights, knobs.max_batch_tokens, columns)

    def _steps(self, text: str) -> list[str]:
        """The steps of an answer, blank ones left out. What the answer spells out of the separator is left out of it:
        only what stands there by right is read."""
        text = without_special(self._reader.weights.tokenizer, text, self._settings.step_separator.strip())
        return [one.strip() for one in text.split(self._settings.split) if one.strip()]

    def _row(self, prompt: Prompt, steps: Sequence[str], context: int) -> Row | str:
        if not steps:
            return NO_STEPS
        row = self._joined(prompt, steps) if self._is_causal else self._piecewise(prompt, steps)
        if isinstance(row, Row) and len(row.ids) > context:
            return (
                f"prompt and answer have {len(row.ids)} tokens, and process reward model {self._settings.model} reads "
                f"{context} at most"
            )
        return row

    def _piecewise(self, prompt: Prompt, steps: Sequence[str]) -> Row:
        """As TRL's PRMTrainer has it: the ids of the prompt, of each step and of each separator, one after another."""
        tokenizer = self._reader.weights.tokenizer
        if self._settings.reads == "chat":
            ids = list(self._chat_ids(prompt))
        else:
            bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            ids = [*bos, *_plain(tokenizer, text_of(prompt, self._settings.system))]
        separator, at = _plain(tokenizer, self._settings.step_separator), []
        for step in steps:
            ids += [*_plain(tokenizer, step), *separator]
            at.append(len(ids) - 1)
        return Row(tuple(ids), at=tuple(at))

    def _joined(self, prompt: Prompt, steps: Sequence[str]) -> Row | str:
        """As Math-Shepherd has it: one text, in which the separator's last token is looked for."""
        tokenizer, knobs = self._reader.weights.tokenizer, self._settings
        answer = knobs.split.join(f"{step}{knobs.step_separator}" for step in steps)
        tag = _plain(tokenizer, knobs.step_separator)[-1]
        if knobs.reads == "chat":
            before = self._chat_ids(prompt)
            ids = (*before, *_plain(tokenizer, answer))
        else:
            asked = text_of(prompt, knobs.system)
            before = tuple(tokenizer(asked)["input_ids"])
            ids = tuple(tokenizer(f"{asked}{'' if asked[-1:].isspace() else ' '}{answer}")["input_ids"])
        places = [position for position, one in enumerate(ids) if one == tag]
        at = places[before.count(tag) :]
        if len(at) != len(steps):
            return (
                f"the separator {knobs.step_separator!r} is not one token of {knobs.model} after each step: "
                f"{len(at)} found for {len(steps)} steps"
            )
        return Row(ids, at=tuple(at))

    def _chat_ids(self, prompt: Prompt) -> tuple[int, ...]:
        tokenizer = self._reader.weights.tokenizer
        messages = turns(prompt, None, self._settings.system)
        return by_template(tokenizer, messages, add_generation_prompt=True)

    def _verdict(self, steps: Sequence[str], read: str | Sequence[Sequence[float]]) -> Verdict:
        if not steps:  # what the model would say of the prompt alone might be more than of an honest mistake
            return Verdict(0.0, explanation=NO_STEPS, extras={"steps": []})
        if isinstance(read, str):
            return Verdict(None, error=read)
        knobs = self._settings
        good = 1 if self._is_causal else knobs.good_label
        values = [sigmoid(raw_output(one, good, f"process_reward_model: {knobs.model}")) for one in read]
        if not all(map(math.isfinite, values)):
            return Verdict(None, error=f"process reward model {knobs.model} gave {values}")
        said = ", ".join(f"{one:.3g}" for one in values[:SHOWN]) + (", ..." if len(values) > SHOWN else "")
        extras: dict[str, Any] = {
            "steps": [{"text": step, "value": value} for step, value in zip(steps, values, strict=True)]
        }
        words = f"{knobs.reduce} of {len(values)} step{'s' if len(values) > 1 else ''}: {said}"
        return Verdict(reduced(values, knobs.reduce), explanation=words, extras=extras)


def reduced(values: Sequence[float], reduce: Reduce) -> float:
    """One value of those of the steps, at least one."""
    match reduce:
        case "min":
            return min(values)
        case "prod":
            return math.prod(values)
        case "mean":
            return math.fsum(values) / len(values)
        case "last":
            return values[-1]


def token_id(tokenizer: Any, token: str) -> int:
    """The id of a token of the vocabulary, or of a text that is one token. ConfigError: it is several."""
    known = tokenizer.get_vocab().get(token)
    ids = [known] if known is not None else _plain(tokenizer, token)
    if len(ids) != 1:
        raise ConfigError(
            f"score.scorers: process_reward_model: {token!r} is {len(ids)} tokens of the model's tokenizer; name one "
            "token, as its vocabulary writes it"
        )
    return int(ids[0])


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
