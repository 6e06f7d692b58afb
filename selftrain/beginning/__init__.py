"""`selftrain init`: a new recipe folder, from flags, from a few questions, and from what the data hold.

wishes    what the user said
looking   what the rows hold
options   ... the options of multiple choice
programs  ... the tests of programs
scorers   how each kind of scorer is set up
design    everything the recipe says, decided
refusals  what cannot run
sample    the example that is written where no data are given
asking    questions on a terminal
writing   the files, as text
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.beginning import design, refusals, sample, writing
from selftrain.beginning.asking import Asker
from selftrain.beginning.design import Design, Form
from selftrain.beginning.looking import MARK, Row, Seen, ends_with_answer, kind_of_references, look
from selftrain.beginning.scorers import KINDS, judging
from selftrain.beginning.wishes import Wishes, parse_source, source_to_read
from selftrain.compose import compose
from selftrain.config import RUN_NAME
from selftrain.errors import ConfigError, DataError, SelftrainError
from selftrain.preflight import check, check_references
from selftrain.prompts.rows import GYM, read
from selftrain.prompts.rows import splits as splits_of
from selftrain.reporting.inert import inert
from selftrain.rooms import Rooms
from selftrain.store import disk_errors

__all__ = ["Asker", "Wishes", "begin"]

LOOKED_AT = 2000


def begin(folder: Path, wishes: Wishes, *, force: bool = False, asker: Asker | None = None) -> None:
    """Write a recipe into the folder, check it as `plan` does, and say what was chosen.

    Raises ConfigError for flags that are missing or wrong and for files that are in the way, DataError for data that
    cannot be asked, and what `plan` raises of the recipe, which then is left for its user to mend.
    """
    asker = asker or Asker()
    name = wishes.name or folder.absolute().name
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a run; give --name with letters, digits, '.', '_', '-' (at most 64)")
    _require_free(folder, force)
    if wishes.data is None and not _is_about_rows(wishes):
        answer = asker.ask("Data: a file, folder, hub id or reasoning_gym:TASK (Enter: an example)", None)
        wishes = replace(wishes, data=answer)
    if wishes.data is None:
        if _is_about_rows(wishes):
            raise ConfigError("the other flags are about rows of --data; give that: a file, folder, hub id, ...")
        made, files = _of_sample(name, wishes, asker)
    else:
        made, files = _of_data(name, wishes, folder, asker), {}
    files |= {"recipe.yaml": writing.recipe(made), "README.md": writing.readme(made, shlex.quote(str(folder)))}
    files |= writing.verifier(made)
    _write(folder, files, force)
    for line in made.why:
        asker.tell(f"  {inert(line)}")
    _check(folder)
    asker.tell(f"wrote {', '.join(sorted(files))} in {folder}; `selftrain plan` accepts it. Next:")
    asker.tell(f"  selftrain plan {shlex.quote(str(folder))}")
    asker.tell(f"  selftrain run {shlex.quote(str(folder))}")


def _is_about_rows(wishes: Wishes) -> bool:
    given = (wishes.prompt_column, wishes.reference_column, wishes.template, wishes.validate, wishes.test)
    return wishes.holdout is not None or any(one is not None for one in given)


def _require_free(folder: Path, force: bool) -> None:
    known = ("recipe.yaml", "README.md", "verify.py", "test_verify.py", "data")
    there = [name for name in known if (folder / name).exists()]
    if there and not force:
        raise ConfigError(f"{folder} has {', '.join(there)}; choose another folder, or overwrite them with --force")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder")


def _of_sample(name: str, wishes: Wishes, asker: Asker) -> tuple[Design, dict[str, str]]:
    """The shipped example, with the quick start's settings where its model and scorer are taken too."""
    model = _model(wishes, asker)
    sets = sample.rows()
    columns = {"prompt": "question", "reference": "answer"}
    scorer, fmt = wishes.scorer or "exact", wishes.format or "text"
    seen = look(sets["train"], prompt=None, reference=None)
    refusals.require_judgeable(sets["train"], seen, scorer)
    if fmt == "text":
        form = Form("text", None, few_shot=(sample.SHOWN,), stop_strings=("\n",))
        setup = judging(scorer, "number", fmt="text", template=None)
    else:
        form, setup = design.form_of(wishes, seen, scorer, sets["train"])
        refusals.require_chat_template(model, fmt)
    is_measured = model in (design.PACKAGED, design.ON_HUB) and fmt == "text" and not wishes.thinking
    tokens = sample.TOKENS if fmt == "text" and not wishes.thinking else None
    why = [
        "data: an example, additions of two-digit numbers, in data/ (no --data was given)",
        f"scorer: {scorer}" + ("" if wishes.scorer else ": the answer is to be the reference"),
        f"model: {model}",
    ]
    made = Design(
        name,
        "additions of two-digit numbers",
        model,
        wishes.thinking,
        {one: {"path": f"data/{one}.jsonl", "columns": columns} for one in sets},
        form,
        setup,
        references=True,
        per_round=sample.PER_ROUND,
        max_new_tokens=tokens or design.length(setup, seen, sets["train"], thinking=wishes.thinking),
        why=why,
        measured=is_measured,
    )
    return made, {f"data/{one}.jsonl": writing.json_lines(list(of_set)) for one, of_set in sets.items()}


def _model(wishes: Wishes, asker: Asker) -> str:
    model = design.model_path(wishes.model or asker.ask("Model", design.default_model()))
    refusals.require_model(model)
    return model


def _of_data(name: str, wishes: Wishes, folder: Path, asker: Asker) -> Design:
    assert wishes.data is not None
    main = parse_source(wishes.data, "--data", folder)
    is_gym = str(main["path"]).startswith(GYM)
    rows, splits = _read(main, folder)
    seen, wishes, why = _columns(rows, wishes, asker)
    scorer, said = _scorer(rows, seen, wishes, asker, is_gym=is_gym)
    why.append(f"scorer: {scorer}: {said}")
    refusals.require_judgeable(rows, seen, scorer)
    model = _model(wishes, asker)
    why.append(f"model: {model}")
    form, setup = design.form_of(wishes, seen, scorer, rows)
    refusals.require_chat_template(model, form.format)
    columns = design.columns_of(seen, str(main["path"]))
    shown = len(form.few_shot)
    count = design.GYM_SIZE if is_gym else len(rows)
    sources, split = design.sources_of(wishes, main, columns, folder, rows=count, shown=shown, splits=splits)
    why += split
    for one in ("validate", "test"):
        if getattr(wishes, one) is not None:  # read at once: it may not be there
            read(source_to_read(sources[one], folder, 1), folder, f"--{one}")
    if shown:
        why.append("worked example: row 1 of the data, which is in no set")
    if seen.messages is not None and form.system is None and setup.asks is not None:
        why.append(f"the conversations have system messages of their own, which must ask for this: {setup.asks}")
    return Design(
        name,
        str(main["path"]),
        model,
        wishes.thinking,
        sources,
        form,
        setup,
        references=seen.reference is not None or seen.answered,
        per_round=design.per_round(count),
        max_new_tokens=design.length(setup, seen, rows, thinking=wishes.thinking),
        why=why,
    )


def _read(main: dict[str, Any], folder: Path) -> tuple[list[Row], Mapping[str, Sequence[str]]]:
    """The first rows, and the splits that there are where none was named."""
    source = source_to_read(main, folder, LOOKED_AT)
    try:
        rows = [row for _, row in read(source, folder, "--data")]
    except DataError as error:
        taken = [file for files in splits_of(source, folder).values() for file in files]
        if not taken:
            raise
        shown = f"{', '.join(taken[:5])}{f' and {len(taken) - 5} more' if len(taken) > 5 else ''}"
        raise DataError(f"{error}\nof that folder were taken: {shown}; name one of them, or a folder of rows") from None
    return rows, {} if "split" in main else splits_of(source, folder)


def _columns(rows: Sequence[Row], wishes: Wishes, asker: Asker) -> tuple[Seen, Wishes, list[str]]:
    """The columns, proposed by name, asked for on a terminal, or demanded by flags. Raises ConfigError."""
    seen = look(rows, prompt=wishes.prompt_column, reference=wishes.reference_column)
    if wishes.prompt_column is None and wishes.template is None and seen.messages is None:
        asked = asker.ask(f"Column that is asked ({', '.join(seen.columns)})", seen.prompt, seen.columns)
        wishes = replace(wishes, prompt_column=asked)
    if wishes.reference_column is None:
        enter = "Enter: the assistant's last turn; " if seen.answered else ""
        question = f"Column with the known answer ({enter}none: there is none)"
        asked = asker.ask(question, seen.reference, [*seen.columns, "none"])
        wishes = replace(wishes, reference_column=asked)
    has_none = wishes.reference_column == "none" and "none" not in seen.columns
    reference = None if has_none else wishes.reference_column
    proposed = seen
    seen = look(rows, prompt=wishes.prompt_column, reference=reference)
    seen = replace(seen, reference=reference, answered=seen.answered and not has_none)
    _require_columns(seen, wishes, rows, has_none=has_none)
    refusals.require_usable(rows, seen, wishes)
    if wishes.template is not None and seen.messages is None:
        refusals.require_template(wishes.template, rows)
    return seen, wishes, _why(proposed, seen, wishes)


def _why(proposed: Seen, seen: Seen, wishes: Wishes) -> list[str]:
    """The choice of columns in words. `proposed` is what was thought before anybody was asked."""
    asked, thought = seen.messages or seen.prompt, proposed.messages or proposed.prompt
    found = []
    if wishes.template is not None:
        found.append(f"prompt: {wishes.template!r}, as you said")
    elif asked is not None:
        is_proposed = asked == thought and "prompt" in proposed.why
        found.append(f"prompt: {proposed.why['prompt'] if is_proposed else f'{asked}, as you said'}")
    if seen.answered:
        found.append(f"reference: {seen.why['reference']}")
    if seen.reference is not None:
        is_proposed = seen.reference == proposed.reference and "reference" in proposed.why
        found.append(f"reference: {proposed.why['reference'] if is_proposed else f'{seen.reference}, as you said'}")
    if seen.context is not None and wishes.template is None:
        found.append(f"before the question: {seen.context}")
    if seen.choices is not None:
        count = f"{seen.choices.count} in every row" if seen.choices.count else "not as many in every row"
        found.append(f"options: {seen.choices.words}, {count}")
    if seen.programs is not None and seen.reference is None:
        found.append("reference: none; the tests of a row judge without one, and are not checked by a solution")
    return found


def _require_columns(seen: Seen, wishes: Wishes, rows: Sequence[Row], *, has_none: bool) -> None:
    """One error that lists every flag that is needed."""
    there = f"the columns are {', '.join(seen.columns)}"
    for flag, column in (("--prompt-column", seen.prompt), ("--reference-column", seen.reference)):
        if column is not None and not any(column.split(".")[0] in row for row in rows):
            raise ConfigError(f"{flag} {column!r}: there is no such column; {there}")
    has_reference = seen.reference is not None or seen.answered or has_none
    if seen.messages is not None and not has_reference and ends_with_answer(rows, seen.messages):
        raise DataError(
            f"{seen.messages}: some conversations end with the assistant's turn, which is the known answer, and some "
            "do not; give every one of them its answer, or name a column by --reference-column"
        )
    needed = []
    if seen.messages is None and seen.prompt is None and wishes.template is None:
        needed.append("--prompt-column: which column is asked (or --template)")
    is_tested = seen.programs is not None and wishes.scorer in (None, "code")
    if not has_reference and wishes.scorer != "function" and not is_tested:
        needed.append("--reference-column: which column has the known answer (or --scorer function, without one)")
    if needed:
        raise ConfigError("init needs\n" + "\n".join(f"  {line}" for line in needed) + f"\n{there}")


def _scorer(rows: Sequence[Row], seen: Seen, wishes: Wishes, asker: Asker, *, is_gym: bool) -> tuple[str, str]:
    """The kind of scorer and why. Raises ConfigError where none can be proposed and nobody can be asked."""
    if wishes.scorer is not None:
        if wishes.scorer not in KINDS:
            raise ConfigError(f"--scorer {wishes.scorer!r} is unknown; known: {', '.join(KINDS)}")
        if wishes.scorer == "numeric" and kind_of_references(rows, seen)[0] == "marked":
            raise ConfigError(
                f"--scorer numeric: the references ({seen.reference}) are worked answers with {MARK}, and it needs "
                "numbers alone; use --scorer math, which reads the number behind the mark"
            )
        return wishes.scorer, "as you said"
    proposal, why = design.proposed_scorer(seen, rows, is_gym=is_gym)
    offered = proposal or ("function" if asker.is_there else None)
    chosen = asker.ask(f"Scorer ({', '.join(KINDS)}); {why}", offered, KINDS)
    if chosen is None:
        raise ConfigError(
            f"init needs\n  --scorer: one of {', '.join(KINDS)}\n"
            f"none is proposed, as {why}; function writes verify.py, an example to put your own rule in place of"
        )
    return chosen, why if chosen == proposal else "as you said"


def _write(folder: Path, files: Mapping[str, str], force: bool) -> None:
    with disk_errors(folder):
        for name, text in files.items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # a place such as /proc, where nobody makes folders
                raise OSError(errno.EACCES, "no folders can be made there") from error
            with open(path, "w" if force else "x", encoding="utf-8") as file:
                file.write(text)


def _check(folder: Path) -> None:
    """As `plan` and the start of a run do, without a model."""
    try:
        composed = compose(str(folder))
        prompts, _ = check(composed)
        with closing(Rooms(composed.config, composed.folder)) as rooms:
            check_references(composed.config, rooms, prompts)
    except SelftrainError as error:
        raise type(error)(
            f"{folder} is written, and cannot be run as it is: {error}\nmend {folder / 'recipe.yaml'}, or write it "
            "again with other flags and --force"
        ) from None
