"""The fork server: a fresh interpreter that imports what candidates import most, and the driver, once, and then forks
a process for each candidate.

Run by its path, never imported: `python server.py DESCRIPTOR`, a Unix socket to the trainer. It is single-threaded,
holds no secret, and starts with an environment of its own.

A candidate's process gets five descriptors: null, standard output and error, and a pipe in each direction to the
trainer. The socket never reaches it, so nothing that it writes can look like the server's word or meet the next
candidate. Whether it was confined is said through a pipe that is closed before any of its code runs.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import Any

_HEADER = struct.Struct(">I")
_OUT_OF_MEMORY = 71
_PIECE = 1 << 16
_TASKS = 512


class Channel:
    """The driver's two pipes to the trainer: messages of plain JSON data."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def send(self, value: Any) -> None:
        """Send a message. ValueError or TypeError where the value is no JSON data."""
        data = json.dumps(value, separators=(",", ":")).encode()
        view = memoryview(_HEADER.pack(len(data)) + data)
        while view:
            view = view[os.write(self._writing, view) :]

    def receive(self) -> Any:
        """The trainer's next message. EOFError when it sends no more."""
        return json.loads(self._exactly(_HEADER.unpack(self._exactly(_HEADER.size))[0]))

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = os.read(self._reading, min(count, _PIECE))
            if not piece:
                raise EOFError("the trainer sends no more")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def loaded_from(path: str, name: str) -> ModuleType:
    """A file as a module of that name, wherever it is."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Server:
    """One worker: serves a candidate's process at a time until the trainer hangs up."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        settings = json.loads(control.recv(1 << 20))
        self._tier: str = settings["tier"]
        self._scratch: str = settings["scratch"]
        self._null = os.open(os.devnull, os.O_RDWR)
        self._child = 0
        os.umask(0o077)
        signal.signal(signal.SIGTERM, self._stop)
        beside = os.path.dirname(os.path.abspath(__file__))
        names = ("confinement", "syscalls", "preloads", "scratch")
        self._confinement, self._syscalls, preloads, self._files = (
            loaded_from(os.path.join(beside, f"{name}.py"), f"sandbox_{name}") for name in names
        )
        if self._tier != "bubblewrap":
            self._confinement.die_with_parent(signal.SIGTERM)  # upon which it wipes its folder
            self._confinement.adopt_orphans()
        sys.meta_path.append(preloads.Named(settings["modules"]))
        preloads.preload(list(settings["modules"]))
        self._driver = loaded_from(settings["driver"], "driver")
        self._ruleset: int | None = None
        self._filter = b"" if self._tier == "none" else self._syscalls.seccomp_filter()
        if self._tier != "none":
            self._confinement.drop_privileges()
            if self._confinement.landlock_abi():
                self._ruleset = self._confinement.ruleset(settings["readable"], settings["devices"], self._scratch)
        self._confinement.dumpable(False)
        os.chdir(self._scratch)
        gc.collect()
        gc.freeze()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """As if the trainer had hung up. No exception: it could come in the middle of cleaning up."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Until the trainer closes its end, or is gone."""
        try:
            self._say({"ready": True})
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 4)
                if not data:
                    return
                asked = json.loads(data)
                if "run" in asked:
                    self._run(asked, descriptors)
        except ConnectionError:
            pass
        finally:
            self._end_all()
            if self._tier != "bubblewrap":
                self._files.wipe(self._scratch)
                os.rmdir(self._scratch)

    def _say(self, what: Mapping[str, Any]) -> None:
        self._control.send(json.dumps(what).encode())

    def _run(self, asked: Mapping[str, Any], descriptors: list[int]) -> None:
        confined, saying = os.pipe()
        begun = time.monotonic()
        self._child = os.fork()
        if self._child == 0:
            self._be_candidate(asked, descriptors, saying)
        for descriptor in (*descriptors, saying):
            os.close(descriptor)
        watching = os.pidfd_open(self._child)
        try:
            why = self._watch(asked, watching, begun)
        finally:
            os.close(watching)
        usage = self._end_all()
        wall = time.monotonic() - begun
        with os.fdopen(confined, "rb") as said:
            fault = said.read(2000)
        report = {"ended": asked["run"], "why": why, "wall": wall, **usage}
        if fault != b"confined":
            report["fault"] = fault.decode("utf-8", "replace") or "it ended before it was confined"
        self._say(report)
        self._files.wipe(self._scratch)
        self._say({"ready": True})

    def _watch(self, asked: Mapping[str, Any], watching: int, begun: float) -> str:
        """Wait for the end of the child: by itself (""), or for what it used up, or because the trainer says so."""
        poll = select.poll()
        poll.register(watching, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        wait, cores, clock = 0.05, os.cpu_count() or 1, (~self._child << 3) | 2
        while True:
            ready = dict(poll.poll(wait * 1000))
            if watching in ready:
                return ""
            if self._control.fileno() in ready:
                data = self._control.recv(1 << 16)
                if not data:
                    raise ConnectionError("the trainer hung up")
                if json.loads(data).get("kill") == asked["run"]:
                    return "told"
            try:
                left = asked["cpu"] - time.clock_gettime(clock)
            except OSError:
                continue
            if left <= 0:
                return "cpu"
            if time.monotonic() - begun > asked["wall"] + 10:
                return "wall"
            counted = time.monotonic()
            if too_much := self._too_much(asked["scratch"]):
                return too_much
            wait = max(0.005, min(0.05, left / cores), min(0.2, 10 * (time.monotonic() - counted)))

    def _too_much(self, limit: int) -> str:
        if self._tier == "bubblewrap":  # a file system of that size, in which only the number of files is open
            space = os.statvfs(self._scratch)
            return "scratch" if (space.f_files - space.f_ffree) * 4096 > limit else ""
        held = self._files.held_bytes(self._child, self._scratch, limit)
        return "scratch" if held + self._files.used_bytes(self._scratch, limit) > limit else ""

    def _end_all(self) -> dict[str, Any]:
        """Kill the child and all that it started, and reap them. What the child used up, and its wait status."""
        usage: dict[str, Any] = {}
        if self._child:
            for kill in (os.kill,) if self._tier == "bubblewrap" else (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    # As process 1 of its own namespace: all but itself.
                    kill(-1 if self._tier == "bubblewrap" else self._child, signal.SIGKILL)
            _, status, spent = os.wait4(self._child, 0)
            usage = {
                "status": status,
                "cpu": spent.ru_utime + spent.ru_stime,
                "peak": spent.ru_maxrss * 1024,
            }
            self._child = 0
        while self._tier == "none" and (left := self._files.children()):
            for number in left:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0):
                pass
        return usage

    def _be_candidate(self, asked: Mapping[str, Any], descriptors: list[int], saying: int) -> None:
        """In the forked process: confine it, then run the driver. Never returns."""
        code = 1
        try:
            receiving, sending = self._confined(asked, descriptors, saying)
            channel = Channel(receiving, sending)
            self._driver.main(channel.receive(), channel)
            code = 0
        except MemoryError:
            code = _OUT_OF_MEMORY
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code & 0xFF)

    def _confined(self, asked: Mapping[str, Any], descriptors: list[int], saying: int) -> tuple[int, int]:
        """The descriptors of the channel, once all that holds the process is in force."""
        try:
            self._confinement.die_with_parent(signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            first = 64  # above all that is open, then down to where they are expected
            high = [os.dup2(one, first + at) for at, one in enumerate((self._null, *descriptors, saying))]
            ruleset = None if self._ruleset is None else os.dup2(self._ruleset, first + len(high))
            for number, one in enumerate(high):
                os.dup2(one, number)
            os.closerange(len(high), first if ruleset is None else ruleset)
            os.closerange(first + len(high) + (ruleset is not None), 4096)
            self._confinement.limit(asked["cpu"], asked["memory"], asked["scratch"])
            if self._tier == "bubblewrap":
                self._confinement.limit_tasks(_TASKS)
            if self._tier == "landlock":
                self._confinement.dumpable(True)  # for the server to see what it holds open; it holds no secret
            if self._tier != "none":
                self._confinement.confine(ruleset, self._syscalls.for_process(self._filter, os.getpid()))
            if ruleset is not None:
                os.close(ruleset)
            os.write(5, b"confined")
            os.close(5)
        except BaseException as error:
            os.write(saying, f"{type(error).__name__}: {error}".encode()[:2000])
            os._exit(1)
        return 1 + 2, 1 + 3


def main() -> None:
    """Serve the socket of that number, then end without the interpreter's long goodbye."""
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
