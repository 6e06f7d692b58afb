"""A judge behind `transformers serve` and a proxy with every fault: killed twice, and still every count is right."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FAULTS, faulty_proxy
from tiny_judges import TEMPLATE, build_judge
from worlds import command, receipt_of, scripted_recipe, selftrain

from selftrain import tables
from selftrain.records import Candidate, Score

HIGH, LOW = 8 / 9, 1 / 9
WRITER = """
def answer(prompt, seed, policy_round):
    return f"word {seed % 100_000}" + (" Q" if seed % 3 == 0 else "")
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("transformers serve needs fastapi: pip install 'transformers[serving]'")
    model = build_judge(tmp_path / "judge")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    words = [str(program), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while not is_up(port):
            assert process.poll() is None, (tmp_path / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def tables_of(run: Path, kind: str) -> list[Path]:
    return sorted((run / "arms/main/rounds/001" / kind / "wave-00").glob("block-*.parquet"))


@pytest.mark.slow
def test_no_fault_of_a_real_server_and_no_kill_costs_a_count_or_makes_a_zero(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    upstream, model = served
    kinds = [one for one in FAULTS if one != "401"]
    script = [word for kind in kinds for word in ("pass", kind, "slow")]
    with faulty_proxy(upstream, script, is_cycled=True, slow_seconds=0.1, retry_after=0.1) as proxy:
        endpoint = {"url": proxy.url, "model": str(model), "retries": 8, "concurrency": 4, "timeout_seconds": 4.0}
        params = {
            "template": TEMPLATE,
            "max_new_tokens": 8,
            "canaries": 0.3,
            "swapped_canaries": False,
            "endpoint": endpoint,
        }
        recipe = scripted_recipe(
            tmp_path / "recipe",
            score={"scorers": [{"name": "llm_judge", "params": params}], "correct_at": 0.8},
            prompts={"validate": None, "test": None},
            rounds=1,
            arms=[],
            sample={"num_candidates": 16, "max_new_tokens": 40},
        )
        (tmp_path / "recipe/answers.py").write_text(WRITER)
        run, started, kills = tmp_path / "tiny", time.monotonic(), 0
        for published in (1, 2):
            with subprocess.Popen(
                command("run", recipe, "--runs-dir", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as process:
                while len(tables_of(run, "scores")) < published and process.poll() is None:
                    time.sleep(0.02)
                process.kill()
                process.communicate()
                kills += process.returncode == -signal.SIGKILL
        done = selftrain("run", recipe, "--runs-dir", tmp_path, timeout=900)
        seconds = time.monotonic() - started
        injected = dict(proxy.faults)
        requests = proxy.requests
    assert done.returncode == 0, done.stdout + done.stderr
    texts = {one.id: one.text for path in tables_of(run, "candidates") for one in tables.read(path, Candidate)}
    scores = [one for path in tables_of(run, "scores") for one in tables.read(path, Score)]
    assert len(scores) == len(texts) == 12 * 16
    for one in scores:
        right = HIGH if "Q" in texts[one.candidate_id] else LOW
        assert one.value == pytest.approx(right) if one.value is not None else "gave no answer" in str(one.error)
    assert {round(one.value, 2) for one in scores if one.value is not None} == {0.11, 0.89}
    unscored = sum(one.value is None for one in scores)
    metrics = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert metrics["score/unscored_rate"] == pytest.approx(unscored / len(scores))
    assert set(injected) == set(kinds)
    numbers = {name: value for name, value in metrics.items() if name.startswith("score/llm_judge/")}
    assert numbers["score/llm_judge/canary_false_positive_rate"] == 0.0
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "kills": kills,
                "requests": requests,
                "faults": injected,
                "unscored": unscored,
                "metrics": numbers,
            },
            indent=1,
        )
    )
