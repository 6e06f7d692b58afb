"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from selftrain import __version__, trying
from selftrain.arguments import AcceptSandboxChange, Fork, Layers, Overrides, Recipe, RunsDir, Unsafe
from selftrain.errors import ConfigError, SelftrainError

app = typer.Typer(
    name="selftrain",
    help="Iterative self-training of language models: sample, score, select, train, evaluate, and again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"selftrain {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Iterative self-training of language models: sample, score, select, train, evaluate, and again."""


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    layers: Layers = None,
    runs_dir: RunsDir = Path("runs"),
    fork: Fork = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="One run per seed, then all of them in one table: 0,1,2", metavar="S,S,..."),
    ] = None,
    unsafe_no_sandbox: Unsafe = False,
    accept_sandbox_change: AcceptSandboxChange = False,
) -> None:
    """Start a run, or go on with it: the same command does both."""
    from selftrain.launch import run_recipe
    from selftrain.sandboxing import Typed

    run_recipe(
        recipe,
        layers=layers or [],
        overrides=overrides or [],
        runs_dir=runs_dir,
        fork=fork,
        seeds=_seeds(seeds) if seeds is not None else (),
        typed=Typed(unsafe_no_sandbox, accept_sandbox_change),
    )


def _seeds(text: str) -> list[int]:
    words = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() for one in words) or len(set(words)) < len(words):
        raise ConfigError(f"--seeds {text!r} is no list of distinct whole numbers; write it as 0,1,2")
    return [int(one) for one in words]


@app.command()
def curate(
    recipe: Recipe,
    overrides: Overrides = None,
    layers: Layers = None,
    runs_dir: RunsDir = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(help="The data set's folder.  [default: export, in the run directory]", metavar="FOLDER"),
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Also upload it to the Hugging Face hub.", metavar="OWNER/NAME")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="The hub's data set is seen by its owner alone.")] = False,
    fork: Fork = None,
    unsafe_no_sandbox: Unsafe = False,
    accept_sandbox_change: AcceptSandboxChange = False,
) -> None:
    """Make a data set: sample, score and select once, train nothing, and export it. The same command goes on."""
    from selftrain.curating import Destination, curate_recipe
    from selftrain.sandboxing import Typed

    curate_recipe(
        recipe,
        layers=layers or [],
        overrides=overrides or [],
        runs_dir=runs_dir,
        destination=Destination(out, push_to_hub, private),
        fork=fork,
        typed=Typed(unsafe_no_sandbox, accept_sandbox_change),
    )


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    layers: Layers = None,
    runs_dir: RunsDir = Path("runs"),
    curate: Annotated[
        bool, typer.Option("--curate", help="What `selftrain curate` does with it: one round, without training.")
    ] = False,
) -> None:
    """Show the resolved configuration, where each value comes from, what each round will do, and what it will take."""
    from selftrain.outlook import show_plan

    show_plan(recipe, layers=layers or [], overrides=overrides or [], runs_dir=runs_dir, curates=curate)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    seconds: Annotated[float, typer.Argument(help="With --watch: between looks.", min=0.1)] = 2.0,
    watch: Annotated[bool, typer.Option("--watch", help="Look again for as long as the run works.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as data, with every metric; with --watch a line per change.")
    ] = False,
) -> None:
    """Show how far a run is, its numbers so far, and what it weighs."""
    from selftrain.outlook import show_status

    show_status(run, as_json=as_json, every=seconds if watch else None)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    round_number: Annotated[
        int | None, typer.Option("--round", help="The prompts and candidates of that round.", metavar="N", min=1)
    ] = None,
    arm: Annotated[str, typer.Option(help="Of which arm.")] = "main",
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Every candidate of one prompt, by its id or part of its text.", metavar="ID|TEXT", show_default=False
        ),
    ] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Only candidates that were trained on.")] = False,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only candidates that were not.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="So many candidates of each kind; 5 unless set.", metavar="K", min=1, show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False,
) -> None:
    """Look into a run: what was asked, what was answered, what was kept, and why the rest was not."""
    from selftrain.showing import show_run

    show_run(
        run,
        arm=arm,
        round_number=round_number,
        prompt=prompt,
        kept=kept,
        rejected=rejected,
        limit=limit,
        as_json=as_json,
    )


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories, or RUN:ARM for one arm of a run.", show_default=False)
    ],
    set_name: Annotated[
        str | None,
        typer.Option(
            "--set", help="The held-out set: test or validate.  [default: test, if all have it]", metavar="SET"
        ),
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Also compare runs that share no prompt.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False,
) -> None:
    """Compare runs at their headline rounds with the first one named; seeds of one recipe also all together."""
    from selftrain.comparing import show_comparison

    show_comparison(runs, set_name=set_name, unpaired=unpaired, as_json=as_json)


@app.command()
def recipes(as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False) -> None:
    """List the recipes that come with selftrain."""
    from selftrain.compose import recipes as shipped

    found = {name: str(path) for name, path in shipped().items()}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name, path in found.items():
        typer.echo(f"{name:24} {path}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new recipe's folder.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            help="Rows: a file, a folder, a hub id, reasoning_gym:TASK or FILE.py:FUNCTION; of a hub data set also "
            "ID,subset=S,split=P. Without any, an example is written.",
            metavar="SOURCE",
        ),
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="The column that is asked.", metavar="NAME")] = None,
    reference_column: Annotated[
        str | None, typer.Option(help="The column with the known answer; none: there is none.", metavar="NAME")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Makes the prompt from columns: '{question} Answer:'", metavar="TEXT")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id, folder, .gguf file or package:NAME/FILE.  [default: the quick start's]", metavar="M"
        ),
    ] = None,
    prompt_format: Annotated[
        str | None, typer.Option("--format", help="chat, or text for base models.", metavar="FORMAT")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="exact, normalised, numeric, regex, choice, math, json_schema, code (runs the rows' tests), "
            "reasoning_gym, or function (writes verify.py).",
            metavar="KIND",
        ),
    ] = None,
    validate: Annotated[str | None, typer.Option(help="Held-out rows that decide.", metavar="SOURCE")] = None,
    test: Annotated[
        str | None, typer.Option(help="Held-out rows to report on; split=test: of --data.", metavar="SOURCE")
    ] = None,
    holdout: Annotated[
        int | None,
        typer.Option(help="Rows of --data for each held-out set not named; 0: none.  [default: up to 100]", min=0),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run.  [default: the folder's]", metavar="NAME")] = None,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="The model reasons in <think>...</think> first.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of a recipe that is there.")] = False,
) -> None:
    """Write a new recipe: looks at the data, chooses columns and a scorer, and says why. Asks on a terminal."""
    from selftrain.beginning import Wishes, begin

    wishes = Wishes(
        data=data,
        prompt_column=prompt_column,
        reference_column=reference_column,
        template=template,
        model=model,
        format=prompt_format,
        scorer=scorer,
        validate=validate,
        test=test,
        holdout=holdout,
        name=name,
        thinking=thinking,
    )
    begin(folder, wishes, force=force)


app.command()(trying.verify)
app.command()(trying.audit)


@app.command()
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Also check this recipe: its name, folder or YAML file.", show_default=False),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="The same as data.")] = False,
) -> None:
    """Look at this machine: what a run needs, what is missing, and what mends it."""
    from selftrain.doctor import show_doctor

    raise typer.Exit(show_doctor(recipe, runs_dir=runs_dir, as_json=as_json))


def main() -> None:
    """Run the command line and leave with the exit code of `selftrain.errors`."""
    try:
        app()
    except SelftrainError as error:
        is_told = error.is_told or (isinstance(error, ConfigError) and os.environ.get("RANK", "0") != "0")
        _leave(None if is_told else str(error), error.exit_code)  # every rank makes the same mistake
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(None, 0)
    except Exception:
        traceback.print_exc()
        _leave(
            "this is a bug in selftrain or a plug-in: please report it with the lines above", SelftrainError.exit_code
        )


def _leave(message: str | None, code: int) -> NoReturn:
    if message is not None:
        from selftrain.reporting.inert import inert_lines  # a message may quote what a model or a plug-in wrote

        print(f"selftrain: {inert_lines(message)}", file=sys.stderr)
    from selftrain.heartbeat import end_process
    from selftrain.scoring.threads import JUDGING

    if any(one.name.startswith(JUDGING) and one.is_alive() for one in threading.enumerate()):
        # Python ends a thread that is inside torch by ending the process, with another code.
        end_process(code)
    sys.exit(code)
