"""Nothing that a candidate's process does comes out of the sandbox; and each attack works where there is none.

The suite runs in a process of its own (attack_harness.py): as this user and, where this is root, as an ordinary user
too; in a process-id namespace of its own where there may be one, so that whatever an attack leaves ends with it.
"""

from __future__ import annotations

import os

import attack_harness
import pytest
from attack_house import TIERS, USERS, reports, results_or_skip

ATTACKS = attack_harness.suite()

UNTESTABLE = {
    "call_by_sctp": "the kernel has no SCTP",
    "call_by_multipath_tcp": "the kernel has no MPTCP, or /proc/sys/net/mptcp/enabled is 0",
    "call_by_tcp_fast_open": "net.ipv4.tcp_fastopen does not let clients",
    "ask_a_name_server": "there is no IPv6",
    "ask_the_kernel_by_netlink": "the container denies netlink",
    "open_other_families": "the kernel has none of these families",
    "kill_by_the_calls_of_x32_programs": "the kernel is built without x32, or this is no x86_64",
    "kill_by_the_calls_of_32_bit_programs": "the kernel is built without the calls of 32-bit programs",
    "set_up_an_io_uring": "kernel.io_uring_disabled, or the container denies it",
    "load_a_program_into_the_kernel": "kernel.unprivileged_bpf_disabled",
    "watch_the_processor": "kernel.perf_event_paranoid",
    "handle_page_faults": "the kernel has no userfaultfd for users",
    "unshare_a_user_namespace": "user namespaces are off",
    "clone_into_a_user_namespace": "user namespaces are off",
    "trace_a_process": "Yama's ptrace_scope, or the container denies it",
    "read_the_memory_of_the_trainer": "Yama's ptrace_scope, or the container denies it",
    "read_the_memory_of_the_trainer_as_a_file": "Yama's ptrace_scope, or the container denies it",
    "write_to_the_memory_of_the_trainer": "Yama's ptrace_scope, or the container denies it",
    "write_into_the_memory_of_the_server": "Yama's ptrace_scope, or the container denies it",
    "take_a_descriptor_out_of_the_trainer": "Yama's ptrace_scope, or the container denies it",
    "find_out_what_the_processes_share": "Yama's ptrace_scope, or the kernel has no kcmp",
    "ask_to_be_traced": "the container denies ptrace",
    "leave_a_key": "the container denies keys",
    "read_the_keys_of_the_session": "the container denies keys",
    "change_the_attributes_of_the_file": "the file system has no extended attributes for users",
    "change_its_personality": "the container denies it",
    "open_a_device": "/dev has none of these",
    "leave_a_module_to_import": "an ordinary user may write to no folder of sys.path",
    "end_everybody": "there may be no process-id namespace to be safe in",
}
"""Attacks that a machine may stop even a plain subprocess from, and what stops it."""


def needs_rights(name: str) -> bool:
    """Whether only root may do it anyway; root in a container may not do all of these either."""
    return bool(ATTACKS[name].root)


def test_there_are_attacks_of_every_kind() -> None:
    families = {one.family for one in ATTACKS.values()}
    assert families == {
        "reading", "writing", "bombs", "network", "signals", "persistence", "escape", "hanging", "forging", "stealing"
    }  # fmt: skip
    assert len(ATTACKS) >= 40
    assert set(UNTESTABLE) <= set(ATTACKS)


@pytest.mark.parametrize("user", [USERS[0], *(pytest.param(user, marks=pytest.mark.slow) for user in USERS[1:])])
def test_the_attacks_work_against_a_plain_subprocess(user: str) -> None:
    results = {
        name: one
        for name, one in results_or_skip(reports((user,), ("plain",), 3)[user, "plain"]).items()
        if one is not None
    }
    worked = {name for name, one in results.items() if one["succeeded"]}
    excused = set(UNTESTABLE) | {name for name in ATTACKS if needs_rights(name)}
    failed = {name: results[name]["evidence"] for name in set(results) - worked - excused}
    assert not failed, "no proof against these is worth anything, as they fail by themselves"
    assert len(worked) >= 30
    assert {ATTACKS[name].family for name in worked} == {one.family for one in ATTACKS.values()}


@pytest.mark.parametrize("family", attack_harness.FAMILIES)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("user", USERS)
def test_no_attack_comes_out_of_the_sandbox(user: str, tier: str, family: str) -> None:
    results = results_or_skip(reports(USERS, TIERS)[user, tier])
    known = {"ask_for_the_size_of_the_file"} if tier == "landlock" else set()
    came_through = {
        name: one["evidence"]
        for name, one in results.items()
        if ATTACKS[name].family == family and one is not None and one["succeeded"]
    }
    assert set(came_through) - known == set(), came_through
    untried = {name for name, one in results.items() if one is None}
    assert untried <= {"end_everybody"}
    if untried and os.environ.get("SELFTRAIN_REQUIRE_SANDBOX") == "1":
        pytest.fail(f"not tried, as there is no process-id namespace to be safe in: {untried}")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("user", USERS)
def test_no_process_is_left_when_the_sandbox_is_closed(user: str, tier: str) -> None:
    results_or_skip(reports(USERS, TIERS)[user, tier])
    assert reports(USERS, TIERS)[user, tier]["left"] == 0
