"""The rules of the house, as code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "selftrain"
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "wandb", "accelerate", "pyarrow", "scipy")

# Upper floors may import lower ones, never the reverse; the rooms of floor 2 never import each other.
FLOORS = {
    0: {"errors", "records", "config", "parsing"},
    1: {
        "store",
        "publishing",
        "intact",
        "compose",
        "plugins",
        "world",
        "models",
        "adapters",
        "tables",
        "fingerprints",
        "arms",
        "planning",
        "whereabouts",
        "contents",
        "alterations",
        "generators",
        "secrecy",
        "ranks",
        "heartbeat",
        "disk",
        "pruning",
        "endpoint",
    },
    2: {"prompts", "sampling", "scoring", "selection", "training", "evaluation", "tracking", "reporting", "exporting"},
    3: {
        "rooms",
        "lending",
        "generating",
        "drawing",
        "streaming",
        "history",
        "keeping",
        "commits",
        "phases",
        "measuring",
        "choosing",
        "ranking",
        "trained_verifier",
        "screening",
        "reasons",
        "controls",
        "summaries",
        "preflight",
        "estimates",
        "advice",
        "inspection",
        "sandboxing",
    },
    4: {"loop"},
    5: {
        *(
            "launch",
            "starting",
            "curating",
            "describing",
            "opening",
            "recording",
            "outlook",
            "showing",
            "comparing",
            "measured_runs",
            "verifying",
            "auditing",
            "unusable",
            "doctor",
        ),
        *("beginning", "cli", "arguments", "trying", "__main__"),
    },
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}


def modules() -> Iterator[Path]:
    yield from sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "selftrain":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selftrain."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("selftrain."))


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_strictly_down(path: Path) -> None:
    here = room_of(path)
    if here == "__init__":
        return
    for room in set(imported_rooms(path)) - {here, "__version__"}:
        same_floor_is_fine = FLOOR_OF[here] not in (2,)
        assert FLOOR_OF[room] < FLOOR_OF[here] or (FLOOR_OF[room] == FLOOR_OF[here] and same_floor_is_fine), (
            f"{here} (floor {FLOOR_OF[here]}) imports {room} (floor {FLOOR_OF[room]})"
        )


def test_modules_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in modules():
        graph.setdefault(room_of(path), set()).update(set(imported_rooms(path)) - {room_of(path)})
    done: set[str] = set()

    def visit(room: str, trail: tuple[str, ...]) -> None:
        assert room not in trail, " -> ".join((*trail, room))
        if room not in done:
            for other in graph.get(room, ()):
                visit(other, (*trail, room))
            done.add(room)

    for room in graph:
        visit(room, ())


def test_every_module_has_a_floor_and_no_vague_name() -> None:
    rooms = {room_of(path) for path in modules()} - {"__init__"}
    assert rooms == set(FLOOR_OF)
    vague = {"utils", "util", "common", "helpers", "base", "manager", "misc"}
    assert not {path.stem for path in modules()} & vague


def test_the_loop_is_read_in_one_sitting() -> None:
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in ("loop.py", "phases.py")}
    assert lines["loop.py"] <= 200
    assert sum(lines.values()) <= 500


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 66, node.name


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["recipes"], ["plan", "quickstart"]])
def test_the_command_line_answers_without_loading_anything_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom selftrain.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_only_one_file_knows_trl_and_one_knows_wandb() -> None:
    knowing: dict[str, set[str]] = {"trl": set(), "wandb": set()}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for library in knowing:
                if any(name.split(".")[0] == library for name in names):
                    knowing[library].add(str(path.relative_to(PACKAGE)))
    assert knowing["wandb"] == {"tracking/wandb_process.py"}
    assert {Path(name).parts[0] for name in knowing["trl"]} == {"training"}


def test_no_two_test_files_have_one_name() -> None:
    """They are no packages, so pytest would refuse the whole suite."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
