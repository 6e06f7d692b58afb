"""From layers of YAML to one validated configuration, remembering where each value came from.

Precedence, lowest first: schema defaults, `extends:` left to right, the recipe, `--with` files left to right,
`key.path=value` on the command line. YAML is read by OmegaConf's loader, so `1e-5` is a float and a duplicate key is an
error; aliases and files over 1 MB are refused, and `${...}` is plain text (no interpolation can pull in secrets).
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from selftrain.config import Config
from selftrain.errors import ConfigError
from selftrain.parsing import parse

PACKAGE = Path(__file__).parent
MAX_YAML_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Composed:
    """A validated configuration. `origins` maps each key that some layer set to the name of the last layer that did;
    `folder` is the recipe's, which relative paths in it start from."""

    config: Config
    origins: Mapping[str, str]
    folder: Path
    recipe: Path

    def origin(self, key: str) -> str | None:
        """The layer that set the knob, by itself or with the list, section or short form it came in (`prompts.train`
        sets `prompts.train.path`); None where it has its default."""
        named = key
        while named and named not in self.origins:
            named = named.rpartition(".")[0]
        return self.origins[named] if named and (named == key or _is_given(self.config, key)) else None


def _is_given(config: Config, key: str) -> bool:
    """Whether some layer gave a value that came in a list, a section or a short form."""
    section: Any = config
    for part in key.split("."):
        if not isinstance(section, BaseModel):
            return True
        name = next((name for name, field in type(section).model_fields.items() if part in (name, field.alias)), part)
        if name not in section.model_fields_set:
            return False
        section = getattr(section, name)
    return True


def shipped(kind: str) -> Path:
    """The folder of shipped `recipes` or `configs`: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE / f"_{kind}"
    return installed if installed.is_dir() else PACKAGE.parent / kind


def recipes() -> dict[str, Path]:
    """Shipped recipes by name."""
    return {path.parent.name: path for path in sorted(shipped("recipes").glob("*/recipe.yaml"))}


def find_recipe(name: str) -> Path:
    """The recipe file that `name` means: a YAML file, a folder with a recipe.yaml, or a shipped recipe."""
    path = Path(name)
    if path.is_file():
        return path.resolve()
    if (path / "recipe.yaml").is_file():
        return (path / "recipe.yaml").resolve()
    if name in recipes():
        return recipes()[name]
    raise ConfigError(
        f"there is no recipe {name!r}: no such file, no folder with a recipe.yaml, and not one of the shipped ones "
        f"({', '.join(recipes()) or 'none'}); see `selftrain recipes`"
    )


def find_layer(name: str, base: Path) -> Path:
    """The file a layer name means: relative to `base`, or one of the shipped configs (`hardware/cpu`)."""
    for path in (base / name, shipped("configs") / name, shipped("configs") / f"{name}.yaml"):
        if path.is_file():
            return path.resolve()
    known = ", ".join(
        sorted(
            str(path.relative_to(shipped("configs")).with_suffix(""))
            for path in shipped("configs").rglob("*.yaml")
            if path.parent.name != "sweeps"  # those are for the agent of Weights & Biases
        )
    )
    raise ConfigError(
        f"there is no config file {name!r} in {base}, nor a shipped config of that name (shipped: {known or 'none'})"
    )


def compose(recipe: str, *, layers: Sequence[str] = (), overrides: Sequence[str] = ()) -> Composed:
    """Read, merge and validate. Raises ConfigError naming the file and key of every mistake."""
    path = find_recipe(recipe)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, layer in _layers(path, layers, overrides):
        _merge(merged, layer, origins, name)
    merged.setdefault("name", path.parent.name if path.name == "recipe.yaml" else path.stem)
    return Composed(parse(merged), origins, path.parent, path)


def _layers(recipe: Path, layers: Sequence[str], overrides: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _with_extends(recipe, "recipe", ())
    for name in layers:
        yield from _with_extends(find_layer(name, Path.cwd()), f"--with {name}", ())
    for text in overrides:
        yield "command line", _override(text)


def _with_extends(path: Path, name: str, seen: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if path in seen:
        raise ConfigError(f"{path} extends itself, by way of {' -> '.join(str(one) for one in seen)}")
    data = read_yaml(path)
    extends = data.pop("extends", [])
    if isinstance(extends, str):
        extends = [extends]
    if not isinstance(extends, list) or not all(isinstance(one, str) for one in extends):
        raise ConfigError(f"{path}: extends must be a list of file names, not {extends!r}")
    for one in extends:
        yield from _with_extends(find_layer(one, path.parent), f"extends {one}", (*seen, path))
    yield name, data


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a mapping with string keys. Raises ConfigError with the line of a mistake."""
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_YAML_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_YAML_BYTES:,} bytes; a config holds knobs, data goes into files of its own"
            )
        data = _load_yaml(raw.decode("utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values, not a {type(data).__name__}")
    return data


def _load_yaml(text: str, where: str) -> Any:
    try:
        if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text)):
            raise ConfigError(f"{where}: YAML anchors and aliases are refused; write the value out, or use `extends:`")
        yaml.compose(text)  # a syntax error names the file's own line here
        text = re.sub(r"\A---[^\n]*\n", "\n", text)  # no document marker under a key
        # Under one key, as OmegaConf.create() takes a bare word at the top for a key.
        indented = "".join(f"  {line}" for line in text.splitlines(keepends=True))
        loaded = OmegaConf.to_container(OmegaConf.create(f"value:\n{indented}"), resolve=False)
        return loaded["value"]  # type: ignore[call-overload, index]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        duplicate = "duplicate key" in str(error)  # its lines count from the key that the text was put under
        said = re.sub(r"line (\d+)", lambda line: f"line {int(line[1]) - duplicate}", str(error))
        raise ConfigError(f"{where} is not valid YAML: {' '.join(said.split())}") from error


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(part and part == part.strip() for part in key.split(".")):
        raise ConfigError(f"{text!r} is no override; write key.path=value, for example sample.temperature=0.8")
    result: Any = _load_yaml(value, text) if value.strip() else None
    for part in reversed(key.split(".")):
        result = {part: result}
    return result  # type: ignore[no-any-return]


def _merge(
    target: dict[str, Any], layer: Mapping[str, Any], origins: dict[str, str], name: str, prefix: str = ""
) -> None:
    for key, value in layer.items():
        if not isinstance(key, str):
            raise ConfigError(f"{name}: the key {key!r} under {prefix or 'the top'} is not text; quote it")
        path = prefix + key
        if prefix == "prompts." and isinstance(value, Mapping) and isinstance(target.get(key), str):
            target[key] = {"path": target[key]}  # `train: a.jsonl` is short for this, and may be added to
            origins[f"{path}.path"] = origins.pop(path)
        if path == "arms" and isinstance(value, Mapping) and isinstance(target.get(key), list | str):
            target[key] = _arms_by_name(target[key])  # a list of arms replaces, a mapping adds to what is there
            origins.update({f"{path}.{arm}": origins[path] for arm in target[key]})
            del origins[path]
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value, origins, name, f"{path}.")
            continue
        for old in [old for old in origins if old == path or old.startswith(f"{path}.")]:
            del origins[old]
        if isinstance(value, Mapping):
            target[key] = {}
            _merge(target[key], value, origins, name, f"{path}.")
            origins.setdefault(path, name) if not value else None
        else:
            target[key] = value
            origins[path] = name


def _arms_by_name(arms: list[Any] | str) -> dict[str, Any]:
    """A list of arms (names, `{name: ...}` or `{arm: {knob: value}}`) as a mapping."""
    found: dict[str, Any] = {}
    for one in [arms] if isinstance(arms, str) else arms:
        if isinstance(one, Mapping) and "name" in one:
            given = {key: value for key, value in one.items() if key not in ("name", "overrides")}
            found[str(one["name"])] = {**given, **(one.get("overrides") or {})}
        elif isinstance(one, Mapping):
            found |= {str(name): given for name, given in one.items()}
        else:
            found[str(one)] = {}
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each knob of plain data as (dotted key, value); lists and empty mappings are leaves."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per knob that differs: `train.learning_rate: 0.001 -> 0.0005`."""
    before, after = dict(leaves(old)), dict(leaves(new))
    missing = "(absent)"
    return [
        f"{key}: {before.get(key, missing)!r} -> {after.get(key, missing)!r}"
        for key in sorted({*before, *after})
        if before.get(key, missing) != after.get(key, missing)
    ]


def versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on, read without importing them."""
    names = ("selftrain", "torch", "transformers", "peft", "trl", "accelerate", "tokenizers", "numpy", "pyarrow")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
