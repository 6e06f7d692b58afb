import io
import os
import pty
import subprocess
import sys

import pytest

from selftrain.reporting.inert import ESCAPE_SEQUENCE
from selftrain.reporting.tables import Line, RoundRow
from selftrain.reporting.terminal import Terminal


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Screen:
    """A Terminal and what was written to it."""

    def __init__(self, clock, *, is_tty, width=80):
        self.out, self.err = io.StringIO(), io.StringIO()
        self.terminal = Terminal(self.out, self.err, is_tty=is_tty, width=width, clock=clock)

    @property
    def lines(self):
        return self.out.getvalue().splitlines()

    @property
    def text(self):
        return ESCAPE_SEQUENCE.sub("", self.out.getvalue())


@pytest.fixture
def plain(clock):
    return Screen(clock, is_tty=False)


@pytest.fixture(params=[80, 120])
def screen(request, clock):
    return Screen(clock, is_tty=True, width=request.param)


@pytest.fixture(params=["plain", "80", "120"])
def either(request, clock):
    return Screen(clock, is_tty=request.param != "plain", width=80 if request.param == "plain" else int(request.param))


def test_a_quick_phase_is_one_line(plain, clock):
    with plain.terminal.phase("sample", 512, "candidates", arm="main", round=2) as phase:
        clock.now += 9
        phase.advance(512, tokens=2000)
        phase.done("512 candidates", "61% correct")
    assert plain.lines == ["main · round 2 · sample · 512 candidates · 61% correct · 9.0 s · 222 tokens/s"]


def test_a_slow_phase_tells_after_ten_seconds_and_then_at_most_every_thirty(plain, clock):
    with plain.terminal.phase("train", 100, "steps", arm="main", round=1) as phase:
        for _ in range(100):
            clock.now += 1
            phase.advance()
    assert plain.lines == [
        "main · round 1 · train · 10/100 · 1.0 steps/s · 1 min 30 s left",
        "main · round 1 · train · 40/100 · 1.0 steps/s · 1 min 0 s left",
        "main · round 1 · train · 70/100 · 1.0 steps/s · 30 s left",
        "main · round 1 · train · 100/100 · 1.0 steps/s",
        "main · round 1 · train · 100 steps · 1 min 40 s",
    ]


def test_a_phase_of_unknown_length_has_no_time_left(plain, clock):
    with plain.terminal.phase("score", None, "candidates", arm="main", round=1) as phase:
        clock.now += 20
        phase.advance(5)
    assert plain.lines == [
        "main · round 1 · score · 5 candidates · 0.2 candidates/s",
        "main · round 1 · score · 5 candidates · 20 s",
    ]


def test_a_phase_that_fails_says_how_far_it_came_and_lets_the_error_through(either, clock):
    def fail():
        with either.terminal.phase("train", 100, "steps", arm="main", round=1) as phase:
            clock.now += 5
            phase.advance(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "main · round 1 · train · stopped after 5.0 s, 3 steps done" in either.text


def test_a_terminal_shows_a_bar_with_rate_and_time_left_and_takes_it_away(screen, clock):
    with screen.terminal.phase("sample", 512, "candidates", arm="main", round=2) as phase:
        clock.now += 10
        phase.advance(128, tokens=1000)
        assert "128/512 · 100 tokens/s · 30 s left" in screen.text
        assert "━" in screen.text
    assert screen.text.rstrip().endswith("main · round 2 · sample · 128 candidates · 10 s · 100 tokens/s")


def test_a_bar_is_not_redrawn_more_than_ten_times_a_second(screen, clock):
    with screen.terminal.phase("sample", 1000, "candidates", arm="main", round=2) as phase:
        clock.now += 10
        phase.advance()
        before = len(screen.out.getvalue())
        for _ in range(100):
            clock.now += 0.0001
            phase.advance()
        assert len(screen.out.getvalue()) == before


def test_two_phases_at_once_share_the_screen(screen):
    with (
        screen.terminal.phase("sample", 2, "candidates", arm="main", round=1) as sample,
        screen.terminal.phase("score", 2, "candidates", arm="main", round=1) as score,
    ):
        sample.advance(2)
        score.advance(2)
    assert "sample · 2 candidates" in screen.text
    assert "score · 2 candidates" in screen.text


def test_a_warning_during_a_bar_goes_to_stderr_and_the_bar_goes_on(screen, clock):
    with screen.terminal.phase("sample", 512, "candidates", arm="main", round=2) as phase:
        screen.terminal.warn("slow")
        clock.now += 10
        phase.advance(128)
        assert "128/512" in screen.text
    assert "warning: slow" in screen.err.getvalue()
    assert "slow" not in screen.text


def test_rounds_that_were_done_before_are_one_line_and_the_open_round_another(either):
    for number in range(3):
        for name in ("sample", "score"):
            either.terminal.kept(name, arm="main", round=number)
    either.terminal.kept("sample", arm="main", round=3)
    with either.terminal.phase("score", 1, "candidates", arm="main", round=3):
        pass
    assert [line for line in either.text.splitlines() if "already" in line] == [
        "main · rounds 0-2 already done",
        "main · round 3 · sample · already done",
    ]


def test_kept_rounds_of_each_arm_are_told_apart_and_gaps_are_seen(plain):
    for arm, number in [("main", 0), ("main", 1), ("main", 4), ("random_selection", 4)]:
        plain.terminal.kept("evaluate", arm=arm, round=number)
    plain.terminal.final([], [], [])
    assert [line for line in plain.lines if "already" in line] == [
        "main · rounds 0-1 already done",
        "main · round 4 already done",
        "random_selection · round 4 already done",
    ]


def test_the_round_table_shows_every_row(either):
    either.terminal.round_table("main", 2, [("select", "kept", "312 of 512"), ("train", "loss", "0.71")])
    assert [line.strip() for line in either.text.splitlines()][1:] == [
        "main · round 2",
        "select  kept  312 of 512",
        "train   loss  0.71",
    ]


def test_the_end_shows_rounds_verdict_and_whole_paths(either):
    path = "runs/a-run/" + "deep/" * 30 + "adapter"
    rows = [RoundRow("main", 0, test=(0.2, 0.1, 0.3)), RoundRow("main", 1, test=(0.6, 0.5, 0.7), is_best=True)]
    either.terminal.final(rows, ["Round 1 gains +40.0 points."], [("best adapter", path), ("metrics", "m.jsonl")])
    lines = either.text.splitlines()
    assert any(line.startswith("  * 1  60.0% [50.0, 70.0]") for line in lines)
    assert "Round 1 gains +40.0 points." in lines
    assert lines[-2:] == [f"best adapter  {path}", "metrics       m.jsonl"]


def test_text_from_data_is_inert_and_markup_is_shown_as_it_is(either):
    either.terminal.info("[red]not markup[/red] \x1b[31mnot red\x1b[0m :smile: \x07 [/]")
    either.terminal.error("line one\nline [bold]two\x1b]0;title\x07")
    with either.terminal.phase("[blink]\x1b[5mx", 1, "[b]", arm="[u]", round=1) as phase:
        phase.advance()
    assert "[red]not markup[/red] not red :smile: \ufffd [/]" in either.text
    assert "\x1b[31m" not in either.out.getvalue()
    assert "[u] · round 1 · [blink]x · 1 [b]" in either.text
    assert "line one\nline [bold]two" in ESCAPE_SEQUENCE.sub("", either.err.getvalue())
    assert "title" not in either.err.getvalue()


def test_plain_output_has_no_escape_sequence(plain):
    plain.terminal.warn("w")
    plain.terminal.error("e")
    plain.terminal.final([RoundRow("main", 1, is_best=True)], ["Better."], [])
    assert "\x1b" not in plain.out.getvalue() + plain.err.getvalue()


def test_an_encoding_without_the_dot_gets_a_replacement(clock):
    raw = io.BytesIO()
    terminal = Terminal(io.TextIOWrapper(raw, "ascii"), io.StringIO(), is_tty=False, clock=clock)
    with terminal.phase("sample", 1, "candidates", arm="main", round=1):
        pass
    assert raw.getvalue() == b"main ? round 1 ? sample ? 0 candidates ? 0.0 s\n"


@pytest.mark.parametrize("is_tty", [False, True])
def test_a_display_that_is_gone_does_not_end_the_run(clock, is_tty):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    terminal = Terminal(stream, stream, is_tty=is_tty, width=80, clock=clock)
    with terminal.phase("sample", 10, "candidates", arm="main", round=1) as phase:
        clock.now += 20
        phase.advance(5)
        terminal.warn("into the void")
    terminal.final([], ["Better."], [])
    with pytest.raises(BrokenPipeError):
        stream.close()


PROGRAM = """
from selftrain.reporting.terminal import Terminal
terminal = Terminal()
with terminal.phase("sample", 4, "candidates", arm="main", round=1) as phase:
    for _ in range(4):
        phase.advance()
print("tty" if terminal.is_tty else "plain")
"""


@pytest.mark.parametrize(("kind", "expected"), [("xterm", "tty"), ("dumb", "plain")])
def test_a_real_terminal_is_recognised(kind, expected):
    controller, device = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", PROGRAM], stdout=device, env=environment, check=True)
    os.close(device)
    shown = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # how Linux says that the other side of a pty is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(controller)
    assert shown.decode().splitlines()[-1] == expected
    assert ("━" in shown.decode()) == (expected == "tty")


def test_a_page_is_shown_over_the_one_before_on_a_terminal_and_stays_at_the_end():
    stream = io.StringIO()
    terminal = Terminal(stream, stream, is_tty=True, width=80)
    with terminal.in_place() as show:
        show([Line("first"), Line("page")])
        show([Line("second"), Line("page")])
    text = stream.getvalue()
    assert "\x1b[1A" in text, "the cursor moves up over the page before"
    assert text.endswith("second\npage\n"), "the last page stays"


def test_pages_follow_each_other_where_no_terminal_is():
    stream = io.StringIO()
    terminal = Terminal(stream, stream, is_tty=False, width=80)
    with terminal.in_place() as show:
        show([Line("first")])
        show([Line("second")])
    assert stream.getvalue() == "first\n\nsecond\n\n"
