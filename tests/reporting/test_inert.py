import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from selftrain.reporting.inert import inert, inert_lines


def test_escape_sequences_leave_the_text_that_they_dressed():
    assert inert("a\x1b[31mred\x1b[0m\x9b2Jb") == "aredb"
    assert inert("\x1b]0;window title\x07x\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\") == "xlink"
    assert inert("un\x1b]0;ended") == "un"


def test_direction_controls_go_and_letters_of_all_scripts_stay():
    assert inert("abc\u202egnp.exe") == "abcgnp.exe"
    assert inert("שלום 你好 żółć 👩‍👧") == "שלום 你好 żółć 👩‍👧"


def test_line_breaks_stay_only_where_they_may():
    assert inert("one\r\ntwo\tthree\x00") == "one two three\ufffd"
    assert inert_lines("one\r\ntwo\rthree") == "one\ntwo\ufffdthree"


@given(st.text(st.characters()))
def test_whatever_the_text_nothing_can_act_on_a_terminal_and_it_can_be_encoded(text):
    safe = inert(text)
    assert not [character for character in safe if unicodedata.category(character) in ("Cc", "Cs")]
    safe.encode("utf-8")
    assert inert(safe) == safe
