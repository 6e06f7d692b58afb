from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.models import Bench
from selftrain.sampling.stopping import Completion, StopRule

TEXT = "1 + 2 = 3\n\nÜber das naïve 日本語 🦊 fox\n## end"


def rule_of(bench: Bench, *stop_strings: str) -> StopRule:
    special = {number for number, token in bench.tokenizer.added_tokens_decoder.items() if token.special}
    return StopRule(bench.decode, frozenset(bench.stop_token_ids), stop_strings, frozenset(special))


def feed(bench: Bench, text: str, rule: StopRule, *, max_tokens: int = 1000) -> Completion:
    completion = Completion(max_tokens)
    for token in bench.tokenizer(text, add_special_tokens=False)["input_ids"]:
        completion.add(token, -1.0, 0.0, rule)
        if completion.finish_reason is not None:
            break
    return completion


@pytest.mark.parametrize("stop", ["\n\n", "日本", "🦊", "naïve", "## end", "ü", "Über", "= 3\n"])
def test_a_stop_string_ends_the_text_before_it(chat_bench: Bench, stop: str) -> None:
    completion = feed(chat_bench, TEXT, rule_of(chat_bench, stop))
    if stop not in TEXT:
        assert completion.finish_reason is None
        return
    assert completion.finish_reason == "stop_string"
    assert completion.text == TEXT[: TEXT.index(stop)]
    assert stop in chat_bench.decode(completion.token_ids)
    assert stop not in chat_bench.decode(completion.token_ids[:-1])


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab é日🦊\n#", max_size=40), stop=st.text(alphabet="ab é日🦊\n#", min_size=1, max_size=6))
def test_stop_strings_are_found_as_soon_as_they_are_there(chat_bench: Bench, text: str, stop: str) -> None:
    completion = feed(chat_bench, text, rule_of(chat_bench, stop))
    if stop in text:
        assert (completion.finish_reason, completion.text) == ("stop_string", text[: text.index(stop)])
        assert stop not in chat_bench.decode(completion.token_ids[:-1])
    else:
        assert completion.finish_reason is None


def test_the_earliest_of_several_stop_strings_cuts(chat_bench: Bench) -> None:
    rule = rule_of(chat_bench, "fox", "x", "f")
    assert rule.cut("a fox") == "a "
    assert rule.cut("nothing") is None


def test_special_tokens_between_do_not_hide_a_stop_string(chat_bench: Bench) -> None:
    special = chat_bench.tokenizer.convert_tokens_to_ids("<|im_start|>")
    ids = chat_bench.tokenizer("#", add_special_tokens=False)["input_ids"]
    completion = Completion(1000)
    for token in [*ids, *[special] * 30, *ids]:
        completion.add(token, -1.0, 0.0, rule_of(chat_bench, "##"))
    assert (completion.finish_reason, completion.text) == ("stop_string", "")


def test_a_stop_token_is_kept_in_the_ids_and_left_out_of_the_text(chat_bench: Bench) -> None:
    completion = feed(chat_bench, "1 + 2<|im_end|>3", rule_of(chat_bench))
    assert (completion.finish_reason, completion.text) == ("stop_token", "1 + 2")
    assert completion.token_ids[-1] == chat_bench.tokenizer.eos_token_id


def test_the_last_token_may_still_complete_a_stop_string(chat_bench: Bench) -> None:
    count = len(chat_bench.tokenizer("1 + 2##", add_special_tokens=False)["input_ids"])
    completion = feed(chat_bench, "1 + 2##", rule_of(chat_bench, "##"), max_tokens=count)
    assert completion.finish_reason == "stop_string"
    assert feed(chat_bench, "1 + 2##", rule_of(chat_bench), max_tokens=count).finish_reason == "length"
