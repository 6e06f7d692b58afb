"""`selftrain plan`: the resolved config, where each value is from, and what each round will do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from selftrain.reporting.inert import inert
from selftrain.secrecy import SECRET

PLAIN_SCALAR = re.compile(r"[A-Za-z./][A-Za-z0-9_./:@+-]*")
WORDS_WITH_A_MEANING = {"null", "true", "false", "yes", "no", "on", "off", "nan", ".nan", ".inf"}
ORIGIN_COLUMN = 56


def render(leaves: Sequence[tuple[str, Any, str | None]], steps: Sequence[str]) -> str:
    """One line per value (`sample.temperature: 0.7   # recipe`), then the steps.

    A leaf is (dotted key, value, origin); the origin is None for a default. Values are written as YAML would read them
    back; the values of keys that name a secret (`api_key`, `token`, ...) are not shown.
    """
    lines = []
    for key, value, origin in leaves:
        text = f"{inert(key)}: {'(not shown)' if SECRET.search(key) else scalar(value)}"
        lines.append(f"{text:<{ORIGIN_COLUMN}}  # {inert(origin)}" if origin else text)
    return "\n".join([*lines, *([""] if steps else []), *(inert(step) for step in steps)])


def scalar(value: Any) -> str:
    """A value on one line of YAML: text bare where that is safe, else quoted; lists and mappings in flow style."""
    if isinstance(value, str):
        is_bare = (
            PLAIN_SCALAR.fullmatch(value) and not value.endswith(":") and value.lower() not in WORDS_WITH_A_MEANING
        )
        return value if is_bare else inert_quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(str(key))}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    return json.dumps(value)


def inert_quoted(text: str) -> str:
    """The text in double quotes, with everything that a terminal could act on escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
