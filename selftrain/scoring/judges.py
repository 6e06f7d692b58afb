"""One scorer of the list: what is taken out of the text, then a built-in rule or a user's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selftrain.config import ExtractConfig, SandboxConfig, ScorerConfig
from selftrain.errors import UnusablePrompts
from selftrain.plugins import load_function
from selftrain.records import Prompt
from selftrain.scoring import NO_MEANS, SCORERS, Asked, BlockJudge, BuiltIn, HoldsModel, Judge, Means, Verdict
from selftrain.scoring.extraction import Extraction, extract
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.majority import MajorityJudge, WholeAnswers
from selftrain.scoring.results import cut
from selftrain.scoring.rules import check_reference
from selftrain.scoring.sandbox import Chosen
from selftrain.scoring.structured import schema_of
from selftrain.world import cores_of_process

MATCHED = "selftrain.scoring.extraction:matched"
MOST_WORKERS = 8


def built(
    scorer: ScorerConfig,
    base: Path,
    timeout_seconds: float,
    columns: Mapping[str, str] = MappingProxyType({}),
    workers: int | None = None,
    limits: SandboxConfig = SandboxConfig(),  # noqa: B008 - frozen
    sandbox: Chosen | None = None,
    means: Means = NO_MEANS,
) -> Judge:
    """Start a scorer; `columns`, `sandbox` and `means` as `scoring.build` has them, `workers` as `score.workers`,
    `limits` as `score.sandbox`. Raises ConfigError, DataError, DependencyError or SandboxRefused where it cannot be
    used."""
    built_in = SCORERS.get(scorer.name)
    judge: Judge
    if built_in is not None and built_in.compares:
        answers = _extracting(WholeAnswers(), scorer, base, timeout_seconds, workers)
        rules = load_function(built_in.rule, base)(**scorer.params)
        apart = workers_of(scorer, workers)
        try:
            return MajorityJudge(rules, answers, base=base, timeout_seconds=timeout_seconds, workers=apart)
        except BaseException:
            answers.close()
            raise
    if built_in is None:
        judge = FunctionJudge(
            scorer.name,
            base=base,
            params=scorer.params,
            timeout_seconds=timeout_seconds,
            columns=columns,
            workers=workers or 1,
        )
    elif built_in.learned:
        judge = load_function(built_in.rule, base)(base, means, **scorer.params)
    elif built_in.sandboxed:
        of_code = load_function(built_in.rule, base)
        judge = of_code(limits, workers_of(scorer, workers), columns, sandbox, **scorer.params)
    else:
        judge = RuleJudge(
            scorer.name, built_in, _params(scorer, base), base, timeout_seconds, workers_of(scorer, workers)
        )
    return _extracting(judge, scorer, base, timeout_seconds, workers)


def _extracting(judge: Judge, scorer: ScorerConfig, base: Path, timeout_seconds: float, workers: int | None) -> Judge:
    """The judge, of what the scorer's `extract` takes out."""
    config = extract_of(scorer)
    if config.by == "whole":
        return judge
    try:
        kind = BlockExtracting if isinstance(judge, BlockJudge) else Extracting
        return kind(judge, config, base, timeout_seconds, workers_of(scorer, workers))
    except BaseException:
        judge.close()
        raise


def extract_of(scorer: ScorerConfig) -> ExtractConfig:
    """Where the scorer looks. A whole text can hold JSON among words, so json_schema looks for it there."""
    if scorer.name == "json_schema" and scorer.extract.by == "whole":
        return ExtractConfig(by="json")
    return scorer.extract


def runs_apart(scorer: ScorerConfig) -> bool:
    """Whether the scorer needs a process of its own."""
    built_in = SCORERS.get(scorer.name)
    if built_in is None or built_in.in_worker or built_in.sandboxed or scorer.extract.by == "regex":
        return True
    return built_in.compares and scorer.params.get("normalise") == "math"


def workers_of(scorer: ScorerConfig, workers: int | None) -> int:
    """How many threads can judge by it at a time, where `score.workers` is that. A rule in this process gains nothing
    by a second one, and a user's function may keep state."""
    built_in = SCORERS.get(scorer.name)
    if built_in is None and scorer.extract.by != "regex":
        return workers or 1
    if runs_apart(scorer):
        return workers or min(cores_of_process(), MOST_WORKERS)
    return 1


def _params(scorer: ScorerConfig, base: Path) -> dict[str, Any]:
    if scorer.name == "json_schema" and scorer.params.get("schema") is not None:
        return {**scorer.params, "schema": schema_of(scorer.params["schema"], base)}
    return scorer.params


class RuleJudge:
    """A built-in rule. Judged here, or by a worker where the rule must be stoppable."""

    def __init__(
        self,
        name: str,
        built_in: BuiltIn,
        params: Mapping[str, Any],
        base: Path,
        timeout_seconds: float,
        workers: int = 1,
    ) -> None:
        self._name, self._params = name, dict(params)
        self._rule = load_function(built_in.rule, base)
        self._check = None if built_in.check is None else load_function(built_in.check, base)
        self._needs_reference = needs_reference(self._rule)
        self._worker: FunctionJudge | None = None
        if built_in.in_worker:
            self._worker = FunctionJudge(
                built_in.rule,
                base=base,
                params=params,
                timeout_seconds=timeout_seconds,
                check=built_in.check,
                prepare=built_in.prepare,
                workers=workers,
                is_rule=True,
            )

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order."""
        if prompt.reference is None and self._needs_reference:
            return [Verdict(None, error="the prompt has no reference")] * len(asked)
        if self._worker is not None:
            return self._worker.judge(prompt, asked)
        return [self._verdict(prompt, one.text) for one in asked]

    def _verdict(self, prompt: Prompt, text: str) -> Verdict:
        try:
            found: Verdict = self._rule(text, **_of_prompt(self._rule, prompt), **self._params)
            return found
        except MemoryError as error:  # of this process, whatever the text is
            return Verdict(None, error=f"MemoryError: {error}")
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if self._unusable(prompt) is not None:
                return Verdict(None, error=said)
            # The rule takes the reference, so it stumbles over the text: a policy must not have that left out.
            return Verdict(0.0, explanation=f"the rule cannot read it: {said}")

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """Raise UnusablePrompts unless the rule can use every prompt's reference (or what it takes instead)."""
        prompts = tuple(prompts)
        without = [one for one in prompts if one.reference is None and self._needs_reference]
        wrong = [(one, "there is no reference") for one in without]
        left = [one for one in prompts if one.reference is not None or not self._needs_reference]
        if self._worker is not None:
            wrong += self._worker.unusable(left)
        else:
            wrong += [(one, why) for one in left if (why := self._unusable(one)) is not None]
        if wrong:
            raise UnusablePrompts.of(
                f"scorer {self._name} cannot use the references of {len(wrong)} prompts:",
                {prompt.id: why for prompt, why in wrong},
                "correct them, name another column in prompts.<set>.columns.reference, or use another scorer",
            )

    def _unusable(self, prompt: Prompt) -> str | None:
        try:
            if self._check is not None:
                self._check(**_of_prompt(self._check, prompt), **self._params)
            else:
                check_reference(self._rule, str(prompt.reference), self._params)
        except Exception as error:
            return str(error) or type(error).__name__
        return None

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.close()


def needs_reference(rule: Callable[..., Verdict]) -> bool:
    """Whether a rule takes a reference and says that it is never None."""
    reference = inspect.signature(rule).parameters.get("reference")
    return reference is not None and "None" not in str(reference.annotation)


def _of_prompt(function: Callable[..., Any], prompt: Prompt) -> dict[str, Any]:
    offered = {"reference": prompt.reference, "metadata": prompt.metadata}
    names = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in names}


class Extracting:
    """A scorer that sees only what was taken out of a text. A text without an answer is wrong, and nobody is asked."""

    def __init__(
        self, judge: Judge, config: ExtractConfig, base: Path, timeout_seconds: float, workers: int = 1
    ) -> None:
        self._judge, self._config = judge, config
        self._worker: FunctionJudge | None = None
        if config.by == "regex":  # only a process of its own can be stopped
            params = {"by": "regex", "argument": config.argument, "take": config.take}
            self._worker = FunctionJudge(
                MATCHED, base=base, params=params, timeout_seconds=timeout_seconds, workers=workers, is_rule=True
            )

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One Verdict per candidate, in order, whose explanation says what was taken and what the scorer says of it."""
        found = self._extracted(prompt, asked)
        verdicts = iter(self._judge.judge(prompt, _taken(asked, found)))
        return [self._explained(one, verdicts) for one in found]

    def _extracted(self, prompt: Prompt, asked: Sequence[Asked]) -> list[Extraction | Verdict]:
        """What is taken out of each text; a Verdict where that took too long."""
        if self._worker is None:
            return [extract(one.text, self._config) for one in asked]
        return [
            Extraction(one.answer, str(one.explanation))
            if one.value is not None
            else replace(one, error=f"extract: {one.error}")
            for one in self._worker.judge(prompt, asked)
        ]

    def _explained(self, found: Extraction | Verdict, verdicts: Iterable[Verdict]) -> Verdict:
        if isinstance(found, Verdict):
            return found
        if found.answer is None:
            return Verdict(0.0, None, found.why)
        verdict = next(iter(verdicts))
        explanation = f"answer {cut(found.answer, 60)!r} (from {found.why})"
        if verdict.explanation:
            explanation += f"; {verdict.explanation}"
        answer = found.answer if verdict.answer is None else verdict.answer
        return replace(verdict, answer=answer, explanation=explanation)

    def check_references(self, prompts: Iterable[Prompt]) -> None:
        """As the scorer's own: references are not extracted from."""
        self._judge.check_references(prompts)

    def close(self) -> None:
        """End what runs."""
        self._judge.close()
        if self._worker is not None:
            self._worker.close()

    def release(self) -> None:
        """As the scorer's own, where it has a model."""
        if isinstance(self._judge, HoldsModel):
            self._judge.release()


class BlockExtracting(Extracting):
    """The same of a scorer that judges blocks."""

    def judge_block(self, block: Sequence[tuple[Prompt, Sequence[Asked]]]) -> Sequence[Sequence[Verdict]]:
        """As `judge`, of all prompts at once."""
        assert isinstance(self._judge, BlockJudge)
        found = [self._extracted(prompt, asked) for prompt, asked in block]
        taken = [(prompt, _taken(asked, of_it)) for (prompt, asked), of_it in zip(block, found, strict=True)]
        judged = self._judge.judge_block(taken)
        return [
            [self._explained(one, verdicts) for one in of_it]
            for of_it, verdicts in zip(found, map(iter, judged), strict=True)
        ]


def _taken(asked: Sequence[Asked], found: Sequence[Extraction | Verdict]) -> list[Asked]:
    """The candidates from which something was taken out, as the scorer sees them."""
    return [
        replace(one, text=of_it.answer)
        for one, of_it in zip(asked, found, strict=True)
        if isinstance(of_it, Extraction) and of_it.answer is not None
    ]
