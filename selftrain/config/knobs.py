"""What a section of knobs is: frozen, refusing unknown keys, with schedules and guards."""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.config import JsonDict

T = TypeVar("T")
PerRound: TypeAlias = T | tuple[T, ...]
GUARD: JsonDict = {"fingerprinted": False}


def is_schedule(section: BaseModel | type[BaseModel], name: str) -> bool:
    """Whether the knob takes one value per round."""
    return "PerRound" in str(section.__annotations__.get(name, ""))


class Section(BaseModel):
    """A frozen group of knobs that refuses unknown keys, and numbers that are not finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    def without_guards(self, values: dict[str, Any]) -> dict[str, Any]:
        """The section's values for a fingerprint, less what in its tables of plain data cannot change a result."""
        return values

    @model_validator(mode="after")
    def _schedules_are_not_empty(self) -> Section:
        for name in type(self).model_fields:
            if getattr(self, name) == () and is_schedule(type(self), name):
                raise ValueError(f"{name} is an empty list; give one value, or one per round")
        return self

    @model_validator(mode="after")
    def _tables_are_finite(self) -> Section:
        for name in type(self).model_fields:
            value = getattr(self, name)
            # JSON has no such numbers: written out, they would become null.
            if isinstance(value, dict) and (found := _not_finite(value, name)):
                raise ValueError(f"{found}; give a finite number")
        return self


def _not_finite(value: Any, where: str) -> str | None:
    """The place and value of the first number in plain data that is infinite or none, in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for name, part in parts if (found := _not_finite(part, f"{where}.{name}"))), None)


def at_round(section: Section, round_number: int) -> dict[str, Any]:
    """The section as plain JSON data with every schedule replaced by its value in that round (1-based)."""
    values = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        if is_schedule(type(section), name) and isinstance(values[field.alias or name], list):
            schedule = values[field.alias or name]
            values[field.alias or name] = schedule[min(round_number, len(schedule)) - 1]
    return values


def fingerprinted(section: Section, round_number: int = 1) -> dict[str, Any]:
    """What of the section enters fingerprints in that round: all of it but the guards, also of sections in it, and but
    what a section itself leaves out (`without_guards`)."""
    values = at_round(section, round_number)
    for name, field in type(section).model_fields.items():
        if field.json_schema_extra == GUARD:
            del values[field.alias or name]
        elif isinstance(part := getattr(section, name), Section):
            values[field.alias or name] = fingerprinted(part, round_number)
        elif isinstance(part, tuple) and part and all(isinstance(one, Section) for one in part):
            values[field.alias or name] = [fingerprinted(one, round_number) for one in part]
    return section.without_guards(values)


def resolved(section: T, round_number: int) -> T:
    """The section with every schedule replaced by its value in that round (1-based)."""
    assert isinstance(section, Section)
    return type(section).model_validate(at_round(section, round_number))


def one(value: PerRound[T]) -> T:
    """The value of a schedule that `resolved` has reduced to one."""
    assert not isinstance(value, tuple)
    return value
