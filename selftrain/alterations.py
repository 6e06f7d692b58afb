"""What to say of a change that would alter something already committed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from selftrain.errors import ConfigError
from selftrain.store import read_json

# A difference in what is only known by its content: both sides are digests, or one is not there.
OF_CONTENT = re.compile(r"(.+): ('[0-9a-f]{64}'|'\(absent\)'|None) -> ('[0-9a-f]{64}'|'\(absent\)'|None)")
# From when on a held-out answer is right: of the scorers that judge it, who may have it from elsewhere.
OF_BAR = re.compile(r"scoring\.score\.correct_at: (.+) -> (.+)")
# What such keys are, in words, by how they end.
CONTENTS = (
    (re.compile(r"(?:^|.*\.)(?:scorer_)?sources\.(.+)"), r"the source of \1"),
    (re.compile(r"filters\.(.+)"), r"the source of \1"),
    (re.compile(r"sample\.policy\.file\..*content"), "the candidates of sample.policy.file"),
    (re.compile(r"sample\.policy\.(model|checkpoints.*)"), r"the files of sample.policy.\1"),
    (re.compile(r"(?:engine_source|engine\.source)"), "the source of the engine's function (sample.params)"),
    (re.compile(r"demonstrations\.(?:seed_data)"), "the rows of prompts.seed_data"),
    (re.compile(r"demonstrations\.(?:completions)"), "the completions of prompts.train"),
    (re.compile(r"(?:.*\.)?prompts\.(\w+)"), r"the rows of prompts.\1"),
    (re.compile(r"evaluation_texts\.held_out"), "the texts of prompts.validate and prompts.test"),
    (re.compile(r"evaluation_texts\.(.+)"), r"the texts of select.decontaminate.\1"),
    (re.compile(r"embedding_model"), "the files of select.near_duplicates.model"),
    (re.compile(r"model"), "the model's files"),
    (re.compile(r"adapter"), "the files of model.adapter"),
)


def refusal(key: str, changed: Sequence[str], where: Path, recipe: Path | None = None) -> ConfigError:
    """The error for a change that would alter something already committed. `recipe` is the file at hand, if known."""
    lines = "".join(f"\n  {line}" for line in dict.fromkeys(map(in_words, changed)))
    begun = read_json(where / "config.json")
    recorded = begun.get("recipe")
    made = f" (the run was made by {recorded})" if recorded else ""
    if recorded and recipe is not None and str(recipe) != recorded:
        made = f" (the run was made by another recipe, {recorded}, and this is {recipe})"
    later = "; to change a knob from some round on, give it a list with one value per round"
    return ConfigError(
        f"this change would alter {key}, which is already committed in {where}:{lines}\n"
        f"either undo the change{made}, or start a run of its own with name=NEW, or keep the unaffected part of this "
        f"one in a new run with --fork NEW{'' if begun.get('command') == 'curate' else later}"
    )


def in_words(difference: str) -> str:
    """A line of `differences`, with words in place of digests, which tell people nothing."""
    if (bar := OF_BAR.fullmatch(difference)) is not None:
        keeps = f"held-out answers were right from {bar[1]} up; evaluate.correct_at={bar[1]} keeps that"
        return f"evaluate.correct_at: {bar[1]} -> {bar[2]} ({keeps})"
    found = OF_CONTENT.fullmatch(difference)
    if found is None or not any(len(side) > 60 for side in found.groups()[1:]):
        return difference
    key, before, after = found.groups()
    named = (pattern.sub(words, key) for pattern, words in CONTENTS if pattern.fullmatch(key))
    what = next(named, key)
    if len(before) < 60:
        return f"{what}: not there when it was made, and there in this recipe"
    return f"{what}: there when it was made, and not in this recipe" if len(after) < 60 else f"{what} changed"
