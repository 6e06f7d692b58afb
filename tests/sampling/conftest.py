from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import build_model

from selftrain.config import ModelConfig
from selftrain.models import Bench


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "chat", chat=True)


@pytest.fixture(scope="session")
def chat_bench(chat_folder: Path) -> Bench:
    return Bench(ModelConfig(path=str(chat_folder), device="cpu"))


@pytest.fixture(scope="session")
def text_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = build_model(tmp_path_factory.mktemp("models") / "text", chat=False)
    return Bench(ModelConfig(path=str(folder), device="cpu"))
