"""One request to a server, and what its answer or its failure says."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from selftrain.config import EndpointConfig
from selftrain.endpoint.exchange import Answer, FailureKind, Request

if TYPE_CHECKING:
    import openai

REPEATED_STATUSES = (408, 409, 429)
LONGEST_ASKED_WAIT_SECONDS = 600.0
SHOWN = 300
"""Characters of a reason that are kept, once the key is taken out."""


class Fault(Exception):  # noqa: N818 - reads as a fact
    """One attempt gave no answer. `wait` is what the server asks for, in seconds."""

    def __init__(self, kind: FailureKind, reason: str, *, can_repeat: bool = True, wait: float | None = None) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.can_repeat, self.wait = kind, reason, can_repeat, wait


def connect(config: EndpointConfig, key: str | None) -> openai.OpenAI:
    """A client of the package that repeats nothing itself."""
    import openai

    # Some key, or the package would send one of its own choice from the environment.
    return openai.OpenAI(base_url=config.url, api_key=key or "none", timeout=config.timeout_seconds, max_retries=0)


def ask(client: openai.OpenAI, config: EndpointConfig, request: Request) -> Answer:
    """Send one request and read its answer. Raises Fault."""
    import openai

    try:
        answer = client.chat.completions.with_raw_response.create(
            model=config.model,
            messages=[{"role": one.role, "content": _sendable(one.content)} for one in request.messages],  # type: ignore[misc]
            extra_body=_fields(config, request),
        )
        content: bytes = answer.content
    except openai.APIStatusError as error:
        raise _of_status(error) from None
    except openai.APITimeoutError:
        raise Fault("timeout", f"no answer within {config.timeout_seconds:g} seconds") from None
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        raise Fault("connection", f"the connection failed: {type(cause).__name__}: {cause}") from None
    except openai.OpenAIError as error:
        raise Fault("malformed", f"{type(error).__name__}: {error}") from None
    return _read(content, request.n)


def _fields(config: EndpointConfig, request: Request) -> dict[str, Any]:
    """The body beside model and messages. Fields of `config.body` go before; null there leaves one out."""
    own = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "n": request.n if request.n != 1 else None,
        "stop": list(request.stop) or None,
        "response_format": None if request.response_format is None else dict(request.response_format),
    }
    return {name: value for name, value in {**own, **config.body}.items() if value is not None}


def _sendable(text: str) -> str:
    """The text without lone surrogates, which cannot be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _of_status(error: openai.APIStatusError) -> Fault:
    status = error.status_code
    said = " ".join(str(error.message).split())
    if status == 429:
        return Fault("rate_limited", f"status 429: {said}", wait=_asked_wait(error.response.headers))
    if status >= 500:
        return Fault("server", f"status {status}: {said}", wait=_asked_wait(error.response.headers))
    return Fault("refused", f"status {status}: {said}", can_repeat=status in REPEATED_STATUSES)


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, as a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(seconds, LONGEST_ASKED_WAIT_SECONDS) if seconds > 0 else None


def _read(content: bytes, n: int) -> Answer:
    """The answer in a body. Raises Fault where there is none: this may be any server."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise Fault("malformed", f"the body is no JSON: {_excerpt(content)}") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Fault("malformed", f"the body has no choices: {_excerpt(content)}")
    texts = [_text_of(one) for one in choices]
    if None in texts:
        raise Fault("malformed", f"a choice has no message with text: {_excerpt(content)}")
    if len(texts) != n:
        reason = f"the server gave {len(texts)} choices where {n} were asked for; it may not know the field n"
        raise Fault("malformed", reason, can_repeat=False)
    usage = data.get("usage")
    return Answer(
        tuple(str(one) for one in texts),
        tuple(_text_or_none(one.get("finish_reason")) for one in choices),
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
    )


def _text_of(choice: Any) -> str | None:
    """The text of a choice, empty where the server gives null (a refusal, or all of it was reasoning); None: it has
    none."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or "content" not in message:
        return None
    content = message["content"]
    return "" if content is None else _text_or_none(content)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _excerpt(content: bytes) -> str:
    return repr(" ".join(content[: 4 * SHOWN].decode("utf-8", "replace").split()))
