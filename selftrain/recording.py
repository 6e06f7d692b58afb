"""What a run says of itself: config.json, and the part of it that a tracker may show."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from selftrain import tracking
from selftrain.compose import Composed, differences, versions
from selftrain.config import Config
from selftrain.preflight import prompt_sets
from selftrain.prompts import PromptSets
from selftrain.records import digest
from selftrain.reporting.terminal import Terminal
from selftrain.secrecy import SECRET, without_secrets
from selftrain.store import RunDirectory, publish_bytes, read_json

# What W&B may be told of the configuration: knobs, never paths, parameters of plug-ins or anything of the environment.
SHOWN_SECTIONS = ("sample", "select", "train", "evaluate", "stop")


def described(composed: Composed, config: Config, prompts: PromptSets) -> dict[str, Any]:
    """What config.json says of the run, whatever the attempt."""
    return {
        "config": config.model_dump(mode="json", by_alias=True),
        "origins": dict(composed.origins),
        "recipe": str(composed.recipe),
        "versions": versions(),
        "prompts": {
            name: {
                "prompts": len(one.prompts),
                "duplicates": one.num_duplicates,
                "dropped_for_overlap": one.num_overlapping,
                "excluded": one.num_excluded,
                "digest": one.digest,
            }
            for name, one in prompt_sets(prompts).items()
        },
    }


def record(
    run: RunDirectory, about: Mapping[str, Any], terminal: Terminal, sandbox: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Write config.json (again, if it changed) and return it; warn where libraries or the sandbox changed. `sandbox` is
    the one before, which is another run's where this one is its fork."""
    path = run.path / "config.json"
    old = read_json(path)
    run_id = old.get("wandb_run_id") or tracking.sweep_trial(os.environ) or secrets.token_hex(4)
    new = {**about, "wandb_run_id": run_id}
    if changed := differences(old.get("versions", about["versions"]), about["versions"]):
        terminal.warn(f"other versions than before, so results may differ in their last bits: {', '.join(changed)}")
    before = old.get("sandbox") if old else sandbox
    if (old or sandbox) and (changed := differences(_in_use(before), _in_use(about["sandbox"]))):
        terminal.warn(f"another sandbox than before: {', '.join(changed)}")
        run.note("sandbox", before=before, after=about["sandbox"])
    if new != old:
        publish_bytes(path, (json.dumps(new, indent=1) + "\n").encode())
        run.note("config", digest=digest(new))
    return new


def _in_use(sandbox: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (sandbox or {}).items() if name != "earlier"}


def shown(config: Config) -> dict[str, Any]:
    """The knobs that a tracker may show: no paths, no parameters of plug-ins."""
    knobs = {name: getattr(config, name).model_dump(mode="json", by_alias=True) for name in SHOWN_SECTIONS}
    knobs["sample"].pop("params")
    if (generator := config.sample.policy) is not None:  # the rest are paths, and the free table `body`
        model = generator.model if generator.endpoint is None else generator.endpoint.model
        knobs["sample"]["policy"] = {"kind": generator.kind, "model": model}
    knobs["evaluate"].pop("retention_scorers")
    knobs["evaluate"]["scorers"] = [one.name for one in config.evaluate.scorers]
    for name in ("lora", "sft"):  # free tables, which may hold a token for the hub
        knobs["train"][name] = {key: value for key, value in knobs["train"][name].items() if not SECRET.search(key)}
    if config.verifier is not None:
        of_verifier = config.verifier.model_dump(mode="json", exclude={"lora", "dpo"})
        tables = {"lora": config.verifier.lora, "dpo": config.verifier.dpo}
        known = {name: {key: one[key] for key in one if not SECRET.search(key)} for name, one in tables.items()}
        knobs["verifier"] = {**of_verifier, **known}
    knobs = without_secrets(knobs)
    return {
        "name": config.name,
        "seed": config.seed,
        "rounds": config.rounds,
        "arms": {one.name: _overrides_shown(one.overrides) for one in config.arms},
        "scorers": [one.name for one in config.score.scorers],
        **knobs,
    }


def _overrides_shown(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's own knobs, but for those of plug-ins and free tables."""
    hidden = ("score", "sample.params", "sample.policy", "train.lora", "train.sft")
    shown = {key: value for key, value in overrides.items() if not key.startswith(hidden)}
    return {key: without_secrets(value) for key, value in shown.items()}
