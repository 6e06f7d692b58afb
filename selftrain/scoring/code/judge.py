"""The scorer `code`: runs a candidate's code against the tests of its row, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from selftrain.config import SandboxConfig
from selftrain.errors import PhaseError, UnusablePrompts
from selftrain.records import Prompt, canonical_json
from selftrain.scoring import METRIC_PREFIX, Asked, Verdict
from selftrain.scoring.code import driver
from selftrain.scoring.code.reading import code_of, prepended, why_unusable
from selftrain.scoring.code.suites import Plan, Row, names_asked, read
from selftrain.scoring.code.trials import WORDS, Attempting, Outcome, Terms, tried
from selftrain.scoring.sandbox import Chosen, Limits
from selftrain.scoring.sandbox.pool import Sandbox


def code(
    limits: SandboxConfig,
    workers: int,
    columns: Mapping[str, str],
    sandbox: Chosen | None,
    *,
    tests: str = "tests",
    entry_point: str = "entry_point",
    setup: str = "setup",
    prepend: str | None = None,
    partial: bool = False,
    weak: bool = False,
    float_tolerance: Annotated[float, Field(ge=0, le=0.1, allow_inf_nan=False)] = 1e-6,
) -> CodeJudge:
    """The judge of a candidate's code by the tests of its row.

    `tests`, `entry_point`, `setup` and `prepend` name columns: the tests; the function that they are of; code that is
    run before them; and text that is put before a candidate's code. `partial`: the value is the share of tests passed,
    otherwise 1 or 0. `weak`: test code runs in the candidate's own process, which can make it pass; every verdict says
    so. `float_tolerance`: as `literals.same` has it. Without `sandbox` one is chosen. Raises SandboxRefused where none
    passes its self-test.
    """
    if sandbox is None:
        from selftrain.scoring.sandbox.choosing import choose

        sandbox = choose(limits.tier)
    held = Limits(
        cpu_seconds=limits.cpu_seconds,
        wall_seconds=limits.wall_seconds,
        memory_bytes=limits.memory_mb << 20,
        output_bytes=limits.output_kb << 10,
        scratch_bytes=limits.scratch_mb << 20,
    )
    # Test code takes two workers at once.
    pool = Sandbox(sandbox, held, driver=Path(driver.__file__), workers=max(workers, 2), modules=tuple(limits.modules))
    terms = Terms(tolerance=float_tolerance, all_tests=partial, cpu_seconds=limits.cpu_seconds)
    named = {"tests": tests, "entry_point": entry_point, "setup": setup, "prepend": prepend}
    return CodeJudge(pool, terms, named, columns, workers=workers, weak=weak)


class CodeJudge:
    """Judges candidates in a Sandbox, `workers` at a time. Usable from several threads. Close it."""

    def __init__(
        self,
        sandbox: Attempting,
        terms: Terms,
        named: Mapping[str, str | None],
        columns: Mapping[str, str],
        *,
        workers: int = 1,
        weak: bool = False,
    ) -> None:
        self._sandbox, self._terms, self._weak = sandbox, terms, weak
        self._named, self._columns = dict(named), dict(columns)
        self._by_value: dict[tuple[str, str], bool] = {}
        # Threads of its own, which live until it is closed: a worker's process ends with the thread that started it.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="judging-code")

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        try:
            plan = self._plan(prompt)
        except ValueError as error:
            return [Verdict(None, error=str(error))] * len(asked)
        return list(self._threads.map(lambda one: self._verdict(plan, prompt, one.text), asked))

    def _verdict(self, plan: Plan, prompt: Prompt, text: str) -> Verdict:
        source = code_of(text, names_asked(plan), is_whole=self._named["prepend"] is None)
        outcome = self._outcome(plan, prompt, source)
        extras = {f"{METRIC_PREFIX}code/{word}_rate": [float(word == outcome.word)] for word in WORDS}
        if outcome.word == "infra_error":
            return Verdict(None, source, error=f"infra_error: {outcome.why}", extras=extras)
        value = float(outcome.word == "pass")
        if self._terms.all_tests and outcome.word != "pass":
            value = outcome.passed / outcome.total
        weakly = " (weak: in the candidate's own process)" if self._weak else ""
        return Verdict(value, source, f"{outcome.word}{weakly}: {outcome.why}", extras=extras)

    def _outcome(self, plan: Plan, prompt: Prompt, source: str) -> Outcome:
        if (why := why_unusable(source)) is not None:
            return Outcome("fail", 0, 1, why)
        source = self._prepended(prompt, source)
        outcome = tried(self._sandbox, plan, source, self._terms)
        if outcome.nearly and self._is_by_value(plan, prompt):
            outcome = tried(self._sandbox, plan, source, replace(self._terms, by_value=True))
        return outcome

    def _is_by_value(self, plan: Plan, prompt: Prompt) -> bool:
        """Whether the row's own reference solution passes only where numbers are compared by value: its tests say 3
        where it returns 3.0. Asked once per row, and only of rows for which it matters."""
        if prompt.reference is None:
            return False
        key = (prompt.id, prompt.reference)
        if key not in self._by_value:
            source = self._prepended(prompt, code_of(prompt.reference))
            terms = replace(self._terms, all_tests=False)
            exactly = tried(self._sandbox, plan, source, terms)
            by_value = (
                exactly.nearly and tried(self._sandbox, plan, source, replace(terms, by_value=True)).word == "pass"
            )
            self._by_value[key] = by_value
        return self._by_value[key]

    def _prepended(self, prompt: Prompt, source: str) -> str:
        return prepended(self._text(prompt, "prepend"), source)

    def _column(self, prompt: Prompt, what: str) -> Any:
        """What the prompt's row has in the column of that parameter."""
        name = self._named[what]
        if name is None or name in prompt.metadata:
            return None if name is None else prompt.metadata[name]
        kept_as = self._columns.get(name)
        return prompt.reference if kept_as == "reference" else prompt.text if kept_as == "prompt" else None

    def _text(self, prompt: Prompt, what: str) -> str:
        value = self._column(prompt, what)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"the column {self._named[what]!r} is of type {type(value).__name__}; {what} is a text")
        return value or ""

    def _plan(self, prompt: Prompt) -> Plan:
        """Raises ValueError."""
        tests = self._column(prompt, "tests")
        if tests is None:
            raise ValueError(
                f"there is no column {self._named['tests']!r} with its tests (name another one in params.tests)"
            )
        reference = "" if prompt.reference is None else self._prepended(prompt, code_of(prompt.reference))
        texts = [self._text(prompt, one) for one in ("entry_point", "setup", "prepend")]
        return _read(canonical_json(tests), *texts, reference, self._weak)

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise UnusablePrompts unless every prompt has tests that can be read and check something, and every reference
        solution, where there is one, passes its own; PhaseError where the sandbox failed."""
        prompts = tuple(prompts)
        whys = self._threads.map(self._unusable, prompts)
        wrong = [(prompt, why) for prompt, why in zip(prompts, whys, strict=True) if why is not None]
        if wrong:
            raise UnusablePrompts.of(
                f"scorer code cannot use the tests of {len(wrong)} prompts:",
                {prompt.id: why for prompt, why in wrong},
                "correct or remove them. Plain data alone passes between a candidate and its tests, types exact: "
                "tests that need more (objects, arguments changed in place) run only with params.weak: true, where a "
                "candidate can make them pass",
            )

    def _unusable(self, prompt: Prompt) -> str | None:
        try:
            plan = self._plan(prompt)
            if prompt.reference is None:
                return None
            outcome = self._outcome(plan, prompt, code_of(prompt.reference))
        except ValueError as error:
            return str(error)
        if outcome.word == "infra_error":
            raise PhaseError(f"the reference of prompt {prompt.id} could not be checked: {outcome.why}")
        if outcome.word == "pass":
            return None
        return f"its reference solution does not pass its own tests: {outcome.word}: {outcome.why}"

    def close(self) -> None:
        """End the workers. What a thread has in hand is left without a verdict."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        close = getattr(self._sandbox, "close", None)
        if close is not None:
            close()
        self._threads.shutdown(wait=True)


@lru_cache(maxsize=1024)
def _read(tests: str, entry_point: str, setup: str, prepend: str, reference: str, weak: bool) -> Plan:
    """`suites.read`, once per row: a prompt is asked about in every round."""
    row = Row(json.loads(tests), entry_point or None, setup, prepend, reference)
    return read(row, weak=weak)
