"""Where a base model comes from: a hub id, a local folder, a `.gguf` file, or a file inside an installed package.

GGUF files are converted once to a safetensors folder: a model loaded straight from GGUF can neither be trained nor
saved. Converted folders are published by a rename, so a crashed or concurrent conversion leaves no half of one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from selftrain.config import ModelConfig
from selftrain.contents import folder_digest
from selftrain.errors import ConfigError, DependencyError
from selftrain.models.turns import loading
from selftrain.records import Digest, digest
from selftrain.whereabouts import HUB_ID, PACKAGE, package_file

LOGGER = logging.getLogger("selftrain")


@dataclass(frozen=True, slots=True)
class Source:
    """What `from_pretrained` is given: a folder, or a hub id at a commit. `digest` names weights and tokenizer."""

    path: str
    revision: str | None
    digest: Digest


def locate(config: ModelConfig, cache_dir: Path, where: str = "model.path") -> Source:
    """Find the model; convert a GGUF file at first use. ConfigError, which names `where`: no such model.
    DependencyError: out of reach."""
    path = Path(config.path).expanduser()
    if config.path.startswith(PACKAGE):
        return _from_gguf(_in_package(config.path, where), cache_dir)
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(path, cache_dir)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{where}: {path} is a folder without config.json; give a folder with a saved model")
        return Source(str(path), None, folder_digest(path))
    if path.suffix == ".gguf" or not HUB_ID.fullmatch(config.path):
        raise ConfigError(
            f"{where}: {config.path!r} is not a folder, a .gguf file, a hub id or package:NAME/FILE "
            f"(looked for {path.absolute()}); correct the path"
        )
    return _from_hub(config, where)


def _in_package(reference: str, where: str) -> Path:
    name, folder, inside = package_file(reference)
    if folder is None:
        raise DependencyError(
            f"{where}: {reference!r} needs the Python package {name!r}, which is not installed; "
            f"run `pip install {name.replace('_', '-')}`"
        )
    if not inside or not (folder / inside).is_file():
        known = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.gguf"))
        raise ConfigError(f"{where}: {name} holds no file {inside!r}; its .gguf files: {', '.join(known) or 'none'}")
    return folder / inside


def _from_hub(config: ModelConfig, where: str) -> Source:
    try:
        found = hf_hub_download(config.path, "config.json", revision=config.revision)
    except LocalEntryNotFoundError as error:
        raise DependencyError(
            f"{where}: {config.path!r} is no local folder, and the hub cannot be reached "
            f"({error.__cause__ or error}); check the network, or download the model and give its folder"
        ) from error
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"{where}: {config.path!r} (revision {config.revision or 'main'}) is no local folder, and the hub "
            f"does not give it: {str(error).splitlines()[0]}; check the spelling, or log in with `hf auth login`"
        ) from error
    commit = Path(found).parent.name
    return Source(config.path, commit, digest({"hub": config.path, "commit": commit}))


def _from_gguf(file: Path, cache_dir: Path) -> Source:
    with file.open("rb") as opened:
        key = hashlib.file_digest(opened, "sha256").hexdigest()
    folder = cache_dir / "gguf" / key
    if not folder.is_dir():
        LOGGER.info("converting %s to safetensors once (under a minute for small models)", file.name)
        _convert(file, folder)
    return Source(str(folder), None, Digest(key))


def _convert(file: Path, folder: Path) -> None:
    """Write the dense float32 model and its tokenizer to `folder`, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    transformers_logging.disable_progress_bar()
    try:
        name = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **name)
        with loading():
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **name
            )
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "source.json").write_text(json.dumps({"gguf": file.name}) + "\n")
        for path in (*temporary.iterdir(), temporary):
            _fsync(path)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            # Another process was first; its folder holds the same tensors.
            if not folder.is_dir():
                raise
        _fsync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
