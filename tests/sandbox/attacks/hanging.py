"""Making the judge wait, or break."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

from given import attack, descriptors


def say(raw: bytes) -> None:
    """Write to every pipe and socket there is: one of them leads to the judge."""
    for number in descriptors():
        with contextlib.suppress(OSError):
            os.set_blocking(number, False)
            os.write(number, raw)


def wait() -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + 8
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(end - time.monotonic())


@attack("hung", seconds=0.6)
def begin_a_message_and_wait(facts: dict[str, Any], tell: Any) -> None:
    say(b"\x00\x00\x00\x10" + b'{"half')
    wait()


@attack("hung", seconds=0.6)
def promise_a_long_message(facts: dict[str, Any], tell: Any) -> None:
    say(b"\x7f\xff\xff\xff\x7f\xff\xff\xff")
    wait()


@attack("hung", seconds=0.6)
def ignore_every_signal(facts: dict[str, Any], tell: Any) -> None:
    for one in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(one, signal.SIG_IGN)
    wait()


@attack("hung", seconds=0.6)
def stop_itself(facts: dict[str, Any], tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGSTOP)


@attack("hung", seconds=0.6)
def spin_and_ignore_the_limit(facts: dict[str, Any], tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    end = time.monotonic() + 8
    while time.monotonic() < end:
        pass


@attack("hung", seconds=0.6)
def leave_a_thread_running(facts: dict[str, Any], tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=wait).start()


@attack("hung", seconds=0.6)
def wait_on_the_way_out(facts: dict[str, Any], tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit.register(wait)
    sys.exit(0)


@attack("hung", seconds=0.6)
def leave_the_pipe_to_a_child(facts: dict[str, Any], tell: Any) -> None:
    # The candidate ends, but its child holds the other end, so the judge that reads to the end waits for that.
    if os.fork() == 0:
        os.setsid()
        wait()
        os._exit(0)


@attack("broken")
def send_bytes_that_are_no_message(facts: dict[str, Any], tell: Any) -> None:
    say(b"\x00\x00\x00\x04\xff\xfe\xfd\xfc\n")
    say(b"\xff\xfe not json at all\n" * 40)


@attack("broken", seconds=0.6)
def send_very_deep_json(facts: dict[str, Any], tell: Any) -> None:
    text = b"[" * 60_000 + b"]" * 60_000
    for frame in (len(text).to_bytes(4, "big") + text, b"\n" + text + b"\n"):
        for number in descriptors():
            with contextlib.suppress(OSError):
                os.set_blocking(number, True)
                os.write(number, frame)


@attack("broken")
def send_a_very_long_number(facts: dict[str, Any], tell: Any) -> None:
    text = b"1" * 50_000
    for frame in (len(text).to_bytes(4, "big") + text, b"\n" + text + b"\n"):
        say(frame)


@attack("broken", same_process=True)
def close_everything(facts: dict[str, Any], tell: Any) -> None:
    os.closerange(0, 1024)
    os._exit(0)


@attack("broken", same_process=True)
def fall_over(facts: dict[str, Any], tell: Any) -> None:
    import ctypes

    ctypes.string_at(1)
