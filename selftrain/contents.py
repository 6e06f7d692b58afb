"""What the name of a model stands for: where `from_pretrained` finds it, and the digest of its content.

For models beside the policy: reward models, judges, generators, embeddings. Nothing is loaded and torch is not
imported, so that every start can ask.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from selftrain.errors import ConfigError, DependencyError
from selftrain.records import Digest, digest
from selftrain.whereabouts import HUB_ID, PACKAGE, beside, package_file, snapshot

WHOLE_FILE_LIMIT = 1 << 30
SAMPLED_BYTES = 1 << 20
SAMPLES = 64
COMMIT = re.compile(r"[0-9a-f]{40}")
_KINDS = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors"})
ADAPTER = "adapter_config.json"
HUB_SECONDS = 5.0
# What a folder has one of that holds a model, an adapter, or a model of sentence-transformers.
_SAVED = ("config.json", ADAPTER, "modules.json")
_TOKENIZERS = ("tokenizer", "vocab", "spiece", "sentencepiece", "spm")
_OTHER_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


@dataclass(frozen=True, slots=True)
class Place:
    """What `from_pretrained` is given: a folder or a file, or a hub id with the commit (None: not known here yet)."""

    path: str
    revision: str | None = None

    @property
    def on_disk(self) -> Path | None:
        """The folder or file; None for a model of the hub."""
        return Path(self.path) if Path(self.path).exists() else None


def place(name: str, folder: Path, *, revision: str | None = None, what: str = "model") -> Place:
    """Where the model is: a folder or .gguf file (relative to `folder`, or to where the command runs), `package:NAME`
    or `package:NAME/PATH`, or a hub id.

    Of a hub id without a commit as its revision, the commit is what the cache has, or else what the hub says, so that
    all attempts of a run load the same one. ConfigError, which names `what`: there is no such model.
    DependencyError: its package is not installed.
    """
    if name.startswith(PACKAGE):
        return Place(str(_in_package(name, what)))
    path = beside(name, folder)
    if path.exists():
        if path.suffix == ".gguf" or any((path / one).is_file() for one in _SAVED):
            return Place(str(path))
        raise ConfigError(
            f"{what}: {path} is neither a folder with a saved model (none of {', '.join(_SAVED)} is in it) nor a .gguf "
            "file; correct the path"
        )
    if name.endswith(".gguf") or not HUB_ID.fullmatch(name):
        looked = " and ".join(dict.fromkeys(str(one.absolute()) for one in (folder / name, Path(name).expanduser())))
        raise ConfigError(f"{what}: there is no {name!r} (looked for {looked}), and it is no hub id; correct it")
    return Place(name, _commit(name, revision, what))


def model_content(name: str, folder: Path, *, revision: str | None = None, what: str = "model") -> Digest:
    """The digest of what a model's name stands for: the files of a folder (`folder_digest`), of an adapter's folder
    with those of its base model, the bytes of a .gguf file, or the hub's commit.

    Where the hub cannot be reached and the cache has no commit, the name and the revision: then nothing can be loaded
    either. Files that did not change since they were read in this process are not read again. Raises as `place` does.
    """
    found = place(name, folder, revision=revision, what=what)
    if (path := found.on_disk) is None:
        return digest({"hub": name, "commit": found.revision or revision or "main"})
    if path.is_file():
        return Digest(_known_digest(path))
    own = folder_digest(path)
    base = base_of_adapter(path)
    return own if base is None else digest([own, model_content(base, path, what=f"{what}: the base of {name}")])


def require_within_reach(name: str, folder: Path, *, revision: str | None = None, what: str = "model") -> None:
    """DependencyError for a model of the hub that the cache does not have while the hub cannot be asked; otherwise as
    `place`. A model is then missed before any work, and within seconds."""
    found = place(name, folder, revision=revision, what=what)
    if found.on_disk is None and found.revision is None:
        looked = " and ".join(dict.fromkeys(str(one.absolute()) for one in (folder / name, Path(name).expanduser())))
        raise DependencyError(
            f"{what}: there is no folder {name} (looked for {looked}), and the hub, which may have a model of that "
            "name, cannot be reached; correct the path, or check the network"
        )


def require_generator(name: str, folder: Path, *, revision: str | None = None, what: str = "model") -> None:
    """ConfigError for a model on this machine that cannot write texts: no tokenizer, a config.json that cannot be read,
    or one that says that the model has another head. Raises as `place` does; nothing is loaded."""
    found = place(name, folder, revision=revision, what=what)
    path = found.on_disk or snapshot(name, found.revision)
    if (config := saved_config(path, what)) is None:
        return
    require_tokenizer(path, what)
    heads = config.get("architectures") or []
    if heads and all(str(one).endswith(_OTHER_HEADS) for one in heads):
        raise ConfigError(
            f"{what}: {name} is a {heads[0]} (config.json, architectures), which writes no text: the head that does "
            "would be random; give a model that was trained to (a ...ForCausalLM)"
        )


def saved_config(folder: Path, what: str) -> dict[str, Any] | None:
    """The config.json of a saved model; None where there is none. ConfigError: it is no mapping, or not of a model."""
    return _mapping(folder / "config.json", what, "model_type")


def require_tokenizer(folder: Path, what: str) -> None:
    """ConfigError for a folder with a model and no tokenizer. One of the hub's cache may not be fetched yet."""
    is_cached = folder.parent.name == "snapshots"
    if folder.is_dir() and not is_cached and not any(one.name.startswith(_TOKENIZERS) for one in folder.iterdir()):
        raise ConfigError(
            f"{what}: {folder} holds a model and no tokenizer (no tokenizer.json); save the model's own there too, by "
            "its save_pretrained"
        )


def base_of_adapter(folder: Path) -> str | None:
    """The name of the model that an adapter's folder belongs to; None where it is no adapter's, or does not say.
    ConfigError: its config cannot be read."""
    found = _mapping(folder / ADAPTER, "an adapter's folder")
    return None if found is None else found.get("base_model_name_or_path")


def task_of_adapter(folder: Path) -> str | None:
    """What PEFT calls the task of an adapter's folder, as `SEQ_CLS`; None where it is no adapter's, or does not say."""
    found = _mapping(folder / ADAPTER, "an adapter's folder")
    return None if found is None else found.get("task_type")


def _mapping(file: Path, what: str, *needed: str) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: {file} cannot be read as JSON ({error}); save the model again") from None
    if not isinstance(found, dict) or any(name not in found for name in needed):
        lacking = f" with {' and '.join(needed)}" if needed else ""
        raise ConfigError(f"{what}: {file} is no mapping{lacking}, so it is not of a saved model; save the model again")
    return found


def folder_digest(folder: Path) -> Digest:
    """Digest of a saved model: config, tokenizer and chat template files whole, and the weights.

    Weight files up to 1 GiB are hashed whole. Of larger ones: the safetensors header (names, shapes, offsets of all
    tensors), the size, and 64 evenly spread chunks of 1 MiB; a change outside those chunks would go unnoticed.
    """
    # A model of sentence-transformers has its modules in folders of their own.
    places = folder.rglob("*") if (folder / "modules.json").is_file() else folder.iterdir()
    files = [path for path in places if path.suffix in _KINDS and path.is_file()]
    files += folder.rglob("*.py")  # runs with the model where trust_remote_code is set
    return digest({str(path.relative_to(folder)): _known_digest(path) for path in sorted(files)})


def _known_digest(path: Path) -> str:
    found = path.stat()
    return _file_digest(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        if size <= WHOLE_FILE_LIMIT:
            return hashlib.file_digest(file, "sha256").hexdigest()
        state = hashlib.sha256(str(size).encode())
        header_bytes = int.from_bytes(file.read(8), "little")
        state.update(file.read(min(header_bytes, size)))
        for sample in range(SAMPLES):
            file.seek((size - SAMPLED_BYTES) * sample // (SAMPLES - 1))
            state.update(file.read(SAMPLED_BYTES))
    return state.hexdigest()


def _in_package(reference: str, what: str) -> Path:
    name, folder, inside = package_file(reference)
    if folder is None:
        raise DependencyError(
            f"{what}: {reference!r} needs the Python package {name!r}, which is not installed; "
            f"run `pip install {name.replace('_', '-')}`"
        )
    path = folder / inside if inside else _models_in(folder, reference, what)
    if not path.exists():
        known = sorted(str(one.parent.relative_to(folder)) for one in folder.rglob("config.json"))
        raise ConfigError(
            f"{what}: {name} holds no {inside!r}; folders with models in it: {', '.join(known) or 'none'}"
        )
    return path


def _models_in(folder: Path, reference: str, what: str) -> Path:
    """The one folder with a saved model in a package, the outermost one first."""
    configs = sorted(folder.rglob("config.json"), key=lambda one: len(one.parts))
    nearest = [one.parent for one in configs if len(one.parts) == len(configs[0].parts)]
    if len(nearest) != 1:
        known = ", ".join(str(one.relative_to(folder)) for one in nearest) or "none"
        raise ConfigError(f"{what}: {reference!r} names a package and no folder in it; folders with models: {known}")
    return nearest[0]


def _commit(name: str, revision: str | None, what: str) -> str | None:
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    cached = snapshot(name, revision)
    if COMMIT.fullmatch(cached.name) and cached.is_dir():
        return cached.name
    return _asked_hub(name, revision, what)


def _asked_hub(name: str, revision: str | None, what: str) -> str | None:
    """The commit as the hub says it, which its cache then knows; None where it cannot be asked."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        # Without a network this fails at once, where a download tries again for most of a minute.
        found = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
        files = {one.rfilename for one in found.siblings or ()}
        file = "config.json" if "config.json" in files else ADAPTER
        return Path(hf_hub_download(name, file, revision=revision)).parent.name
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            f"{what}: {name!r} (revision {revision or 'main'}) is no local folder, and the hub does not give it: "
            f"{str(error).splitlines()[0]}; check the spelling, or log in with `hf auth login`"
        ) from error
    except Exception:  # no network, a proxy, offline mode: each library below has errors of its own for these
        return None
