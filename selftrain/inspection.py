"""What can be seen of a recipe without running or importing anything of it: that its functions exist, and that values
in the pass-through tables (`train.lora`, `train.sft`, and those of `verifier`) are such as PEFT and transformers take.

A mistake found here costs a second; in the training of a first round it costs the sampling before it.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from selftrain import plugins
from selftrain.config import Config, TrainConfig, config_of_arm
from selftrain.errors import ConfigError

# Field: lowest, highest, whether the highest itself is allowed, and whether only whole numbers are.
_RANGES: dict[str, tuple[float, float | None, bool, bool]] = {
    "train.lora.r": (1, None, True, True),
    "train.lora.lora_alpha": (0, None, True, False),
    "train.lora.lora_dropout": (0, 1, False, False),
    "train.sft.warmup_steps": (0, None, True, False),
    "train.sft.weight_decay": (0, None, True, False),
    "train.sft.max_grad_norm": (0, None, True, False),
    "train.sft.adam_beta1": (0, 1, False, False),
    "train.sft.adam_beta2": (0, 1, False, False),
    "train.sft.adam_epsilon": (0, None, True, False),
    "train.sft.label_smoothing_factor": (0, 1, False, False),
    "train.sft.neftune_noise_alpha": (0, None, True, False),
    "train.sft.dataloader_num_workers": (0, None, True, True),
}
# Field: the file of transformers and the class in it that list what it takes.
_NAMES = {
    "train.sft.lr_scheduler_type": ("trainer_utils.py", "SchedulerType"),
    "train.sft.optim": ("training_args.py", "OptimizerNames"),
}
_SWITCHES = ("train.lora.use_rslora", "train.lora.use_dora", "train.sft.activation_checkpointing")


def check(config: Config, folder: Path) -> None:
    """Raise ConfigError for a function that is not in its file, or a value that a library would refuse; DataError for
    a file that is no Python. `folder` is the recipe's."""
    every = (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides))
    for reference in dict.fromkeys(name for one in every for name in functions(one)):
        plugins.require_function(reference, folder)
    mistakes = dict.fromkeys(mistake for one in every for mistake in value_mistakes(one.train))
    if config.verifier is not None:
        tables = TrainConfig(lora=config.verifier.lora, sft=config.verifier.dpo)
        mistakes |= dict.fromkeys(
            mistake.replace("train.lora", "verifier.lora").replace("train.sft", "verifier.dpo")
            for mistake in value_mistakes(tables)
        )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def functions(config: Config) -> Iterator[str]:
    """The functions of the user that a run will call, as the recipe names them."""
    named = [one.name for one in (*config.score.scorers, *config.evaluate.scorers, *config.evaluate.retention_scorers)]
    named += config.select.filters
    named += [value for key, value in config.sample.params.items() if key == "function" and isinstance(value, str)]
    yield from (name for name in named if plugins.is_reference(name))


def value_mistakes(train: TrainConfig) -> Iterator[str]:
    """One line per value that cannot be."""
    for key, value in _flat(train):
        if value is None:
            continue
        if key in _RANGES:
            yield from _range_mistake(key, value)
        elif key in _NAMES:
            yield from _name_mistake(key, value)
        elif key in _SWITCHES and not isinstance(value, bool):
            yield f"{key} is {value!r}; it is true or false"
    yield from _target_mistakes(train.lora)


def _flat(train: TrainConfig) -> Iterator[tuple[str, Any]]:
    yield from ((f"train.lora.{name}", value) for name, value in train.lora.items())
    yield from ((f"train.sft.{name}", value) for name, value in train.sft.items())


def _range_mistake(key: str, value: Any) -> Iterator[str]:
    low, high, is_closed, is_whole = _RANGES[key]
    kind = "a whole number" if is_whole else "a number"
    limits = f"of at least {low:g}" if high is None else f"from {low:g} to under {high:g}"
    is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
    if not is_number or value < low or (high is not None and (value > high or (value == high and not is_closed))):
        yield f"{key} is {value!r}; it is {kind} {limits}"


def _name_mistake(key: str, value: Any) -> Iterator[str]:
    known = _members(*_NAMES[key])
    if known and value not in known:
        close = difflib.get_close_matches(str(value), sorted(known), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
        yield f"{key}: there is no {value!r}; {hint}"


def _target_mistakes(lora: Mapping[str, Any]) -> Iterator[str]:
    targets = lora.get("target_modules")
    if targets is None:
        return
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            yield f"train.lora.target_modules: {targets!r} is neither all-linear nor a regular expression: {error}"
    elif not isinstance(targets, list | tuple) or not targets or not all(isinstance(one, str) for one in targets):
        yield f"train.lora.target_modules is {targets!r}; it is all-linear, a list of names, or a regular expression"


@cache
def _members(file: str, name: str) -> frozenset[str]:
    """The values of an enumeration in transformers' source; none where that cannot be read."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    try:
        tree = ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_bytes())
    except (OSError, SyntaxError):
        return frozenset()
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    values = [line.value for body in bodies for line in body if isinstance(line, ast.Assign)]
    return frozenset(one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str))
