"""What the fork server imports before it forks, and from where.

    preload   import what candidates import most, and the modules asked for
    Named     finds these by their names alone
    survey    run as a program: what an interpreter loads from where, so that no more need be shown to candidates

Standard library alone: the fork server loads this file by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# What solutions of programming problems import most. More makes each fork dearer; the rest of the standard library is
# imported by the few that ask for it.
PRELOADED = """
abc array ast base64 bisect builtins cmath codecs collections collections.abc contextlib copy copyreg dataclasses
datetime decimal enum errno fractions functools gc hashlib heapq io itertools json keyword linecache math numbers
operator os pathlib queue random re reprlib resource select signal statistics string struct sys textwrap threading
time token tokenize traceback types typing unicodedata warnings weakref zlib binascii graphlib ipaddress
"""


class Named:
    """Finds the modules asked for by their names, so that nothing else of the folder that holds them can be
    imported, and a module that is not there raises ImportError instead of PermissionError."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As importlib asks."""
        if name not in self._folders:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self._folders[name]])


def preload(modules: Sequence[str]) -> None:
    """Import what candidates import most. A part of the standard library that this Python lacks is left out."""
    for name in PRELOADED.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in modules:
        importlib.import_module(name)
    with contextlib.suppress(OSError):  # pthread_exit loads it when first called, and ends the process if it cannot
        ctypes.CDLL("libgcc_s.so.1")


def survey(folders: Mapping[str, str], asked: Sequence[str]) -> dict[str, Any]:
    """What was mapped into memory and which modules came from outside of the standard library, once `asked` are
    loaded. Here alone the folders that hold them are searched for what they import in turn."""
    standard = list(sys.path)
    before = set(sys.modules)
    sys.path.extend(dict.fromkeys(folders.values()))
    preload(asked)
    for folder in standard:
        if folder.endswith("lib-dynload"):
            for name in {entry.split(".")[0] for entry in os.listdir(folder)} - {"_tkinter", "readline"}:
                if not name.startswith(("_test", "_xx", "xx")):
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
    found: dict[str, str] = {}
    for name in set(sys.modules) - before:
        top = sys.modules.get(name.split(".")[0])
        places = [*getattr(top, "__path__", ()), getattr(top, "__file__", None) or ""]
        if os.path.dirname(places[0]) in folders.values():
            found[name.split(".")[0]] = places[0]
    with open("/proc/self/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if len(line.split(maxsplit=5)) == 6}
    libraries = sorted(path for path in mapped if path.startswith("/") and ".so" in os.path.basename(path))
    return {"path": standard, "libraries": libraries, "modules": found, "version": sys.version.split()[0]}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(survey(asked["folders"], list(asked["modules"]))))
