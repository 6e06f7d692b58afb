"""One reward model of a list: what it reads, and the number that it gives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from selftrain.errors import ConfigError, Interrupted
from selftrain.records import Prompt
from selftrain.scoring.reward_models.rendering import Reads, Row, chat_ids, render, text_ids, without_special

if TYPE_CHECKING:
    from pathlib import Path

    from selftrain.scoring.reward_models.loading import Kind
    from selftrain.scoring.reward_models.reading import Reader

Output = Literal["raw", "probability"]
PAIR = "{prompt}\n\nFirst answer:\n{first}\n\nSecond answer:\n{second}"
"""How a pairwise model is asked, unless `template` says otherwise."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all models of a scorer are read with; as the parameters of `reward_model`."""

    reads: Reads
    system: str | None
    output: Output
    good_label: int | None
    max_batch_tokens: int | None
    device: str
    dtype: str
    template: str = PAIR


class Member:
    """A model with its scale: its number for an answer is `scale * (output + shift)`."""

    def __init__(
        self,
        name: str,
        base: Path,
        settings: Settings,
        *,
        adapter: str | None = None,
        revision: str | None = None,
        scale: float = 1.0,
        shift: float = 0.0,
        kind: Kind = "sequence",
    ) -> None:
        self.name, self._base, self.settings = name, base, settings
        self._adapter, self._revision, self._kind = adapter, revision, kind
        self._scale, self._shift = scale, shift
        self._is_closed = False

    @cached_property
    def reader(self) -> Reader:
        """What reads with the model, which is loaded at the first reading."""
        from selftrain.scoring.reward_models.loading import wanted_model, weights_of
        from selftrain.scoring.reward_models.reading import Reader

        wanted = wanted_model(
            self.name,
            self._base,
            adapter=self._adapter,
            revision=self._revision,
            kind=self._kind,
            device=self.settings.device,
            dtype=self.settings.dtype,
            what="score.scorers: params.model",
        )
        return Reader(weights_of(wanted), self.settings.max_batch_tokens)

    def of_answers(self, asked: Sequence[tuple[Prompt, str]]) -> list[float | str]:
        """The number for each answer to its prompt, or why there is none."""
        weights, knobs = self.reader.weights, self.settings
        with weights.lock:  # a tokenizer may be changed by its first call, and several threads may ask
            rows = [render(weights.tokenizer, knobs.reads, prompt, text, knobs.system) for prompt, text in asked]
        return self.of_rows(rows, [prompt.id for prompt, _ in asked])

    def of_pairs(self, asked: Sequence[tuple[Prompt, str, str]]) -> list[float | str]:
        """The log-odds that the first answer to a prompt is better than the second, or why there are none."""
        weights = self.reader.weights
        tokenizer, marks = weights.tokenizer, marks_of(self.settings.template)

        def row(prompt: Prompt, first: str, second: str) -> Row:
            answers = (without_special(tokenizer, one, *marks) for one in (first, second))
            fields = dict(zip(("first", "second"), answers, strict=True))
            text = filled(self.settings.template, {"prompt": prompt.question, **fields})
            if tokenizer.chat_template is None or self.settings.reads == "text":
                return Row(text_ids(tokenizer, text))
            system = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
            return Row(chat_ids(tokenizer, [*system, {"role": "user", "content": text}]))

        with weights.lock:
            rows = [row(*one) for one in asked]
        return self.of_rows(rows, [prompt.id for prompt, _, _ in asked])

    def of_rows(self, rows: Sequence[Row], prompts: Sequence[str]) -> list[float | str]:
        """The number for each row, which belongs to that prompt, or why there is none."""
        if self._is_closed:
            raise Interrupted("the scorer is closed")
        weights = self.reader.weights
        with weights.lock:
            context = weights.context_length
            wrong = {number: self._too_long(row, context) for number, row in enumerate(rows)}
            fitting = [number for number in range(len(rows)) if wrong[number] is None]
            found = iter(self.reader.read([rows[one] for one in fitting], [prompts[one] for one in fitting]))
            return [wrong[number] or self._number(next(found)[0]) for number in range(len(rows))]

    def release(self) -> None:
        """Free the memory that the model takes."""
        if "reader" in self.__dict__:
            self.reader.weights.release()

    def close(self) -> None:
        """Read nothing more, after the batch in hand, and forget the model, which is on disk."""
        self._is_closed = True
        if "reader" in self.__dict__:
            self.reader.close()
            self.reader.weights.drop()

    def _too_long(self, row: Row, context: int) -> str | None:
        if not row.ids:
            return f"prompt and answer have no tokens for reward model {self.name}"
        if len(row.ids) > context:
            return f"prompt and answer have {len(row.ids)} tokens, and reward model {self.name} reads {context} at most"
        return None

    def _number(self, logits: Sequence[float]) -> float | str:
        raw = raw_output(logits, self.settings.good_label, f"reward_model: {self.name}")
        output = raw if self.settings.output == "raw" else sigmoid(raw)
        number = self._scale * (output + self._shift)
        return number if math.isfinite(number) else f"reward model {self.name} gave {number}"


def marks_of(template: str) -> list[str]:
    """The words by which a pairwise template tells the answers apart: an answer that wrote `Second answer:` would put
    words of its own in the other's place."""
    return [one.strip() for one in re.split(r"\{(?:prompt|first|second)\}", template) if any(map(str.isalpha, one))]


def filled(template: str, fields: Mapping[str, str]) -> str:
    """The template with its {fields}, in one pass: what is put in is not looked into, or an answer that writes
    `{second}` would speak with the other one's words."""
    holes = re.compile("|".join(re.escape(f"{{{name}}}") for name in fields))
    return holes.sub(lambda hole: fields[hole[0][1:-1]], template)


def raw_output(logits: Sequence[float], good_label: int | None, what: str) -> float:
    """A scalar head's logit as it is; of several labels the log-odds of the good one against the others, which of two
    labels is the difference of their logits. None: 1 of two labels. ConfigError: there is no such label, or there are
    more and none is named."""
    if len(logits) == 1:
        return logits[0]
    if good_label is None and len(logits) > 2:
        raise ConfigError(
            f"score.scorers: {what} has the labels 0 to {len(logits) - 1}, and which of them good answers have is not "
            "said; set params.good_label"
        )
    good_label = 1 if good_label is None else good_label
    if good_label >= len(logits):
        raise ConfigError(
            f"score.scorers: {what} has the labels 0 to {len(logits) - 1}, and good_label is {good_label}; set "
            "params.good_label to the one that good answers have"
        )
    return logits[good_label] - _log_sum_exp([one for number, one in enumerate(logits) if number != good_label])


def sigmoid(number: float) -> float:
    """1 / (1 + exp(-number)), without overflow."""
    if math.isnan(number):
        return number
    small = math.exp(-abs(number))
    return 1.0 / (1.0 + small) if number >= 0 else small / (1.0 + small)


def _log_sum_exp(numbers: Sequence[float]) -> float:
    most = max(numbers)
    if not math.isfinite(most):
        return math.nan
    return most + math.log(math.fsum(math.exp(one - most) for one in numbers))
