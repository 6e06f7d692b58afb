"""What to do where a tier of the sandbox does not work here, as far as this machine tells."""

from __future__ import annotations

import os
from pathlib import Path

from selftrain.scoring.sandbox import Tier

PROGRAM = "apt install bubblewrap (dnf, pacman and apk call it the same), or pip install 'selftrain[sandbox]'"
ARCHITECTURE = "run on x86_64 or aarch64 Linux (Windows: inside WSL 2)"
REPORT = "the sandbox does not hold here; do not run candidates' code, and report this with the kernel's version"


def for_start(tier: Tier, said: str) -> str:
    """How to let a worker of that tier start, given what it said."""
    if tier != "bubblewrap":
        return "see what it says; the interpreter must be readable by this user, and its temporary folder writable"
    found = []
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        found.append(
            "AppArmor keeps programs without a profile from making user namespaces (Ubuntu since 23.10): add the file "
            "/etc/apparmor.d/bwrap with: abi <abi/4.0>, include <tunables/global> profile bwrap /usr/bin/bwrap "
            "flags=(unconfined) { userns, }   and run: systemctl reload apparmor; or, for all programs: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        found.append("sysctl kernel.unprivileged_userns_clone=1")
    if _setting("user/max_user_namespaces") == "0":
        found.append("sysctl user.max_user_namespaces=15000")
    if _in_container():
        found.append(
            "containers seldom may make user namespaces: start this one with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined (Docker, Podman), or let score.sandbox.tier be landlock, without"
        )
    if not found and any(word in said.lower() for word in ("namespace", "uid map", "permission", "not permitted")):
        found.append(
            "let this user make user namespaces (what of this kernel or container forbids it could not be told)"
        )
    return "; or ".join(found) or "see what bwrap says above; `bwrap --unshare-all --ro-bind / / true` must work here"


def for_landlock() -> str:
    """How to have Landlock."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdigit())
    if release < (5, 13):
        return f"a kernel from 5.13 on (this one is {os.uname().release})"
    modules = _read(Path("/sys/kernel/security/lsm"))
    if modules and "landlock" not in modules.split(","):
        return f"add landlock to the kernel's command line: lsm=landlock,{modules}, and restart"
    container = (
        " a container's seccomp profile must allow landlock_*: Docker's does since 20.10.14;" if _in_container() else ""
    )
    return f"{container} Landlock must be in the kernel (CONFIG_SECURITY_LANDLOCK) and in its lsm= list".strip()


def _setting(name: str) -> str:
    return _read(Path("/proc/sys") / name)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _in_container() -> bool:
    return (
        Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ
    )
