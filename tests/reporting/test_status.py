import json

from selftrain.records import Receipt, Report
from selftrain.reporting import status as page
from selftrain.reporting.status import Holder, PlannedPhase, status
from selftrain.reporting.tables import RoundRow

PHASES = ("sample", "train", "evaluate")
PLANNED = [
    PlannedPhase(f"main/{number}/{phase}", "main", number, phase)
    for number in range(3)
    for phase in (PHASES if number else ("evaluate",))
]


def render(found, rounds=()):
    return "\n".join(line.text for line in page.render(found, rounds))


def receipt(phase):
    return Receipt(
        key=phase.key,
        phase=phase.phase,
        arm=phase.arm,
        round=phase.round,
        fingerprint="f",
        ingredients={},
        output="o",
        rows=1,
        files={},
        metrics={},
        seconds=10.0,
        versions={},
    )


def report(number, value):
    return Report("main", number, {"evaluate/test/pass@1": value, "evaluate/test/mean_tokens": 12.5}, {})


def status_after(num_phases, *, holder=None, reports=()):
    receipts = [receipt(phase) for phase in PLANNED[:num_phases]]
    return status({"name": "a-run"}, PLANNED, receipts, reports, holder=holder)


def test_a_run_that_was_killed_names_the_next_phase_and_the_rounds_that_are_done():
    found = status_after(5, reports=[report(1, 0.5), report(0, 0.25)])
    assert found["state"] == "waiting"
    assert found["next"] == {"arm": "main", "round": 2, "phase": "train"}
    assert found["arms"]["main"]["done_rounds"] == [0, 1]
    text = render(found)
    assert "not running; next: main · round 2 · train (start the same command again)" in text
    assert "main: rounds done: 0, 1 (of 0, 1, 2)" in text
    assert "5 phases committed, 50 s of work in all" in text
    assert "last measured: main · round 1: test pass@1 50.0%" in text
    assert "evaluate/" not in text
    assert "12.5" not in text, "raw metrics are for --json"


def test_a_live_run_names_its_holder():
    text = render(status_after(2, holder=Holder(4711, "a-host")))
    assert "running (pid 4711 on a-host): main · round 1 · train" in text


def test_a_finished_run_says_so():
    found = status_after(len(PLANNED))
    assert (found["state"], found["next"]) == ("finished", None)
    assert render(found).splitlines()[0] == "a-run: finished"


def test_a_run_that_stopped_early_has_nothing_left_to_do():
    receipts = [receipt(phase) for phase in PLANNED[:4]]
    found = status({"name": "a-run"}, PLANNED[:4], receipts, [], holder=None, stopped="no new best in 2 rounds")
    assert (found["state"], found["next"]) == ("finished", None)
    assert "finished: no new best in 2 rounds" in render(found)


def test_a_run_without_any_receipt_starts_at_the_baseline():
    found = status_after(0)
    assert found["next"] == {"arm": "main", "round": 0, "phase": "evaluate"}
    assert "rounds done: none" in render(found)


def test_the_data_is_json_and_the_text_is_made_from_it_alone():
    found = status_after(5, holder=Holder(1, "h"), reports=[report(0, 0.25)])
    assert render(json.loads(json.dumps(found))) == render(found)


def test_a_name_with_escape_sequences_is_inert():
    found = status({"name": "a\x1b[31m"}, [], [], [], holder=None, stopped="\x1b[2Jdone")
    assert "\x1b" not in render(found)


def test_the_table_of_rounds_comes_before_everything_but_the_state():
    rounds = [RoundRow("main", 0, test=(0.25, 0.1, 0.4)), RoundRow("main", 1, test=(0.5, 0.4, 0.6))]
    lines = render(status_after(5, reports=[report(0, 0.25)]), rounds).splitlines()
    assert lines[2].split() == ["round", "test"]
    assert lines[4].split() == ["1", "50.0%", "[40.0,", "60.0]"]
    assert [number for number, line in enumerate(lines) if "rounds done" in line] == [7]


def test_of_sampled_answers_the_largest_k_is_shown_and_older_figures_name_their_round():
    metrics = {"evaluate/test/sampled_pass@1": 0.2, "evaluate/test/sampled_pass@8": 0.75}
    reports = [report(0, 0.25), Report("main", 0, metrics, {}), report(1, 0.5)]
    found = status({"name": "a"}, PLANNED, [], reports, holder=None)
    assert "round 1: test pass@1 50.0%, test sampled pass@8 75.0% (round 0)" in render(found)


def test_what_the_run_weighs_is_told_with_the_heaviest_kind_first():
    disk = {"candidates": 2_000, "adapters": 3_000_000, "scores": 0, "total": 3_002_000}
    found = status({"name": "a"}, [], [], [], holder=None, disk=disk)
    assert found["disk"] == disk
    assert "3.0 MB on disk: adapters 3.0 MB, candidates 2.0 kB" in render(found)
