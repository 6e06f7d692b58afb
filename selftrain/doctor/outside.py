"""What lies outside this machine: the hub, Weights & Biases, and the launcher of several processes.

Whether a host answers is a note and never a problem: a run needs the hub only for what is not here yet, and a tracker
never. Of keys and tokens only their place is named.
"""

from __future__ import annotations

import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from selftrain.doctor.findings import Finding, note, ok
from selftrain.whereabouts import hf_home

ANSWER_SECONDS = 3.0
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
TRUE = {"1", "on", "yes", "true"}


def offline_variables() -> list[str]:
    """Which of the environment's variables forbid the hub."""
    return [name for name in OFFLINE if os.environ.get(name, "").lower() in TRUE]


def hub() -> Iterator[Finding]:
    """The Hugging Face hub: its cache, its token, and whether it answers."""
    place = hf_home()
    yield ok("hub", f"HF_HOME {place}" + ("" if place.is_dir() else " (made at first use)"))
    token = _hub_token()
    if token is not None:
        yield ok("hub", f"a token is configured ({token}); it is not shown")
    else:
        yield note("hub", "no token: gated and private models cannot be fetched", "if you need them: hf auth login")
    if forbidden := offline_variables():
        yield note("hub", f"{', '.join(forbidden)} set: only what is in the cache can be used")
        return
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    remedy = "models and data sets must be in the cache, or in folders; HF_HUB_OFFLINE=1 saves the waiting"
    yield _reached("hub", endpoint, remedy)


def _hub_token() -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            return name
    file = Path(os.environ.get("HF_TOKEN_PATH") or hf_home() / "token").expanduser()
    try:
        return str(file) if file.stat().st_size else None
    except OSError:
        return None


def weights_and_biases() -> Iterator[Finding]:
    """The tracker: its mode, its key, and whether its server answers."""
    base = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    mode = os.environ.get("WANDB_MODE")
    yield ok("W&B", f"WANDB_MODE {mode}" if mode else "WANDB_MODE not set: track.wandb.mode decides (disabled)")
    key = _wandb_key(urlsplit(base).hostname or base)
    if key is not None:
        yield ok("W&B", f"a key is configured ({key}); it is not shown")
    else:
        yield note("W&B", "no key: mode online cannot be used", "if you want it: wandb login")
    if mode in ("offline", "disabled", "dryrun"):
        return
    yield _reached("W&B", base, "track.wandb.mode=offline keeps everything to be sent later")


def _wandb_key(host: str) -> str | None:
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if path and netrc.netrc(Path(path).expanduser()).authenticators(host):
                return path
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
    return None


def _reached(area: str, url: str, remedy: str) -> Finding:
    host = urlsplit(url).hostname or "the address"  # what stands before the host may be a password
    failure = answers(url)
    return ok(area, f"{host} answers") if failure is None else note(area, f"{host} {failure}", remedy)


def answers(url: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """None if a server answers at the address, with whatever status; else in words why not. Proxies are used."""
    said: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            said.append(None)
        except urllib.error.HTTPError as error:
            # A proxy that refuses is not the host.
            said.append("is refused by the proxy" if error.code == 407 else None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                said.append(f"answers, but its certificate is not trusted here ({type(reason).__name__})")
            else:
                said.append(f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})")
        except Exception as error:
            said.append(f"does not answer as a web server does ({type(error).__name__})")

    # A thread of its own, as looking up a name has no time limit; it does not keep the program from ending.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)
    return said[0] if said else f"does not answer within {seconds:g} s"


def launcher() -> Iterator[Finding]:
    """Whether this process was launched as one of several, and how `accelerate launch` is set up."""
    known = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    found = {name: os.environ[name] for name in known if os.environ.get(name)}
    if found:
        words = ", ".join(f"{name}={value}" for name, value in found.items())
        yield note("launcher", f"{words}: this looks like one of several processes", "unset them to run alone")
    else:
        yield ok("launcher", "no launcher: selftrain runs as one process")
    config = hf_home() / "accelerate" / "default_config.yaml"
    if config.is_file():
        yield ok("launcher", f"accelerate launch is set up by {config}")
    else:
        yield ok("launcher", "accelerate launch has no config file, and takes one process per GPU")
