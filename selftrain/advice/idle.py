"""Knobs that are set and have no effect: each matters only in the company of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selftrain.advice.note import Note
from selftrain.config import Config
from selftrain.prompts import PromptSets


@dataclass(frozen=True, slots=True)
class Dependence:
    """`knob` matters only where `matters` is true, which `decided_by` decides; `needs` says it in words."""

    knob: str
    decided_by: str
    matters: Callable[[Config], bool]
    needs: str


def _with_rule(knob: str, rule: str) -> Dependence:
    return Dependence(f"select.{knob}", "select.rule", lambda config: config.select.rule == rule, f"select.rule {rule}")


def _with_temperature(knob: str) -> Dependence:
    return Dependence(f"sample.{knob}", "sample.temperature", _is_drawn, "sample.temperature above 0")


def _is_drawn(config: Config) -> bool:
    found = config.sample.temperature
    return any(found) if isinstance(found, tuple) else bool(found)


def _looks_at_order(config: Config) -> bool:
    """Whether who survives depends on which candidate of a prompt has the greater value, or on which of the round."""
    select = config.select
    if select.rule == "all":
        return select.max_per_prompt is not None or select.dedup != "none" or select.near_duplicates is not None
    return select.rule != "random"


def _looks_beyond_order(config: Config) -> bool:
    """Whether who survives may change where values are moved and stretched together: over the round, or, with
    per_prompt_minmax, those of a prompt. Rule above_mean moves with them."""
    select = config.select
    if select.rule == "threshold":
        return True
    of_the_round = select.near_duplicates is not None and select.near_duplicates.within == "all"
    return select.normalise == "per_prompt_minmax" and (select.rule == "top_fraction" or of_the_round)


DEPENDENCES = (
    Dependence("select.kl_beta", "select.rule", _looks_at_order, "a select.rule that looks at values"),
    Dependence(
        "select.normalise",
        "select.rule",
        _looks_beyond_order,
        "select.rule threshold (per_prompt_minmax: or top_fraction), as the order of values stays what it is",
    ),
    _with_rule("threshold", "threshold"),
    _with_rule("top_k", "top_k"),
    _with_rule("top_fraction", "top_fraction"),
    _with_rule("above_mean", "above_mean"),
    _with_rule("count", "random"),
    Dependence(
        "select.per_prompt",
        "select.buffer",
        lambda config: config.select.buffer == "best_per_prompt",
        "select.buffer best_per_prompt",
    ),
    Dependence("train.epochs", "train.steps", lambda config: config.train.steps is None, "train.steps null"),
    _with_temperature("top_p"),
    _with_temperature("top_k"),
    _with_temperature("min_p"),
    Dependence(
        "evaluate.retention_rounds",
        "prompts.retention",
        lambda config: config.prompts.retention is not None,
        "prompts.retention",
    ),
)


def idle_knobs(config: Config, prompts: PromptSets) -> Note | None:
    """Knobs away from their default that nothing looks at; but where an arm sets what decides it, they may be its."""
    set_by_arms = {key for arm in config.arms for key in arm.overrides}
    found = []
    for one in DEPENDENCES:
        section_name, _, knob = one.knob.partition(".")
        section = getattr(config, section_name)
        value, default = getattr(section, knob), type(section).model_fields[knob].default
        if value != default and not one.matters(config) and one.decided_by not in set_by_arms:
            found.append(f"{one.knob} has no effect without {one.needs}")
    return Note("; ".join([*found, "leave it out" if len(found) == 1 else "leave them out"])) if found else None
