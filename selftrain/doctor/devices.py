"""torch as it is built, the GPUs it sees, threads, and whether every dependency can be imported.

All of it happens in processes of their own with a time limit: a package built for another machine can raise, crash the
interpreter or hang, and is to be reported instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.doctor.findings import Finding, note, ok, problem
from selftrain.doctor.libraries import installed, requirements, tested
from selftrain.world import GPU_DEVICES, imposed_single_thread

IMPORT_SECONDS = 120.0
TORCH_SECONDS = 90.0
# Where a package's module has another name.
MODULES = {"pyyaml": "yaml"}

IMPORTS = """
import importlib, json, sys, time
for name in sys.argv[1:]:
    print(json.dumps({"name": name}), flush=True)
    start = time.monotonic()
    try:
        importlib.import_module(name)
        error = None
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
    print(json.dumps({"name": name, "error": error, "seconds": time.monotonic() - start}), flush=True)
"""
TORCH = """
import json, torch
found = {
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "threads": torch.get_num_threads(), "devices": [], "error": None,
}
try:
    for number in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        with torch.cuda.device(number):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            works = bool(torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda")).sum().item() == 512)
        found["devices"].append({"name": of.name, "free": free, "total": total, "bf16": bf16, "works": works})
except Exception as failure:
    found["error"] = f"{type(failure).__name__}: {failure}".splitlines()[0]
print(json.dumps(found))
"""


def torch_and_imports() -> Iterator[Finding]:
    """What torch says of itself and of the machine, then the imports of all dependencies."""
    if installed("torch") is not None:
        yield from _torch()
    yield from _threads()
    yield from imports([MODULES.get(one.name.lower(), one.name.replace("-", "_")) for one in _present()])


def _present() -> list[Any]:
    return [one for one in requirements()[0] if installed(one.name) is not None]


def imports(modules: Sequence[str], seconds: float = IMPORT_SECONDS) -> Iterator[Finding]:
    """Import the modules one after the other; go on behind one that crashes or hangs, in a new process."""
    left, took, broken = list(modules), 0.0, 0
    while left:
        rows, ended = _run([sys.executable, "-c", IMPORTS, *left], seconds)
        done = [row for row in rows if "seconds" in row]
        for row in done:
            took += row["seconds"]
            if row["error"] is not None:
                broken += 1
                yield _broken(row["name"], f"raises {row['error']}")
        left = left[len(done) :]
        if left:
            broken += 1
            yield _broken(left.pop(0), ended)
    if modules and not broken:
        yield ok("torch", f"all {len(modules)} dependencies can be imported ({took:.0f} s)")


def _broken(module: str, how: str) -> Finding:
    package = next((name for name, of in MODULES.items() if of == module), module.replace("_", "-"))
    known = tested().get(package.lower())
    version = f"=={known}" if known is not None else ""
    return problem("torch", f"import {module} {how}", f"pip install --force-reinstall '{package}{version}'")


def _run(command: Sequence[str], seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The JSON lines that a program printed, and how it ended, in words."""
    # A file, not a pipe: what was printed before a time-out is not lost, and no child can hold the pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+", errors="replace") as errors:
        environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
        program = subprocess.Popen(command, stdout=out, stderr=errors, stdin=subprocess.DEVNULL, env=environment)
        try:
            code = program.wait(seconds)
            ended = f"crashes the interpreter (signal {-code})" if code < 0 else f"ends the interpreter with {code}"
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            ended = f"takes longer than {seconds:.0f} s"
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:]
        out.seek(0)
        return list(_json_lines(out.read())), ended + "".join(f": {line[:200]}" for line in last)


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # some packages print at import
        if isinstance(row, dict):
            yield row


def _torch() -> Iterator[Finding]:
    rows, ended = _run([sys.executable, "-c", TORCH], TORCH_SECONDS)
    if not rows:
        remedy = "install torch for this machine: https://pytorch.org/get-started"
        yield problem("torch", f"asking torch for its devices {ended}", remedy)
        return
    yield from torch_findings(rows[-1])


def torch_findings(said: Mapping[str, Any]) -> Iterator[Finding]:
    """From what the probe printed."""
    build = f"for CUDA {said['cuda']}" if said["cuda"] else f"for ROCm {said['hip']}" if said["hip"] else "for CPUs"
    yield ok("torch", f"torch {said['version']}, built {build}; {said['threads']} threads")
    has_gpu = any(Path(one).exists() for one in GPU_DEVICES)
    for number, one in enumerate(said["devices"]):
        text = (
            f"cuda:{number}: {one['name']}, {_gib(one['free'])} of {_gib(one['total'])} free, "
            f"bfloat16 {'yes' if one['bf16'] else 'no'}"
        )
        if not one["works"]:
            remedy = "leave it out with CUDA_VISIBLE_DEVICES, or check it with nvidia-smi"
            yield problem("torch", f"{text}; it multiplies wrongly", remedy)
        elif one["free"] < 0.2 * one["total"]:
            yield note("torch", f"{text}: another program has most of it")
        elif not one["bf16"]:
            yield note("torch", text, "set model.dtype=float32 or float16 for a model saved in bfloat16")
        else:
            yield ok("torch", text)
    if said["error"] is not None:
        remedy = "check the driver with nvidia-smi; or run on the CPU: model.device=cpu"
        yield problem("torch", f"a GPU cannot be used: {said['error']}", remedy)
    elif has_gpu and not (said["cuda"] or said["hip"]):
        remedy = "install a CUDA or ROCm build: https://pytorch.org/get-started"
        yield note("torch", "this machine has a GPU, and this torch is built for CPUs", remedy)
    elif has_gpu and not said["devices"]:
        remedy = "check nvidia-smi, CUDA_VISIBLE_DEVICES, and that the driver is new enough for the build"
        yield note("torch", "this machine has a GPU, and torch sees none", remedy)
    elif not said["devices"]:
        yield note("torch", "no GPU: models run on the CPU, which is slow for more than a few hundred million weights")


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _threads() -> Iterator[Finding]:
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    text = f"{cores} CPU cores, OMP_NUM_THREADS {threads if threads is not None else 'not set'}"
    quota = cpu_quota()
    if (warning := imposed_single_thread()) is not None:
        yield note("torch", warning)
    elif threads is not None and threads.isdecimal() and int(threads) > cores:
        yield note("torch", f"{text}: more threads than cores slow each other down", f"OMP_NUM_THREADS={cores}")
    elif quota is not None and quota < cores and threads is None:
        remedy = f"OMP_NUM_THREADS={max(1, int(quota))}"
        yield note(
            "torch", f"{text}; the container may use {quota:g} of them, and torch starts {cores} threads", remedy
        )
    else:
        yield ok("torch", text)


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many CPUs' time a container's limit gives; None: no limit. Files of cgroup v2, then of v1."""
    try:
        if (root / "cpu.max").is_file():
            limit, period = (root / "cpu.max").read_text().split()[:2]
        else:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
