"""Knobs of the data set that a single round leaves (`selftrain curate`)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from selftrain.config.knobs import Section

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


class CurateConfig(Section):
    """What is exported and how it is described. Enters no fingerprint."""

    pairs: Literal["none", "best_worst", "correct_incorrect"] = "none"
    """Preference pairs beside the demonstrations: each prompt's best survivor with its worst candidate, or right
    survivors with wrong candidates. Rejected ones are scored and ended as `select.finish_reasons` says; equal values
    and equal texts make no pair."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """At most so many: the second best with the second worst, and so on."""
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

    @field_validator("license")
    @classmethod
    def _license_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not LICENSE.fullmatch(value):
            raise ValueError(
                f"{value!r} is no licence as the hub names them (apache-2.0, cc-by-4.0, mit, other); say the rest in "
                "license_notes"
            )
        return value

    @field_validator("language")
    @classmethod
    def _languages_are_codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in value if not LANGUAGE.fullmatch(one)]:
            raise ValueError(f"{wrong[0]!r} is no code of a language; write en, de, pt-BR")
        return value
