from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_group, make_prompt
from worlds import receipt_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.config import PromptsConfig, ScoreConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts.rows import names_of
from selftrain.records import Group, Message, Prompt, Score
from selftrain.scoring import build, logged_metrics
from selftrain.scoring.combined import CombinedScorer

Build = Callable[..., CombinedScorer]


@pytest.fixture
def reward(tmp_path: Path) -> Iterator[Build]:
    """Builds a scorer from the source of `reward`."""
    built = []

    def make(source: str, *, timeout_seconds: float = 10.0, name: str = "reward", **entry: Any) -> CombinedScorer:
        (tmp_path / "rewards.py").write_text(source)
        scorers = [{"name": f"rewards.py:{name}", **entry}]
        config = ScoreConfig.model_validate({"scorers": scorers, "timeout_seconds": timeout_seconds})
        built.append(build(config, tmp_path))
        return built[-1]

    yield make
    for scorer in built:
        scorer.close()


def conversation(texts: list[str], reference: str = "57", **metadata: Any) -> Group:
    group = make_group(texts, reference=reference, **metadata)
    return replace(group, prompt=replace(group.prompt, text=None, messages=(Message("user", "hi"),)))


ECHO = """
def reward(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **columns):
    assert trainer_state is None
    log_extra("seen", [repr(one) for one in zip(prompts, completions, completion_ids)])
    log_extra("columns", [{name: values[i] for name, values in sorted(columns.items())} for i in range(len(prompts))])
    return [float(i) for i in range(len(completions))]
"""


def test_a_function_is_called_once_with_all_candidates_as_trl_calls_it(reward: Build) -> None:
    scores = reward(ECHO).score(make_group(["a", "b"], level=3))
    assert [score.value for score in scores] == [0.0, 1.0]
    assert [score.extras["seen"] for score in scores] == [
        repr(("ask p", "a", [10, 11, 12])),
        repr(("ask p", "b", [10, 11, 12])),
    ]
    columns = {"answer": "57", "level": 3, "reference": "57", "solution": "57", "task": None}
    assert [score.extras["columns"] for score in scores] == [columns, columns]
    assert scores[1].explanation == "the function gave 1"


def test_conversations_arrive_as_lists_of_messages(reward: Build) -> None:
    group = conversation(["a"])
    thinking = replace(group, candidates=(replace(group.candidates[0], reasoning="hm"),))
    scorer = reward(ECHO)
    assert scorer.score(group)[0].extras["seen"] == repr(
        ([{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "a"}], [10, 11, 12])
    )
    assert "'reasoning_content': 'hm'" in scorer.score(thinking)[0].extras["seen"]


def test_the_rows_own_columns_keep_their_values(reward: Build) -> None:
    source = (
        "def reward(completions, answer, solution, reference):\n"
        "    return [answer + solution + reference == ['own', '57', '57']]"
    )
    assert reward(source).score(make_group(["a"], answer="own"))[0].value == 1.0


LENGTHS = "return [len(one) for one in completions]"
FORMS = {
    "plain": f"def reward(completions):\n    {LENGTHS}",
    "async": "async def reward(completions, **others):\n"
    f"    import asyncio\n    await asyncio.sleep(0.01)\n    {LENGTHS}",
    "object": f"class Length:\n    def __call__(self, completions, **others):\n        {LENGTHS}\nreward = Length()",
    "async object": "class Length:\n    async def __call__(self, completions, **others):\n"
    f"        {LENGTHS}\nreward = Length()",
    "partial": f"import functools\ndef scaled(completions, by):\n    {LENGTHS}\n"
    "reward = functools.partial(scaled, by=1)",
    "async partial": f"import functools\nasync def scaled(completions, by, **others):\n    {LENGTHS}\n"
    "reward = functools.partial(scaled, by=1)",
    "array": "import numpy\ndef reward(completions, **others):\n    return numpy.array(list(map(len, completions)))",
    "tuple": "def reward(completions, **others):\n    return tuple(map(len, completions))",
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_function_that_trl_takes_is_taken(reward: Build, form: str) -> None:
    scores = reward(FORMS[form]).score(make_group(["a", "bb", ""]))
    assert [score.value for score in scores] == [1.0, 2.0, 0.0]


def test_async_calls_share_one_event_loop(reward: Build) -> None:
    scorer = reward(
        "import asyncio\nloops = set()\nasync def reward(completions):\n    loops.add(asyncio.get_running_loop())\n"
        "    return [len(loops)] * len(completions)"
    )
    assert [scorer.score(make_group(["a"]))[0].value for _ in range(3)] == [1.0, 1.0, 1.0]


def test_an_async_function_of_one_candidate_is_awaited_too(reward: Build) -> None:
    assert reward("async def reward(text):\n    return len(text)").score(make_group(["aa"]))[0].value == 2.0


def test_none_is_unscored_and_what_is_no_number_is_an_error_of_its_candidate(reward: Build) -> None:
    scorer = reward("def reward(completions):\n    return [1.0, None, float('nan'), 'x', True]")
    scores = scorer.score(make_group(["a"] * 5))
    assert [score.value for score in scores] == [1.0, None, None, None, 1.0]
    assert scores[1].error == "the function returned None"
    assert str(scores[3].error).startswith("TypeError: the function returned 'x'")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return [1.0]", "ValueError: the function returned 1 values for 2 completions"),
        ("return None", "TypeError: the function returned None; return a list"),
        ("raise KeyError('x')", "KeyError: 'x' (rewards.py:2)"),
        ("raise SystemExit(3)", "SystemExit: 3 (rewards.py:2)"),
        ("import os; os._exit(4)", "the worker died twice (exit code 4)"),
        ("log_extra('a', [1]); return [1, 1]", "ValueError: log_extra('a') was given 1 values for 2 candidates"),
    ],
)
def test_what_goes_wrong_is_the_error_of_the_whole_group(reward: Build, body: str, error: str) -> None:
    scorer = reward(f"def reward(completions, log_extra=None):\n    {body}")
    for score in scorer.score(make_group(["a", "b"])):
        assert (score.value, score.extras) == (None, {})
        assert str(score.error).startswith(error)


def test_a_group_has_the_time_of_all_its_candidates(reward: Build) -> None:
    source = (
        "import time\ndef reward(completions):\n    time.sleep(float(completions[0]))\n"
        "    return [1.0] * len(completions)"
    )
    scorer = reward(source, timeout_seconds=0.4)
    assert [score.value for score in scorer.score(make_group(["0.8"] * 4))] == [1.0] * 4
    late = scorer.score(make_group(["30", "0"]))
    assert [(score.value, score.error) for score in late] == [(None, "timed out after 0.8 s")] * 2
    assert scorer.score(make_group(["0"]))[0].value == 1.0


def test_params_reach_the_function_and_unknown_ones_are_refused(reward: Build) -> None:
    source = "def reward(completions, scale=1.0):\n    return [scale] * len(completions)"
    assert reward(source, params={"scale": 0.5}).score(make_group(["a"]))[0].value == 0.5
    with pytest.raises(ConfigError, match="no parameter 'scales'; known: scale"):
        reward(source, params={"scales": 0.5})


def test_a_column_that_the_rows_do_not_have_is_refused_before_any_work(reward: Build) -> None:
    scorer = reward("def reward(completions, difficulty, reference):\n    return [0.0] * len(completions)")
    scorer.check_references([make_prompt(metadata={"difficulty": 1})])
    with pytest.raises(DataError, match=r"asks for 'difficulty', and prompt p has no such column; it has: level"):
        scorer.check_references([make_prompt(metadata={"level": 1})])


def test_what_is_logged_is_kept_with_the_scores_and_read_back(reward: Build, tmp_path: Path) -> None:
    scorer = reward(
        "import numpy\ndef reward(completions, log_extra, log_metric):\n"
        "    log_extra('length', numpy.array([len(one) for one in completions]))\n"
        "    log_extra('odd', [object, float('nan'), '\\ud800'])\n"
        "    log_metric('mean', numpy.float32(sum(map(len, completions)) / 3)); log_metric('mean', 5)\n"
        "    log_metric('lost', float('nan'))\n"
        "    return [1.0] * 3"
    )
    groups = [make_group(texts, name=name) for name, texts in {"p": ["a", "b", "c"], "q": ["aaaa"] * 3}.items()]
    scored = [replace(group, scores=scorer.score(group)) for group in groups]
    scores = [score for group in scored for score in group.scores]
    assert [score.extras["length"] for score in scores] == [1, 1, 1, 4, 4, 4]
    assert (scores[0].extras["odd"], scores[1].extras["odd"]) == ("<class 'object'>", "nan")
    path = tmp_path / "scores.parquet"
    tables.write(path, scores, Score, fingerprint="f")
    read = tables.read(path, Score)
    assert [one.extras for one in read[:2] + read[3:]] == [one.extras for one in scores[:2] + scores[3:]]
    again = [replace(group, scores=tuple(read[3 * index : 3 * index + 3])) for index, group in enumerate(groups)]
    assert logged_metrics(again) == logged_metrics(scored) == {"score/mean": (1 + 5 + 4 + 5) / 4}


def test_only_what_an_extraction_found_is_asked_about(reward: Build) -> None:
    source = (
        "def reward(completions, log_metric):\n    log_metric('asked', len(completions))\n"
        "    return [float(one) for one in completions]"
    )
    scores = reward(source, extract="boxed").score(make_group([r"\boxed{1}", "2", r"\boxed{3}"]))
    assert [score.value for score in scores] == [1.0, 0.0, 3.0]
    assert [score.answer for score in scores] == ["1", None, "3"]
    assert scores[0].extras == {"score/asked": [2.0]}


def test_a_group_without_any_answer_asks_nobody(reward: Build) -> None:
    scorer = reward("def reward(completions):\n    raise RuntimeError('asked')", extract="boxed")
    assert [score.value for score in scorer.score(make_group(["1", "2"]))] == [0.0, 0.0]


def test_logged_metrics_are_metrics_of_the_round_made_from_its_published_scores(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    (tmp_path / "recipe/rewards.py").write_text(
        "def reward(completions, reference, log_extra, log_metric):\n"
        "    right = [float(one.strip() == wanted) for one, wanted in zip(completions, reference)]\n"
        "    log_extra('right', right)\n"
        "    log_metric('share_right', sum(right) / len(right)); log_metric('correct_rate', 7)\n"
        "    return right\n"
    )
    run = run_here(recipe, "score.scorers=[rewards.py:reward]", "rounds=1", runs_dir=tmp_path)
    metrics = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert metrics["score/share_right"] == pytest.approx(metrics["score/correct_rate"])
    scores = [one for path in run.glob("arms/main/rounds/001/scores/*/*.parquet") for one in tables.read(path, Score)]
    assert [one.extras["right"] for one in scores] == [one.value for one in scores]


@pytest.mark.slow
def test_trls_own_reward_functions_work_as_they_are() -> None:
    scorers = ["trl.rewards:accuracy_reward", {"name": "trl.rewards:think_format_reward", "weight": 0}]
    config = ScoreConfig.model_validate({"scorers": scorers, "timeout_seconds": 60})
    texts = [r"<think>6 times 7</think> It is \boxed{42}", r"It is \boxed{41}", r"\boxed{\frac{84}{2}}"]
    with build(config, Path()) as scorer:
        group = conversation(texts, reference=r"\boxed{42}")
        scorer.check_references([group.prompt])
        scores = scorer.score(group)
    assert [score.value for score in scores] == [1.0, 0.0, 1.0]
    assert [score.parts["trl.rewards:think_format_reward"] for score in scores] == [1.0, 0.0, 0.0]
    assert scores[0].extras["answer_parsed"] == "[42, '42']"


@pytest.mark.slow
def test_trls_factories_are_named_through_a_file(reward: Build) -> None:
    scorer = reward(
        "from trl.rewards import get_repetition_penalty_reward\n"
        "reward = get_repetition_penalty_reward(ngram_size=1, max_penalty=-1.0)",
        timeout_seconds=60,
    )
    prompt = Prompt("p", "p", None, "ask", "57")
    twice = replace(make_candidate("p", 0, "a"), completion_token_ids=(5, 5))
    assert scorer.score(Group(prompt, (twice,)))[0].value == -0.5


def test_the_worker_of_a_group_is_closed_with_the_scorer(reward: Build) -> None:
    scorer = reward("import os\ndef reward(completions):\n    return [os.getpid()] * len(completions)")
    (score,) = scorer.score(make_group(["a"]))
    scorer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(score.value or 0), 0)


def test_the_reference_and_the_prompt_have_the_datas_own_names(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "def reward(completions, ground_truth, asked, **columns):\n"
        "    return [one == right and what == 'ask p' for one, right, what in zip(completions, ground_truth, asked)]\n"
        "def missing(completions, gold):\n    return [1.0]\n"
    )
    columns = {"ground_truth": "reference", "asked": "prompt", "prompt": "prompt"}
    group = make_group(["57", "58"], reference="57")
    config = ScoreConfig.model_validate({"scorers": ["rewards.py:reward"]})
    with build(config, tmp_path, columns) as scorer:
        scorer.check_references([group.prompt])
        assert [score.value for score in scorer.score(group)] == [1.0, 0.0]
        kept = make_group(["own"], reference="57", ground_truth="own", asked="ask p")  # of another task of a mix
        assert scorer.score(kept)[0].value == 1.0
    config = ScoreConfig.model_validate({"scorers": ["rewards.py:missing"]})
    with (
        build(config, tmp_path, columns) as scorer,
        pytest.raises(DataError, match=r"asks for 'gold', .* it has: ground_truth, asked\."),
    ):
        scorer.check_references([group.prompt])


def test_names_of_columns_come_from_every_set_and_task() -> None:
    config = PromptsConfig.model_validate(
        {
            "train": {
                "mix": {
                    "one": {"path": "a.jsonl", "columns": {"reference": "ground_truth", "prompt": "question"}},
                    "two": {"path": "b.jsonl", "columns": {"reference": "gold", "prompt": "text"}},
                }
            },
            "test": {"path": "c.jsonl", "columns": {"reference": "text", "prompt": "question"}},
        }
    )
    assert names_of(config) == {"question": "prompt", "ground_truth": "reference", "gold": "reference"}


NONE = """
def some(completions, **columns):
    return [None if "x" in one else 0.0 for one in completions]

def never(completions, **columns):
    return [None for one in completions]

def one(text):
    return None
"""


def test_a_function_that_gives_none_is_left_out_of_the_mean(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(NONE)

    def scores(*scorers: dict[str, Any]) -> list[Score]:
        config = ScoreConfig.model_validate({"scorers": scorers})
        with build(config, tmp_path) as scorer:
            return list(scorer.score(make_group(["57 x", "57 y"], reference="57")))

    matches = {"name": "regex", "params": {"pattern": "^([0-9]+)"}, "weight": 3}
    some, never = {"name": "rewards.py:some"}, {"name": "rewards.py:never"}
    left_out, judged = scores(matches, some)
    assert (left_out.value, judged.value) == (1.0, 0.75)
    assert left_out.parts == {"regex": 1.0, "rewards.py:some": None}
    assert "rewards.py:some: does not apply, as it gave None" in str(left_out.explanation)
    assert left_out.error is None
    assert [one.value for one in scores({**never, "gate": True}, matches)] == [1.0, 1.0]
    assert [one.value for one in scores(never, some)] == [None, 0.0]
    assert "rewards.py:never: the function returned None" in str(scores(never, some)[0].error)
    # A function that is asked of one candidate could not judge it.
    assert [one.value for one in scores(matches, {"name": "rewards.py:one"})] == [None, None]


def test_a_key_that_nothing_reads_is_an_error_of_that_candidate(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "def judge(text):\n    return {'value': 1.0, 'answr': text} if text == 'a' else {'value': 1.0, 'answer': text}"
    )
    with build(ScoreConfig.model_validate({"scorers": ["rewards.py:judge"]}), tmp_path) as scorer:
        wrong, right = scorer.score(make_group(["a", "b"]))
    assert (wrong.value, right.value, right.answer) == (None, 1.0, "b")
    assert "the key 'answr', which says nothing here; known: value, answer, explanation; did you mean 'answer'?" in str(
        wrong.error
    )
