"""The Python that candidates run in: the trainer's own interpreter, and exactly which files it needs.

surveyed   the interpreter, its standard library without what is installed beside it, the modules asked for with
           all that they import, and the shared libraries of these
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selftrain.errors import DependencyError

SOURCES = Path(__file__).parent
FLAGS = ("-S", "-s", "-P", "-B")
"""No site-packages, nothing of the user's, nothing of the working folder, no bytecode written. Not -I: it would leave
PYTHONHASHSEED out."""
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PATH": "/usr/bin:/bin",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
HIDDEN = ("site-packages", "dist-packages")
ZONES = "/usr/share/zoneinfo"
LOADER_CACHE = "/etc/ld.so.cache"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """All paths are absolute and real."""

    program: str
    loader: tuple[str, str] | None
    """The dynamic loader as the program names it, and the file that it is."""
    standard: tuple[str, ...]
    """The folders of the standard library."""
    libraries: tuple[str, ...]
    """Shared libraries outside of these folders."""
    modules: Mapping[str, str]
    """The modules asked for and what they import from beside them: name, and the file or folder."""
    version: str

    def readable(self, is_masked: bool) -> tuple[str, ...]:
        """What a candidate may read. Where nothing masks what is installed beside the standard library, its entries
        one by one: a folder's rule covers all that is in it."""
        entries = []
        for folder in self.standard:
            names = sorted(os.listdir(folder))
            if is_masked or not set(names) & set(HIDDEN):
                entries.append(folder)
            else:
                entries += [os.path.join(folder, name) for name in names if name not in HIDDEN]
        return (*entries, *self.libraries, *self.modules.values(), ZONES, LOADER_CACHE)

    def folders(self) -> dict[str, str]:
        """Of each module the folder that it is found in."""
        return {name: os.path.dirname(path) for name, path in self.modules.items() if not name.endswith(".libs")}


def _loader_of(program: str) -> tuple[str, str] | None:
    """What an ELF file of 64 bits names as its loader."""
    with open(program, "rb") as file:
        start = file.read(64)
        if start[:5] != b"\x7fELF\x02":
            return None
        offset, size, count = struct.unpack_from("<Q", start, 32)[0], *struct.unpack_from("<HH", start, 54)
        for at in range(count):
            file.seek(offset + at * size)
            header = file.read(size)
            if struct.unpack_from("<I", header)[0] == 3:
                at_offset, length = (int(struct.unpack_from("<Q", header, where)[0]) for where in (8, 32))
                file.seek(at_offset)
                name = file.read(length).rstrip(b"\0").decode()
                return name, os.path.realpath(name)
    return None


def _folder_of(name: str) -> str:
    """The folder in which the trainer finds that module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    places: list[str] = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
    if "." in name or not places or not os.path.isabs(places[0]):
        raise DependencyError(
            f"Code that candidates write may import {name!r} by the recipe's score.sandbox.modules, but there is no "
            "such package here. Install it (pip install), or take it from the list."
        )
    return os.path.dirname(os.path.realpath(places[0]))


@cache
def surveyed(modules: tuple[str, ...] = ()) -> Interpreter:
    """Ask the interpreter once, in a process of its own. Raises DependencyError where a module cannot be loaded."""
    program = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    folders = {name: _folder_of(name) for name in modules}
    asked = json.dumps({"folders": folders, "modules": list(modules)})
    done = subprocess.run(
        [program, *FLAGS, str(SOURCES / "preloads.py"), asked],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=300,
        cwd="/",
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DependencyError(
            f"The Python that candidates' code runs in ({program}) could not load its modules"
            f"{' ' + ', '.join(modules) if modules else ''}: {said[-1] if said else 'it said nothing'}. "
            "Check score.sandbox.modules: each must work in an interpreter of its own."
        )
    found = json.loads(done.stdout)
    standard = tuple(dict.fromkeys(os.path.realpath(path) for path in found["path"] if os.path.isdir(path)))
    standard = tuple(one for one in standard if not any(one.startswith(other + os.sep) for other in standard))
    beside = {name: os.path.realpath(path) for name, path in found["modules"].items()}
    for name, path in list(beside.items()):
        if os.path.isdir(libs := os.path.join(os.path.dirname(path), f"{name}.libs")):
            beside[f"{name}.libs"] = libs
    shown = (*standard, *beside.values())
    libraries = sorted({os.path.realpath(path) for path in found["libraries"]})
    outside = tuple(one for one in libraries if not any(one.startswith(folder + os.sep) for folder in shown))
    return Interpreter(program, _loader_of(program), standard, outside, beside, found["version"])
