"""A data set to the Hugging Face hub, with its refusals in plain words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from selftrain.errors import ConfigError, DependencyError
from selftrain.exporting.publishing import MANIFEST
from selftrain.exporting.rows import Format

ENDINGS = ("parquet", "jsonl")

SAFE = "; the data set is where it was exported, and the same command tries again"


def require_name(name: str) -> None:
    """ConfigError for what cannot name a data set on the hub, or where no token says who pushes it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub {name!r}: {error}") from None
    if name.count("/") != 1:
        raise ConfigError(f"--push-to-hub {name!r}: write it as OWNER/NAME, where the owner is a user or organisation")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConfigError("--push-to-hub: HF_HUB_OFFLINE is set; unset it, or leave --push-to-hub out")
    if get_token() is None:
        raise ConfigError(
            "--push-to-hub: there is no token of the hub; run `hf auth login`, or set HF_TOKEN to one that may write"
        )


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload the folder as the data set `name`, which is created if it is not there; return its address.

    Raises DependencyError, and ConfigError where the name is of a data set that was not exported, or of a public one
    and `private` was asked for.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _in_words(name):
        url = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        there = set(api.list_repo_files(name, repo_type="dataset")) - {".gitattributes"}
        if there and MANIFEST not in there:
            raise ConfigError(
                f"--push-to-hub {name}: that data set is there, was not pushed by selftrain and is not overwritten; "
                f"choose another name{SAFE}"
            )
        if private and not api.repo_info(name, repo_type="dataset").private:
            raise ConfigError(
                f"--push-to-hub {name}: that data set is there and public, and --private was asked for; make it "
                f"private on the hub, choose another name, or leave --private out{SAFE}"
            )
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            repo_type="dataset",
            commit_message="Data set by selftrain curate",
            delete_patterns=[f"{one}.{ending}" for one in get_args(Format) for ending in ENDINGS],  # of an earlier push
        )
    return str(url)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise DependencyError(f"--push-to-hub {name}: no token; run `hf auth login`, or set HF_TOKEN{SAFE}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        words = {
            401: "the hub does not accept the token; run `hf auth login` again, or set HF_TOKEN",
            403: "the token may not write there: the name belongs to somebody else, or the token only reads",
            404: "the hub knows no such owner, or the token may not see it",
            409: "that name is taken",
            429: "the hub asks to wait; try again later",
        }
        said = words.get(status, "the hub failed" if status >= 500 else "the hub refused")
        detail = " ".join(str(error.server_message or "").split())[:300]
        raise DependencyError(
            f"--push-to-hub {name}: {said} ({status}{': ' + detail if detail else ''}){SAFE}"
        ) from None
    except ValueError as error:  # the card's front matter
        said = " ".join(str(error).split())[:500]
        raise ConfigError(
            f"--push-to-hub {name}: the hub does not take the card: {said}; correct curate.license, curate.language or "
            f"curate.tags{SAFE}"
        ) from None
    except Exception as error:
        # Of the library under huggingface_hub, which is httpx in some of its versions and httpx2 in others.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise DependencyError(
            f"--push-to-hub {name}: the hub cannot be reached ({type(error).__name__}: {error}){SAFE}"
        ) from None
