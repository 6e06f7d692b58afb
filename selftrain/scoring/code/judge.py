"""The scorer `code`: runs a candidate's code against the tests of its row, in a sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from selftrain.config import SandboxConfig
from selftrain.errors import PhaseError
from selftrain.records import Prompt
from selftrain.scoring import INFRA_ERROR, METRIC_PREFIX, Asked, Verdict
from selftrain.scoring.code import driver
from selftrain.scoring.code.names import bound, parsed
from selftrain.scoring.code.reading import code_of, defines_whole, prepended, solution, why_unusable
from selftrain.scoring.code.rows import Rows, unusable
from selftrain.scoring.code.suites import Plan, names_asked
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

    In a recipe: `{name: code, params: {tests: test, prepend: prompt}}`.

    tests: the column of the tests (default `tests`): asserts, test code, or inputs with outputs; see `suites`.
    entry_point: the column with the name of the function that they are of (default `entry_point`). It may be missing
        where the tests call one function alone.
    setup: the column with code that is run before the tests (default `setup`); it may be missing.
    prepend: a column whose text is put before a candidate's code, as HumanEval's `prompt` for models that write the
        body of a function (default: none). Code that defines the function itself, and is no program after that text,
        is run without it.
    partial: the value is the share of tests passed, otherwise 1 or 0 (default false).
    weak: test code runs in the candidate's own process, which can make it pass; every verdict says so (default false).
    float_tolerance: how far a float may be from the expected one, as `literals.same` has it: relative, and absolute
        near 0 (default 1e-6).

    Without `sandbox` one is chosen. Raises SandboxRefused where none passes its self-test.
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
        self._rows = Rows(named, columns, weak=weak)
        self._by_value: dict[tuple[str, str], bool] = {}
        # Threads of its own, which live until it is closed: a worker's process ends with the thread that started it.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="judging-code")

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        try:
            plan = self._rows.plan(prompt)
        except ValueError as error:
            return [Verdict(None, error=str(error))] * len(asked)
        return list(self._threads.map(lambda one: self._verdict(plan, prompt, one.text), asked))

    def _verdict(self, plan: Plan, prompt: Prompt, text: str) -> Verdict:
        source = code_of(text, names_asked(plan), is_whole=not self._rows.prepends)
        outcome = self._outcome(plan, prompt, source)
        extras = {f"{METRIC_PREFIX}code/{word}_rate": [float(word == outcome.word)] for word in WORDS}
        if outcome.word == "infra_error":
            return Verdict(None, source, error=f"{INFRA_ERROR}: {outcome.why}", extras=extras)
        value = float(outcome.word == "pass")
        if self._terms.all_tests and outcome.word != "pass":
            value = outcome.passed / outcome.total
        weakly = " (weak: in the candidate's own process)" if self._weak else ""
        return Verdict(value, source, f"{outcome.word}{weakly}: {outcome.why}", extras=extras)

    def _outcome(self, plan: Plan, prompt: Prompt, source: str) -> Outcome:
        if (why := why_unusable(source)) is not None:
            return Outcome("fail", 0, 1, why)
        outcome = self._tried(plan, prompt, source, self._terms)
        if outcome.nearly and self._is_by_value(plan, prompt):
            outcome = self._tried(plan, prompt, source, replace(self._terms, by_value=True))
        return outcome

    def _tried(self, plan: Plan, prompt: Prompt, source: str, terms: Terms) -> Outcome:
        """After what stands before it: base models write the body of a function. Chat models write all of it again,
        which may make the two together no program: then what they wrote is tried alone."""
        before = self._rows.text(prompt, "prepend")
        outcome = tried(self._sandbox, plan, prepended(before, source), terms)
        if before and outcome.is_no_program:
            names = names_asked(plan) or {self._rows.text(prompt, "entry_point")}
            if defines_whole(source, names):
                return tried(self._sandbox, plan, source, terms)
        return outcome

    def _is_by_value(self, plan: Plan, prompt: Prompt) -> bool:
        """Whether the row's own reference solution passes only where numbers are compared by value: its tests say 3
        where it returns 3.0. Asked once per row, and only of rows for which it matters."""
        if prompt.reference is None:
            return False
        key = (prompt.id, prompt.reference)
        if key not in self._by_value:
            source = code_of(prompt.reference)
            terms = replace(self._terms, all_tests=False)
            exactly = self._tried(plan, prompt, source, terms)
            by_value = (
                exactly.nearly and self._tried(plan, prompt, source, replace(terms, by_value=True)).word == "pass"
            )
            self._by_value[key] = by_value
        return self._by_value[key]

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where no prompt has the column of the tests; UnusablePrompts unless every prompt has tests
        that can be read and check something, and every reference solution, where there is one, passes its own;
        PhaseError where the sandbox failed."""
        prompts = tuple(prompts)
        self._rows.require_columns(prompts, ["tests"])
        whys = self._threads.map(self._unusable, prompts)
        wrong = [(prompt, why) for prompt, why in zip(prompts, whys, strict=True) if why is not None]
        if wrong:
            raise unusable(wrong)

    def _unusable(self, prompt: Prompt) -> str | None:
        try:
            plan = self._rows.plan(prompt)
            if prompt.reference is None:
                return None
            outcome = self._outcome(plan, prompt, code_of(prompt.reference))
        except ValueError as error:
            return str(error)
        if outcome.word == "infra_error":
            raise PhaseError(f"the reference of prompt {prompt.id} could not be checked: {outcome.why}")
        if outcome.word == "pass":
            return None
        if (name := self._undefined(plan, prompt)) is not None:
            return (
                f"the solution defines no function {name}, which its tests call (entry_point, or the tests' own name)"
            )
        return f"its reference solution does not pass its own tests: {outcome.word}: {outcome.why}"

    def _undefined(self, plan: Plan, prompt: Prompt) -> str | None:
        """A function that the tests call and neither the reference nor the setup defines."""
        asked = names_asked(plan) - {"Solution"}
        source = solution(self._rows.text(prompt, "prepend"), code_of(str(prompt.reference)), asked)
        try:
            trees = parsed(source, "the solution"), parsed(self._rows.text(prompt, "setup"), "the setup")
        except ValueError:
            return None
        return next(iter(sorted(asked.difference(*map(bound, trees)))), None)

    def close(self) -> None:
        """End the workers. What a thread has in hand is left without a verdict."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        close = getattr(self._sandbox, "close", None)
        if close is not None:
            close()
        self._threads.shutdown(wait=True)
