"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    str, typer.Argument(help="A shipped recipe's name, a recipe folder, or a YAML file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Knobs to set: key.path=value, for example sample.temperature=0.8.", show_default=False),
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--with", help="A config file laid over the recipe; may be repeated.", show_default=False),
]
Fork = Annotated[
    str | None,
    typer.Option(help="Start the run NAME from what of this one the changes leave as it was.", metavar="NAME"),
]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-no-sandbox", help="Run code that the model writes without any confinement; said in every result."
    ),
]
RunsDir = Annotated[Path, typer.Option(help="Where run directories are kept.")]
AcceptSandboxChange = Annotated[
    bool, typer.Option("--accept-sandbox-change", help="Go on with another sandbox than the run began with.")
]
