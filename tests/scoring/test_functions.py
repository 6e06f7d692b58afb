from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError, DataError
from selftrain.records import Message, Prompt, Score
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer

Build = Callable[..., CombinedScorer]


@pytest.fixture
def grader(tmp_path: Path) -> Iterator[Build]:
    """Builds a scorer from the source of `grade`."""
    built = []

    def make(source: str, *, timeout_seconds: float = 10.0, **params: object) -> CombinedScorer:
        (tmp_path / "grade.py").write_text(source)
        scorer = {"name": "grade.py:grade", "params": params}
        config = ScoreConfig.model_validate({"scorers": [scorer], "timeout_seconds": timeout_seconds})
        built.append(build(config, tmp_path))
        return built[-1]

    yield make
    for scorer in built:
        scorer.close()


def values(scores: tuple[Score, ...]) -> list[float | None]:
    return [score.value for score in scores]


def test_a_function_is_given_what_its_signature_names(grader: Build) -> None:
    scorer = grader(
        "def grade(text, reference, prompt, metadata, finish_reason, num_tokens, full_text, task, reasoning,"
        " *, factor):\n"
        "    return {'value': factor, 'answer': text, 'explanation': repr((reference, prompt, metadata,"
        " finish_reason, num_tokens, full_text, task, reasoning))}",
        factor=0.5,
    )
    (score,) = scorer.score(make_group(["a"], level=3))
    assert (score.value, score.correct, score.answer) == (0.5, False, "a")
    assert score.explanation == repr(("57", "ask p", {"level": 3}, "stop_token", 3, "a", None, None))


def test_a_chat_prompt_arrives_as_messages(grader: Build) -> None:
    scorer = grader("def grade(prompt, **others):\n    return {'value': len(others), 'answer': str(prompt)}")
    group = make_group(["a"])
    group = type(group)(Prompt("p", "p", (Message("user", "hi"),), None), group.candidates)
    (score,) = scorer.score(group)
    assert (score.value, score.answer) == (8.0, str([{"role": "user", "content": "hi"}]))


def test_values_are_numbers_and_what_is_none_is_unscored_never_wrong(grader: Build) -> None:
    scorer = grader("def grade(text):\n    return eval(text)")
    texts = ["True", "False", "1", "0.25", "None", "float('nan')", "float('inf')", "'1.0'", "10**400", "{}", "[1]"]
    scores = scorer.score(make_group(texts))
    assert values(scores) == [1.0, 0.0, 1.0, 0.25] + [None] * 7
    assert [score.correct for score in scores] == [True, False, True, False] + [None] * 7
    assert all(score.error for score in scores[4:])
    assert not any(score.error for score in scores[:4])


def test_numbers_of_numpy_are_numbers(grader: Build) -> None:
    scorer = grader("import numpy\ndef grade(text):\n    return getattr(numpy, text)(1)")
    assert values(scorer.score(make_group(["float32", "int64", "bool_", "float64"]))) == [1.0] * 4


def test_rows_stay_in_place_when_some_raise(grader: Build) -> None:
    scorer = grader("def grade(text):\n    if int(text) % 3 == 0:\n        raise KeyError(text)\n    return int(text)")
    scores = scorer.score(make_group([str(number) for number in range(20)]))
    assert [score.candidate_id for score in scores] == [f"p/{number}" for number in range(20)]
    assert values(scores) == [None if number % 3 == 0 else float(number) for number in range(20)]
    assert scores[3].error == "KeyError: '3' (grade.py:3)"


def test_leaving_the_program_is_an_error_of_one_candidate(grader: Build) -> None:
    scorer = grader(
        "import os, sys\ndef grade(text):\n"
        "    if text == 'exit': sys.exit(3)\n"
        "    if text == 'gone': os._exit(4)\n"
        "    if text == 'killed': os.kill(os.getpid(), 9)\n"
        "    if text == 'deep': return grade(text)\n"
        "    return 1"
    )
    scores = scorer.score(make_group(["a", "exit", "b", "gone", "c", "killed", "d", "deep", "e"]))
    assert values(scores) == [1.0, None, 1.0, None, 1.0, None, 1.0, None, 1.0]
    assert scores[1].error == "SystemExit: 3 (grade.py:3)"
    assert scores[3].error == "the worker died twice (exit code 4)"
    assert scores[5].error == "the worker died twice (signal 9)"
    assert str(scores[7].error).startswith("RecursionError")


@pytest.mark.parametrize(
    "stuck",
    [
        "while True: pass",
        "while True:\n         try:\n          while True: pass\n         except BaseException: pass",
        "9**9**9",
        "import time; time.sleep(60)",
        "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
    ],
    ids=["loop", "catches everything", "C code", "sleep", "blocks signals", "subprocess"],
)
def test_a_function_that_hangs_is_stopped_and_only_its_candidate_is_unscored(grader: Build, stuck: str) -> None:
    scorer = grader(
        f"def grade(text):\n    if text == 'x':\n     if True:\n        {stuck}\n    return 1", timeout_seconds=0.5
    )
    start = time.monotonic()
    scores = scorer.score(make_group(["a", "x", "b"]))
    assert values(scores) == [1.0, None, 1.0]
    assert scores[1].error == "timed out after 0.5 s"
    assert scores[1].correct is None
    assert time.monotonic() - start < 10


def test_the_timeout_is_of_each_candidate_not_of_the_group(grader: Build) -> None:
    scorer = grader("import time\ndef grade(text):\n    time.sleep(0.2)\n    return 1", timeout_seconds=1.0)
    assert values(scorer.score(make_group(["a"] * 8))) == [1.0] * 8


def test_prints_and_reads_do_not_break_the_protocol(grader: Build, capfd: pytest.CaptureFixture[str]) -> None:
    scorer = grader(
        "import os, sys\nprint('at import')\ndef grade(text):\n    print('hello')\n    os.write(1, b'raw')\n"
        "    os.system('echo from a shell')\n    return len(sys.stdin.read())"
    )
    assert values(scorer.score(make_group(["a", "b"]))) == [0.0, 0.0]
    scorer.close()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("hello") == 2


def test_texts_of_any_size_and_content_arrive_whole(grader: Build) -> None:
    scorer = grader("def grade(text, reference):\n    return {'value': len(text), 'answer': text}")
    texts = ["", "\ud800 lone", "\x00\u2028", "x" * 3_000_000]
    scores = scorer.score(make_group(texts))
    assert values(scores) == [float(len(text)) for text in texts]
    assert [score.answer for score in scores[:3]] == texts[:3]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("x = 1", ConfigError, "no function 'grade'"),
        ("import nowhere_to_be_found", DataError, "nowhere_to_be_found"),
        ("def grade(:", DataError, "SyntaxError"),
        ("import os; os._exit(3)", DataError, "exit code 3"),
        ("def grade(completion): pass", ConfigError, "nothing is known for its argument 'completion'"),
        ("def grade(text, /): pass", ConfigError, "positional-only"),
        ("def grade(): pass", ConfigError, "takes nothing of a candidate"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_before_any_work(
    grader: Build, source: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        grader(source)


def test_params_that_the_function_does_not_take_are_refused(grader: Build) -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'strict'; known: loose"):
        grader("def grade(text, loose=1): pass", strict=True)
    with pytest.raises(ConfigError, match="no parameter 'text'"):
        grader("def grade(text): pass", text="a")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.py"):
        build(ScoreConfig.model_validate({"scorers": ["nothing.py:grade"]}), tmp_path)


def test_a_worker_that_died_between_groups_is_replaced(grader: Build) -> None:
    scorer = grader("import os\ndef grade(text):\n    return os.getpid()")
    (first,) = scorer.score(make_group(["a"]))
    assert first.value is not None
    os.kill(int(first.value), signal.SIGKILL)
    (second,) = scorer.score(make_group(["a"]))
    assert second.value not in (None, first.value)
    scorer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(second.value or 0), 0)


def test_a_file_in_the_working_directory_does_not_shadow_the_library(
    grader: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert values(grader("def grade(text):\n    return 1").score(make_group(["a"]))) == [1.0]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is of Linux")
def test_a_busy_worker_does_not_outlive_a_killed_trainer(tmp_path: Path) -> None:
    (tmp_path / "grade.py").write_text(
        f"import os\ndef grade(text):\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    return 9**9**9\n"
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\nfrom pathlib import Path\nfrom groups import make_group\n"
        "from selftrain.config import ScoreConfig\nfrom selftrain.scoring import build\n"
        "config = ScoreConfig.model_validate({'scorers': ['grade.py:grade'], 'timeout_seconds': 120})\n"
        "build(config, Path(sys.argv[1])).score(make_group(['a']))\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parents[1])])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker = int((tmp_path / "pid").read_text())
    trainer.kill()
    trainer.wait()
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker was still running")


def test_a_trivial_function_judges_thousands_of_candidates_a_second(grader: Build) -> None:
    scorer = grader("def grade(text, reference):\n    return text == reference")
    groups = [make_group(["57"] * 8, name=f"p{number}") for number in range(500)]
    scorer.score(groups[0])
    start = time.monotonic()
    assert all(value == 1.0 for group in groups for value in values(scorer.score(group)))
    # The aim is 3,000 a second; the bound leaves room for a machine that is busy with other work.
    assert 4000 / (time.monotonic() - start) > 1000
