"""The files of a new recipe, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.beginning.design import Design
from selftrain.beginning.sample import MEASURED
from selftrain.reporting.plan import scalar

TEMPLATES = Path(__file__).parent / "files"
SHORT_TOKENS = 128
USES = {
    "train": "asked in every round",
    "validate": "decides: best round, stopping",
    "test": "is only reported",
}


def recipe(design: Design) -> str:
    """recipe.yaml: the knobs that matter, each with a word on it."""
    return "\n".join(_lines(design)) + "\n"


def _lines(design: Design) -> Iterator[str]:
    scorer = design.judging.scorer
    named = scorer if isinstance(scorer, str) else scorer["name"]
    yield f"# {design.name}: sample answers, keep those that {_one_line(named)} finds right, train on them, again."
    yield "# Every knob, with its default: `selftrain plan` of this folder."
    yield f"name: {scalar(design.name)}"
    yield "rounds: 3"
    yield ""
    yield "model:"
    yield f"  path: {scalar(design.model)}   # hub id, local folder, .gguf file, or package:NAME/FILE"
    if design.thinking:
        yield "  thinking: {}   # <think>...</think> before the answer; the answer alone is scored"
    yield ""
    yield from _prompts(design)
    yield ""
    yield from _method(design)
    yield ""
    yield "arms: [random_selection]   # a control: the same training on answers drawn whatever their score"


def _prompts(design: Design) -> Iterator[str]:
    form = design.form
    yield "prompts:"
    for name, source in design.sources.items():
        yield f"  {name}: {scalar(dict(source))}   # {USES[name]}"
    if len(design.sources) > 1 and not design.measured:
        yield "  overlap: drop_from_train   # a problem that is also held out leaves the training prompts"
    if design.per_round is not None:
        yield f"  per_round: {design.per_round}   # fresh ones each round; all: every one"
    yield f"  format: {form.format}   # " + ("by the model's chat template" if form.format == "chat" else "plain text")
    if form.template is not None:
        yield f"  template: {scalar(form.template)}"
    if form.system is not None:
        yield f"  system: {scalar(form.system)}"
    if form.few_shot:
        yield "  few_shot:"
        yield from (f"    - {scalar(dict(one))}" for one in form.few_shot)
        if form.separator != "\n":
            yield f"  few_shot_separator: {scalar(form.separator)}"


def _method(design: Design) -> Iterator[str]:
    """Sampling, scoring, selection and training."""
    stops = {"stop_strings": list(design.form.stop_strings)} if design.form.stop_strings else {}
    sample: dict[str, Any] = {"num_candidates": 8, "temperature": 1.0 if design.thinking else 0.8}
    if design.measured:
        sample = MEASURED["sample"]
    yield f"sample: {scalar({**sample, 'max_new_tokens': design.max_new_tokens, **stops})}"
    yield "score:"
    yield f"  scorers: [{scalar(design.judging.scorer)}]"
    if design.measured:
        yield "# Settings that were measured with this model: see recipes/quickstart of selftrain."
        yield f"select: {scalar(MEASURED['select'])}"
        yield f"train: {scalar(MEASURED['train'])}"
        yield f"evaluate: {scalar(MEASURED['evaluate'])}"
        yield f"alarms: {scalar(MEASURED['alarms'])}"
        return
    yield "select: {max_per_prompt: 4}   # so that easy prompts do not outweigh hard ones"
    yield "train:"
    yield "  init_from: base   # a new adapter each round; previous: go on with the last one"
    yield "  learning_rate: 0.0001"
    yield "  batch_size: 16"
    if design.max_new_tokens > SHORT_TOKENS:
        yield "  micro_batch_size: 4   # at once in memory; more is faster where they fit"
    yield "  epochs: 2"
    yield "  lora: {r: 16}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def readme(design: Design, folder: str) -> str:
    """README.md: what it is, the commands, what was chosen and why, and a place for the result. `folder` is quoted for
    a shell."""
    scorer = design.judging.scorer
    chosen = "\n".join(f"- {_one_line(line)}" for line in design.why)
    verifier = ""
    if scorer == "verify.py:judge":
        verifier = (
            "\n`verify.py` says what an answer is worth, and `test_verify.py` what it should say: `pytest` runs it.\n"
        )
    return f"""# {design.name}

`{design.model}` trains itself on {design.data}: it samples answers, the scorer \
`{scorer if isinstance(scorer, str) else scorer["name"]}` says which are right, and those are trained on; then again.

    selftrain plan {folder}      # what each round will do; checks the recipe and its data
    selftrain run {folder}       # starts the run, or goes on with it
    selftrain status runs/{design.name}
{verifier}
## What was chosen

{chosen}

## Measured

Not yet. When the run has ended, put here its last table (`selftrain status runs/{design.name}`) with the date, the
machine, the versions (in `config.json` of the run) and the seeds (`selftrain run {folder} --seeds 0,1,2`).

| | test | gain over round 0 | gain over `random_selection` |
|---|---|---|---|
| round 0 | | | |
| headline round | | | |
"""


def verifier(design: Design) -> dict[str, str]:
    """verify.py and its test, where the recipe's scorer is a function."""
    if design.judging.scorer != "verify.py:judge":
        return {}
    kind = "" if design.references else "_alone"
    return {
        "verify.py": (TEMPLATES / f"verify{kind}.py.txt").read_text(),
        "test_verify.py": (TEMPLATES / f"test_verify{kind}.py.txt").read_text(),
    }


def json_lines(rows: list[Mapping[str, Any]]) -> str:
    """Rows as the text of a .jsonl file."""
    return "".join(json.dumps(row) + "\n" for row in rows)
