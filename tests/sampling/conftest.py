from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import build_model, build_tokenizer

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


@pytest.fixture(scope="session")
def windowed_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A model whose attention is a sliding window of 8 tokens."""
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    folder = tmp_path_factory.mktemp("models")
    build_tokenizer(folder, chat=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=8,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MistralForCausalLM(config).save_pretrained(folder)
    return Bench(ModelConfig(path=str(folder), device="cpu"))
