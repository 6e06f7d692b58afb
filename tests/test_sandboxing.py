"""Which sandbox a run has: refused without one before anything is done, recorded, kept, said beside every result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from worlds import run_here, scripted_recipe, selftrain

from selftrain import sandboxing
from selftrain.compose import compose
from selftrain.config import Config
from selftrain.drawing import Drawing
from selftrain.errors import ConfigError, SandboxRefused
from selftrain.fingerprints import Fingerprints
from selftrain.recording import record
from selftrain.reporting.terminal import Terminal
from selftrain.sandboxing import Typed
from selftrain.scoring.sandbox import Chosen, choosing
from selftrain.store import RunDirectory
from selftrain.world import World

SOLUTIONS = '''
from pathlib import Path

RIGHT = "def double(n):\\n    return 2 * n\\n"
LEAVES_A_MARK = "from pathlib import Path\\nPath({mark!r}).write_text('executed')\\n"


def answer(prompt, seed, policy_round):
    """Right half of the time. What is written tries to leave a mark outside."""
    code = LEAVES_A_MARK.format(mark=str(Path(__file__).with_name("mark"))) if (seed or 0) % 2 else RIGHT
    return f"```python\\n{code}```"
'''


def code_recipe(folder: Path, **changes: Any) -> Path:
    """Prompts that ask for a function, and answers by script."""
    score = {"scorers": ["code"], "sandbox": {"cpu_seconds": 2.0}}
    path = scripted_recipe(folder, score=score, sample={"max_new_tokens": 300}, arms=[], rounds=1, **changes)
    (folder / "answers.py").write_text(SOLUTIONS)
    for name, size in (("train", 6), ("validate", 3), ("test", 3)):
        rows = [
            {
                "prompt": f"{name} {number}: write double(n)",
                "reference": "def double(n):\n    return n + n",
                "tests": [f"assert double({number}) == {2 * number}", "assert double(-3) == -6"],
                "entry_point": "double",
            }
            for number in range(size)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(recipe: Path) -> Config:
    return compose(str(recipe), layers=[], overrides=[]).config


def of_tier(tier: Any) -> Chosen:
    return Chosen(tier, {"landlock_abi": "7"})


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What this machine offers in the test; `asked` lists the tiers that were asked for."""
    machine: dict[str, Any] = {"tiers": ["bubblewrap", "landlock"], "asked": []}

    def choose(wanted: str = "auto") -> Chosen:
        machine["asked"].append(wanted)
        found = [tier for tier in machine["tiers"] if wanted in ("auto", tier)]
        if not found:
            raise SandboxRefused(f"no {wanted} here")
        return of_tier(found[0])

    monkeypatch.setattr(choosing, "choose", choose)
    return machine


# Without one


def test_with_bubblewrap_and_landlock_taken_away_nothing_is_loaded_or_executed(tmp_path: Path) -> None:
    recipe = code_recipe(tmp_path / "recipe")
    program = (
        "import sys\n"
        "from selftrain.scoring.sandbox import confinement, tiers\n"
        "confinement.landlock_abi = lambda: 0\n"
        "tiers.found_bubblewrap = lambda: None\n"
        "sys.argv = ['selftrain', *sys.argv[1:]]\n"
        "import atexit\n"
        "heavy = ('torch', 'transformers', 'peft', 'trl')\n"
        "atexit.register(lambda: print('LOADED', [name for name in heavy if name in sys.modules]))\n"
        "from selftrain.cli import main\n"
        "main()\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, "run", str(recipe), "--runs-dir", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    seconds = time.monotonic() - started
    assert done.returncode == 77, done.stderr
    assert "LOADED []" in done.stdout
    assert not (tmp_path / "recipe" / "mark").exists()
    assert not (tmp_path / "runs").exists()
    for words in ("bubblewrap:", "landlock:", "apt install bubblewrap", "--unsafe-no-sandbox"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 30  # 2 s on an idle machine; the claim of 5 s is measured apart, tests share theirs


def test_a_recipe_that_runs_no_code_asks_for_no_sandbox(tmp_path: Path, offered: dict[str, Any]) -> None:
    config = config_of(scripted_recipe(tmp_path))
    offered["tiers"] = []
    assert sandboxing.choose(config, Typed(), None, tmp_path) is None
    assert offered["asked"] == []
    with pytest.raises(ConfigError, match="no scorer of this recipe runs code"):
        sandboxing.choose(config, Typed(unsafe_no_sandbox=True), None, tmp_path)


def test_retention_and_arms_need_one_as_well(tmp_path: Path) -> None:
    arm = {"executed": {"score": {"scorers": ["code"]}}}
    assert sandboxing.needs_sandbox(config_of(scripted_recipe(tmp_path / "a", arms=arm)))
    retention = {"prompts": {"retention": "test.jsonl"}, "evaluate": {"retention_scorers": ["code"]}}
    assert sandboxing.needs_sandbox(config_of(scripted_recipe(tmp_path / "b", **retention)))
    assert not sandboxing.needs_sandbox(config_of(scripted_recipe(tmp_path / "c")))


# The same for the whole run


def recorded(tier: str) -> dict[str, Any]:
    return {"tier": tier, "details": {}, "probes_held": 1}


def test_a_run_keeps_the_tier_it_began_with(tmp_path: Path, offered: dict[str, Any]) -> None:
    config = config_of(code_recipe(tmp_path))
    chosen = sandboxing.choose(config, Typed(), recorded("landlock"), tmp_path)
    assert chosen is not None
    assert chosen.tier == "landlock"
    assert offered["asked"] == ["landlock"]


def test_a_tier_that_is_gone_is_not_replaced_unless_typed(tmp_path: Path, offered: dict[str, Any]) -> None:
    config = config_of(code_recipe(tmp_path))
    offered["tiers"] = ["landlock"]
    with pytest.raises(SandboxRefused, match=r"began with the sandbox 'bubblewrap'.*--accept-sandbox-change"):
        sandboxing.choose(config, Typed(), recorded("bubblewrap"), tmp_path)
    chosen = sandboxing.choose(config, Typed(accept_sandbox_change=True), recorded("bubblewrap"), tmp_path)
    assert chosen is not None
    assert chosen.tier == "landlock"


@pytest.mark.parametrize(("before", "unsafe"), [("none", False), ("bubblewrap", True)])
def test_neither_into_nor_out_of_the_sandbox_without_saying_so(
    tmp_path: Path, offered: dict[str, Any], before: str, unsafe: bool
) -> None:
    config = config_of(code_recipe(tmp_path))
    with pytest.raises(ConfigError, match="--accept-sandbox-change"):
        sandboxing.choose(config, Typed(unsafe), recorded(before), tmp_path)
    chosen = sandboxing.choose(config, Typed(unsafe, accept_sandbox_change=True), recorded(before), tmp_path)
    assert chosen is not None
    assert chosen.tier == ("none" if unsafe else "bubblewrap")


def test_a_configured_tier_that_differs_from_the_runs_is_refused(tmp_path: Path, offered: dict[str, Any]) -> None:
    config = config_of(code_recipe(tmp_path))
    score = config.score.model_copy(update={"sandbox": config.score.sandbox.model_copy(update={"tier": "landlock"})})
    with pytest.raises(ConfigError, match="began with the sandbox 'bubblewrap'"):
        sandboxing.choose(config.model_copy(update={"score": score}), Typed(), recorded("bubblewrap"), tmp_path)


def test_arms_of_other_tiers_are_refused(tmp_path: Path, offered: dict[str, Any]) -> None:
    recipe = code_recipe(tmp_path)
    text = recipe.read_text().replace("arms: []", "arms: {weaker: {score: {sandbox: {tier: landlock}}}}")
    recipe.write_text(text)
    with pytest.raises(ConfigError, match="a run has one sandbox"):
        sandboxing.choose(config_of(recipe), Typed(), None, tmp_path)


# In a run


def test_a_run_records_its_sandbox_and_runs_nothing_outside_of_it(tmp_path: Path) -> None:
    recipe = code_recipe(tmp_path / "recipe")
    run = run_here(recipe, runs_dir=tmp_path / "runs")
    about = json.loads((run / "config.json").read_text())["sandbox"]
    assert about["tier"] in ("bubblewrap", "landlock")
    assert about["probes_held"] > 5
    assert not (tmp_path / "recipe" / "mark").exists()
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["caveats"] == []
    kept = json.loads((run / "arms/main/rounds/001/receipts/score-wave-00.json").read_text())["metrics"]
    assert 0 < kept["score/correct_rate"] < 1


def test_without_a_sandbox_it_is_said_everywhere(tmp_path: Path) -> None:
    recipe = code_recipe(tmp_path / "recipe")
    runs = ("--runs-dir", tmp_path / "runs")
    done = selftrain("run", recipe, *runs, "--unsafe-no-sandbox")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "recipe" / "mark").read_text() == "executed"  # else this test, or the one before, shows nothing
    run = tmp_path / "runs" / "tiny"
    assert "WITHOUT A SANDBOX" in done.stderr
    assert "WITHOUT A SANDBOX" in done.stdout
    assert json.loads((run / "config.json").read_text())["sandbox"]["tier"] == "none"
    assert any("WITHOUT A SANDBOX" in one for one in json.loads((run / "verdict.json").read_text())["caveats"])
    assert "WITHOUT A SANDBOX" in selftrain("status", run).stdout
    compared = selftrain("compare", run, run)
    assert "WITHOUT A SANDBOX" in compared.stdout + compared.stderr
    again = selftrain("run", recipe, *runs, "rounds=2")
    assert again.returncode == 2, again.stderr
    assert "--accept-sandbox-change" in again.stderr
    on = selftrain("run", recipe, *runs, "rounds=2", "--accept-sandbox-change")
    assert on.returncode == 0, on.stderr
    assert "another sandbox than before" in on.stderr
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert any(one.get("event") == "sandbox" for one in events)
    # What was judged without one is in the run's results for good.
    assert json.loads((run / "config.json").read_text())["sandbox"]["earlier"] == ["none"]
    assert "WITHOUT A SANDBOX" in on.stdout
    assert "WITHOUT A SANDBOX" in selftrain("status", run).stdout


def test_tiers_that_a_run_has_used_are_kept_and_another_one_is_journalled_once(tmp_path: Path) -> None:
    terminal, about = Terminal(), {"versions": {}}
    first, fork = RunDirectory(tmp_path / "first"), RunDirectory(tmp_path / "fork")
    fork.path.mkdir()
    before = None
    for tier, earlier in (("none", None), ("none", None), ("landlock", ["none"]), ("landlock", ["none"])):
        before = record(first, {**about, "sandbox": sandboxing.from_now_on(before, of_tier(tier))}, terminal)["sandbox"]
        assert before.get("earlier") == earlier
    bare = {**about, "sandbox": sandboxing.from_now_on(before, of_tier("none"))}
    assert record(fork, bare, terminal, before)["sandbox"]["earlier"] == ["landlock"]
    for run in (first, fork):
        events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
        assert len([one for one in events if one["event"] == "sandbox"]) == 1


def test_what_is_said_of_weak_tests_is_said_of_arms_and_retention_too(tmp_path: Path) -> None:
    weak = {"name": "code", "params": {"weak": True}}
    arm = {"executed": {"score": {"scorers": [weak]}}}
    retention = {"prompts": {"retention": "test.jsonl"}, "evaluate": {"retention_scorers": [weak]}}
    for name, changes in (("a", {"arms": arm}), ("b", retention)):
        config = config_of(scripted_recipe(tmp_path / name, **changes))
        assert list(sandboxing.caveats(config, recorded("landlock"))) == [sandboxing.WEAK]
    assert list(sandboxing.caveats(config_of(code_recipe(tmp_path / "c")), recorded("landlock"))) == []


def test_scores_in_hand_are_not_taken_from_another_tier(tmp_path: Path) -> None:
    world = World()
    of_tier_of = {tier: Drawing(tmp_path, world, seed=0, judged_on=tier) for tier in (None, "none", "landlock")}
    marks = {one.judging(None, {}, "scores", "f").fingerprint for one in of_tier_of.values()}  # type: ignore[arg-type]
    assert len(marks) == 3


def test_the_sandboxs_limits_are_part_of_what_retention_was_judged_by(tmp_path: Path) -> None:
    def part(cpu_seconds: float, scorers: list[str]) -> Any:
        score = {"sandbox": {"cpu_seconds": cpu_seconds}}
        recipe = scripted_recipe(tmp_path, score=score, evaluate={"retention_scorers": scorers})
        digests = dict.fromkeys(("train", "validate", "test", "retention"), "d")
        return Fingerprints(config_of(recipe), tmp_path, digests, dict).part("evaluate-retention", 1)

    assert part(1.0, ["code"]) != part(2.0, ["code"])
    assert part(1.0, ["exact"]) == part(2.0, ["exact"])
