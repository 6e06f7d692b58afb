import pytest

from selftrain.reporting import figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (38, "38 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (11_520, "3 h 12 min"),
        (-1e-9, "0.0 s"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_duration_reads_as_people_say_it(seconds, text):
    assert figures.duration(seconds) == text


def test_a_share_has_one_decimal_and_its_interval():
    assert figures.percent(0.614) == "61.4%"
    assert figures.interval(0.61, 0.552, 0.668) == "61.0% [55.2, 66.8]"
    assert figures.interval(0.61) == "61.0%"
    assert figures.percent(None) == figures.percent(float("nan")) == "–"


def test_a_gain_is_in_points_with_signs():
    assert figures.gain(0.435, 0.36, 0.51) == "+43.5 points [+36.0, +51.0]"
    assert figures.gain(-0.02, -0.051, 0.011) == "-2.0 points [-5.1, +1.1]"


def test_a_gain_of_almost_nothing_has_no_negative_zero():
    assert figures.gain(-0.0001, -0.01, 0.01) == "+0.0 points [-1.0, +1.0]"


def test_counts_have_thousands_and_slow_rates_a_decimal():
    assert figures.count(1024) == "1,024"
    assert figures.per_second(8056, 38, "tokens") == "212 tokens/s"
    assert figures.per_second(5, 10, "steps") == "0.5 steps/s"
    assert figures.per_second(5, 0, "steps").endswith(" steps/s")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (19_593_064, "19.6 MB"),
        (999_960, "1.0 MB"),
        (5.4e9, "5.4 GB"),
        (2.5e15, "2,500.0 TB"),
        (None, "–"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(amount, text):
    assert figures.size(amount) == text
