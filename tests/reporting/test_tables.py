from selftrain.reporting.tables import RoundRow, aligned, round_lines, rounds_lines

SHARE = (0.61, 0.552, 0.668)
FULL = RoundRow("main", 3, SHARE, SHARE, 0.614, 1234, 1234, 725.0, is_best=True)


def texts(lines):
    return [line.text for line in lines]


def test_the_table_of_rounds_shows_the_baseline_the_best_round_and_what_each_did():
    rows = [RoundRow("main", 0, (0.2, 0.15, 0.25), (0.18, 0.14, 0.22), seconds=12), FULL]
    head, baseline, best, legend = texts(rounds_lines(rows))
    assert head.split() == ["round", "validate", "test", "accept", "kept", "steps", "time"]
    assert baseline.split() == ["0", "20.0%", "[15.0,", "25.0]", "18.0%", "[14.0,", "22.0]", "12", "s"]
    assert best.startswith("  * 3  61.0% [55.2, 66.8]")
    assert best.endswith("61.4%  1,234  1,234  12 min 5 s")
    assert legend.startswith("* best round; ")
    assert [line.look for line in rounds_lines(rows)] == ["head", "plain", "best", "plain"]


def test_the_table_of_rounds_fits_80_columns():
    assert max(map(len, texts(rounds_lines([FULL])))) <= 80


def test_arms_follow_each_other_under_their_names():
    rows = [RoundRow("main", 1, test=SHARE), RoundRow("random_selection", 1, test=(0.3, None, None))]
    _, first, _, second, control, _ = texts(rounds_lines(rows))
    assert (first, second) == ("main", "random_selection")
    assert control.endswith("30.0%")


def test_one_arm_needs_no_name():
    assert "main" not in texts(rounds_lines([FULL]))


def test_the_table_of_a_round_names_each_phase_once_and_keeps_values_harmless():
    rows = [("select", "kept", "312 of 512"), ("select", "why", "\x1b[31mred\n[bold]"), ("train", "loss", "0.71")]
    assert texts(round_lines("main · round 2", rows)) == [
        "main · round 2",
        "  select  kept  312 of 512",
        "          why   red [bold]",
        "  train   loss  0.71",
    ]


def test_wide_characters_do_not_break_the_columns():
    assert aligned([("你好", "x"), ("ab", "y"), ("e\u0301", "z")], right=()) == ["你好  x", "ab    y", "e\u0301     z"]


def test_no_rows_make_a_table_without_columns():
    assert aligned([], right=()) == []
    assert texts(round_lines("main · round 0", [])) == ["main · round 0"]
