from __future__ import annotations

from groups import make_candidate

from selftrain.records import Score
from selftrain.selection import Kept
from selftrain.selection.survivors import to_survivors


def test_a_survivor_holds_the_sampled_ids_and_learns_the_whole_completion() -> None:
    kept = Kept(make_candidate("p", 0, "57", num_tokens=3), Score("p/0", 1.0, True), "value 1.0 reaches threshold 1.0")
    (survivor,) = to_survivors([kept], round_number=2, prompt_texts={"p": "ask p"})
    assert survivor.token_ids == (1, 2, 10, 11, 12)
    assert survivor.label_mask == (False, False, True, True, True)
    assert (survivor.candidate_id, survivor.prompt_id, survivor.round, survivor.weight) == ("p/0", "p", 2, 1.0)
    assert (survivor.prompt_text, survivor.text, survivor.why) == ("ask p", "57", kept.why)
    assert survivor.value == 1.0
