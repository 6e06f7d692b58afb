"""Runs one attack in a candidate's process: the driver of the sandbox, and of the plain subprocess."""

from __future__ import annotations

import sys
import types
from typing import Any


def loaded(name: str, text: str) -> types.ModuleType:
    """The module of that text, importable from then on."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module


def main(payload: dict[str, Any], channel: Any) -> None:
    """Run the attack; then answer questions if it returns something that answers. `tests` come with the payload only
    from a plain judge, which compares in the candidate's own process."""
    if payload["name"] == "say_hello":
        channel.send("hello")
        return
    loaded("given", payload["given"])
    try:
        answer = getattr(loaded(payload["family"], payload["source"]), payload["name"])(payload["facts"], channel.send)
    except Exception as error:
        channel.send({"stopped": f"{type(error).__name__}: {error}"[:300]})
        return
    if answer is None:
        return
    if "tests" in payload:
        for argument, expected in payload["tests"]:
            assert answer(argument) == expected
        print("PASS")
        channel.send({"verdict": "pass"})
        return
    while (question := channel.receive()) is not None:
        channel.send({"token": question["token"], "value": answer(question["argument"])})
