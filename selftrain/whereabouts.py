"""Where the files of models are on this machine, by name alone: nothing is loaded, and torch is not imported."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

PACKAGE = "package:"
# As model.path: no model is loaded. What is done without one needs candidates that others write.
NO_MODEL = "none"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def cache_dir() -> Path:
    """Where converted models are kept: `$SELFTRAIN_CACHE`, or `~/.cache/selftrain`."""
    return Path(os.environ.get("SELFTRAIN_CACHE") or Path.home() / ".cache" / "selftrain")


def hf_home() -> Path:
    """As huggingface_hub has it, which need not be importable here."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()


def hub_cache() -> Path:
    """Where fetched models and data sets are."""
    return Path(os.environ.get("HF_HUB_CACHE") or hf_home() / "hub").expanduser()


def snapshot(hub_id: str, revision: str | None) -> Path:
    """Where the hub's cache has this model once it was fetched: `models--OWNER--NAME/snapshots/COMMIT`."""
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    wanted = revision or "main"
    reference = folder / "refs" / wanted
    return folder / "snapshots" / (reference.read_text().strip() if reference.is_file() else wanted)


def beside(name: str, folder: Path) -> Path:
    """A path of a recipe: relative to its folder if it is there, or else to where the command runs."""
    return folder / name if (folder / name).exists() else Path(name).expanduser()


def is_nowhere(name: str, folder: Path) -> bool:
    """Whether `model.path` names neither what is there, relative to the recipe's folder or not, nor a package's file,
    and can be no model of the hub either."""
    if name.startswith(PACKAGE) or beside(name, folder).exists():
        return False
    return name.endswith(".gguf") or not HUB_ID.fullmatch(name)


def package_file(reference: str) -> tuple[str, Path | None, str]:
    """Of `package:NAME/FILE`: the package, its folder (None: it is not installed), and the file's path inside."""
    package, _, inside = reference.removeprefix(PACKAGE).partition("/")
    # Top-level names only: find_spec of a dotted name would import the parent package.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    locations = spec.submodule_search_locations if spec is not None else None
    return package, Path(next(iter(locations))) if locations else None, inside
