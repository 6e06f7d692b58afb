import os

import pytest
from rows import CANARY
from wandb_server import WandbServer


@pytest.fixture(autouse=True)
def wandb_environment(monkeypatch, tmp_path):
    """No account of the one who runs the tests, no cache outside of them, and something that nobody may see."""
    for key in [key for key in os.environ if key.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("SOME_TOKEN", CANARY)


@pytest.fixture
def server(monkeypatch):
    """A W&B server that answers, and an account there."""
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield running
