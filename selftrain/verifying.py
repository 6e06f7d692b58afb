"""One answer judged from the terminal (`verify`): what is taken out of it, what each scorer says, and why.

The answer is treated as a run would treat it: it ends at a stop string, and the reasoning of a thinking model is cut
off. No model is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from selftrain.config import Config
from selftrain.errors import ConfigError, PhaseError
from selftrain.opening import as_judged, confined, one_at_a_time, opened, require_columns, set_of
from selftrain.prompts import PromptSet
from selftrain.records import Prompt, Score
from selftrain.sampling.thinking import Answer, cut
from selftrain.showing import matching, no_single_match

HOW = "type the answer and end it with Ctrl-D (or give --answer TEXT, --file PATH, or pipe it in)"


def show_verdict(
    recipe: str,
    *,
    layers: Sequence[str],
    overrides: Sequence[str],
    set_name: str,
    prompt: str | None,
    reference: str | None,
    answer: str | None,
    file: Path | None,
    unsafe_no_sandbox: bool,
    as_json: bool,
) -> int:
    """Print what the scorers of a recipe say of one answer; return the exit code: 0 where it was judged, right or
    wrong, and that of a failed phase where it could not be.

    Raises SelftrainError where nothing can be asked: no such prompt, a reference that a rule cannot use, a function
    that is not there, no sandbox for the scorer `code`.
    """
    from selftrain.reporting import verifying as page
    from selftrain.reporting.terminal import Terminal

    if answer is not None and file is not None:
        raise ConfigError("--answer and --file both give the answer; leave one of them out")
    composed, prompts = opened(recipe, layers=layers, overrides=overrides)
    config, terminal = composed.config, Terminal()
    of_set = set_of(prompts, set_name)
    require_columns(config, [of_set])
    config = as_judged(config, of_set.name)
    asked = prompt_of(of_set, prompt)
    if reference is not None:
        asked = replace(asked, reference=reference)
    sandbox = confined(config, recipe, unsafe_no_sandbox=unsafe_no_sandbox, warn=terminal.warn)
    with one_at_a_time(composed, sandbox, of_set.name) as scorer:
        scorer.check_references([asked])
        written = answer if answer is not None else read_answer(file, asked.question)
        judged, notes = as_in_a_run(config, asked, written)
        score = scorer.explain(asked, judged.text, reasoning=judged.reasoning)
    data = {
        "recipe": config.name,
        "set": of_set.name,
        "prompt_id": asked.id,
        "task": asked.task,
        "prompt": asked.question,
        "reference": asked.reference,
        "text": judged.text,
        "reasoning": judged.reasoning,
        "notes": notes,
        "scorers": scorers_of(config, asked, score),
        "correct_at": config.score.correct_at,
        **{name: value for name, value in asdict(score).items() if name != "candidate_id"},
    }
    if as_json:
        print(json.dumps(data, indent=1))
    else:
        terminal.page(page.verdict_lines(data))
    return 0 if score.value is not None else PhaseError.exit_code


def prompt_of(prompts: PromptSet, wanted: str | None) -> Prompt:
    """The prompt with that id, or with these words; without any, the first. Raises ConfigError."""
    if wanted is None:
        return prompts.prompts[0]
    texts = {one.id: one.question for one in prompts.prompts}
    matches = matching(texts, wanted)
    if not matches:
        raise ConfigError(
            f"no prompt of the {prompts.name} set has the id {wanted!r} or contains it; its first is "
            f"{prompts.prompts[0].id} ({texts[prompts.prompts[0].id][-60:]!r}); --set names another set"
        )
    if len(matches) > 1:
        raise ConfigError(no_single_match(wanted, matches, texts))
    return next(one for one in prompts.prompts if one.id == matches[0])


def read_answer(file: Path | None, question: str) -> str:
    """The answer from a file, or from standard input, without the line break that ends it. Raises ConfigError."""
    if file is None and sys.stdin.isatty():
        from selftrain.reporting.inert import inert_lines

        print(f"{inert_lines(question)}\n\n{HOW}:", file=sys.stderr)
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"--file {file}: {error.strerror or error}; give a file that can be read") from None
    except UnicodeDecodeError as error:
        where = "standard input" if file is None else str(file)
        raise ConfigError(f"the answer in {where} is not UTF-8 text: {error}") from None
    return text.removesuffix("\n").removesuffix("\r")


def as_in_a_run(config: Config, prompt: Prompt, written: str) -> tuple[Answer, list[str]]:
    """What a run would judge of a text that a model wrote, and what was done to it, in words."""
    notes = []
    stops = [(written.find(one), one) for one in config.sample.stop_strings if one in written]
    if stops:
        end, stop = min(stops)
        written = written[:end]
        notes.append(f"a run stops sampling at {stop!r}, so only what comes before it is judged")
    tags = config.model.thinking
    if tags is None:
        return Answer(written, None, 0), notes
    after = prompt.text or ""
    if tags.close in written and tags.open not in written and not after.rstrip().endswith(tags.open):
        after = tags.open  # many chat templates open the reasoning themselves
        notes.append(f"{tags.close} stands without {tags.open}: it is read as if the chat template had opened it")
    judged = cut(tags, written, (), after=after, decode=lambda _: "")
    if judged.reasoning is not None and tags.close not in written:
        notes.append(f"the reasoning never ends ({tags.close} is missing), so there is no answer")
    return judged, notes


def scorers_of(config: Config, prompt: Prompt, score: Score) -> list[dict[str, Any]]:
    """Each scorer that judges the prompt: its value, weight, whether it is a gate, and what it says."""
    parts = list(score.parts)
    said = _said(score.explanation or "", parts)
    asked = [one for one in config.score.scorers if not one.tasks or prompt.task in one.tasks]
    return [
        {
            "name": part,
            "value": score.parts[part],
            "weight": one.weight,
            "gate": one.gate,
            "extract": one.extract.model_dump(mode="json"),
            "explanation": said.get(part),
        }
        for part, one in zip(parts, asked, strict=True)
    ]


def _said(explanation: str, parts: Sequence[str]) -> Mapping[str, str]:
    """What each part said, out of the explanation in which they stand in order as `name: words; name: words`."""
    if len(parts) <= 1:
        return dict.fromkeys(parts, explanation)
    found: dict[str, str] = {}
    rest = f"; {explanation}"
    begins = [(rest.find(f"; {part}: "), part) for part in parts]
    begins = sorted(one for one in begins if one[0] >= 0)
    for (start, part), (end, _) in zip(begins, [*begins[1:], (len(rest), "")], strict=True):
        found[part] = rest[start + len(f"; {part}: ") : end]
    return found
