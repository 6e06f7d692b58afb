"""The errors of selftrain, each with the exit code the command line ends with.

    SelftrainError        70   an internal failure
    ├── ConfigError        2   wrong usage, recipe or configuration
    │   └── RunLocked      2   another process holds the run directory
    ├── DataError         65   a data set, plug-in or committed file holds something that cannot be used
    │   └── UnusablePrompts 65 prompts that a scorer cannot judge
    ├── DependencyError   69   a package, model, hub or service is missing
    ├── PhaseError        70   a phase could not do its work (NaN, too many unscored candidates, ...)
    ├── DiskError         74   writing failed: disk full, read-only, no permission
    ├── Interrupted       75   asked to stop; what was committed is safe and the same command goes on
    └── SandboxRefused    77   no sandbox passed its self-test

A message says what is wrong, the value seen, and the next step. The command line prints these without a traceback;
any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class SelftrainError(Exception):
    """Root of the errors that are shown to users without a traceback."""

    exit_code = 70
    is_told = False
    """Whether another process of the run tells the user of it."""


class ConfigError(SelftrainError):
    """Wrong usage, recipe or configuration."""

    exit_code = 2


class RunLocked(ConfigError):  # noqa: N818 - reads as a fact
    """Another live process holds the run directory."""


class DataError(SelftrainError):
    """A data set, plug-in or committed file holds something that cannot be used."""

    exit_code = 65


class UnusablePrompts(DataError):  # noqa: N818 - reads as a fact
    """Prompts that a scorer cannot judge; `why` has the reason of every one of them by its id."""

    def __init__(self, message: str, why: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.why = dict(why)

    @classmethod
    def of(
        cls, head: str, why: Mapping[str, str], advice: str, found_by: Mapping[str, str] = MappingProxyType({})
    ) -> UnusablePrompts:
        """The error whose message has `head`, the first five prompts, `advice`, and how to leave them all out.
        `found_by` has what a person finds each prompt's row by."""
        named = {one: f'{one} ("{words}")' if (words := found_by.get(one)) else one for one in why}
        lines = [f"  prompt {named[one]}: {reason}" for one, reason in list(why.items())[:5]]
        more = [f"  and {len(why) - 5} more"] if len(why) > 5 else []
        leave = (
            "to leave them out: `selftrain audit RECIPE --unusable FOLDER` writes the ids of all of them to files that "
            "prompts.<set>.exclude takes"
        )
        return cls("\n".join([head, *lines, *more, advice, leave]), why)


class DependencyError(SelftrainError):
    """A package, model, hub or service is missing."""

    exit_code = 69


class PhaseError(SelftrainError):
    """A phase could not do its work; nothing of it was published."""


class DiskError(SelftrainError):
    """Writing to the run directory failed; what was committed before is intact."""

    exit_code = 74


class Interrupted(SelftrainError):  # noqa: N818 - reads as a fact
    """The process was asked to stop; the same command goes on from what was committed."""

    exit_code = 75


class SandboxRefused(SelftrainError):  # noqa: N818 - reads as a fact
    """No sandbox passed its self-test, so nothing was executed."""

    exit_code = 77
