"""Candidates that the policy does not write, in whole runs: taken from a file, sampled by other models."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from faulty_proxy import faulty_proxy
from tiny_judges import model_behind_http
from tiny_models import build_model
from typer.testing import CliRunner
from worlds import model_recipe, ranks, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.adapters import adapter_digest
from selftrain.cli import app
from selftrain.compose import compose
from selftrain.curating import curate_recipe
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.models import Bench
from selftrain.outlook import status_of
from selftrain.recording import shown
from selftrain.records import Candidate, Prompt, Survivor
from selftrain.sampling import build
from selftrain.store import RunDirectory

NUM_PROMPTS = 12


def answers(*, without: int = 11, each: int = 3) -> list[dict[str, Any]]:
    """Candidates for the training prompts of worlds.py but one, of which the first is right, and some of another."""
    rows = [
        {
            "prompt": f"what comes after {n}?",
            "completion": str(n + 1 + number),
            "reward": 1.0 - number / each,
            "by": "x",
        }
        for number in range(each)
        for n in range(NUM_PROMPTS)
        if n != without
    ]
    return [*rows, {"prompt": "something else?", "completion": "no", "reward": 0.0, "by": "y"}]


def put(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def file_recipe(folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    put(folder, answers() if rows is None else rows)
    sample = {"policy": {"file": "candidates.jsonl"}, **changes.pop("sample", {})}
    recipe = scripted_recipe(folder, **{"rounds": 1, "arms": [], **changes, "sample": sample})
    data = yaml.safe_load(recipe.read_text())
    if "num_candidates" not in sample:
        del data["sample"]["num_candidates"]
    recipe.write_text(yaml.safe_dump(data))
    return recipe


def curate_here(recipe: Path, *overrides: str, runs_dir: Path) -> Path:
    """Sample, score and select, where nothing has to be trained or evaluated; return the run directory."""
    curate_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir)
    return runs_dir / compose(str(recipe), overrides=overrides).config.name


def candidates_of(run: Path, round_number: int = 1) -> list[Candidate]:
    receipt = RunDirectory(run).receipt(f"main/{round_number:03d}/sample-wave-00")
    files = sorted((run / f"arms/main/rounds/{round_number:03d}/candidates").glob("**/*.parquet"))
    assert receipt is None or len(receipt.files) == len(files)
    return [one for path in files for one in tables.read(path, Candidate)]


def test_a_run_trains_on_the_candidates_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_here(file_recipe(tmp_path / "recipe"), runs_dir=tmp_path)
    found = candidates_of(run)
    assert len(found) == 33
    assert [one.index for one in found[:4]] == [0, 1, 2, 0]
    assert [one.text for one in found[:3]] == ["1", "2", "3"] or len({one.prompt_id for one in found[:3]}) == 1
    assert {one.metadata["by"] for one in found} == {"x"}
    assert all(one.completion_token_ids == (*one.text.encode(), 256) for one in found)
    assert all(one.logprobs == () for one in found)
    assert len({one.policy_digest for one in found}) == 1
    metrics = receipt_of(run, "main/rounds/001/sample-wave-00")["metrics"]
    assert metrics["sample/candidates"] == 33.0
    assert metrics["sample/prompts_without_candidates"] == 1.0
    assert metrics["sample/candidates_unasked"] == 1.0
    assert not [name for name in metrics if "kl" in name or "entropy" in name or "logprob" in name]
    survivors = [
        one
        for path in (run / "arms/main/rounds/001/survivors").glob("**/survivors*.parquet")
        for one in tables.read(path, Survivor)
    ]
    assert len(survivors) == 11
    told = capsys.readouterr()
    assert "1 of 12 prompts have no candidates in sample.policy.file" in told.out + told.err
    assert "1 candidates answer no prompt of prompts.train: candidates.jsonl, line 34" in told.out + told.err
    assert status_of(run)["run"]["generator"] == "nobody: they are taken from candidates.jsonl"


def test_num_candidates_takes_the_first_ones_and_is_all_of_them_where_it_is_not_set(tmp_path: Path) -> None:
    recipe = file_recipe(tmp_path / "recipe")
    assert compose(str(recipe)).config.sample.num_candidates == "all"
    run = run_here(recipe, "sample.num_candidates=2", "name=two", runs_dir=tmp_path)
    assert sorted({one.index for one in candidates_of(run)}) == [0, 1]
    assert len(candidates_of(run)) == 22
    with pytest.raises(ConfigError, match=r"num_candidates: all takes what sample.policy.file holds"):
        compose(str(scripted_recipe(tmp_path / "other", sample={"num_candidates": "all"})))


def test_rewards_that_candidates_bring_select_them(tmp_path: Path) -> None:
    changes = {
        "score": {"scorers": [{"name": "given", "params": {"column": "reward"}}]},
        "evaluate": {"scorers": ["exact"]},
        "select": {"rule": "best_of_n"},
    }
    run = run_here(file_recipe(tmp_path / "recipe", **changes), runs_dir=tmp_path)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/value_mean"] == pytest.approx(2 / 3)
    survivors = tables.read(next((run / "arms/main/rounds/001/survivors").glob("**/*.parquet")), Survivor)
    assert {one.value for one in survivors} == {1.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"select": {"kl_beta": 0.1}}, "select.kl_beta.*another writes the candidates"),
        ({"score": {"scorers": [{"name": "given", "params": {"column": "reward"}}]}}, "name their scorers in evaluate"),
        (
            {
                "score": {"scorers": [{"name": "given", "params": {"column": "rewards"}}]},
                "evaluate": {"scorers": ["exact"]},
            },
            "no column 'rewards'; it has: reward, by",
        ),
        ({"sample": {"policy": {"file": "none.jsonl"}}}, "there is no file .*none.jsonl"),
        (
            {"sample": {"policy": {"file": "candidates.jsonl", "model": "x/y"}}},
            "takes one of model, endpoint, checkpoi",
        ),
        ({"sample": {"policy": {"model": "x/y", "prompt_id": "id"}}}, "prompt_id names a column of sample.policy.file"),
        ({"sample": {"policy": {"checkpoints": ["policy"]}}}, "sample.engine scripted has no model"),
        ({"sample": {"policy": {"model": "./nowhere"}}}, "sample.policy.model: there is no './nowhere'"),
    ],
)
def test_what_cannot_work_is_refused_in_plain_words_before_any_work(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    recipe = file_recipe(tmp_path / "recipe", **changes)
    with pytest.raises(ConfigError, match=words):
        run_here(recipe, runs_dir=tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_given_needs_a_file(tmp_path: Path) -> None:
    scorers = {"scorers": [{"name": "given", "params": {"column": "reward"}}]}
    recipe = scripted_recipe(tmp_path / "recipe", score=scorers, evaluate={"scorers": ["exact"]})
    with pytest.raises(ConfigError, match="there is no such file"):
        run_here(recipe, runs_dir=tmp_path)


def test_a_run_without_a_model_is_refused_and_curate_is_named(tmp_path: Path) -> None:
    recipe = file_recipe(tmp_path / "recipe", sample={"engine": "transformers", "params": {}}, train={"trainer": "sft"})
    with pytest.raises(ConfigError, match=r"model.path is none: there is no model to train; `selftrain curate`"):
        run_here(recipe, runs_dir=tmp_path)
    plan = CliRunner().invoke(app, ["plan", str(recipe), "--runs-dir", str(tmp_path)], catch_exceptions=False)
    assert plan.exit_code == 0, plan.output
    assert "12 prompts, all of their candidates in sample.policy.file" in plan.output
    assert "there is no model to train" in plan.output


def test_candidates_of_which_none_answers_a_prompt_are_refused_with_both_sides(tmp_path: Path) -> None:
    recipe = file_recipe(tmp_path / "recipe", rows=[{"prompt": "something else?", "completion": "no"}])
    with pytest.raises(DataError, match=r"none of its candidates answers a prompt.*line 1.*what comes after"):
        run_here(recipe, runs_dir=tmp_path)
    put(tmp_path / "recipe", answers())
    assert len(candidates_of(run_here(recipe, runs_dir=tmp_path))) == 33, "mended, it goes on"


def test_where_their_rewards_are_no_numbers_the_column_is_what_to_mend(tmp_path: Path) -> None:
    rows = [{**row, "reward": "?", "stars": row["reward"]} for row in answers()]
    rows[0]["rare"] = 1.0
    score = {"scorers": [{"name": "given", "params": {"column": "reward"}}]}
    recipe = file_recipe(tmp_path / "recipe", rows, score=score, evaluate={"scorers": ["exact"]})
    with pytest.raises(PhaseError, match=r"'reward' holds no number: '\?'\. Name another column") as error:
        run_here(recipe, runs_dir=tmp_path)
    assert "a missing package" not in str(error.value)
    text = recipe.read_text()
    recipe.write_text(text.replace("column: reward", "column: rare"))
    with pytest.raises(PhaseError, match=r"brought no column 'rare'.*Name another column"):
        run_here(recipe, runs_dir=tmp_path)
    recipe.write_text(text.replace("column: reward", "column: stars"))
    run = run_here(recipe, runs_dir=tmp_path)
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/value_mean"] == pytest.approx(2 / 3)


def test_a_file_that_changed_after_the_candidates_were_taken_is_refused(tmp_path: Path) -> None:
    recipe = file_recipe(tmp_path / "recipe")
    run = run_here(recipe, runs_dir=tmp_path)
    moved = tmp_path / "recipe" / "moved.jsonl"
    (tmp_path / "recipe" / "candidates.jsonl").rename(moved)
    run_here(recipe, "sample.policy.file=moved.jsonl", runs_dir=tmp_path)
    moved.write_text(moved.read_text().replace('"completion": "3"', '"completion": "4"'))
    with pytest.raises(ConfigError, match=r"(?s)already committed.*the candidates of sample.policy.file"):
        run_here(recipe, "sample.policy.file=moved.jsonl", runs_dir=tmp_path)
    assert candidates_of(run)


def test_a_file_that_is_replaced_after_the_start_never_passes_for_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/swap.py").write_text(
        "from pathlib import Path\n\n\ndef swap(text):\n"
        "    path = Path(__file__).with_name('candidates.jsonl')\n"
        '    path.write_text(path.read_text().replace(\'"by": "x"\', \'"by": "z"\'))\n'
        "    return True\n"
    )
    recipe = file_recipe(tmp_path / "recipe", rounds=2, evaluate={"scorers": ["swap.py:swap"]})
    curate_here(recipe, runs_dir=tmp_path)
    with pytest.raises(PhaseError, match=r"sample\.policy\.file was changed since this attempt began"):
        run_here(recipe, runs_dir=tmp_path)
    assert {one.metadata["by"] for one in candidates_of(tmp_path / "tiny")} == {"x"}
    put(tmp_path / "recipe", answers())
    (tmp_path / "recipe/swap.py").write_text("def swap(text):\n    return True\n")
    curate_here(recipe, "name=mended", runs_dir=tmp_path)


def test_rows_with_two_columns_of_candidates_are_refused_and_odd_ends_are_known(tmp_path: Path) -> None:
    both = [{"prompt": "what comes after 1?", "completion": "2", "completions": ["2", "3"]}]
    with pytest.raises(DataError, match="line 1 has both completion and completions"):
        run_here(file_recipe(tmp_path / "both", rows=both), runs_dir=tmp_path)
    (tmp_path / "ends").mkdir()
    (tmp_path / "ends/candidates.csv").write_text(
        "prompt,completion,finish_reason\nwhat comes after 1?,2,\nwhat comes after 2?,3,content_filter\n"
    )
    recipe = file_recipe(tmp_path / "ends", sample={"policy": {"file": "candidates.csv"}})
    curate_here(recipe, runs_dir=tmp_path)
    assert sorted(one.finish_reason for one in candidates_of(tmp_path / "tiny")) == ["length", "stop_token"]


def test_what_has_no_tokens_cannot_be_kept_by_asking_for_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_completion_tokens: 0 would keep"):
        compose(str(file_recipe(tmp_path, select={"min_completion_tokens": 0})))


def test_controls_choose_among_the_same_candidates_and_an_arm_may_have_its_own(tmp_path: Path) -> None:
    rows = [row for row in answers() if row["prompt"] != "something else?"]
    arms = ["random_selection", {"drawn": {"sample.policy": None, "sample.num_candidates": 4}}]
    recipe = file_recipe(tmp_path / "recipe", rows=rows, rounds=2, arms=arms)
    run = run_here(recipe, runs_dir=tmp_path)
    assert not (run / "arms/random_selection/rounds/002/candidates").exists(), "they are main's, in every round"
    drawn = list((run / "arms/drawn/rounds/001/candidates").glob("**/*.parquet"))
    assert {len(one.logprobs) > 0 for path in drawn for one in tables.read(path, Candidate)} == {True}
    assert len([one for path in drawn for one in tables.read(path, Candidate)]) == 4 * NUM_PROMPTS


@pytest.mark.parametrize("kills", [(24,), pytest.param((12, 24, 40), marks=pytest.mark.slow)])
def test_killed_while_taking_candidates_a_run_ends_as_if_untouched(tmp_path: Path, kills: tuple[int, ...]) -> None:
    rows = answers()
    recipe = file_recipe(tmp_path / "recipe", rows=rows, rounds=2)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "recipe" / "candidates.parquet")
    again = "sample.policy.file=candidates.parquet"
    run_here(recipe, again, runs_dir=tmp_path / "whole")
    for visits in kills:
        killed = selftrain("run", recipe, again, "--runs-dir", tmp_path / "killed", SELFTRAIN_FAULT=str(visits))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_here(recipe, again, runs_dir=tmp_path / "killed")
    assert results_of(tmp_path / "killed" / "tiny") == results_of(tmp_path / "whole" / "tiny")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "policy": build_model(folder / "policy"),
        "sibling": build_model(folder / "sibling", seed=1),
        "stranger": build_model(folder / "stranger", chat=False, seed=2),
    }


def own_recipe(folder: Path, models: dict[str, Path], policy: dict[str, Any] | None, **changes: Any) -> Path:
    sample = {"policy": policy} if policy is not None else {}
    sample |= changes.pop("sample", {})
    small = {"rounds": 1, "arms": [], "evaluate": {"drift_candidates": 8, "sampled_rounds": "none"}}
    return model_recipe(folder, models["policy"], **{**small, **changes, "sample": sample})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of a tiny model."""
    with model_behind_http(build_model(tmp_path_factory.mktemp("served") / "model", seed=3)) as (url, _):
        yield url


def asked_of(url: str, **knobs: Any) -> dict[str, Any]:
    return {"policy": {"endpoint": {"url": url, "model": "tiny", "concurrency": 4, "retries": 2, **knobs}}}


def test_texts_of_a_file_are_trained_on_as_the_ids_that_the_policy_would_have_left(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    rows = answers()
    rows += [{"prompt": "what comes after 0?", "completion": text} for text in ("<|im_end|> inside", "so long " * 300)]
    put(
        tmp_path / "recipe",
        [{**row, "finish_reason": "length" if row["completion"] == "3" else "stop"} for row in rows],
    )
    recipe = own_recipe(
        tmp_path / "recipe",
        models,
        {"file": "candidates.jsonl"},
        score={"scorers": ["exact"], "max_unscored_rate": 0.0},
        select={"rule": "all", "max_per_prompt": None, "finish_reasons": ["stop_token", "stop_string"]},
        sample={"num_candidates": 9},
    )
    run = run_here(recipe, runs_dir=tmp_path)
    config = compose(str(recipe)).config
    bench = Bench(config.model)
    sampler = build(config.sample, lambda: bench, recipe.parent)
    found = candidates_of(run)
    assert len(found) == 35
    for one in found:
        prompt = Prompt(one.prompt_id, one.prompt_id, None, bench.decode(one.prompt_token_ids))
        if "inside" in one.text or "so long" in one.text:
            assert one.completion_token_ids == ()
        elif one.finish_reason == "length":
            assert bench.decode(one.completion_token_ids) == one.text == "3"
            assert one.completion_token_ids[-1] not in bench.stop_token_ids
        else:
            assert one.completion_token_ids == sampler.encode_completion(prompt, one.text)
    survivors = tables.read(next((run / "arms/main/rounds/001/survivors").glob("**/*.parquet")), Survivor)
    assert len(survivors) == len([one for one in found if one.finish_reason != "length"]) - 2
    rejected = (run / "arms/main/rounds/001/survivors/improve-00/rejected.jsonl").read_text()
    assert rejected.count("cannot be written in the policy's tokens and context") == 2
    assert list((run / "arms/main/rounds/001/adapter").glob("**/adapter_model.safetensors"))


def test_reasoning_is_cut_off_texts_of_a_file_too(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"what comes after {n}?", "completion": f"<think>\nwell\n</think>{n + 1}"}
        for n in range(NUM_PROMPTS)
    ]
    rows[0]["completion"] = "<think> for ever"
    run = run_here(
        file_recipe(tmp_path / "recipe", rows=rows, model={"path": "none", "thinking": {}}), runs_dir=tmp_path
    )
    found = candidates_of(run)
    assert sorted(one.text for one in found) == sorted(["", *(str(n + 1) for n in range(1, NUM_PROMPTS))])
    assert {one.reasoning for one in found} == {"\nwell\n", " for ever"}
    whole = next(one for one in found if one.text == "5")
    assert whole.reasoning_tokens == len("<think>\nwell\n</think>")
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/correct_rate"] == pytest.approx(11 / 12)


def test_another_model_with_the_same_tokenizer_leaves_the_ids_that_it_sampled(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    recipe = own_recipe(tmp_path / "recipe", models, {"model": str(models["sibling"])})
    other = own_recipe(tmp_path / "other", {**models, "policy": models["sibling"]}, None, name="other")
    run, base = curate_here(recipe, runs_dir=tmp_path), curate_here(other, runs_dir=tmp_path)
    found, of_base = candidates_of(run), candidates_of(base)
    assert [one.completion_token_ids for one in found] == [one.completion_token_ids for one in of_base]
    assert [one.logprobs for one in found] == [one.logprobs for one in of_base]
    assert all(one.logprobs for one in found)
    assert not {one.policy_digest for one in found} & {one.policy_digest for one in of_base}
    metrics = receipt_of(run, "main/rounds/001/sample-wave-00")["metrics"]
    assert not [name for name in metrics if "kl" in name or "policy_round" in name]


def test_another_model_with_another_tokenizer_leaves_its_texts_in_the_policys_ids(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    recipe = own_recipe(tmp_path / "recipe", models, {"model": str(models["stranger"])})
    run = curate_here(recipe, runs_dir=tmp_path)
    bench = Bench(compose(str(recipe)).config.model)
    found = candidates_of(run)
    assert len(found) == 4 * NUM_PROMPTS
    assert all(one.logprobs == () for one in found)
    encoded = [one for one in found if one.completion_token_ids]
    assert len(encoded) > len(found) / 2
    for one in encoded:
        ids = one.completion_token_ids
        assert bench.decode(ids) == one.text
        assert (ids[-1] in bench.stop_token_ids) == (one.finish_reason != "length")


def test_candidate_by_candidate_the_members_of_an_ensemble_take_turns(tmp_path: Path, models: dict[str, Path]) -> None:
    names = ["policy", str(models["stranger"]), str(models["sibling"])]
    run = curate_here(own_recipe(tmp_path / "recipe", models, {"checkpoints": names}), runs_dir=tmp_path)
    found = candidates_of(run)
    assert len(found) == 4 * NUM_PROMPTS
    assert all(one.metadata == {"checkpoint": names[one.index % 3]} for one in found)
    assert len({one.policy_digest for one in found}) == 3
    assert {one.index % 3 for one in found if one.logprobs} == {0, 2}, "only a stranger's texts are encoded anew"


@pytest.mark.slow
def test_an_ensemble_shares_out_each_prompts_candidates_among_its_members(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    first = run_here(own_recipe(tmp_path / "first", models, None, name="first"), runs_dir=tmp_path)
    adapter = first / "arms/main/rounds/001/adapter/improve-00"
    names = ["policy", "../first/arms/main/rounds/001/adapter/improve-00", str(models["stranger"])]
    recipe = own_recipe(tmp_path / "recipe", models, {"checkpoints": names}, rounds=2, train={"init_from": "base"})
    run = run_here(recipe, runs_dir=tmp_path)
    own = {(one.prompt_id, one.index): one for one in candidates_of(first)}
    for one in candidates_of(run):
        assert one.metadata == {"checkpoint": names[one.index % 3]}
        if one.index % 3 == 0:
            assert one.completion_token_ids[:1] == own[one.prompt_id, one.index].completion_token_ids[:1]
    digests = {number: {one.policy_digest for one in candidates_of(run, number)} for number in (1, 2)}
    assert adapter_digest(adapter) in digests[1] & digests[2]
    assert len(digests[1]) == len(digests[2]) == 3
    assert len(digests[1] & digests[2]) == 2, "the policy alone became another"


def test_generators_are_told_of_in_the_plan(tmp_path: Path, models: dict[str, Path]) -> None:
    recipe = own_recipe(tmp_path / "recipe", models, {"model": str(models["sibling"])}, rounds=2)
    plan = selftrain("plan", recipe, "--runs-dir", tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert f"48 candidates by {models['sibling']}" in plan.stdout
    assert "another than the policy writes the candidates of all 2 rounds" in plan.stdout


def test_a_server_writes_candidates_with_seeds_of_their_own(
    tmp_path: Path, models: dict[str, Path], server: str
) -> None:
    recipe = own_recipe(tmp_path / "recipe", models, None, sample=asked_of(server))
    run = curate_here(recipe, runs_dir=tmp_path)
    found = candidates_of(run)
    assert len(found) == 4 * NUM_PROMPTS
    assert len({one.text for one in found}) > len(found) / 2, "each has a seed of its own"
    assert {one.finish_reason for one in found} <= {"length", "stop_token"}
    bench = Bench(compose(str(recipe)).config.model)
    for one in found:
        assert bench.decode(one.completion_token_ids) == one.text
        assert bench.decode(one.prompt_token_ids).startswith("what comes after") or one.prompt_token_ids
    again = curate_here(recipe, "name=again", runs_dir=tmp_path)
    assert [one.text for one in candidates_of(again)] == [one.text for one in found]
    log = (run / "logs/attempt_1/selftrain.log").read_text()
    assert "sample.policy.endpoint so far: 48 requests (0 repeated)" in log


def test_greedy_candidates_of_a_server_are_asked_for_once(tmp_path: Path, server: str) -> None:
    with faulty_proxy(server, ()) as proxy:
        recipe = scripted_recipe(
            tmp_path / "recipe",
            rounds=1,
            arms=[],
            sample={**asked_of(proxy.url), "temperature": 0.0, "num_candidates": 3},
            prompts={"format": "chat", "system": "be brief"},
        )
        found = candidates_of(run_here(recipe, runs_dir=tmp_path))
    assert len(found) == 3 * NUM_PROMPTS
    assert proxy.requests == NUM_PROMPTS
    assert [message["role"] for message in proxy.bodies[0]["messages"]] == ["system", "user"]  # type: ignore[attr-defined]
    by_prompt = {one.prompt_id: set[str]() for one in found}
    for one in found:
        by_prompt[one.prompt_id].add(one.text)
    assert all(len(texts) == 1 for texts in by_prompt.values())


@pytest.mark.slow
def test_where_a_server_fails_what_it_wrote_is_kept_and_the_same_command_goes_on(tmp_path: Path, server: str) -> None:
    changes = {"rounds": 1, "arms": []}
    whole = scripted_recipe(tmp_path / "whole", **changes, sample=asked_of(server))
    expected = candidates_of(run_here(whole, runs_dir=tmp_path / "runs"))
    with faulty_proxy(server, ["pass"] * 20 + ["400"] * 500) as proxy:
        recipe = scripted_recipe(tmp_path / "recipe", **changes, sample=asked_of(proxy.url, concurrency=1))
        with pytest.raises(
            PhaseError, match=r"did not answer prompt \w+ .*status 400.*blocks before are kept.*exclude"
        ):
            run_here(recipe, runs_dir=tmp_path)
        kept = list((tmp_path / "tiny/arms/main/rounds/001/candidates").glob("**/*.parquet"))
        assert len(kept) == 1, "a block has 16 candidates"
    with faulty_proxy(server, ["500", "pass", "429", "pass", "disconnect", "malformed"]) as again:
        moved = f"sample.policy.endpoint.url={again.url}"
        found = candidates_of(run_here(recipe, moved, runs_dir=tmp_path))
        assert 32 < again.requests < 48, "some were repeated, and the first block was not asked for again"
    assert [one.text for one in found] == [one.text for one in expected]


def test_an_endpoint_that_cannot_be_asked_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", sample=asked_of("localhost:8000"))
    with pytest.raises(ConfigError, match=r"sample.policy.endpoint.url: 'localhost:8000' is no address"):
        run_here(recipe, runs_dir=tmp_path)
    keyed = scripted_recipe(tmp_path / "keyed", sample=asked_of("http://127.0.0.1:1/v1", key_variable="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="environment variable NO_SUCH_KEY is not set"):
        run_here(keyed, runs_dir=tmp_path)


@pytest.mark.parametrize(
    ("url", "knobs", "name"),
    [
        ("http://me:geheim@127.0.0.1:9/v1", {}, "url"),
        ("http://127.0.0.1:9/v1?api_key=geheim", {}, "url"),
        ("http://127.0.0.1:9/v1", {"body": {"extra_headers": {"Authorization": "geheim"}}}, "body"),
        ("http://127.0.0.1:9/v1", {"body": {"user": "gsk_geheim0123456789abcdef"}}, "body"),
    ],
)
def test_a_key_in_the_recipe_is_refused_and_said_to_nobody(
    tmp_path: Path, url: str, knobs: dict[str, Any], name: str
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", sample=asked_of(url, **knobs))
    with pytest.raises(ConfigError, match=rf"endpoint\.{name} holds a key or a password.*key_variable") as refused:
        run_here(recipe, runs_dir=tmp_path / "runs")
    assert "geheim" not in str(refused.value)
    assert not (tmp_path / "runs").exists()
    assert "geheim" not in json.dumps(shown(compose(str(recipe)).config)), "what a tracker may show"


def test_how_a_server_is_asked_changes_nothing_that_is_committed(tmp_path: Path, server: str) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", rounds=1, arms=[], sample=asked_of(server))
    run = run_here(recipe, runs_dir=tmp_path)
    run_here(recipe, "sample.policy.endpoint.concurrency=2", "sample.policy.endpoint.retries=9", runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)already committed.*policy.endpoint.model"):
        run_here(recipe, "sample.policy.endpoint.model=another", runs_dir=tmp_path)
    assert candidates_of(run)


@pytest.mark.slow
def test_two_ranks_take_the_same_candidates_as_one(tmp_path: Path) -> None:
    recipe = file_recipe(tmp_path / "recipe", rounds=2, arms=["random_selection"])
    two = ranks(recipe, runs_dir=tmp_path / "two")
    output, _ = two.communicate(timeout=300)
    assert two.returncode == 0, output[-4000:]
    assert output.count("1 of 12 prompts have no candidates") == 2, "one rank speaks, once a round"
    one = run_here(recipe, runs_dir=tmp_path / "one")
    assert results_of(tmp_path / "two" / "tiny") == results_of(one)
