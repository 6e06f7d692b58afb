"""Runs the attack suite against a plain subprocess or a tier of the sandbox, and prints what came of it as JSON.

    attack_harness.py plain|landlock|bubblewrap [--only NAME]... [--part 0/3] [--alone]

A program of its own, so that it can be run as any user with any Python: it imports the standard library and the
sandbox. `--alone` says that it is in a process-id namespace of its own, without which nothing signals everybody.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import attack_driver
from attack_effects import EFFECTS, told
from attack_world import MEMORY, OUTPUT, SCRATCH, Came, World, descendants, remove

from selftrain.errors import SandboxRefused

HERE = Path(__file__).parent
TEXTS = {path.stem: path.read_text() for path in sorted((HERE / "attacks").glob("*.py"))}
FAMILIES = sorted(set(TEXTS) - {"given"})
PATIENCE = 5.0
"""Seconds beyond what the judge allows before it counts as hung."""
QUESTIONS = 3


@dataclass(frozen=True)
class Result:
    """What came of one attack."""

    succeeded: bool
    evidence: str
    """What was seen, or how the attack was held."""
    seconds: float


def suite() -> dict[str, Any]:
    """Every attack by name."""
    given = attack_driver.loaded("given", TEXTS["given"])
    for family in FAMILIES:
        attack_driver.loaded(family, TEXTS[family])
    attacks: dict[str, Any] = given.ATTACKS
    for name in ("given", *FAMILIES):
        del sys.modules[name]
    return attacks


def payload_of(attack: Any, function: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What the candidate's process is sent. No expected value, ever."""
    texts = {"given": TEXTS["given"], "source": TEXTS[attack.family]}
    return {**texts, "family": attack.family, "name": function, "facts": facts}


def collect(came: Came, receive: Any, most: int) -> None:
    """Messages until there are no more, or too many."""
    while came.bytes_back < most:
        message = receive()
        came.messages.append(message)
        came.bytes_back += len(message) if isinstance(message, str) else 100


def within(seconds: float, work: Any) -> bool:
    """Whether the work was done in that time. Left to itself where not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


class Plain:
    """The naive judge: a subprocess that inherits everything, blocking reads, SIGTERM on time-out, verdict by exit
    code, by a word in the output, or by a message; expected values in the candidate's process."""

    def assail(self, attack: Any, world: World) -> Came:
        """Run it, and the next candidate."""
        came = Came()
        tests = [[n, f"{world.expected}-{n}"] for n in range(QUESTIONS)]
        first = {**payload_of(attack, attack.name, {**world.facts, "note": world.note}), "tests": tests}
        then = attack.follower or ("say_hello" if attack.same_process else "")
        followers = [payload_of(attack, then, world.facts)] if then else []
        self._run([first, *followers] if attack.same_process else [first], attack, came, world)
        if attack.same_process:
            came.later, came.messages = came.messages, []
            came.next_judged = {"end": then} in came.later
        elif followers:
            later = Came()
            self._run(followers, attack, later, world)
            came.later = later.messages
        return came

    def _run(self, payloads: Sequence[Any], attack: Any, came: Came, world: World) -> None:
        # Folders of their own, but for those who forget to wipe.
        kept = attack.family == "persistence"
        scratch = world.root / "plain" if kept else Path(tempfile.mkdtemp(prefix="plain-", dir=world.root))
        scratch.mkdir(exist_ok=True)
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        command = [sys.executable, "-S", str(HERE / "plain_child.py"), str(to_child), str(from_child)]
        if attack.effect == "parent":
            command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
        with tempfile.TemporaryFile() as printed:
            child = subprocess.Popen(
                command,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                pass_fds=(to_child, from_child, world.held),
                preexec_fn=bounded,
                start_new_session=True,
            )
            os.close(to_child)
            os.close(from_child)
            with contextlib.suppress(BrokenPipeError):
                os.write(from_parent, json.dumps(list(payloads)).encode() + b"\n")

            def judge() -> None:
                try:
                    with open(to_parent, encoding="utf-8", closefd=False) as lines:
                        for line in lines:
                            came.bytes_back += len(line)
                            came.messages.append(json.loads(line))
                except Exception as error:
                    came.error = type(error).__name__
                child.wait()

            if not within(attack.seconds, judge):
                child.send_signal(signal.SIGTERM)
                came.hung = not within(0.4, child.wait)
                came.hung = came.hung or bool(descendants(os.getpid()).keys() - world.watch.base.keys())
            came.parent_died = attack.effect == "parent" and child.poll() == -signal.SIGKILL
            if attack.effect not in ("survivor", "loot"):
                end_strays(world)
            os.close(from_parent)
            if child.poll() is not None:
                os.close(to_parent)
            printed.seek(0)
            came.output += printed.read()
        right = {"exit": child.poll() == 0, "marker": b"PASS" in came.output}
        came.passed = right.get(attack.judge, "pass" in told(came, "verdict"))
        if not kept:
            wipe_naively(scratch)


def bounded() -> None:
    """Bounds for the plain subprocess too, so that this machine survives whatever the suite does."""
    resource.setrlimit(resource.RLIMIT_CPU, (12, 12))
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def wipe_naively(scratch: Path) -> None:
    """As somebody would who does not think of links."""
    for folder, folders, names in os.walk(scratch, followlinks=False):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(folder, name), 0o700)
    remove(scratch)


def end_strays(world: World) -> None:
    """Kill what an attack left running below this process."""
    for _ in range(20):
        strays = descendants(os.getpid()).keys() - world.watch.base.keys()
        for one in strays:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(one, os.WNOHANG)
        if not strays:
            return
        time.sleep(0.02)


class Confined:
    """A tier of the sandbox, and a judge that keeps the expected values to itself."""

    def __init__(self, tier: Any) -> None:
        from selftrain.scoring.sandbox.choosing import choose

        self.chosen = choose(tier)
        self.sandboxes: dict[float, Any] = {}

    def sandbox(self, seconds: float) -> Any:
        """The one with that much wall time."""
        from selftrain.scoring.sandbox import Limits
        from selftrain.scoring.sandbox.pool import Sandbox

        if seconds not in self.sandboxes:
            limits = Limits(min(2.0, seconds), seconds, MEMORY, OUTPUT, SCRATCH)
            self.sandboxes[seconds] = Sandbox(self.chosen, limits, driver=HERE / "attack_driver.py")
        return self.sandboxes[seconds]

    def ready(self, attack: Any) -> None:
        """Have its processes running, so that they are not taken for the attack's. Later the honest candidate after
        each attack sees to that."""
        if attack.seconds not in self.sandboxes:
            self._attempt(attack, payload_of(attack, "say_hello", {}), Came(), {})

    def assail(self, attack: Any, world: World) -> Came:
        """Run it, the next candidate, and an honest one."""
        came = Came()
        values = {n: f"{world.expected}-{n}" for n in range(QUESTIONS)}
        first = payload_of(attack, attack.name, {**world.facts, "note": world.note})
        self._attempt(attack, first, came, values if attack.effect == "passed" else {})
        if attack.follower:
            later = Came()
            self._attempt(attack, payload_of(attack, attack.follower, world.facts), later, {})
            came.later = later.messages
        honest = Came()
        self._attempt(attack, payload_of(attack, "say_hello", {}), honest, {})
        came.next_judged = honest.messages == ["hello"]
        came.error = came.error or honest.error
        return came

    def _attempt(self, attack: Any, payload: Any, came: Came, values: dict[int, str]) -> None:
        from selftrain.scoring.sandbox import Stopped

        def converse(processes: Sequence[Any]) -> bool:
            came.messages.clear()
            if not values:
                with contextlib.suppress(Stopped):
                    collect(came, processes[0].receive, 32 * OUTPUT)
                return False
            right = []
            for argument, value in values.items():
                token = secrets.token_hex(8)
                processes[0].send({"token": token, "argument": argument})
                answer = processes[0].receive()
                came.messages.append(answer)
                right.append(answer == {"token": token, "value": value})
            return all(right)

        def judge() -> None:
            try:
                passed, endings = self.sandbox(attack.seconds).attempt([payload], converse)
            except Exception as error:
                came.error = f"{type(error).__name__}: {error}"
                return
            came.passed = passed is True
            came.endings += [one.how for one in endings]
            came.output += b"".join(one.output for one in endings)
            came.messages += [] if came.messages else [{"ended": f"{one.how}: {one.detail}"} for one in endings]

        came.hung = not within(2 * attack.seconds + PATIENCE, judge) or came.hung

    def close(self) -> None:
        """End it all."""
        for one in self.sandboxes.values():
            one.close()


def outcome(attack: Any, judge: Plain | Confined, token: str) -> Result:
    """Run one attack and look at what it did."""
    if isinstance(judge, Confined):
        judge.ready(attack)
    world = World(token, attack.effect)
    began = time.monotonic()
    try:
        came = judge.assail(attack, world)
        world.watch.stop()
        evidence = EFFECTS[attack.effect](world, came)
        if not evidence and isinstance(judge, Confined):
            evidence = "the judge was still waiting" if came.hung else ""
            evidence = evidence or (f"the judge raised {came.error}" if came.error else "")
            # Not judged is better than judged wrong: whoever can bring that about has won something too.
            evidence = evidence or ("the sandbox failed" if "infra_error" in came.endings else "")
            evidence = evidence or ("" if came.next_judged else "the next candidate could not be judged")
        held = str([*came.messages, *came.endings])[:300]
        return Result(bool(evidence), evidence or held, round(time.monotonic() - began, 2))
    finally:
        world.watch.stop()
        if isinstance(judge, Plain):
            end_strays(world)
        world.close()


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=("plain", "landlock", "bubblewrap"))
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--part", default="0/1", help="of the suite, as 0/3")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--canary", default="", help="a secret on the command line of the trainer")
    arguments = parser.parse_args()
    # Not SIG_IGN, which every process below would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # Orphans of an attack come here, so that all of them can be ended.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    results = {}
    try:
        judge = Plain() if arguments.target == "plain" else Confined(arguments.target)
    except SandboxRefused as refused:
        print(json.dumps({"refused": str(refused)}))
        return
    part, parts = map(int, arguments.part.split("/"))
    for name, attack in list(suite().items())[part::parts]:
        if arguments.only and name not in arguments.only:
            continue
        if attack.cut_off and not arguments.alone:
            results[name] = None
            continue
        results[name] = asdict(outcome(attack, judge, arguments.canary))
    if isinstance(judge, Confined):
        judge.close()
        time.sleep(0.5)
    print(json.dumps({"results": results, "left": len(descendants(os.getpid()))}))


if __name__ == "__main__":
    main()
