from selftrain.reporting.estimates import render

WORK = [
    ("arm", "round", "prompts", "candidates", "tokens", "evaluated", "tokens"),
    ("main", "0", "", "", "", "", ""),
    ("main", "1-2, each", "128", "512", "2,048", "", ""),
    ("in all", "", "256", "1,024", "4,096", "", ""),
]


def test_an_arm_is_named_once_and_columns_without_numbers_are_left_out():
    lines = render(WORK, [], []).splitlines()
    assert lines[1].split() == ["arm", "round", "prompts", "candidates", "tokens"]
    assert lines[3].split() == ["1-2,", "each", "128", "512", "2,048"]
    assert lines[4].split()[-1] == "4,096"


def test_what_a_figure_rests_on_stands_beside_it_and_what_does_not_fit_at_the_end():
    rows = [("disk", "about 3 MB", "adapters 3 MB, " * 20), ("time", "unknown until a run has been made", "")]
    lines = render(WORK, rows, ["sampling needs 4 GB, and 2 GB are there"]).splitlines()
    assert "  disk  about 3 MB (adapters 3 MB," in "\n".join(lines)
    assert max(map(len, lines)) <= 118
    assert "  time  unknown until a run has been made" in lines
    assert lines[-1] == "does not fit: sampling needs 4 GB, and 2 GB are there"


def test_paths_with_escape_sequences_are_inert():
    assert "\x1b" not in render([("a\x1b[31m",)], [("x\x1b[2J", "1\x1b[2J", "runs/\x1b[31m")], ["\x1b[2J"])
