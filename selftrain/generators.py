"""What stands for a generator other than the policy: the part of fingerprints, and a digest that its candidates carry.

Nothing is loaded, so that every start can ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from selftrain import plugins
from selftrain.adapters import adapter_digest
from selftrain.config import Config, GeneratorConfig, SampleConfig, SourceConfig, fingerprinted
from selftrain.contents import ADAPTER, model_content
from selftrain.records import Digest, digest
from selftrain.whereabouts import beside, hub_cache

POLICY = "policy"
# Of a source: what says where its rows are, which their content stands for.
_WHEREABOUTS = ("path", "mix", "stream", "exclude", "weight")


def draws_from_policy(sample: SampleConfig) -> bool:
    """Whether the candidates depend on the current policy."""
    return sample.policy is None or POLICY in sample.policy.checkpoints


def part(config: Config, folder: Path) -> dict[str, Any] | None:
    """What of `sample.policy` enters the fingerprint of the candidates: names of models and files count by what they
    stand for. None where the policy writes them. Raises ConfigError or DependencyError for what is not there."""
    generator = config.sample.policy
    if generator is None:
        return None
    if generator.endpoint is not None:
        knobs = fingerprinted(generator.endpoint)
        del knobs["url"]  # a server that was started again elsewhere serves the same model
        return {"endpoint": knobs}
    if generator.file is not None:
        columns = {"prompt_id": generator.prompt_id, "finish_reason": generator.finish_reason}
        sources = generator.file.sources.items()
        return {"file": {task or "": _rows_of(one, folder) for task, one in sources}, **columns}
    if generator.model is not None:
        return {"model": model_content(generator.model, folder, what="sample.policy.model")}
    return {"checkpoints": [checkpoint_content(name, folder) for name in generator.checkpoints]}


def generator_digest(config: Config, folder: Path) -> Digest:
    """Stands for the generator in its candidates."""
    return digest(part(config, folder))


def checkpoint_content(name: str, folder: Path) -> str:
    """The digest of one of `sample.policy.checkpoints`; of `policy`, that word."""
    if name == POLICY:
        return POLICY
    path = beside(name, folder)
    if (path / ADAPTER).is_file():
        return adapter_digest(path)
    return model_content(name, folder, what="sample.policy.checkpoints")


def words_of(generator: GeneratorConfig) -> str:
    """Who writes the candidates, for people."""
    if generator.endpoint is not None:
        return f"{generator.endpoint.model} at {generator.endpoint.url}"
    if generator.file is not None:
        names = [str(one.path) for one in generator.file.sources.values()]
        return f"nobody: they are taken from {', '.join(names)}"
    return f"{generator.model}" if generator.model is not None else f"in turn {', '.join(generator.checkpoints)}"


def candidates_words(config: Config, num_prompts: int, sample: Mapping[str, Any]) -> str:
    """A round's candidates, for people. `sample` is the section in that round."""
    each, generator = sample["num_candidates"], config.sample.policy
    if generator is not None and generator.file is not None:
        number = "all" if each == "all" else f"at most {each}"
        return f"{num_prompts:,} prompts, {number} of their candidates in sample.policy.file"
    by = "" if generator is None else f" by {words_of(generator)}"
    return (
        f"{num_prompts:,} prompts x {each} = {num_prompts * each:,} candidates{by} "
        f"(temperature {sample['temperature']:g}, at most {sample['max_new_tokens']} tokens)"
    )


def _rows_of(source: SourceConfig, folder: Path) -> dict[str, Any]:
    knobs = source.model_dump(mode="json")
    return {**{name: knobs[name] for name in knobs if name not in _WHEREABOUTS}, "content": _content(source, folder)}


def _content(source: SourceConfig, folder: Path) -> str:
    """The bytes of a file or of all files of a folder, the source of a function, the commit of a hub data set."""
    assert source.path is not None
    if plugins.is_reference(source.path):
        return digest(["function", plugins.source_digest(source.path, folder)])
    path = folder / Path(source.path).expanduser()
    if path.is_file():
        return _known_digest(path)
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        return digest({str(one.relative_to(path)): _known_digest(one) for one in files})
    wanted = source.revision or "main"
    reference = hub_cache() / f"datasets--{source.path.replace('/', '--')}" / "refs" / wanted
    return digest(["hub", source.path, reference.read_text().strip() if reference.is_file() else wanted])


def _known_digest(path: Path) -> str:
    found = path.stat()
    return _file_digest(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
