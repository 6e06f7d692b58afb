"""Knobs of a generator other than the policy: another model, an endpoint, several checkpoints, or a file."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from selftrain.config.data import SourceConfig, as_source
from selftrain.config.knobs import GUARD, Section

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EndpointConfig(Section):
    """A server that speaks OpenAI's chat-completions protocol (vLLM, `transformers serve`, a hosted one)."""

    url: str
    """Up to and with its version: `http://127.0.0.1:8000/v1`."""
    model: str
    """The name by which the server knows the model."""
    key_variable: str | None = Field(default=None, json_schema_extra=GUARD)
    """Environment variable that holds the key; null: the server wants none. The key itself is never written down."""
    timeout_seconds: float = Field(default=120.0, gt=0, json_schema_extra=GUARD)
    """Of one request."""
    retries: int = Field(default=6, ge=0, json_schema_extra=GUARD)
    """So often a request is repeated after a refusal (429), a failure of the server or a broken connection, each time
    after a longer wait, or the one that the server asks for."""
    concurrency: int = Field(default=16, ge=1, json_schema_extra=GUARD)
    """Requests under way at a time, of each process."""
    body: dict[str, Any] = Field(default_factory=dict)
    """More fields of each request, as the server knows them."""

    @field_validator("key_variable")
    @classmethod
    def _key_variable_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.fullmatch(value):
            # What was given may be the key itself, and must not be repeated.
            raise ValueError(
                "what is given is no name of an environment variable (letters, digits, underscores); if it is the key "
                "itself, put it into one, as `export JUDGE_KEY=...`, and write JUDGE_KEY here"
            )
        return value


class GeneratorConfig(Section):
    """Who writes the candidates, where it is not the policy: exactly one of these."""

    model: str | None = None
    """Another model: hub id, folder, .gguf file or package:NAME/FILE."""
    endpoint: EndpointConfig | None = None
    """A server. It is asked with messages; a prompt of format text is one message of the user's."""
    checkpoints: tuple[str, ...] = ()
    """Adapter folders on `model.path` (or model folders), relative to the recipe; `policy` is the current one.
    Candidate `i` of a prompt is written by number `i` modulo their count."""
    file: Annotated[SourceConfig, BeforeValidator(as_source)] | None = None
    """Candidates that exist: a JSONL, JSON, CSV or Parquet file, a folder or a hub data set, one row per candidate, or
    a list of them in the column `columns.completions`. Its `template` is that of `prompts`, where it has none."""
    prompt_id: str | None = None
    """Of `file`: the column that holds the prompt's id; null: the row has its words, as in prompts.train."""
    finish_reason: str = "finish_reason"
    """Of `file`: the column that says how the candidate ended, if there is one: `stop` or `length`, as servers say it,
    or as selftrain does. Without it, all ended by themselves."""

    @model_validator(mode="after")
    def _is_one(self) -> GeneratorConfig:
        kinds = ("model", "endpoint", "checkpoints", "file")
        given = [name for name in kinds if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            said = ", ".join(given) or "none"
            extra = "file" if "file" in given else " or ".join(given)
            remedy = f"; to leave out what the recipe has, add sample.policy.{extra}=null" if given else ""
            raise ValueError(f"sample.policy takes one of {', '.join(kinds)}; given: {said}{remedy}")
        for name in ("prompt_id", "finish_reason"):
            if self.file is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"sample.policy.{name} names a column of sample.policy.file, and there is none")
        if self.file is not None and self.file.exclude:
            raise ValueError("sample.policy.file.exclude: prompts leave by prompts.train.exclude; set it there")
        return self

    @property
    def kind(self) -> str:
        """Which one it is."""
        if self.file is not None:
            return "file"
        if self.endpoint is not None:
            return "endpoint"
        return "checkpoints" if self.checkpoints else "model"
