"""Running a candidate's code against a plan in the sandbox, and what came of it.

Whatever a candidate's process sends is data that it may have forged. A call has a token of its own, so that an answer
belongs to that call or to none; a value is compared and never executed, unpickled or built.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from selftrain.scoring.code.literals import Tree, call_shown, holds_nan, is_tree, printable, shown
from selftrain.scoring.code.suites import Calls, Plan, Streams, Suite, Weak, output_matches
from selftrain.scoring.sandbox import Ended
from selftrain.scoring.sandbox.pool import Process

Word: TypeAlias = Literal["pass", "fail", "timeout", "oom", "output_limit", "infra_error"]
WORDS: tuple[Word, ...] = ("pass", "fail", "timeout", "oom", "output_limit", "infra_error")
T = TypeVar("T")
_OF_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
# What Python itself puts behind a syntax error's words.
_PLACE = re.compile(r" \(<\w+>, line \d+\)$")


class Attempting(Protocol):
    """What a trial needs of a Sandbox."""

    def attempt(self, payloads: Sequence[Any], converse: Any) -> tuple[Any, tuple[Ended, ...]]:
        """As `Sandbox.attempt`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How answers are compared: `tolerance` and `by_value` as `literals.same` has them; `all_tests` goes on after a
    failed test, for a share of tests passed; `cpu_seconds` is for all runs of a program together."""

    tolerance: float = 1e-6
    by_value: bool = False
    all_tests: bool = False
    cpu_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial: a word, how many of how many tests passed, and what of the first that did not. `nearly`:
    a call's answer was wrong only by the types of its numbers."""

    word: Word
    passed: int
    total: int
    why: str
    nearly: bool = False
    is_no_program: bool = False
    """It could not be loaded, as it is no Python."""


@dataclass(slots=True)
class _Course:
    """A trial under way. The first failure decides its word."""

    total: int
    passed: int = 0
    at: str = "it was loaded"
    failed: tuple[Word, str] | None = None
    nearly: bool = False
    is_no_program: bool = False

    def restart(self) -> None:
        """As the sandbox does, where only wall time ran out or the sandbox failed."""
        self.passed, self.at, self.failed, self.nearly = 0, "it was loaded", None, False
        self.is_no_program = False

    def fail(self, word: Word, why: str) -> None:
        self.failed = self.failed or (word, why)

    def outcome(self, ended: Ended | None) -> Outcome:
        """`ended` is how the process ended that stopped the trial; None where none did."""
        if ended is not None and (ended.how == "infra_error" or self.failed is None):
            self.failed = _ending(ended, self.at)
        if self.failed is None and self.passed != self.total:
            self.failed = ("fail", f"{self.passed} of {self.total} tests passed")
        if self.failed is not None:
            word, why = self.failed
            return Outcome(word, self.passed, self.total, why, self.nearly, self.is_no_program)
        return Outcome("pass", self.passed, self.total, f"{self.total} test{'s' if self.total != 1 else ''} passed")


def _ending(ended: Ended, at: str) -> tuple[Word, str]:
    """The word and the reason of a process that was stopped, or stopped by itself."""
    detail = f" ({printable(ended.detail)})" if ended.detail else ""
    if ended.how == "timeout":
        return "timeout", f"it ran out of time while {at}{detail}"
    if ended.how == "oom":
        return "oom", f"it ran out of memory while {at}{detail}"
    if ended.how == "output_limit":
        return "output_limit", f"it printed or returned too much while {at}{detail}"
    if ended.how == "infra_error":
        return "infra_error", f"the sandbox failed while {at}{detail}"
    if ended.how == "crashed":
        return "fail", f"its process crashed while {at}{detail}"
    return "fail", f"its process ended while {at}, exit code {ended.exit_code}"


def tried(sandbox: Attempting, plan: Plan, source: str, terms: Terms) -> Outcome:
    """Run `source` against the plan. Callable from several threads."""
    if isinstance(plan, Calls):
        return _calls(sandbox, plan, source, terms)
    if isinstance(plan, Streams):
        return _streams(sandbox, plan, source, terms)
    return _suite(sandbox, plan, source, terms) if isinstance(plan, Suite) else _weak(sandbox, plan, source)


def _calls(sandbox: Attempting, plan: Calls, source: str, terms: Terms) -> Outcome:
    course = _Course(len(plan.calls))

    def converse(processes: Sequence[Process]) -> bool:
        course.restart()
        if not _has_loaded(processes[0], course):
            return True
        for number, call in enumerate(plan.calls, 1):
            text = call_shown(call.name, call.args, call.kwargs)
            course.at = f"test {number} of {course.total}, {text}, was run"
            answer = _asked(processes[0], call.name, call.args, call.kwargs)
            if answer.has_value and call.expected.accepts(answer.value, terms.tolerance, by_value=terms.by_value):
                course.passed += 1
                continue
            if answer.has_value and call.expected.accepts(answer.value, terms.tolerance, by_value=True):
                course.nearly = True
            told = f"returned {shown(answer.value)}" if answer.has_value else answer.told
            wanted = f"{call.expected} was expected"
            course.fail(answer.word, f"test {number} of {course.total}: {text} {told}, and {wanted}")
            if not terms.all_tests:
                break
        return True

    result, endings = sandbox.attempt([_functions(plan.setup, source)], converse)
    return course.outcome(endings[0] if result is None else None)


def _functions(setup: str, source: str) -> dict[str, Any]:
    return {"mode": "functions", "setup": setup, "source": source}


def _has_loaded(process: Process, course: _Course) -> bool:
    message = process.receive()
    if isinstance(message, dict) and message.get("loaded") is True:
        return True
    answer = _read(message, "", "it")
    course.is_no_program = answer.is_no_program
    course.fail(answer.word, f"the code cannot be loaded: it {answer.told}")
    return False


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a candidate's process said of one call. `message` is that for the tests' process."""

    told: str = ""
    word: Word = "fail"
    value: Tree = None
    has_value: bool = False
    message: Mapping[str, Any] = field(default_factory=dict)
    is_no_program: bool = False


def _asked(process: Process, name: str, args: Sequence[Tree], kwargs: Mapping[str, Tree]) -> _Answer:
    """The answer to one call. The process is told nothing but the arguments."""
    token = secrets.token_hex(8)
    process.send({"token": token, "name": name, "args": list(args), "kwargs": dict(kwargs)})
    return _read(process.receive(), token, name)


def _read(message: Any, token: str, name: str) -> _Answer:
    if not isinstance(message, dict) or message.get("token", "") != token:
        return _answered("sent what is no answer to that call")
    if "value" in message:
        if not is_tree(message["value"]):
            return _answered("sent what is no value")
        return _Answer(value=message["value"], has_value=True, message={"value": message["value"]})
    if "refused" in message:
        return _answered(f"returned {printable(message['refused'])}")
    if "missing" in message:
        return _answered(f"is not defined: the code has no function {name}")
    raised, why = printable(message.get("raised"), 60), printable(message.get("why"))
    line = message.get("line")
    where = f" (line {line})" if type(line) is int and 0 < line < 10**6 else ""
    why = _PLACE.sub("", why) if where else why
    told = f"raised {raised}{': ' if why else ''}{why}{where}"
    word: Word = "oom" if raised == "MemoryError" else "fail"
    said = {"is": printable(message.get("is"), 60), "why": why, "told": told}
    return _Answer(told, word, message=said, is_no_program=raised in _OF_SYNTAX)


def _answered(told: str) -> _Answer:
    return _Answer(told, message={"told": told})


def _suite(sandbox: Attempting, plan: Suite, source: str, terms: Terms) -> Outcome:
    course = _Course(len(plan.tests))
    tests = {
        "mode": "suite",
        "before": list(plan.before),
        "tests": list(plan.tests),
        "proxies": dict(plan.proxies),
        "expected_errors": list(plan.expected_errors),
        "all": terms.all_tests,
    }
    asked_last = [0]

    def converse(processes: Sequence[Process]) -> bool:
        course.restart()
        asked_last[0] = 0
        if not _has_loaded(processes[0], course):
            return True
        word: Word = "fail"
        while True:
            asked_last[0] = 1
            message = processes[1].receive()
            if not isinstance(message, dict) or not {"outcomes", "call"} & message.keys():
                course.fail("fail", "the tests sent what is no message")
                return True
            if "outcomes" in message:
                _take(message["outcomes"], plan, course, word)
                return True
            asked_last[0] = 0
            name = message["call"]
            course.at = f"{call_shown(name, message['args'], message['kwargs'])} was called"
            answer = _asked(processes[0], name, message["args"], message["kwargs"])
            if answer.has_value and holds_nan(answer.value) and not plan.allows_nan:
                answer = _answered("returned NaN, of which the tests do not speak")
            word = answer.word
            processes[1].send(answer.message)

    result, endings = sandbox.attempt([_functions(plan.setup, source), tests], converse)
    return course.outcome(_stopping(endings, asked_last[0]) if result is None else None)


def _stopping(endings: Sequence[Ended], asked_last: int) -> Ended:
    """The ending that stopped a conversation: a failure of the sandbox, or else of the process that was waited for."""
    return next((one for one in endings if one.how == "infra_error"), endings[asked_last])


def _take(outcomes: Sequence[Mapping[str, Any]], plan: Suite, course: _Course, word: Word) -> None:
    """What the tests' process says, in which no code of a candidate ran."""
    for number, one in enumerate(outcomes, 1):
        if one["passed"]:
            course.passed += 1
            continue
        where = f"test {number} of {course.total}" if course.total > 1 else "the tests"
        if "raised" not in one:
            lack = "the candidate was never called" if not one["calls"] else "no assertion was reached"
            course.fail("fail", f"{where}: {lack}")
        elif one["raised"] == "AssertionError":
            course.fail("fail", f"{where}: the assertion failed: {printable(plan.assertions[one['last']])}")
        else:
            course.fail(word, f"{where}: {printable(one['raised'], 60)}: {printable(one['why'])}")


def _streams(sandbox: Attempting, plan: Streams, source: str, terms: Terms) -> Outcome:
    """Each case in a process of its own."""
    course = _Course(len(plan.cases))
    left = terms.cpu_seconds
    for number, (given, wanted) in enumerate(plan.cases, 1):
        course.at = f"test {number} of {course.total} was run"
        word, why, used = _of_case(sandbox, source, (given, wanted), terms, course, left)
        left -= used
        if word == "pass":
            course.passed += 1
            continue
        course.fail(word, why)
        if not terms.all_tests or word == "infra_error" or left <= 0:
            break
    return course.outcome(None)


def _of_case(
    sandbox: Attempting, source: str, case: tuple[str, str], terms: Terms, course: _Course, left: float
) -> tuple[Word, str, float]:
    """The word, the reason, and the processor time used, of a program with one input."""

    def converse(processes: Sequence[Process]) -> Any:
        return processes[0].receive()

    payload = {"mode": "program", "source": source, "stdin": case[0]}
    message, (ended,) = sandbox.attempt([payload], converse)
    if ended.how != "finished":
        return *_ending(ended, course.at), ended.cpu_seconds
    if ended.cpu_seconds >= left:
        why = f"it ran out of processor time while {course.at} ({terms.cpu_seconds:g} s for all tests)"
        return "timeout", why, ended.cpu_seconds
    return *_compared(message, ended, case, terms, course.at.removesuffix(" was run")), ended.cpu_seconds


def _compared(message: Any, ended: Ended, case: tuple[str, str], terms: Terms, where: str) -> tuple[Word, str]:
    """Of a program that ended by itself: how it said it did, and what it printed."""
    if isinstance(message, dict) and "raised" in message:
        answer = _read(message, "", "it")
        return answer.word, f"{where}: it {answer.told}"
    if message is None and ended.exit_code not in (0, None):  # os._exit
        return "fail", f"{where}: it ended with exit code {ended.exit_code}"
    given, wanted = case
    printed = ended.output.decode("utf-8", "replace")
    if output_matches(wanted, printed, terms.tolerance):
        return "pass", ""
    told = f"for {shown(given)} it printed {shown(printed)}, and {shown(wanted)} was expected"
    return "fail", f"{where}: {told}"


def _weak(sandbox: Attempting, plan: Weak, source: str) -> Outcome:
    course = _Course(1)

    def converse(processes: Sequence[Process]) -> bool:
        course.restart()
        message = processes[0].receive()
        if isinstance(message, dict) and message.get("passed") is True:
            course.passed = 1
        else:
            answer = _read(message, "", "it")
            course.is_no_program = answer.is_no_program
            course.fail(answer.word, f"candidate and tests together: it {answer.told}")
        return True

    sources = [one for one in (plan.before, source, plan.after) if one]
    result, endings = sandbox.attempt([{"mode": "weak", "sources": sources}], converse)
    return course.outcome(endings[0] if result is None else None)
