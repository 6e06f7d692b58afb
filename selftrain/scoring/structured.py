"""JSON answers: whether they fit a schema, and whether they say what the reference says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from selftrain.errors import ConfigError
from selftrain.records import canonical_json
from selftrain.scoring import Verdict
from selftrain.scoring.json_text import contains, same, strict

Match = Literal["exact", "subset", "none"]


def prepare() -> None:
    """Import jsonschema, which takes longer than judging."""
    _validator("{}")


def json_schema(
    text: str, reference: str | None, *, schema: dict[str, Any] | str | None = None, match: Match = "exact"
) -> Verdict:
    """Correct when the text is a JSON value (read strictly) that fits the schema, if there is one, and equals the
    reference, which is JSON too: numbers by value, lists in order. `match: subset` asks for no more than every key of
    the reference's objects; `none` does not look at the reference. Without another `extract` the value is looked for
    as by `extract: json`. `schema` is an object, or a .json file; Draft 2020-12 unless its `$schema` says otherwise;
    `format` is not looked at."""
    wanted = _reference(reference, match)
    try:
        value = strict(text)
    except ValueError as error:
        return Verdict(0.0, None, f"the text is not strict JSON: {error}")
    try:
        answer = canonical_json(value)
        wrong = _misfit(value, schema)
        if wrong is not None:
            return Verdict(0.0, answer, f"the value does not fit the schema: {wrong}")
        if match == "none":
            return Verdict(1.0, answer, "the value fits the schema")
        if (same if match == "exact" else contains)(value, wanted):
            return Verdict(1.0, answer, f"the value {'equals' if match == 'exact' else 'contains'} the reference")
    except RecursionError:
        return Verdict(0.0, None, "the value is nested too deeply")
    relation = "is not the reference's" if match == "exact" else "does not contain the reference"
    return Verdict(0.0, answer, f"the value {relation}: {answer:.200}")


def check(reference: str | None, *, schema: dict[str, Any] | str | None = None, match: Match = "exact") -> None:
    """Raise ValueError where the reference is no JSON, or could not be right because it does not fit the schema."""
    wanted = _reference(reference, match)
    wrong = _misfit(wanted, schema) if match == "exact" else None
    if wrong is not None:
        raise ValueError(f"the reference does not fit the schema: {wrong}")


def _reference(reference: str | None, match: Match) -> Any:
    if match == "none":
        return None
    if reference is None:
        raise ValueError("there is no reference; give one, or set match: none")
    try:
        return strict(reference)
    except ValueError as error:
        raise ValueError(f"the reference {reference!r:.60} is not strict JSON: {error}") from None


def _misfit(value: Any, schema: dict[str, Any] | str | None) -> str | None:
    """Where and why the value does not fit, or None where it does."""
    if schema is None:
        return None
    assert isinstance(schema, dict), "a file is read before the rule is asked"
    from jsonschema.exceptions import best_match

    error = best_match(_validator(json.dumps(schema)).iter_errors(value))
    return None if error is None else f"at {error.json_path}: {error.message:.200}"


@lru_cache(maxsize=8)
def _validator(schema: str) -> Any:
    import jsonschema
    import referencing

    content = json.loads(schema)
    kind = jsonschema.validators.validator_for(content, default=jsonschema.Draft202012Validator)
    # An empty registry: jsonschema's own would fetch an unknown `$ref` from the network.
    return kind(content, registry=referencing.Registry())


def schema_of(schema: dict[str, Any] | str, base: Path | None) -> dict[str, Any] | None:
    """The schema itself; None for a file while `base` is unknown. Raises ConfigError where it is no schema."""
    if isinstance(schema, str):
        if base is None:
            return None
        path = (base / schema).resolve()
        if not path.is_file():
            raise ConfigError(f"there is no file {path} (relative paths start at the recipe's folder)")
        try:
            schema = strict(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not JSON: {error}") from None
        if not isinstance(schema, dict):
            raise ConfigError(f"{path} holds a {type(schema).__name__}; a schema is an object")
    _check_schema(schema)
    return schema


def _check_schema(schema: dict[str, Any]) -> None:
    import jsonschema
    import referencing
    from referencing.jsonschema import DRAFT202012

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"it is no JSON schema: at {error.json_path}: {error.message:.200}") from None
    resource = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = referencing.Registry().resolver_with_root(resource)
    for name in sorted(_references(schema)):
        try:
            resolver.lookup(name)
        except referencing.exceptions.Unresolvable:
            raise ConfigError(
                f"its $ref {name!r} leads nowhere; only references inside of the schema are followed, none to files or "
                "the network"
            ) from None


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
