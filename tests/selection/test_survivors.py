from __future__ import annotations

from groups import make_candidate
from hypothesis import given
from hypothesis import strategies as st

from selftrain.records import Score, Survivor
from selftrain.selection import Kept
from selftrain.selection.survivors import buffer, to_survivors

SETS = st.lists(st.sampled_from("abcdef"), unique=True)


def survivors(names: list[str], round_number: int) -> tuple[Survivor, ...]:
    return tuple(Survivor(name, "p", round_number, (1, 2), (False, True), 1.0, "kept", "ask", "a") for name in names)


def test_a_survivor_holds_the_sampled_ids_and_learns_the_whole_completion() -> None:
    kept = Kept(make_candidate("p", 0, "57", num_tokens=3), Score("p/0", 1.0, True), "value 1.0 reaches threshold 1.0")
    (survivor,) = to_survivors([kept], round_number=2, prompt_texts={"p": "ask p"})
    assert survivor.token_ids == (1, 2, 10, 11, 12)
    assert survivor.label_mask == (False, False, True, True, True)
    assert (survivor.candidate_id, survivor.prompt_id, survivor.round, survivor.weight) == ("p/0", "p", 2, 1.0)
    assert (survivor.prompt_text, survivor.text, survivor.why) == ("ask p", "57", kept.why)


@given(SETS, SETS)
def test_the_buffer_replaces_or_appends_each_candidate_once(current: list[str], earlier: list[str]) -> None:
    now, before = survivors(current, 2), survivors(earlier, 1)
    assert buffer(now, before, "replace") == now
    both = buffer(now, before, "append")
    assert both[: len(before)] == before
    assert [one.candidate_id for one in both] == earlier + [name for name in current if name not in earlier]
