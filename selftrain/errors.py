"""The errors of selftrain, each with the exit code the command line ends with.

    SelftrainError        70   an internal failure
    ├── ConfigError        2   wrong usage, recipe or configuration
    │   └── RunLocked      2   another process holds the run directory
    ├── DataError         65   a data set, plug-in or committed file holds something that cannot be used
    ├── DependencyError   69   a package, model, hub or service is missing
    ├── PhaseError        70   a phase could not do its work (NaN, too many unscored candidates, ...)
    ├── DiskError         74   writing failed: disk full, read-only, no permission
    ├── Interrupted       75   asked to stop; what was committed is safe and the same command goes on
    └── SandboxRefused    77   no sandbox passed its self-test

A message says what is wrong, the value seen, and the next step. The command line prints these without a traceback;
any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


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
