"""Candidates are judged while the next ones are sampled, and everything else is as if they were not."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_group, make_prompt
from worlds import command, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.config import ScoreConfig, ScorerConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.records import Candidate, Score
from selftrain.scoring import SCORERS, BuiltIn, Verdict, build
from selftrain.scoring.combined import CombinedScorer, Part
from selftrain.scoring.judges import workers_of
from selftrain.scoring.threads import JudgingThreads
from selftrain.streaming import Judging, Tally, require_scored

EQUAL = "def judge(text, reference):\n    return text == reference\n"
SEEN = (
    "from pathlib import Path\n\nHERE = Path(__file__).parent\n\ndef judge(text, reference):\n"
    "    (HERE / f'judged-{int(reference) // 100}').touch()\n    return text == reference\n"
)
# Each waits for what can only be there if its like were judged while sampling went on.
MEETING = """
import time
from pathlib import Path

HERE = Path(__file__).parent
ASKED = []


def meet(name):
    deadline = time.monotonic() + 60
    while not (HERE / name).exists():
        assert time.monotonic() < deadline, f"{name} is not there: nothing was judged meanwhile"
        time.sleep(0.005)


def answer(prompt, seed, policy_round):
    number = int(prompt.reference)
    ASKED.append(number)
    if number < 100 and seed and len({one for one in ASKED if one < 100}) > 4:
        meet("judged-0")
    if number >= 200:
        meet("judged-1")
    return prompt.reference if seed % 2 else "no"
"""


def recipe_with(folder: Path, judge: str = EQUAL, **changes: Any) -> Path:
    """A run of one round whose verifier is a function; 3 blocks of 4 prompts, and no second arm."""
    score = {"scorers": ["judge.py:judge"], **changes.pop("score", {})}
    recipe = scripted_recipe(folder, score=score, **{"arms": [], "rounds": 1, **changes})
    (folder / "judge.py").write_text(judge)
    return recipe


def test_blocks_are_judged_while_later_blocks_and_sets_are_sampled(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", SEEN, evaluate={"sampled_rounds": "none", "trained_prompts": 0})
    (tmp_path / "recipe/answers.py").write_text(MEETING)
    run = run_here(recipe, runs_dir=tmp_path)
    metrics = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert metrics["score/judge_seconds"] > 0
    assert 0 < metrics["score/overlapped_share_of_seconds"] <= 1


def test_without_overlap_nothing_is_judged_before_all_is_sampled(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", SEEN, evaluate={"sampled_rounds": "none", "trained_prompts": 0})
    answers = tmp_path / "recipe/answers.py"
    answers.write_text(
        f"from pathlib import Path\n{answers.read_text()}\n\nthen = answer\n\ndef answer(prompt, seed, policy_round):\n"
        "    if int(prompt.reference) < 100:\n"
        "        assert not (Path(__file__).parent / 'judged-0').exists()\n"
        "    return then(prompt, seed, policy_round)\n"
    )
    run = run_here(recipe, "score.overlap=false", runs_dir=tmp_path)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/overlapped_share_of_seconds"] == 0


def test_with_or_without_overlap_and_with_any_number_of_workers_all_files_are_the_same(tmp_path: Path) -> None:
    score = {"scorers": ["judge.py:judge", "exact"]}
    recipe = recipe_with(tmp_path / "recipe", score=score, sample={"block_size": 2})
    ways = {"a": (), "b": ("score.overlap=false",), "c": ("score.workers=4",)}
    runs = {name: results_of(run_here(recipe, *ways[name], runs_dir=tmp_path / name)) for name in ways}
    assert all(runs[name] == runs["a"] for name in ways)


STOPS = (
    "\n\nthen = answer\nHERE = Path(__file__).parent\n\n\ndef answer(prompt, seed, policy_round):\n"
    "    late = int(prompt.reference) < 100 and seed and next(CALLS) > 32\n"
    "    if late and not (HERE / 'mended').exists():\n"
    "        deadline = time.monotonic() + 60\n"
    "        while len(list(SCORES.glob('*.parquet'))) < 2 and time.monotonic() < deadline:\n"
    "            time.sleep(0.01)\n"
    "        return None\n"
    "    return then(prompt, seed, policy_round)\n"
)


def stopped(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A recipe, and the scores of two blocks that were judged before the third could not be sampled."""
    recipe = recipe_with(tmp_path / "recipe")
    scores = tmp_path / "tiny/arms/main/rounds/001/scores/wave-00"
    answers = tmp_path / "recipe/answers.py"
    head = "import itertools, time\nfrom pathlib import Path\nCALLS = itertools.count(1)\n"
    head += f"SCORES = Path({str(scores)!r})\n"
    answers.write_text(head + answers.read_text() + STOPS)
    with pytest.raises(DataError, match="it must return a str"):
        run_here(recipe, runs_dir=tmp_path)
    left = sorted(scores.glob("*.parquet"))
    assert [path.name for path in left] == ["block-00000.parquet", "block-00001.parquet"]
    (tmp_path / "recipe/mended").touch()
    return recipe, left


def test_what_was_judged_before_a_run_ended_is_kept_when_it_goes_on(tmp_path: Path) -> None:
    recipe, left = stopped(tmp_path)
    before = [path.stat().st_mtime_ns for path in left]
    run = run_here(recipe, runs_dir=tmp_path)
    assert [path.stat().st_mtime_ns for path in left] == before
    assert results_of(run) == results_of(run_here(recipe, runs_dir=tmp_path / "untouched"))


@pytest.mark.parametrize("change", ["verifier", "candidates"])
def test_scores_left_by_another_verifier_or_of_other_candidates_are_made_again(tmp_path: Path, change: str) -> None:
    recipe, left = stopped(tmp_path)
    old = [path.read_bytes() for path in left]
    if change == "verifier":
        (tmp_path / "recipe/judge.py").write_text(EQUAL.replace("==", "!="))
    overrides = ("sample.temperature=0.5",) if change == "candidates" else ()
    # What was evaluated before is committed with the old verifier: only the round is gone on with.
    for receipt in (tmp_path / "tiny/arms/main/rounds/000/receipts").glob("*.json"):
        receipt.unlink()
    run = run_here(recipe, *overrides, runs_dir=tmp_path)
    assert [path.read_bytes() for path in left] != old
    assert results_of(run) == results_of(run_here(recipe, *overrides, runs_dir=tmp_path / "untouched"))


GONE = (
    "import os\nfrom pathlib import Path\n\nHERE = Path(__file__)\n\ndef judge(text, reference):\n"
    "    if int(reference) < 100 and not HERE.with_name('mended').exists():\n"
    "        HERE.rename(HERE.with_name('kept'))\n        os._exit(1)\n"
    "    return text == reference\n"
)


def test_what_fails_in_a_judging_thread_is_raised_in_the_run_and_no_block_is_lost(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "recipe", GONE)
    with pytest.raises(ConfigError, match=r"there is no file .*judge\.py"):
        run_here(recipe, runs_dir=tmp_path)
    drawn = list((tmp_path / "tiny/arms/main/rounds/001/candidates/wave-00").glob("*.parquet"))
    assert drawn
    before = {path: path.stat().st_mtime_ns for path in drawn}
    (tmp_path / "recipe/kept").rename(tmp_path / "recipe/judge.py")
    (tmp_path / "recipe/mended").touch()
    run = run_here(recipe, runs_dir=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in drawn} == before
    assert results_of(run) == results_of(run_here(recipe, runs_dir=tmp_path / "untouched"))
    assert not [one for one in threading.enumerate() if one.name.startswith("selftrain_judging")]


def test_blocks_with_unscored_candidates_wait_for_the_word_on_their_number(tmp_path: Path) -> None:
    judge = "def judge(text, reference):\n    return None if int(reference) == 3 else text == reference\n"
    recipe = recipe_with(tmp_path / "recipe", judge)
    scores = tmp_path / "tiny/arms/main/rounds/001/scores/wave-00"
    with pytest.raises(PhaseError, match="4 of 48 candidates could not be scored"):
        run_here(recipe, runs_dir=tmp_path)
    whole = [f"block-{index:05d}.parquet" for index in range(3) if index != block_of(tmp_path, 3)]
    assert [path.name for path in sorted(scores.glob("*.parquet"))] == whole
    run = run_here(recipe, "score.max_unscored_rate=0.1", runs_dir=tmp_path)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/unscored_rate"] == pytest.approx(4 / 48)


def block_of(tmp_path: Path, reference: int) -> int:
    """The training block with that reference's prompt."""
    folder = tmp_path / "tiny/arms/main/rounds/001/candidates/wave-00"
    wanted = f"what comes after {reference - 1}?".encode()
    for index, path in enumerate(sorted(folder.glob("*.parquet"))):
        if any(bytes(one.prompt_token_ids) == wanted for one in tables.read(path, Candidate)):
            return index
    raise AssertionError("no block has it")


# The sandbox's own failures


def test_a_run_whose_sandbox_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipe/boxed.py"
    monkeypatch.setitem(SCORERS, "boxed", BuiltIn(f"{file}:boxed", f"{file}:fine"))
    recipe = recipe_with(tmp_path / "recipe", score={"scorers": ["boxed"], "max_unscored_rate": 1.0})
    file.write_text(
        "from selftrain.scoring import Verdict\n\ndef fine(reference):\n    pass\n\n"
        "def boxed(text, reference: str | None):\n"
        "    if reference in ('3', '7'):\n        return Verdict(None, error='infra_error: no namespaces left')\n"
        "    return Verdict(float(text == reference))\n"
    )
    with pytest.raises(
        PhaseError, match=r"8 of 48 .* the sandbox itself failed, twice.*infra_error: no namespaces left"
    ):
        run_here(recipe, runs_dir=tmp_path)
    run_here(recipe, "score.max_infra_error_rate=0.2", runs_dir=tmp_path)


class Fixed:
    """A judge that always says the same."""

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def judge(self, prompt: Any, asked: Any) -> list[Verdict]:
        return [self._verdict] * len(asked)

    def check_references(self, prompts: Any) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("of_code", "of_other", "weight", "begins"),
    [
        (Verdict(None, error="infra_error: gone"), Verdict(1.0), 1.0, "infra_error: code: infra_error: gone"),
        (Verdict(None, error="infra_error: gone"), Verdict(None, error="ValueError"), 1.0, "infra_error: code: infra_"),
        (Verdict(1.0), Verdict(None, error="said; infra_error: I swear"), 1.0, "other: said; infra_error: I swear"),
        (Verdict(None, error="infra_error: gone"), Verdict(None, error="ValueError"), 0.0, "code: infra_error: gone"),
        (Verdict(None, error="infra_error: gone"), Verdict(1.0), 0.0, None),
    ],
    ids=["of two", "beside another error", "in another's words", "only looked at, beside an error", "only looked at"],
)
def test_an_error_begins_with_infra_error_exactly_where_a_sandbox_that_counts_failed(
    of_code: Verdict, of_other: Verdict, weight: float, begins: str | None
) -> None:
    parts = [
        Part("code", ScorerConfig(name="code", weight=weight), Fixed(of_code)),
        Part("other", ScorerConfig(name="other"), Fixed(of_other)),
    ]
    (score,) = CombinedScorer(parts, 1.0).score(make_group(["a"]))
    assert (score.error is None) == (begins is None)
    assert begins is None or str(score.error).startswith(begins)


@pytest.mark.parametrize(
    ("failed", "infra", "message"), [(0, 0, None), (5, 1, None), (6, 0, "max_unscored_rate"), (2, 2, "max_infra")]
)
def test_each_rate_has_a_limit_of_its_own(failed: int, infra: int, message: str | None) -> None:
    tally = Tally(scores=100, failed=failed, infra=infra, first_error="E", first_infra_error="infra_error: I")
    config = ScoreConfig.model_validate({"scorers": ["exact"]})
    if message is None:
        require_scored(tally, config)
    else:
        with pytest.raises(PhaseError, match=message):
            require_scored(tally, config)


# Being asked to stop


@pytest.mark.slow
def test_a_verifier_that_hangs_does_not_hold_up_a_run_that_is_asked_to_stop(tmp_path: Path) -> None:
    judge = (
        "import os, time\nfrom pathlib import Path\n\nHERE = Path(__file__).parent\n\ndef judge(text, reference):\n"
        "    if int(reference) < 100 and not (HERE / 'mended').exists():\n"
        "        (HERE / 'pid').write_text(str(os.getpid()))\n        time.sleep(600)\n"
        "    return text == reference\n"
    )
    recipe = recipe_with(tmp_path / "recipe", judge, score={"timeout_seconds": 900})
    with subprocess.Popen(
        command("run", recipe, "--runs-dir", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        pid = tmp_path / "recipe/pid"
        wait_until(lambda: pid.exists() and pid.read_text().isdecimal())
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, said = running.communicate(timeout=60)
        assert time.monotonic() - began < 30
    assert running.returncode == 75, said
    wait_until(lambda: not Path(f"/proc/{pid.read_text()}").exists())
    (tmp_path / "recipe/mended").touch()
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    assert results_of(tmp_path / "tiny") == results_of(run_here(recipe, runs_dir=tmp_path / "untouched"))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Threads and processes


@pytest.fixture
def graded(tmp_path: Path) -> Any:
    """Builds a scorer from the source of `grade`."""
    built = []

    def make(source: str, **config: Any) -> CombinedScorer:
        (tmp_path / "grade.py").write_text(source)
        built.append(build(ScoreConfig.model_validate({"scorers": ["grade.py:grade"], **config}), tmp_path))
        return built[-1]

    yield make
    for scorer in built:
        scorer.close()


def judged_at_once(scorer: CombinedScorer, count: int) -> list[Score]:
    """The scores of so many groups of one candidate, asked from so many threads at once, which end together: a worker
    ends with the thread that spawned it."""
    found: list[Any] = [None] * count
    ready = threading.Barrier(count)

    def ask(index: int) -> None:
        ready.wait()
        found[index] = scorer.score(make_group([str(index)]))[0]
        ready.wait()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


PID = "import os, time\n\ndef grade(text):\n    time.sleep(0.2)\n    return {'value': os.getpid(), 'answer': text}\n"


def test_a_function_has_one_process_unless_more_are_asked_for(graded: Any) -> None:
    scores = judged_at_once(graded(PID), 4)
    assert len({one.value for one in scores}) == 1
    assert [one.answer for one in scores] == ["0", "1", "2", "3"]


def test_threads_that_ask_at_once_have_a_process_each_up_to_the_number_of_workers(graded: Any) -> None:
    scores = judged_at_once(graded(PID, workers=3), 6)
    assert len({one.value for one in scores}) == 3
    assert [one.answer for one in scores] == [str(index) for index in range(6)]


def test_closing_a_scorer_ends_what_its_threads_wait_for(graded: Any) -> None:
    scorer = graded("import time\n\ndef grade(text):\n    time.sleep(600)\n", workers=2, timeout_seconds=900)
    ended = []

    def ask() -> None:
        try:
            scorer.score(make_group(["a"]))
        except BaseException as error:
            ended.append(error)

    for _ in range(3):
        scorer.threads.put(ask)
    time.sleep(0.5)
    began = time.monotonic()
    scorer.close()
    assert time.monotonic() - began < 8
    assert len(ended) == 2, "the third was not begun"


@pytest.mark.parametrize(
    ("scorers", "workers", "threads"),
    [
        (["exact"], None, 1),
        (["exact", "numeric"], 6, 1),
        (["grade.py:grade"], None, 1),
        (["grade.py:grade"], 3, 3),
        (["math"], None, 5),
        (["math", "grade.py:grade"], None, 5),
        ([{"name": "exact", "extract": {"regex": "(a)"}}], None, 5),
        (["math"], 20, 20),
    ],
)
def test_as_many_threads_judge_as_have_something_to_gain(
    monkeypatch: pytest.MonkeyPatch, scorers: list[Any], workers: int | None, threads: int
) -> None:
    monkeypatch.setattr("selftrain.scoring.judges.cores_of_process", lambda: 5)
    config = ScoreConfig.model_validate({"scorers": scorers})
    assert max(workers_of(one, workers) for one in config.scorers) == threads


def test_what_is_begun_ends_before_anything_else_begins() -> None:
    threads, done, gate = JudgingThreads(1), list[str](), threading.Event()

    def first() -> None:
        gate.wait(30)
        threads.put_first([partial(done.append, "a1"), partial(done.append, "a2")])

    threads.put(first)
    threads.put(partial(done.append, "b"))
    last = threading.Event()
    threads.put(last.set)
    gate.set()
    assert last.wait(30)
    threads.stop()
    threads.join()
    assert done == ["a1", "a2", "b"]


class Fails(Fixed):
    """Finds every candidate wrong once it is closed, as where the process that runs its code is killed."""

    def __init__(self) -> None:
        super().__init__(Verdict(0.0))
        self.began, self.closed = threading.Event(), threading.Event()

    def judge(self, prompt: Any, asked: Any) -> list[Verdict]:
        self.began.set()
        assert self.closed.wait(30)
        return super().judge(prompt, asked)

    def close(self) -> None:
        self.closed.set()


def test_what_a_closed_scorer_says_is_not_published(tmp_path: Path) -> None:
    path, judge = tmp_path / "block-00000.parquet", Fails()
    tables.write(path, [make_candidate("p", 0, "a")], Candidate, fingerprint="f")
    scorer = CombinedScorer([Part("code", ScorerConfig(name="code"), judge)], 1.0)
    judging = Judging(tmp_path, scorer, {"p": make_prompt()}, "scores", "f")
    judging.begin(path)
    assert judge.began.wait(30)
    scorer.close()
    assert not judging.is_done(path)
    assert judging.tally.scores == 0


@pytest.mark.slow
@pytest.mark.parametrize("score_seconds", [0.01, 0.04])
def test_both_phases_take_at_most_a_tenth_longer_than_the_longer_of_them(tmp_path: Path, score_seconds: float) -> None:
    judge = f"import time\n\ndef judge(text, reference):\n    time.sleep({score_seconds})\n    return 0.5\n"
    few = {"sampled_rounds": "none", "trained_prompts": 0}
    recipe = recipe_with(tmp_path / "recipe", judge, sample={"block_size": 1, "num_candidates": 32}, evaluate=few)
    answers = tmp_path / "recipe/answers.py"
    wait = "\n\nthen = answer\n\ndef answer(prompt, seed, policy_round):\n    time.sleep(0.02 if seed else 0)\n"
    answers.write_text(f"import time\n{answers.read_text()}{wait}    return then(prompt, seed, policy_round)\n")
    seconds = {}
    for overlap in ("true", "false"):
        run = run_here(recipe, f"score.overlap={overlap}", runs_dir=tmp_path / overlap)
        keys = [f"main/rounds/001/{phase}-wave-00" for phase in ("sample", "score")]
        seconds[overlap] = [receipt_of(run, key)["seconds"] for key in keys]
    print(seconds)
    assert sum(seconds["true"]) <= 1.1 * max(seconds["false"])


def test_a_waiting_judge_takes_no_time_of_the_processor(graded: Any) -> None:
    scorer = graded("import time\n\ndef grade(text):\n    time.sleep(1.0)\n    return 1\n", workers=2)
    before = time.process_time()
    judged_at_once(scorer, 2)
    assert time.process_time() - before < 0.25


def test_a_block_is_withdrawn_only_where_it_is_not_begun(tmp_path: Path, graded: Any) -> None:
    scorer = graded("import time\n\ndef grade(text):\n    time.sleep(0.3)\n    return 1\n")
    paths = [tmp_path / f"block-{index:05d}.parquet" for index in range(3)]
    for path in paths:
        tables.write(path, [make_candidate("p", 0, "a")], Candidate, fingerprint="f")
    judging = Judging(tmp_path, scorer, {"p": make_prompt()}, "scores", "f")
    for path in paths:
        judging.begin(path)
    wait_until(lambda: not judging.wants_more and (time.sleep(0.05) is None))
    judging.withdraw()
    assert judging.names() <= {judging.name(path) for path in paths[:2]}
    while judging.is_busy:
        judging.collect(5.0)
    done = [path for path in paths if judging.is_done(path)]
    assert {judging.name(path) for path in done} == judging.names()
    assert judging.tally.scores == len(done) < 3
