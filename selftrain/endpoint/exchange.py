"""What is asked of a server and what it answers, and what must be in order before anything is asked."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selftrain.config import EndpointConfig
from selftrain.errors import ConfigError, DependencyError
from selftrain.records import Message
from selftrain.secrecy import holds_secret, without_secrets

FailureKind = Literal["refused", "rate_limited", "server", "timeout", "connection", "malformed"]


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to be continued `n` times. What is None is left to the server."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: `n` texts, each with why it ended (`stop`, `length`, ... as the server names it).

    The tokens are those that the server counted for this answer (0 where it counts none); `attempts` is how many
    requests it took, `failures` why the earlier ones gave nothing.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str | None, ...]
    prompt_tokens: int
    completion_tokens: int
    attempts: int = 1
    failures: tuple[FailureKind, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer, for good. `kind` and `reason` are of the last attempt, `failures` has the kinds of all of them.
    `advice` is what to look at, where the server can be told to be another or asked otherwise than it is meant to."""

    kind: FailureKind
    reason: str
    attempts: int = 1
    failures: tuple[FailureKind, ...] = ()
    advice: str | None = None


@dataclass(slots=True)
class Totals:
    """Sums over the life of an `Endpoint`: requests sent, repetitions among them, requests never answered, tokens as
    the server counted them, and what went wrong, by kind."""

    requests: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def shown_url(config: EndpointConfig) -> str:
    """The address without what unlocks it: user, password and query."""
    return str(without_secrets(config.url))


def advice_on(config: EndpointConfig, kind: FailureKind, reason: str) -> str | None:
    """What to look at where no request would be answered: an address, a model's name or a key that is wrong."""
    url = shown_url(config)
    if kind == "connection":
        return f"see whether the server at {url} is up, and whether the url is right"
    if reason.startswith(("status 401", "status 403")):
        named = "name the environment variable that holds it in key_variable"
        if config.key_variable is not None:
            named = f"it does not take what {config.key_variable} (key_variable) holds"
        return f"the server at {url} wants a key: {named}"
    if reason.startswith("status 404"):
        return (
            f"see whether the url {url} is right up to and with its version (http://HOST:PORT/v1), and whether the "
            f"server knows a model {config.model!r}"
        )
    return None


def check_endpoint(config: EndpointConfig, where: str) -> None:
    """Raise ConfigError for a url that is none, for a key or password in it or in `body`, which would be written down,
    and for a key that is not in the environment; DependencyError without the package `openai`. Imports and asks
    nothing. `where` is the knob, for the message."""
    if not config.url.startswith(("http://", "https://")):
        raise ConfigError(f"{where}.url: {config.url!r} is no address; write it as http://127.0.0.1:8000/v1")
    for name, value in (("url", config.url), ("body", config.body)):
        if holds_secret(value):
            raise ConfigError(
                f"{where}.{name} holds a key or a password, which the run directory and its readers would see; put it "
                f"into an environment variable and name that in {where}.key_variable"
            )
    key_of(config, where)
    if importlib.util.find_spec("openai") is None:
        raise DependencyError(f"{where} needs the package openai: pip install 'selftrain[openai]'")


def key_of(config: EndpointConfig, where: str) -> str | None:
    """The key, from the environment. Raises ConfigError where it is not there or cannot be one."""
    if config.key_variable is None:
        return None
    if holds_secret(config.key_variable):
        raise ConfigError(
            f"{where}.key_variable: what is given looks like the key itself; put it into an environment variable, as "
            "`export JUDGE_KEY=...`, and write JUDGE_KEY here"
        )
    key = os.environ.get(config.key_variable, "").strip()
    if not key:
        raise ConfigError(
            f"{where}.key_variable: the environment variable {config.key_variable} is not set, or empty; set it to the "
            "key of the server"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{where}.key_variable: what the environment variable {config.key_variable} holds is no key: it has white "
            "space, or characters that a header cannot carry; set it again"
        )
    return key
