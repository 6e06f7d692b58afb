"""Signals to other processes, and other ways to lay hands on them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import time
from typing import Any

from given import LIBC, attack, syscall


@attack("victim")
def kill_a_process(facts: dict[str, Any], tell: Any) -> None:
    os.kill(facts["victim"], signal.SIGKILL)


@attack("victim")
def kill_a_process_group(facts: dict[str, Any], tell: Any) -> None:
    os.killpg(facts["victim"], signal.SIGKILL)


@attack("victim")
def kill_a_thread(facts: dict[str, Any], tell: Any) -> None:
    syscall("tkill", facts["victim"], int(signal.SIGKILL))


@attack("victim")
def kill_a_thread_of_a_group(facts: dict[str, Any], tell: Any) -> None:
    syscall("tgkill", facts["victim"], facts["victim"], int(signal.SIGKILL))


@attack("victim")
def kill_by_a_process_descriptor(facts: dict[str, Any], tell: Any) -> None:
    syscall("pidfd_send_signal", syscall("pidfd_open", facts["victim"], 0), int(signal.SIGKILL), 0, 0)


@attack("victim")
def kill_by_a_queued_signal(facts: dict[str, Any], tell: Any) -> None:
    information = (ctypes.c_int * 32)(signal.SIGTERM, 0, -1)
    syscall("rt_sigqueueinfo", facts["victim"], int(signal.SIGTERM), information)


@attack("victim")
def kill_by_input_that_arrives(facts: dict[str, Any], tell: Any) -> None:
    # The kernel itself sends the signal that F_SETSIG names to the process that F_SETOWN names.
    ours, theirs = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, facts["victim"])
    fcntl.fcntl(ours, 10, int(signal.SIGTERM))
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    theirs.send(b"x")
    time.sleep(0.1)


@attack("victim")
def kill_by_the_calls_of_32_bit_programs(facts: dict[str, Any], tell: Any) -> None:
    if platform.machine() != "x86_64":
        raise OSError("only on x86_64")
    # push rbx; mov eax, 37; mov ebx, edi; mov ecx, esi; int 0x80; pop rbx; ret  (37 is kill there)
    code = b"\x53\xb8\x25\x00\x00\x00\x89\xfb\x89\xf1\xcd\x80\x5b\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(
        ctypes.addressof(ctypes.c_char.from_buffer(page))  # type: ignore[arg-type]
    )
    tell({"returned": run(facts["victim"], int(signal.SIGKILL))})


@attack("victim")
def kill_by_the_calls_of_x32_programs(facts: dict[str, Any], tell: Any) -> None:
    if platform.machine() != "x86_64":
        raise OSError("only on x86_64")
    syscall(0x40000000 + 62, facts["victim"], int(signal.SIGKILL))


@attack("victim", cut_off=True)
def end_everybody(facts: dict[str, Any], tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(-1, signal.SIGTERM)


@attack("victim")
def stop_a_process(facts: dict[str, Any], tell: Any) -> None:
    os.kill(facts["victim"], signal.SIGSTOP)


@attack("parent")
def kill_its_parent(facts: dict[str, Any], tell: Any) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


@attack("victim")
def trace_a_process(facts: dict[str, Any], tell: Any) -> None:
    syscall("ptrace", 16, facts["victim"], 0, 0)
    # A traced process is freed when its tracer ends, so that must wait to be seen.
    time.sleep(0.5)


@attack("victim")
def slow_a_process_down(facts: dict[str, Any], tell: Any) -> None:
    syscall("setpriority", 0, facts["victim"], 19)


@attack("victim")
def bind_a_process_to_one_core(facts: dict[str, Any], tell: Any) -> None:
    mask = ctypes.c_ulong(1)
    syscall("sched_setaffinity", facts["victim"], ctypes.sizeof(mask), ctypes.byref(mask))


@attack("victim")
def take_the_limits_of_a_process_away(facts: dict[str, Any], tell: Any) -> None:
    limits = (ctypes.c_uint64 * 2)(0, 0)
    syscall("prlimit64", facts["victim"], int(resource.RLIMIT_NOFILE), limits, 0)


@attack("victim")
def offer_a_process_to_the_out_of_memory_killer(facts: dict[str, Any], tell: Any) -> None:
    with open(f"/proc/{facts['victim']}/oom_score_adj", "w") as file:
        file.write("1000")


@attack("claim")
def raise_its_own_limits(facts: dict[str, Any], tell: Any) -> None:
    # In an open process the hard limits stand far above what a candidate may have.
    for kind, plenty in ((resource.RLIMIT_AS, 8 << 30), (resource.RLIMIT_CPU, 600), (resource.RLIMIT_FSIZE, 8 << 30)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (plenty, plenty))  # which may answer success and do nothing
            if resource.getrlimit(kind) == (plenty, plenty):
                tell({"done": f"the limit {kind} is {plenty}"})
    LIBC.prctl(4, 1, 0, 0, 0)
