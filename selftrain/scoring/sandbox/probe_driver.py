"""The driver of the self-test: tries to get out of the sandbox it runs in, and says how far it came.

Loaded by the fork server; standard library alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

_NEW_USER_NAMESPACE = 0x10000000


def _works(asked: Mapping[str, Any]) -> str:
    """What every honest solution may do: compute, import, print, start threads, use its own folder."""
    found: list[str] = []

    def compute() -> None:
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "file"), "w") as file:
                file.write(asked["nonce"])
            with open(os.path.join(folder, "file")) as file:
                found.append(hashlib.sha256(file.read().encode()).hexdigest())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        if right.recv(1) != b"x":
            raise OSError("a socket pair lost what was sent")
    if leftover := os.listdir("."):
        raise OSError(f"the folder of an earlier process was not wiped: {leftover[:3]}")
    with open("left-behind", "w") as file:
        file.write("for the next process to find")
    return found[0]


def _read(asked: Mapping[str, Any]) -> str:
    with open(asked["canary"]) as file:
        return f"read {file.read()!r}"


def _look_at_environment(asked: Mapping[str, Any]) -> str:
    if foreign := set(os.environ) - set(asked["environment"]):
        return f"sees the variables {', '.join(sorted(foreign))}"
    for pid in (1, os.getppid(), asked["trainer"]):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"read {len(file.read())} bytes of the environment of process {pid}"
        except OSError:
            pass
    raise PermissionError("no process' environment could be read")


def _connect(asked: Mapping[str, Any]) -> str:
    failures = []
    for family, address in ((socket.AF_INET, ("127.0.0.1", asked["port"])), (socket.AF_UNIX, asked["abstract"])):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(1)
                connection.connect(address)
                return f"connected to {address}"
        except OSError as error:
            failures.append(str(error))
    raise PermissionError("; ".join(failures))


def _start(asked: Mapping[str, Any]) -> str:
    try:
        child = os.fork()
    except OSError:
        done = subprocess.run([sys.executable, "-c", "0"], check=False, timeout=5)
        return f"executed a program: {done.returncode}"
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "forked"


def _change(asked: Mapping[str, Any]) -> str:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: open(asked["outside"], "w").close(),
        lambda: os.chmod(asked["canary"], 0o777),
        lambda: os.utime(asked["canary"], (0, 0)),
        lambda: os.truncate(asked["canary"], 0),
        lambda: os.unlink(asked["canary"]),
    )
    for number, attempt in enumerate(attempts):
        try:
            attempt()
            return ("wrote", "chmod", "utime", "truncated", "removed")[number] + " outside of its folder"
        except OSError:
            pass
    raise PermissionError("nothing outside could be changed")


def _signal(asked: Mapping[str, Any]) -> str:
    for pid in (asked["trainer"], os.getppid()):
        if pid > 0:
            try:
                os.kill(pid, 0)
                return f"may send signals to process {pid}"
            except OSError:
                pass
    raise PermissionError("no other process could be sent a signal")


def _gain(asked: Mapping[str, Any]) -> str:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_USER_NAMESPACE) == 0:
        return "made a user namespace"
    raise OSError(ctypes.get_errno(), "unshare")


ATTEMPTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "files": _read,
    "environment": _look_at_environment,
    "network": _connect,
    "processes": _start,
    "writing": _change,
    "signals": _signal,
    "privileges": _gain,
}


def main(payload: Any, channel: Any) -> None:
    """`{"do": "attempts", ...}` says how each attempt went; "memory" and "spin" use up what is limited."""
    if payload["do"] == "memory":
        block = bytearray(payload["bytes"])
        channel.send(f"was given {len(block)} bytes")
    elif payload["do"] == "spin":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
    elif payload["do"] == "work":
        channel.send(_works(payload))
    else:
        said: dict[str, list[Any]] = {}
        for name, attempt in ATTEMPTS.items():
            try:
                said[name] = [False, attempt(payload)]
            except OSError as error:
                said[name] = [True, f"{type(error).__name__}: {error}"]
        channel.send(said)
