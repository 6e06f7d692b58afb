"""`selftrain curate`: one round without training, resumed after any kill, and the data set that it leaves."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from hub_server import Hub, hub_server
from typer.testing import CliRunner, Result
from worlds import command, results_of, run_here, scripted_recipe, selftrain, write_recipe

from selftrain.cli import app
from selftrain.curating import Destination, curate_recipe
from selftrain.errors import ConfigError, DependencyError, DiskError, PhaseError
from selftrain.outlook import status_of

KILLED = -signal.SIGKILL
PAIRS = {"pairs": "best_worst", "license": "apache-2.0", "language": ["en"], "title": "Numbers, one | two"}
CHAT = {"format": "chat", "system": "Be brief.", "train": "train.jsonl", "validate": "validate.jsonl"}


def curate(recipe: Path, *overrides: str, runs_dir: Path, **destination: Any) -> Path:
    """In this process."""
    place = Destination(**destination)
    return curate_recipe(str(recipe), layers=[], overrides=overrides, runs_dir=runs_dir, destination=place)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def loaded(folder: Path, name: str | None, cache: Path) -> list[dict[str, Any]]:
    found = datasets.load_dataset(str(folder), name, cache_dir=str(cache))
    assert list(found) == ["train"]
    return found["train"].to_list()  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A recipe, its finished curate run, and the publish points that it passed."""
    folder = tmp_path_factory.mktemp("curated")
    recipe = scripted_recipe(folder / "recipe", prompts=CHAT, curate=PAIRS)
    points = folder / "points"
    done = selftrain("curate", recipe, "--runs-dir", folder / "runs", SELFTRAIN_FAULT=f"count:{points}")
    assert done.returncode == 0, done.stderr
    assert "8 examples of 8 prompts; 4 of the 12 prompts asked have none" in done.stdout
    assert "48 sampled > 48 scored" in done.stdout
    return recipe, folder / "runs" / "tiny", points.read_text().splitlines()


def test_the_survivors_are_exported_as_demonstrations_and_pairs(undisturbed: tuple[Path, Path, list[str]]) -> None:
    _, run, _ = undisturbed
    rows = rows_of(run / "export", "prompt_completion")
    assert len(rows) == 8
    for row, whole in zip(rows, rows_of(run / "export", "messages"), strict=True):
        [system, user] = row["prompt"]
        [said] = row["completion"]
        number = int(user["content"].removeprefix("what comes after ").removesuffix("?"))
        assert system == {"role": "system", "content": "Be brief."}
        assert said == {"role": "assistant", "content": str(number + 1)}
        assert whole["messages"] == [system, user, said]
        assert (row["value"], row["why"]) == (1.0, "value 1.0 reaches threshold 1.0")
        assert row["generator"] == "answers.py:answer"
        assert {name: value for name, value in whole.items() if name != "messages"} == {
            name: value for name, value in row.items() if name not in ("prompt", "completion")
        }
    pairs = rows_of(run / "export", "preference")
    assert [one["prompt"] for one in pairs] == [one["prompt"] for one in rows]
    for one in pairs:
        assert (one["chosen_value"], one["rejected_value"]) == (1.0, 0.0)
        assert one["chosen"] != one["rejected"]


def test_datasets_loads_the_folder_by_its_card(undisturbed: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    _, run, _ = undisturbed
    export = run / "export"
    assert loaded(export, None, tmp_path) == rows_of(export, "prompt_completion")
    for name in ("prompt_completion", "messages", "preference"):
        assert loaded(export, name, tmp_path) == rows_of(export, name)


def test_the_card_says_what_was_done(undisturbed: tuple[Path, Path, list[str]]) -> None:
    _, run, _ = undisturbed
    card = (run / "export/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert front["pretty_name"] == "Numbers, one | two"
    assert [one["config_name"] for one in front["configs"]] == ["prompt_completion", "messages", "preference"]
    assert "# Numbers, one \\| two\n" in card
    assert "selftrain curate recipe\n" in card
    for step in ("| sampled | 48 |", "| dedup | 33 |", "| rule | 8 |", "- name: exact", "threshold: 1.0"):
        assert step in card
    assert str(run.parent.parent) not in card, "no path of this machine"


TEN_TIMES = (9, 22, 29, 28, 2, 3, 5, 6, 8, 9)
THRICE = (21, 57, 5)


@pytest.mark.parametrize(
    ("kills", "num_in_export"),
    [
        pytest.param(TEN_TIMES, 6, marks=pytest.mark.slow, id="ten times"),
        pytest.param(THRICE, 1, marks=pytest.mark.slow, id="thrice"),
        pytest.param((20,), 0, id="once"),
    ],
)
def test_killed_again_and_again_the_data_set_is_that_of_a_run_nobody_touched(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path, kills: tuple[int, ...], num_in_export: int
) -> None:
    recipe, reference, _ = undisturbed
    selected = tmp_path / "tiny/arms/main/rounds/001/receipts/select-improve-00.json"
    in_export = 0
    # Each attempt begins where the one before was killed: the later ones have nothing left to do but to export.
    for visits in kills:
        in_export += selected.exists()
        killed = selftrain("curate", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT=str(visits))
        assert killed.returncode == KILLED, (visits, killed.stdout, killed.stderr)
        assert not (tmp_path / "tiny/export").exists(), "whole or not at all"
    assert in_export == num_in_export
    curate(recipe, runs_dir=tmp_path)
    same_as(reference, tmp_path / "tiny")


def same_as(reference: Path, run: Path) -> None:
    assert bytes_of(run / "export") == bytes_of(reference / "export")
    expected = {name: data for name, data in bytes_of(reference / "arms").items() if not name.endswith(".json")}
    there = bytes_of(run / "arms")
    assert {name: there[name] for name in expected} == expected
    assert not list(run.glob("**/.tmp-*"))


@pytest.mark.slow
def test_killed_at_every_publish_point_of_an_export_that_takes_the_place_of_an_older_one(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    recipe, reference, _ = undisturbed
    words = ("curate", recipe, "--runs-dir", tmp_path)
    assert selftrain(*words, "curate.sample_rows=9").returncode == 0
    run, older = tmp_path / "tiny", tmp_path / "older"
    subprocess.run(["cp", "-r", run, older], check=True)
    points = tmp_path / "points"
    assert selftrain(*words, SELFTRAIN_FAULT=f"count:{points}").returncode == 0
    names = points.read_text().splitlines()
    assert {"before rows", "after rows", "before manifest", "before the old export leaves"} <= set(names)
    assert {"before folder rename", "after folder rename"} <= set(names)
    for visits in range(1, len(names) + 1):
        subprocess.run(["rm", "-r", run], check=True)
        subprocess.run(["cp", "-r", older, run], check=True)
        killed = selftrain(*words, SELFTRAIN_FAULT=str(visits))
        assert killed.returncode == KILLED, (visits, killed.stderr)
        there = bytes_of(run / "export") if (run / "export").exists() else {}
        assert there in ({}, bytes_of(older / "export"), bytes_of(reference / "export")), "whole or not at all"
        done = selftrain(*words)
        assert done.returncode == 0, done.stderr
        same_as(reference, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_asked_to_stop_it_leaves_with_75_and_goes_on_later(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    recipe, reference, _ = undisturbed
    with subprocess.Popen(
        command("curate", recipe, "--runs-dir", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        lock = tmp_path / "tiny/run.lock"
        while not lock.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 75, said
    curate(recipe, runs_dir=tmp_path)
    assert bytes_of(tmp_path / "tiny/export") == bytes_of(reference / "export")


@pytest.mark.slow
def test_two_ranks_leave_the_same_data_set_as_one(undisturbed: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    recipe, reference, _ = undisturbed
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["-m", "selftrain", "curate", str(recipe), "--runs-dir", str(tmp_path)]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "tiny/export") == bytes_of(reference / "export")


def test_a_run_goes_on_with_training_from_what_was_curated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", rounds=2)
    export = curate(recipe, runs_dir=tmp_path / "runs")
    before = bytes_of(export)
    run = tmp_path / "runs/tiny"
    status = status_of(run)
    assert (status["state"], status["planned_phases"]) == ("finished", 3)
    assert json.loads((run / "config.json").read_text())["command"] == "curate"
    run_here(recipe, runs_dir=tmp_path / "runs")
    assert "main · round 1 · sample, score, select · already done" in capsys.readouterr().out
    run_here(recipe, runs_dir=tmp_path / "whole")
    curated_first, whole = results_of(run), results_of(tmp_path / "whole/tiny")
    assert curated_first == whole
    assert json.loads((run / "config.json").read_text())["command"] == "run"
    curate(recipe, runs_dir=tmp_path / "runs")
    assert bytes_of(export) == before
    assert status_of(run)["planned_phases"] > 3, "a run stays one"


def test_plan_status_and_show_know_what_is_curated(undisturbed: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    recipe, run, _ = undisturbed

    def told(*words: str | Path) -> Result:
        return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)

    planned = told("plan", recipe)
    assert "selftrain curate ends once round 1 has selected" in planned.stdout
    assert "exports prompt_completion, messages and preference (best_worst)" in planned.stdout
    status = told("status", run)
    assert status.stdout.startswith("tiny: finished\n")
    assert "exports" in status.stdout
    shown = told("show", run, "--round", "1", "--kept")
    assert "what comes after" in shown.stdout


def test_the_export_is_made_anew_where_its_description_changed_and_left_alone_where_nothing_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    export = curate(recipe, runs_dir=tmp_path)
    inode = export.stat().st_ino
    curate(recipe, runs_dir=tmp_path)
    assert export.stat().st_ino == inode
    assert "holds this data set already" in capsys.readouterr().out
    curate(recipe, "curate.license=mit", "curate.pairs=correct_incorrect", runs_dir=tmp_path)
    assert "license: mit" in (export / "README.md").read_text()
    assert (export / "preference.parquet").exists()
    (export / "README.md").write_text("a card of my own")
    curate(recipe, "curate.license=mit", "curate.pairs=correct_incorrect", runs_dir=tmp_path)
    assert (export / "README.md").read_text() == "a card of my own"
    with pytest.raises(ConfigError, match=r"README\.md was changed since the data set was exported"):
        curate(recipe, "curate.license=mit", runs_dir=tmp_path)


def test_a_folder_of_somebody_else_is_never_overwritten(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is no exported data set"):
        curate(recipe, runs_dir=tmp_path, out=out)
    assert [one.name for one in out.iterdir()] == ["chapter.tex"]
    assert not (tmp_path / "tiny").exists(), "known before any work"
    (out / "chapter.tex").unlink()
    assert curate(recipe, runs_dir=tmp_path, out=out) == out, "an empty folder is anybody's"
    assert (out / "README.md").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        curate(recipe, runs_dir=tmp_path, out=tmp_path / "file")


def test_a_place_that_cannot_take_the_data_set_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    runs = tmp_path / "runs"
    (tmp_path / "file").touch()
    for out, said in (
        (runs / "tiny", "in the way of the run directory"),
        (runs, "in the way of the run directory"),
        (runs / "tiny/arms/main/rounds", "in the way of the run directory"),
        (tmp_path / "file/set", "no folder can be made in"),
        (Path("/proc/set"), r"--out /proc/set: no folder can be made in /proc \(.*\); give --out another one"),
        (tmp_path / ("a" * 300), r"--out .*a{300}: File name too long; give --out another folder"),
        (tmp_path / ("a" * 250), r"--out .*a{250}: File name too long"),  # fits, but not with what is put before it
        (Path("/dev/shm" if Path("/dev/shm").is_mount() else "/proc"), "is a mount point|is no exported data set"),
    ):
        with pytest.raises(ConfigError, match=said):
            curate(recipe, runs_dir=runs, out=out)
    assert not runs.exists()
    assert {one.name for one in tmp_path.iterdir()} == {"file", "recipe"}


def test_neither_another_runs_data_set_nor_a_repository_in_it_is_overwritten(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    out = curate(recipe, runs_dir=tmp_path, out=tmp_path / "out")
    before = bytes_of(out)
    with pytest.raises(ConfigError, match="holds the data set of another run, tiny"):
        curate(recipe, "name=other", runs_dir=tmp_path, out=out)
    assert bytes_of(out) == before
    assert not (tmp_path / "other").exists()
    (out / ".git").mkdir()
    (out / ".git/HEAD").write_text("years of commits")
    curate(recipe, runs_dir=tmp_path, out=out)
    with pytest.raises(ConfigError, match=r"\.git was changed since"):
        curate(recipe, "curate.license=mit", runs_dir=tmp_path, out=out)
    assert (out / ".git/HEAD").read_text() == "years of commits"


def test_an_export_that_fails_leaves_nothing_and_the_older_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    out = tmp_path / "out/set"
    curate(recipe, runs_dir=tmp_path, out=out)
    before = bytes_of(out)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fill", "publish_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(f"selftrain.{'curating' if name == 'fill' else 'exporting.publishing'}.{name}", full)
            with pytest.raises(DiskError, match="free some space"):
                curate(recipe, "curate.license=mit", runs_dir=tmp_path, out=out)
        assert bytes_of(out) == before
        assert [one.name for one in out.parent.iterdir()] == ["set"], "what was half written is gone"


def test_an_evaluation_text_is_not_exported_as_a_rejected_answer_either(tmp_path: Path) -> None:
    leaked = "the secret answer of the evaluation set is that nobody knows it at all, not even you"
    recipe = scripted_recipe(
        tmp_path / "recipe",
        sample={"params": {"function": "leaks.py:answer"}},
        select={"decontaminate": {"against": ["evaluation.jsonl"]}, "dedup": "none"},
        curate={"pairs": "best_worst"},
    )
    (tmp_path / "recipe/evaluation.jsonl").write_text(json.dumps({"text": leaked}) + "\n")
    (tmp_path / "recipe/leaks.py").write_text(
        "def answer(prompt, seed, policy_round):\n"
        f"    return [prompt.reference, 'wrong', {leaked!r}][(seed or 0) % 3]\n"
    )
    export = curate(recipe, "sample.num_candidates=9", "sample.max_new_tokens=99", runs_dir=tmp_path)
    rows = rows_of(export, "preference")
    assert {one["rejected"] for one in rows} == {"wrong"}
    assert leaked not in (export / "preference.jsonl").read_text()
    report = tmp_path / "tiny/arms/main/rounds/001/survivors/improve-00/contamination.jsonl"
    assert len(report.read_text().splitlines()) > 0


def test_without_survivors_there_is_nothing_to_export_and_the_funnel_says_why(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", select={"filters": ["never.py:never"]})
    (tmp_path / "recipe/never.py").write_text("def never(text):\n    return 'too dull'\n")
    with pytest.raises(PhaseError, match=r"no candidate survived.* 0 never.*selftrain show"):
        curate(recipe, runs_dir=tmp_path)
    assert not (tmp_path / "tiny/export").exists()


def test_demonstrations_that_were_mixed_in_are_exported_once_each(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", select={"mix_seed_data": 0.75})
    (tmp_path / "recipe/seed.jsonl").write_text(
        "".join(json.dumps({"prompt": f"what comes after {n}?", "completion": str(n + 1)}) + "\n" for n in (900, 901))
    )
    source = {"path": "seed.jsonl", "columns": {"reference": None}}
    config = yaml.safe_load(recipe.read_text())
    write_recipe(tmp_path / "recipe", config, {"prompts": {"seed_data": source}})
    rows = rows_of(curate(recipe, runs_dir=tmp_path), "prompt_completion")
    mixed = [(row["prompt"], row["completion"], row["value"]) for row in rows if row["why"] == "seed_data"]
    assert sorted(mixed) == [("what comes after 900?", "901", None), ("what comes after 901?", "902", None)]
    assert rows[-2:] == [row for row in rows if row["why"] == "seed_data"]


def test_demonstrations_are_mixed_in_where_there_is_no_model(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", train=None, arms=[], select={"mix_seed_data": 0.5})
    (tmp_path / "recipe/candidates.jsonl").write_text(
        "".join(json.dumps({"prompt": f"what comes after {n}?", "completion": str(n + 1)}) + "\n" for n in (1, 2))
    )
    data = yaml.safe_load(recipe.read_text())
    data["sample"] = {"policy": {"file": "candidates.jsonl"}}
    data["prompts"] = {"train": "train.jsonl", "seed_data": "validate.jsonl", "format": "text"}
    recipe.write_text(yaml.safe_dump(data))
    rows = rows_of(curate(recipe, runs_dir=tmp_path), "prompt_completion")
    assert {row["completion"] for row in rows[:2]} == {"2", "3"}
    assert [row["why"] for row in rows[2:]] == ["seed_data", "seed_data"]


def test_secrets_and_places_of_this_machine_stay_out_of_the_card(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    (tmp_path / "recipe/answers2.py").write_text((tmp_path / "recipe/answers.py").read_text())
    params = f"sample.params={{function: {tmp_path}/recipe/answers2.py:answer}}"
    notes = "curate.license_notes='see https://me:geheim@example.org/terms?key=geheim'"
    export = curate(recipe, params, notes, "curate.tags=[hf_0123456789abcdefghij]", runs_dir=tmp_path)
    for name, data in bytes_of(export).items():
        assert str(tmp_path).encode() not in data, name
        assert b"geheim" not in data, name
        assert b"hf_0123" not in data, name


# ------------------------------------------------------------------------------------------------------- to the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        # No token of whoever runs the tests may be used.
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield server


def test_a_data_set_is_pushed_and_pushed_again_as_it_is(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", curate={"pairs": "best_worst"})
    curate(recipe, runs_dir=tmp_path, hub="me/numbers", private=True)
    assert f"pushed to {hub.url}/datasets/me/numbers" in capsys.readouterr().out
    assert hub.private["me/numbers"]
    there = {name: data for name, data in hub.files["me/numbers"].items() if name != ".gitattributes"}
    assert there == bytes_of(tmp_path / "tiny/export")
    curate(recipe, "curate.pairs=none", runs_dir=tmp_path, hub="me/numbers")
    assert "preference.parquet" not in hub.files["me/numbers"], "what an earlier push had and this one has not"
    assert hub.commits == 2


def test_what_the_hub_refuses_is_said_in_words_and_the_export_stays(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    hub.files |= {"me/public": {}, "me/book": {"README.md": b"mine"}}
    hub.private |= {"me/public": False, "me/book": False}
    for name, private, kind, said in (
        ("you/new", False, DependencyError, "the token may not write there"),
        ("me/public", True, ConfigError, "public, and --private was asked for"),
        ("me/book", False, ConfigError, "was not pushed by selftrain and is not overwritten"),
        ("me/..new", False, ConfigError, "--push-to-hub 'me/..new'"),
        ("new", False, ConfigError, "write it as OWNER/NAME"),
    ):
        with pytest.raises(kind, match=said):
            curate(recipe, runs_dir=tmp_path, hub=name, private=private)
    with pytest.raises(ConfigError, match=r"the hub does not take the card: .*license"):
        curate(recipe, "curate.license=beerware", runs_dir=tmp_path, hub="me/new")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DependencyError, match="the hub does not accept the token"):
        curate(recipe, runs_dir=tmp_path, hub="me/new")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="there is no token of the hub"):
        curate(recipe, runs_dir=tmp_path / "elsewhere", hub="me/new")
    assert not (tmp_path / "elsewhere").exists(), "known before any work"
    assert hub.commits == 0
    assert (tmp_path / "tiny/export/README.md").exists()


def test_a_hub_that_cannot_be_reached_costs_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    recipe = scripted_recipe(tmp_path / "recipe")
    with pytest.raises(DependencyError, match=r"the hub cannot be reached.*the same command tries again"):
        curate(recipe, runs_dir=tmp_path, hub="me/new")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    curate(recipe, runs_dir=tmp_path, hub="me/new")
    assert set(bytes_of(tmp_path / "tiny/export")) <= set(hub.files["me/new"])


def test_private_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--private is for --push-to-hub"):
        curate(scripted_recipe(tmp_path / "recipe"), runs_dir=tmp_path, private=True)
