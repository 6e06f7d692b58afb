"""The commands that try a recipe's scorers without a model: `verify` one answer, `audit` them all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selftrain.arguments import Layers, Overrides, Recipe, Unsafe


def verify(
    recipe: Recipe,
    overrides: Overrides = None,
    layers: Layers = None,
    set_name: Annotated[str, typer.Option("--set", help="train, validate or test.", metavar="SET")] = "train",
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Which prompt, by its id or part of its text.  [default: the first]",
            metavar="ID|TEXT",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Instead of the prompt's own.", metavar="TEXT")] = None,
    answer: Annotated[
        str | None, typer.Option(help="What is judged.  [default: standard input]", metavar="TEXT")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="The same from a file.", metavar="PATH")] = None,
    unsafe_no_sandbox: Unsafe = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False,
) -> None:
    """Judge one answer: what is taken out of it, what each scorer of the recipe says, and why. Loads no model."""
    from selftrain.verifying import show_verdict

    code = show_verdict(
        recipe,
        layers=layers or [],
        overrides=overrides or [],
        set_name=set_name,
        prompt=prompt,
        reference=reference,
        answer=answer,
        file=file,
        unsafe_no_sandbox=unsafe_no_sandbox,
        as_json=as_json,
    )
    raise typer.Exit(code)


def audit(
    recipe: Recipe,
    overrides: Overrides = None,
    layers: Layers = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="train, validate or test; may be repeated.  [default: train]",
            metavar="SET",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="So many prompts of each set.", metavar="N", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Draws them, and whose references are swapped.")] = 0,
    unusable: Annotated[
        Path | None,
        typer.Option(
            help="Only write which prompts a run would refuse, to files that prompts.<set>.exclude takes: of "
            "every set, or of those of --set.",
            metavar="FOLDER",
        ),
    ] = None,
    unsafe_no_sandbox: Unsafe = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False,
) -> None:
    """Try a recipe's scorers on its own data: right answers, wrong ones near them, cheats. 65: something got past."""
    if unusable is not None:
        from selftrain.unusable import write_unusable

        write_unusable(
            recipe,
            layers=layers or [],
            overrides=overrides or [],
            sets=sets or [],
            folder=unusable,
            unsafe_no_sandbox=unsafe_no_sandbox,
            as_json=as_json,
        )
        return
    from selftrain.auditing import show_audit

    code = show_audit(
        recipe,
        layers=layers or [],
        overrides=overrides or [],
        sets=sets or [],
        limit=limit,
        seed=seed,
        unsafe_no_sandbox=unsafe_no_sandbox,
        as_json=as_json,
    )
    raise typer.Exit(code)
