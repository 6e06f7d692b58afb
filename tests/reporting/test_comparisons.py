from __future__ import annotations

from typing import Any

from selftrain.reporting.comparisons import render


def row(name: str, value: float, **more: Any) -> dict[str, Any]:
    level = {"estimate": value, "low": value - 0.05, "high": value + 0.05, "unscored": 0}
    plain = {
        "name": name,
        "round": 3,
        "seed": 0,
        "pass@1": level,
        "arms": {},
        "seconds": 125.0,
        "sampled_tokens": 12345,
    }
    return plain | more


def difference(name: str, **more: Any) -> dict[str, Any]:
    line = f"{name} against first: test pass@1 61.0% against 55.0%, +6.0 points [+1.0, +11.0] (95 %, paired bootstrap)"
    return {"over": "first", "name": name, "line": line, "knobs": [], "warnings": []} | more


def data(**more: Any) -> dict[str, Any]:
    runs = [row("first", 0.55), row("second", 0.61)]
    return {"set": "test", "runs": runs, "differences": [difference("second")], "seeds": None, "notes": []} | more


def test_runs_stand_in_a_table_and_differences_in_words() -> None:
    assert render(data()).splitlines() == [
        "greedy pass@1 on test prompts, at the headline round of each run",
        "",
        "run     round              pass@1  seed       time  tokens",
        "first       3  55.0% [50.0, 60.0]     0  2 min 5 s  12,345",
        "second      3  61.0% [56.0, 66.0]     0  2 min 5 s  12,345",
        "time and sampled tokens are of the arm compared, over all its rounds; what it",
        "  shares with main counts there",
        "",
        "second against first: test pass@1 61.0% against 55.0%, +6.0 points [+1.0, +11.0]",
        "  (95 %, paired bootstrap)",
    ]


def test_arms_and_unscored_prompts_stand_under_the_table() -> None:
    level = {"estimate": 0.5, "low": 0.4, "high": 0.6, "unscored": 2}
    text = render(data(runs=[row("first", 0.55, arms={"gold": level}), row("second", 0.6, **{"pass@1": level})]))
    assert "arms of first: gold 50.0% [40.0, 60.0]" in text.splitlines()
    assert "unscored, and so left out: second 2" in text.splitlines()


def test_knobs_warnings_and_notes_follow_what_they_are_about() -> None:
    one = difference("second", knobs=["train.epochs: 1.0 -> 2.0"], warnings=["the test sets are not the same"])
    lines = render(data(differences=[one], notes=["second is not finished"])).splitlines()
    assert lines[-5:] == [
        "careful: the test sets are not the same",
        "knobs of second that differ from first's:",
        "  train.epochs: 1.0 -> 2.0",
        "",
        "note: second is not finished",
    ]


def test_what_seeds_say_together_is_wrapped_with_its_indentation() -> None:
    lines = ["seeds 0, 1: headline rounds 3, 3", "  95 %: " + "other seeds, these prompts " * 5]
    text = render(data(seeds={"lines": lines}))
    assert "\nseeds 0, 1: headline rounds 3, 3\n  95 %: other seeds" in text
    assert "\n    other seeds" in text or "\n    these" in text or "\n    seeds" in text or "\n    prompts" in text


def test_bounds_are_not_torn_apart_at_the_end_of_a_line() -> None:
    for length in range(20):
        text = render(data(differences=[difference("second", line=f"{'x' * length} {'word ' * 11}[+1.0, +11.0] more")]))
        assert "[+1.0, +11.0]" in text


def test_every_line_but_a_long_word_fits_80_columns_and_is_inert() -> None:
    knob = "train.lora.target_modules: " + repr(["q_proj", "k_proj", "v_proj"] * 6)
    one = difference("second\x1b[31m", knobs=[knob], warnings=["word " * 60])
    text = render(data(differences=[one], notes=["word " * 60, "\x1b[2J"]))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
