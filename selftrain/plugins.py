"""User code named in a recipe: `path/to/file.py:function` (relative to the recipe) or `package.module:function`.

A plug-in is found, loaded and hashed here and nowhere else. Loading runs the user's module; hashing does not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from selftrain.errors import ConfigError, DataError


def is_reference(name: str) -> bool:
    """Whether the name has the form of a plug-in, `something:function`."""
    place, colon, function = name.rpartition(":")
    return bool(colon and place and function.isidentifier())


def split(reference: str) -> tuple[str, str]:
    """The place (file or module) and the function's name. Raises ConfigError where the form is wrong."""
    if not is_reference(reference):
        raise ConfigError(f"{reference!r} names no function; write path/to/file.py:function or package.module:function")
    place, _, function = reference.rpartition(":")
    return place, function


def source_file(reference: str, base: Path) -> Path:
    """The file a plug-in comes from, without running it. Relative paths start at `base`, the recipe's folder."""
    place, _ = split(reference)
    if place.endswith(".py"):
        path = (base / place).resolve()
        if not path.is_file():
            raise ConfigError(
                f"{reference}: there is no file {path}; plug-in paths are relative to the recipe's folder"
            )
        return path
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{reference}: there is no module {place!r}; install it, or give a file: path/to/file.py:function"
        )
    return Path(spec.origin)


def require_function(reference: str, base: Path) -> None:
    """See that the plug-in's source defines its function, without running it.

    Raises ConfigError if there is no such file or function, DataError if the source is no Python. A name that only
    running the module can tell of (`from x import *`, a module that is no source) is taken to be there.
    """
    path, (_, name) = source_file(reference, base), split(reference)
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{reference}: {path}{_line_in(path, error)} is no Python: {error}") from None
    defined = set(_defined(tree.body))
    if not defined & {name, "*", "__getattr__"}:
        known = ", ".join(sorted(one for one in defined if not one.startswith("_")))
        raise ConfigError(f"{reference}: {path} defines no function {name!r}; it has: {known or 'none'}")


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """The names that a module's statements define at its top level, also inside `if`, `try`, `with` and loops."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (
                one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            )
        for inside in ("body", "orelse", "finalbody"):
            yield from _defined(getattr(node, inside, []))
        for handler in getattr(node, "handlers", []):
            yield from _defined(handler.body)


def source_digest(reference: str, base: Path) -> str:
    """Sha256 of the plug-in's source and of the modules beside it that it imports: changed code is other code."""
    sources = sorted(_with_siblings(source_file(reference, base), set()))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()


def _with_siblings(path: Path, found: set[Path]) -> set[Path]:
    if path not in found:
        found.add(path)
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            return found  # loading it will say so
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                sibling = path.parent / Path(*name.split(".")).with_suffix(".py") if name else path
                if sibling.is_file():
                    _with_siblings(sibling, found)
    return found


def load_function(reference: str, base: Path) -> Callable[..., Any]:
    """Import the plug-in and return its function.

    Raises ConfigError if there is no such file or function, and DataError, with the line, if the module itself fails.
    """
    place, name = split(reference)
    path = source_file(reference, base)
    try:
        module = _load_file(path) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        line = _line_in(path, error)
        raise DataError(f"{reference}: importing {path}{line} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(f"{reference}: {path} defines no function {name!r}; it has: {', '.join(known) or 'none'}")
    return function  # type: ignore[no-any-return]


def _load_file(path: Path) -> ModuleType:
    # By place and content: an edited file is another module, the same one is loaded once.
    name = f"selftrain_plugin_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, as dataclasses and pickle in the module look themselves up there.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _line_in(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}," if error.lineno else ""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}," if line else ""
