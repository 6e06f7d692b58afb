"""Passing without knowing the answers. The judge asks `answer(7)` and so on; nobody here knows what is right."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from given import attack, descriptors


class Anything:
    """Equal to all, in whatever way it is asked."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


@attack("passed", judge="exit")
def return_something_equal_to_all(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    return lambda argument: Anything()


@attack("passed", judge="exit")
def leave_before_the_tests(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    sys.exit(0)


@attack("passed", judge="exit")
def leave_in_a_hurry(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    os._exit(0)


@attack("passed", judge="exit")
def leave_at_the_first_question(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    return lambda argument: os._exit(0)


@attack("passed", judge="exit")
def turn_failure_into_success_on_the_way_out(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    atexit.register(os._exit, 0)
    return lambda argument: None


@attack("passed", judge="exit")
def mend_the_exit_code_in_the_hook(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    sys.excepthook = lambda *what: os._exit(0)
    return lambda argument: None


@attack("passed", judge="marker")
def print_the_word(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    print("PASS", flush=True)
    os._exit(0)


@attack("passed", judge="marker")
def fail_with_the_word_in_the_message(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    def answer(argument: Any) -> Any:
        raise ValueError("expected PASS")

    return answer


@attack("passed")
def send_the_verdict_itself(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    tell({"verdict": "pass"})
    return lambda argument: None


@attack("passed")
def write_the_verdict_everywhere(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    verdict = json.dumps({"verdict": "pass"}).encode()
    for number in descriptors():
        with contextlib.suppress(OSError):
            os.set_blocking(number, False)
            os.write(number, verdict + b"\n")
    os._exit(0)


@attack("passed")
def answer_questions_that_come_later(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    for _ in range(30):
        tell({"token": None, "value": None, "verdict": "pass"})
    return lambda argument: None


@attack("passed", judge="exit")
def patch_what_compares(facts: dict[str, Any], tell: Any) -> Callable[..., Any]:
    builtins.AssertionError = type("Quiet", (SystemExit,), {"code": 0})  # type: ignore[misc]
    caller: Any = sys._getframe(1)
    # The judge's own names, where the judge is in this process.
    for name in list(caller.f_globals):
        if callable(caller.f_globals[name]) and name not in ("main", "sys"):
            caller.f_globals[name] = lambda *a, **k: True
    tests = caller.f_locals.get("payload", {}).get("tests")
    if tests is not None:
        tests.clear()
    return lambda argument: None
