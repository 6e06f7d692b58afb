"""Knobs of the data set that a single round leaves (`selftrain curate`)."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from selftrain.config.knobs import Section

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# Columns of the exported files.
OWN = {"prompt", "completion", "messages", "text", "chosen", "rejected"}
OWN |= {"prompt_id", "task", "candidate_id", "value", "generator", "why"}
# What TRL's trainers look for in a data set, alone and after `chosen_` and `rejected_`.
OF_SIDES = {"ids", "input_ids", "attention_mask", "labels", "logps", "mask", "mm_token_type_ids"}
TRAINERS_OWN = {"margin", "label", "labels", "tools", "image", "images", "chat_template_kwargs", "conversations"}
TRAINERS_OWN |= {"input_ids", "attention_mask", "position_ids", "seq_lengths", "token_type_ids", "mm_token_type_ids"}
TRAINERS_OWN |= {"completion_mask", "assistant_masks", "prompt_ids", "completion_ids", "KL_completion_ids"}
TRAINERS_OWN |= {
    "prompt_input_ids",
    "completions",
    "stepwise",
    "ref_KL_logps",
    "ref_chosen_logps",
    "ref_rejected_logps",
}
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


class CurateConfig(Section):
    """What is exported and how it is described. Enters no fingerprint."""

    pairs: Literal["none", "best_worst", "correct_incorrect"] = "none"
    """Preference pairs beside the demonstrations: each prompt's best survivor with its worst candidate, or right
    survivors with wrong candidates. Rejected ones are scored and ended as `select.finish_reasons` says; equal values
    and equal texts make no pair, and no text is in two pairs of a prompt, be it of several candidates or of an answer
    that is kept."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """At most so many: the second best survivor with the second worst, and so on; one for each survivor."""
    title: str | None = Field(default=None, min_length=1)
    """Of the data set's card; null: the run's name."""
    license: str | None = None
    """As the hub names it (`apache-2.0`). Null: the card says that it is not stated."""
    license_notes: str | None = None
    """What the licences of prompts and generator ask for, in words."""
    language: tuple[str, ...] = ()
    """Codes, as `en`."""
    tags: tuple[str, ...] = ()
    """For the hub's search."""
    sample_rows: int = Field(default=3, ge=0)
    """So many rows of each format are shown on the card."""
    columns: tuple[str, ...] = ()
    """Columns of `sample.policy.file` that the data set takes over: texts, numbers, truth values; anything else, and
    columns of several kinds, as JSON in a text. In `preference` they are named `chosen_NAME` and `rejected_NAME`."""

    @field_validator("columns")
    @classmethod
    def _columns_have_names_of_their_own(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in OWN or name.startswith(("chosen_", "rejected_")):
                raise ValueError(f"{name!r} is a name that the data set has itself; rename the column in the file")
            if name in TRAINERS_OWN or name.removeprefix("ref_") in OF_SIDES:
                raise ValueError(f"{name!r} means something to TRL's trainers; rename the column in the file")
            if value.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return value

    @field_validator("license")
    @classmethod
    def _license_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not LICENSE.fullmatch(value):
            raise ValueError(
                f"{value!r} is no licence as the hub names them (apache-2.0, cc-by-4.0, mit, other); say the rest in "
                "license_notes"
            )
        return value

    @field_validator("language", "tags", "columns", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("language")
    @classmethod
    def _languages_are_codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in value if not LANGUAGE.fullmatch(one)]:
            raise ValueError(f"{wrong[0]!r} is no code of a language; write en, de, pt-BR")
        return value
