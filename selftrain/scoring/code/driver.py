"""The program inside the sandbox: a candidate's functions, a candidate's program, or test code that asks a candidate.

The fork server loads this file once and calls `main(payload, channel)` in a forked, confined process. It imports the
standard library alone. Where it runs a candidate's code, that code can change anything in this process, this module
among it: all that the process can do by that is to send another value than its function returned, or none.

A value travels as a *tree*, JSON in which every node says its exact type: null, true, false, text, a list, an int
under 2**53, and by one key `{"i": hex}` an int, `{"f": repr}` a float, `{"c": [repr, repr]}` a complex number,
`{"b": hex}` bytes, `{"t": [...]}` a tuple, `{"s": [...]}` a set, `{"z": [...]}` a frozenset, and `{"d": [[key, value],
...]}` a dict (or a Counter, defaultdict or OrderedDict, which equal one). What Python compares as one of these travels
as it: an IntEnum, a named tuple, a number of numpy's. Nothing else travels: no object, never a pickle.
"""

from __future__ import annotations

import atexit
import builtins
import collections
import contextlib
import io
import os
import random
import site
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 200_000
MAX_BITS = 40_000
"""Of an int: about 12,000 decimal digits."""
PLAIN_INT = 1 << 53
_SHORT = 300

# What a test may expect a candidate to raise. StopIteration and its like would end a loop of the test early, so that
# what it asserts is never looked at.
_NEVER_RAISED = ("StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt", "SystemExit")


class Refused(Exception):  # noqa: N818 - reads as a fact
    """A value is no plain data."""


class CandidateRaised(Exception):  # noqa: N818 - reads as a fact
    """In the tests' process: the candidate raised what the tests do not name, or returned no plain data."""


def encode(value: Any) -> Any:
    """The tree of a value. Raises Refused for anything but plain data of exact types, and for too much of it."""
    left = [MAX_NODES]

    def tree(value: Any, depth: int) -> Any:
        left[0] -= 1
        kind = type(value)
        if kind not in _PLAIN:
            value = _plain(value, kind)
            kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if -PLAIN_INT < value < PLAIN_INT:
                return value
            if value.bit_length() > MAX_BITS:
                raise Refused(f"an int of {value.bit_length()} bits")
            return {"i": hex(value)}
        if kind is float:
            return {"f": repr(value)}
        if kind is complex:
            return {"c": [repr(value.real), repr(value.imag)]}
        if kind is bytes:
            return {"b": value.hex()}
        if kind not in _CONTAINERS:
            raise Refused(f"a {kind.__name__}, which is no plain data")
        if depth >= MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} deep, or within itself")
        if left[0] < len(value):
            raise Refused(f"more than {MAX_NODES} values")
        if _CONTAINERS[kind] == "d":
            return {"d": [[tree(key, depth + 1), tree(one, depth + 1)] for key, one in dict.items(value)]}
        inside = [tree(one, depth + 1) for one in value]
        return inside if kind is list else {_CONTAINERS[kind]: inside}

    return tree(value, 0)


def _plain(value: Any, kind: type) -> Any:
    """A number of numpy's, or an instance of a subclass that compares as its base does (named tuples, IntEnum), as the
    plain data that it equals. A class that lies about that only changes what its own candidate answers."""
    for base, made in _BASES.items():
        if issubclass(kind, base) and getattr(kind, "__eq__", None) is getattr(base, "__eq__", None):
            return made(value)
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
}
_CONTAINERS: dict[type, str] = {list: "", tuple: "t", set: "s", frozenset: "z", dict: "d"}
_CONTAINERS |= dict.fromkeys((collections.Counter, collections.defaultdict, collections.OrderedDict), "d")
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, *_CONTAINERS})


def decode(tree: Any) -> Any:
    """The value of a tree. Raises ValueError, TypeError or KeyError where it is none."""
    if tree is None or type(tree) in (bool, int, str):
        return tree
    if type(tree) is list:
        return [decode(one) for one in tree]
    ((tag, inside),) = tree.items()
    return _DECODERS[tag](inside)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "i": lambda text: int(text, 16),
    "f": float,
    "c": lambda parts: complex(float(parts[0]), float(parts[1])),
    "b": bytes.fromhex,
    "t": lambda inside: tuple(decode(one) for one in inside),
    "s": lambda inside: {decode(one) for one in inside},
    "z": lambda inside: frozenset(decode(one) for one in inside),
    "d": lambda pairs: {decode(key): decode(one) for key, one in pairs},
}


def main(payload: Any, channel: Any) -> None:
    """Do what `payload["mode"]` says: functions, program, suite or weak.

    A forked process seeds `random` anew; by one seed for all, a verdict is the same whenever it is asked for.
    """
    random.seed(0)
    sys.argv = ["solution.py"]
    sys.set_int_max_str_digits(0)  # its time is limited anyway, and contests print such numbers
    site.setquit()
    {"functions": _functions, "program": _program, "suite": _suite, "weak": _weak}[payload["mode"]](payload, channel)


def _functions(payload: Any, channel: Any) -> None:
    """Load the candidate's source as a module, say whether it loaded, then answer calls until nobody asks."""
    module = _module("candidate")
    try:
        for name, source in (("setup", payload.get("setup")), ("candidate", payload["source"])):
            if source:
                exec(compile(source, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        channel.send({"loaded": False, **_raised(error)})
        return
    channel.send({"loaded": True})
    while True:
        try:
            call = channel.receive()
        except EOFError:  # nobody asks any more
            return
        channel.send({"token": call["token"], **_answer(module, call)})


def _module(name: str) -> types.ModuleType:
    """An empty module that dataclasses and typing find by its name."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def _answer(module: types.ModuleType, call: Any) -> dict[str, Any]:
    try:
        function = _function(module, call["name"])
        if function is None:
            return {"missing": True}
        arguments = [decode(one) for one in call["args"]]
        named = {name: decode(one) for name, one in call["kwargs"].items()}
        value = function(*arguments, **named)
    except BaseException as error:
        return _raised(error)
    try:
        return {"value": encode(value)}
    except Refused as error:
        return {"refused": str(error)}
    except BaseException as error:
        return _raised(error)


def _function(module: types.ModuleType, name: str) -> Any:
    """The function of that name, or the method of a class Solution, as programming contests have it."""
    found = module.__dict__.get(name)
    if found is None and "Solution" in module.__dict__:
        found = getattr(module.__dict__["Solution"](), name, None)
    return found


def _raised(error: BaseException) -> dict[str, Any]:
    """What was raised, as data. Its own text may raise again, or be endless work: that is the candidate's time."""
    try:
        why = str(error)[:_SHORT]
    except BaseException:
        why = ""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    return {"raised": str(type(error).__name__)[:_SHORT], "is": kinds[0], "why": why, "line": _line_of(error)}


def _line_of(error: BaseException) -> int | None:
    """The last line of the candidate's own code that the error came through."""
    line: int | None = None
    if isinstance(error, SyntaxError):
        return error.lineno
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<candidate>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _program(payload: Any, channel: Any) -> None:
    """Run the source as a program with that standard input. What it prints is the sandbox's to keep."""
    _feed(payload["stdin"].encode("utf-8", "surrogatepass"))
    module = _module("__main__")
    how: dict[str, Any] = {"ended": True}
    try:
        exec(compile(payload["source"], "<candidate>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        if error.code not in (None, 0):
            how = {"raised": "SystemExit", "why": f"exit code {error.code!r}"[:_SHORT], "line": None}
    except BaseException as error:
        how = _raised(error)
    _finish_program()
    channel.send(how)


def _finish_program() -> None:
    """What an interpreter does at its end: wait for the threads, call what was registered, write what is left."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(AttributeError, ValueError):  # replaced, or closed
            stream.flush()  # type: ignore[union-attr]


def _feed(text: bytes) -> None:
    """Make that text standard input: a file without a name, so that every way of reading it works."""
    name = f"stdin-{os.getpid()}"
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(name)
    view = memoryview(text)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, 0)
    if descriptor != 0:
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8")


def _suite(payload: Any, channel: Any) -> None:
    """Run test code whose candidate is elsewhere: each call goes out as data, and comes back as data.

    No code of a candidate runs in this process. Tells of each test what failed, or that it passed having asked the
    candidate and asserted something.
    """
    counted = dict.fromkeys(("calls", "asserts", "last", "expects"), 0)

    expected = tuple(payload["expected_errors"])
    namespace: dict[str, Any] = _module("tests").__dict__

    def proxy(name: str) -> Callable[..., Any]:
        def candidate(*args: Any, **kwargs: Any) -> Any:
            counted["calls"] += 1
            try:
                named = {key: encode(one) for key, one in kwargs.items()}
                call = {"call": name, "args": [encode(one) for one in args], "kwargs": named}
            except Refused as error:
                raise CandidateRaised(f"the tests call {name} with {error}") from None
            channel.send(call)
            answer = channel.receive()
            if counted["expects"] and _expected_error(answer, expected) is not None:
                counted["asserts"] += 1
            return _value(name, answer, expected)

        candidate.__name__ = candidate.__qualname__ = name
        return candidate

    namespace.update({name: proxy(target) for name, target in payload["proxies"].items()})
    namespace["__selftrain_asserting__"] = lambda number: counted.update(last=number)
    namespace["__selftrain_asserted__"] = lambda: counted.update(asserts=counted["asserts"] + 1)
    namespace["__selftrain_expecting__"] = lambda: counted.update(expects=1)
    outcomes: list[dict[str, Any]] = []
    for source in payload["before"]:
        exec(compile(source, "<tests>", "exec", dont_inherit=True), namespace)
    for source in payload["tests"]:
        counted.update(dict.fromkeys(counted, 0))
        try:
            exec(compile(source, "<tests>", "exec", dont_inherit=True), namespace)
            outcomes.append({"passed": bool(counted["calls"] and counted["asserts"]), **counted})
        except BaseException as error:
            outcomes.append({"passed": False, **counted, **_raised(error)})
            if not payload["all"]:
                break
    channel.send({"outcomes": outcomes})


def _value(name: str, answer: Any, expected_errors: tuple[str, ...]) -> Any:
    """What the candidate's function returned, or what it raised, raised here where the tests name it."""
    if "value" in answer:
        try:
            return decode(answer["value"])
        except Exception:  # a forged tree: a set of lists, say
            raise CandidateRaised(f"{name} returned what is no value") from None
    if (error := _expected_error(answer, expected_errors)) is not None:
        try:
            raise error(answer.get("why", ""))
        except TypeError:
            if not issubclass(error, TypeError):  # UnicodeDecodeError takes other arguments
                raise CandidateRaised(f"{name} raised {error.__name__}") from None
            raise
    raise CandidateRaised(f"{name} {answer.get('told', 'raised something')}")


def _expected_error(answer: Any, expected_errors: tuple[str, ...]) -> type[Exception] | None:
    """The builtin error that a candidate raised, or of which it raised a subclass, where the tests name it or one that
    it is a kind of."""
    error = getattr(builtins, answer.get("is", ""), None)
    if not (isinstance(error, type) and issubclass(error, Exception)) or issubclass(error, AssertionError):
        return None
    is_named = any(kind.__name__ in expected_errors for kind in error.__mro__)
    return error if is_named and error.__name__ not in _NEVER_RAISED else None


def _weak(payload: Any, channel: Any) -> None:
    """Candidate and tests in one process, where the candidate can make the tests pass. Says that they passed."""
    module = _module("candidate")
    try:
        for source in payload["sources"]:
            exec(compile(source, "<candidate>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        channel.send({"passed": False, **_raised(error)})
        return
    channel.send({"passed": True})
