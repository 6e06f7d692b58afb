"""Mistakes in the list of scorers, found before any work and without running anything of the user's."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from selftrain.config import ScorerConfig
from selftrain.errors import ConfigError
from selftrain.parsing import readable, said
from selftrain.plugins import is_reference, load_function
from selftrain.scoring import SCORERS

# What a rule could never find right in what such an extraction takes out.
_SENSELESS = {
    "code": {
        "boxed": "\\boxed{} holds an expression, and a program has lines",
        "first_line": "a program has several lines; leave extract out, or take it by code",
        "last_line": "a program has several lines; leave extract out, or take it by code",
        "after": "that is the rest of one line, and a program has several; leave extract out, or take it by code",
        "json": "a JSON value is no program",
    },
    "numeric": {"code": "a block of code is no number", "json": "a JSON value is compared by json_schema"},
    "math": {"code": "a block of code is no expression", "json": "a JSON value is compared by json_schema"},
    "choice": {"code": "a block of code is no letter", "json": "a JSON value is compared by json_schema"},
    "json_schema": {
        "boxed": "\\boxed{} holds an expression",
        "first_line": "a JSON value may take several lines; take it by json, or by a tag",
        "last_line": "a JSON value may take several lines; take it by json, or by a tag",
    },
}


def check_scorer(scorer: ScorerConfig, base: Path | None) -> None:
    """Raise ConfigError for an unknown name, or a parameter or extraction that the rule does not have or cannot use;
    DependencyError where a package is missing. `base` is the recipe's folder, if known."""
    if scorer.name not in SCORERS:
        if is_reference(scorer.name):
            return
        hint = _near(scorer.name, SCORERS) or "use file.py:function for a function of your own"
        raise ConfigError(f"score.scorers: unknown scorer {scorer.name!r}; known: {', '.join(SCORERS)}; {hint}")
    _check_params(scorer)
    if (why := _SENSELESS.get(scorer.name, {}).get(scorer.extract.by)) is not None:
        raise ConfigError(
            f"score.scorers: {scorer.name} with extract: {scorer.extract.by} would find nothing right: {why}"
        )
    if scorer.name == "json_schema":
        _check_json_schema(scorer, base)
    if (built_in := SCORERS[scorer.name]).learned and built_in.check is not None:
        load_function(built_in.check, Path())(base, **scorer.params)
    if scorer.name == "reasoning_gym":
        from selftrain.scoring.gym import require_installed

        require_installed()


def check_together(scorers: Sequence[ScorerConfig]) -> None:
    """Raise ConfigError where what a gate, or an extraction, refuses would be worth more than what is judged: its value
    is 0, and that of a scorer with a weight may be less."""
    for one in scorers:
        if not one.weight or (remedy := _above_zero(one)) is None:
            continue
        gates = (other for other in scorers if other.gate and _meet(one, other))
        refusing = next((f"the gate {other.name}" for other in gates if other is not one), None)
        if refusing is None and one.extract.by != "whole":
            refusing = f"its extract ({one.extract.by})"
        if refusing is not None:
            raise ConfigError(
                f"score.scorers: {one.name} may give less than 0, and what {refusing} refuses has value 0: that would "
                f"be chosen before answers that passed; {remedy}"
            )


def _meet(one: ScorerConfig, other: ScorerConfig) -> bool:
    """Whether any task has both."""
    return not one.tasks or not other.tasks or bool(set(one.tasks) & set(other.tasks))


def _above_zero(scorer: ScorerConfig) -> str | None:
    """What to do so that the scorer gives nothing under 0; None where it gives nothing under 0, or nobody knows."""
    params = scorer.params
    if scorer.name == "given":
        minimum = params.get("minimum")
        return None if minimum is not None and minimum >= 0 else "set minimum: 0 in its params, or a filter on its rows"
    if scorer.name != "reward_model" or params.get("pairwise"):
        return None
    if params.get("output") != "probability":
        return "set output: probability in its params, which keeps the order"
    moved = any(isinstance(one, Mapping) and {"scale", "shift"} & one.keys() for one in params.get("models") or ())
    if moved or params.get("combine") == "uncertainty":
        return "leave out scale, shift and combine: uncertainty, which can take a probability below 0"
    return None


def _check_params(scorer: ScorerConfig) -> None:
    rule = load_function(SCORERS[scorer.name].rule, Path())
    hints = get_type_hints(rule, include_extras=True)
    parameters = [one for one in inspect.signature(rule).parameters.values() if one.kind is one.KEYWORD_ONLY]
    known = sorted(one.name for one in parameters)
    for name, value in scorer.params.items():
        where = f"score.scorers: {scorer.name}: params.{name}"
        if name not in known:
            near = _near(name, known)
            hint = f"; {near}" if near else ""
            raise ConfigError(f"{where}: there is no such parameter; known: {', '.join(known) or 'none'}{hint}")
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(_wrong_param(scorer.name, name, value, hints[name], error, known)) from None
    for one in parameters:
        if one.default is one.empty and one.name not in scorer.params:
            raise ConfigError(f"score.scorers: {scorer.name}: params.{one.name} is missing and has no default")


def _wrong_param(scorer: str, name: str, value: Any, hint: Any, error: ValidationError, known: Sequence[str]) -> str:
    """What is wrong with the value of a parameter, and where in it."""
    # Of what may be one thing or another, the mistake that lies deepest: what was written got that far.
    problem: Any = max(error.errors(), key=lambda one: len(one["loc"]))
    inside = "".join(f".{part}" for part in readable(problem["loc"], value))
    where = f"score.scorers: {scorer}: params.{name}{inside}"
    if problem["type"] == "extra_forbidden":
        keys = sorted(_keys_of(hint))
        near = _near(str(problem["loc"][-1]), keys)
        return f"{where}: there is no such key; known: {', '.join(keys)}" + (f"; {near}" if near else "")
    near = _near(value, _expected(problem)) if isinstance(value, str) else None
    if isinstance(value, list) and f"{name}s" in known:
        near = f"several stand in {name}s: write params.{name}s"
    return f"{where}: {said(problem):.400}" + (f"; {near}" if near else "")


def _keys_of(hint: Any) -> set[str]:
    """The keys of the mappings that a type stands for."""
    if is_typeddict(hint):
        return set(hint.__annotations__)
    return {key for part in get_args(hint) for key in _keys_of(part)}


def _expected(problem: object) -> list[str]:
    """The words that a literal error would have taken."""
    context = problem.get("ctx", {}) if isinstance(problem, dict) else {}
    words: str = context.get("expected", "") if isinstance(context, dict) else ""
    return [word.strip("'") for word in words.replace(" or ", ", ").split(", ")]


def _near(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]}?" if found else None


def _check_json_schema(scorer: ScorerConfig, base: Path | None) -> None:
    from selftrain.scoring.structured import schema_of

    schema = scorer.params.get("schema")
    if schema is None and scorer.params.get("match") == "none":
        raise ConfigError(
            "score.scorers: json_schema with match: none and no schema would find every JSON value right; give a "
            "schema, or match: exact or subset"
        )
    if schema is not None:
        try:
            schema_of(schema, base)
        except ConfigError as error:
            raise ConfigError(f"score.scorers: json_schema: params.schema: {error}") from None
