import math

import yaml
from hypothesis import given
from hypothesis import strategies as st

from selftrain.reporting.plan import render, scalar


def test_a_value_that_is_not_the_default_names_its_origin():
    text = render([("sample.temperature", 0.7, "recipe"), ("sample.top_p", 1.0, None)], ["round 1: 64 prompts × 8"])
    first, second, _, step = text.splitlines()
    assert first.split("  # ") == ["sample.temperature: 0.7".ljust(56), "recipe"]
    assert second == "sample.top_p: 1.0"
    assert step == "round 1: 64 prompts × 8"


def test_a_secret_is_not_shown_and_a_count_of_tokens_is():
    text = render([("score.params.api_key", "sk-123", "recipe"), ("sample.max_new_tokens", 64, None)], [])
    assert "sk-123" not in text
    assert text.splitlines()[1] == "sample.max_new_tokens: 64"


def test_text_that_yaml_would_read_otherwise_is_quoted():
    assert [scalar(text) for text in ("null", "1e-5", "on", "", "a: b", "# x", "file.py:f")] == [
        '"null"',
        '"1e-5"',
        '"on"',
        '""',
        '"a: b"',
        '"# x"',
        "file.py:f",
    ]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(one, other):
    if isinstance(one, float) and isinstance(other, str):
        return math.isclose(one, float(other))  # YAML 1.1 reads 1e-05 as text; selftrain's reader reads a number
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(values)
def test_whatever_the_value_its_line_reads_back_as_yaml_and_cannot_act_on_a_terminal(value):
    line = scalar(value)
    assert line.isprintable()
    assert same(value, yaml.safe_load(line))
