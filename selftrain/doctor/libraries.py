"""Python, selftrain itself, and the packages it needs or can use: what is installed against what was tested."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import selftrain
from selftrain.compose import PACKAGE
from selftrain.doctor.findings import Finding, note, ok, problem

# What an extra of pyproject.toml is for; one that is not here is shown by its name alone.
PURPOSE = {
    "reasoning-gym": "prompts and scorers named reasoning_gym",
    "quantized": "model.quantization",
    "vllm": "sample.engine: vllm",
    "openai": "sample.policy.endpoint and the scorer llm_judge",
    "filters": "select.near_duplicates",
    "embeddings": "select.near_duplicates by: embedding",
}
TRACKER = "track.also: {name}"


def python() -> Iterator[Finding]:
    """The interpreter, the operating system, and where selftrain comes from."""
    wanted, found = SpecifierSet(">=3.11"), platform.python_version()
    where = f"Python {found}, {sys.executable}"
    if found not in wanted:
        yield problem("Python", f"{where}; selftrain needs {wanted}", "make an environment with a newer Python")
    else:
        yield ok("Python", where)
    if sys.platform != "linux":
        yield note("Python", f"selftrain is tested on Linux; this is {platform.system()}")
    yield ok("Python", f"selftrain {selftrain.__version__}, {_origin()}")


def _origin() -> str:
    """Where the package that runs here was installed from."""
    checkout = _checkout()
    if checkout is not None:
        return f"from the checkout {checkout}"
    try:
        text = importlib.metadata.distribution("selftrain").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return f"not installed: it runs from {PACKAGE}"
    # The address may carry a name and password of a private server; what follows them is enough.
    url = str(json.loads(text).get("url", "")).rpartition("@")[2] if text else ""
    return f"in {PACKAGE}" + (f", installed from {url}" if url else "")


def _checkout() -> Path | None:
    """The source tree that the package runs from, if it is one."""
    project = PACKAGE.parent / "pyproject.toml"
    return PACKAGE.parent if project.is_file() and 'name = "selftrain"' in project.read_text() else None


@cache
def requirements() -> tuple[tuple[Requirement, ...], dict[str, tuple[Requirement, ...]]]:
    """Direct dependencies, and those of each extra by its name (without `dev`).

    Of a checkout those of its pyproject.toml: the metadata of an editable installation are as old as the installation.
    """
    checkout = _checkout()
    if checkout is not None:
        project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
        extras = {
            name: tuple(map(Requirement, needed))
            for name, needed in project["optional-dependencies"].items()
            if name != "dev"
        }
        return tuple(map(Requirement, project["dependencies"])), extras
    metadata = importlib.metadata.metadata("selftrain")
    needed = [Requirement(text) for text in importlib.metadata.requires("selftrain") or ()]
    of_extras = {
        name: tuple(one for one in needed if one.marker is not None and one.marker.evaluate({"extra": name}))
        for name in metadata.get_all("Provides-Extra") or ()
        if name != "dev"
    }
    return tuple(one for one in needed if one.marker is None), of_extras


@cache
def tested() -> dict[str, Version]:
    """The versions that were tested together, by package name in lower case: constraints.txt, which a wheel carries."""
    inside, beside = PACKAGE / "_constraints.txt", PACKAGE.parent / "constraints.txt"
    found = next((one for one in (inside, beside) if one.is_file()), None)
    text = "" if found is None else found.read_text()
    pairs = (line.partition("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): Version(version.strip()) for name, _, version in pairs}


def installed(name: str) -> Version | None:
    """The version of an installed package, or None."""
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def dependencies() -> Iterator[Finding]:
    """Every direct dependency against the range selftrain allows, and the version it was tested with."""
    for one in requirements()[0]:
        yield _dependency(one)


def _dependency(wanted: Requirement) -> Finding:
    area, found, known = "dependencies", installed(wanted.name), tested().get(wanted.name.lower())
    pip = f"pip install '{wanted.name}{'==' + str(known) if known is not None else wanted.specifier}'"
    if found is None:
        return problem(area, f"{wanted.name} is not installed", pip)
    # 2.13.0+cpu is 2.13.0, built for some hardware.
    version = Version(found.public)
    if not wanted.specifier.contains(version, prereleases=True):
        return problem(area, f"{wanted.name} {found} is installed; selftrain needs {wanted.specifier}", pip)
    if known is None or version == known:
        return ok(area, f"{wanted.name} {found}")
    if version > known:
        return note(area, f"{wanted.name} {found} is newer than the tested {known}", f"if it makes trouble: {pip}")
    return ok(area, f"{wanted.name} {found} (tested: {known})")


def extras() -> Iterator[Finding]:
    """Every optional package: what it is for, and how to get it."""
    from selftrain.tracking.accelerate_mirror import MODULES

    for name, needed in requirements()[1].items():
        purpose = PURPOSE.get(name) or (TRACKER.format(name=name) if name in MODULES else name)
        missing = [one for one in needed if installed(one.name) is None]
        outside = [one for one in needed if one not in missing and not _fits(one)]
        if missing:
            words = f"{purpose}: {', '.join(one.name for one in missing)} is not installed"
            yield note("extras", words, f"if you want it: {_pip(missing)}")
        elif outside:
            found = ", ".join(f"{one.name} {installed(one.name)} (needed: {one.specifier})" for one in outside)
            yield note("extras", f"{purpose}: {found}", f"if you want it: {_pip(outside)}")
        else:
            yield ok("extras", f"{purpose}: {', '.join(f'{one.name} {installed(one.name)}' for one in needed)}")


def _fits(wanted: Requirement) -> bool:
    found = installed(wanted.name)
    return found is not None and wanted.specifier.contains(Version(found.public), prereleases=True)


def _pip(needed: list[Requirement]) -> str:
    return "pip install " + " ".join(f"'{one.name}{one.specifier}'" for one in needed)
