"""What a check found: fine, worth knowing, or in the way of a run, with the step that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from selftrain.errors import DependencyError, SelftrainError

Status: TypeAlias = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. `exit_code` is 0 unless `status` is problem; then `remedy` says what mends it."""

    area: str
    status: Status
    text: str
    remedy: str | None = None
    exit_code: int = 0


def ok(area: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(area, "ok", text)


def note(area: str, text: str, remedy: str | None = None) -> Finding:
    """Worth knowing, and in nobody's way."""
    return Finding(area, "note", text, remedy)


def problem(area: str, text: str, remedy: str, error: type[SelftrainError] = DependencyError) -> Finding:
    """A run would fail of it, with the exit code of that error."""
    return Finding(area, "problem", text, remedy, error.exit_code)
