"""What is kept out of everything that others may see: keys, tokens, and where things are on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

SECRET = re.compile(
    r"(^|[._-])((api|access|secret|private)[_-]?key|password|passwd|secret|token|credentials?|authorization)$",
    re.IGNORECASE,
)
TOKEN = re.compile(
    r"\b(hf_\w{16,}|(sk|pk|gsk|nvapi|gh[a-z]|github_pat|glpat|xox[a-z])[-_][\w-]{16,}|AIza[\w-]{30,})|\bBearer\s+\S+",
    re.IGNORECASE,
)
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
PATH = re.compile(r"(~|/[^\n/]+)(/[^\n/]+)+/?")
HIDDEN = "(not shown)"


def without_secrets(value: Any) -> Any:
    """Plain data as it may be shown: values of keys that name a secret and what looks like a token are hidden, of urls
    the user, password, query and fragment; of absolute paths the last part stays."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if SECRET.search(str(key)) else without_secrets(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(one) for one in value]
    return _text(value) if isinstance(value, str) else value


def holds_secret(value: Any) -> bool:
    """Whether plain data has a key that names a secret, what looks like a token, or an address with a password."""
    if isinstance(value, Mapping):
        return any(SECRET.search(str(key)) or holds_secret(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return any(map(holds_secret, value))
    return isinstance(value, str) and (bool(TOKEN.search(value)) or any(map(_unlocks, URL.findall(value))))


def _unlocks(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return "@" in parts.netloc or any(SECRET.search(name) for name, _ in parse_qsl(parts.query))


def _text(text: str) -> str:
    if PATH.fullmatch(text):
        return PurePosixPath(text).name
    return TOKEN.sub(HIDDEN, URL.sub(lambda found: _url(found[0]), text))


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:  # brackets without an end
        return HIDDEN
    if parts.scheme == "file":
        return PurePosixPath(parts.path).name or HIDDEN
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
