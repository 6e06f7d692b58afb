from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from blocks import block_of, chat, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CORPUS, build_model

from selftrain.config import ModelConfig, SampleConfig
from selftrain.errors import ConfigError, DataError
from selftrain.models import Bench
from selftrain.records import Prompt
from selftrain.sampling import build
from selftrain.sampling.stopping import Completion, with_stop
from selftrain.sampling.transformers_engine import TransformersSampler

TEXT, CHAT = plain("28 + 57 =")[0], chat("28 + 57 =")[0]
ALPHABET = "ab é日🦊\n#1 "


def sampler_of(bench: Bench, **knobs: object) -> TransformersSampler:
    return TransformersSampler(SampleConfig(**knobs), lambda: bench, Path())  # type: ignore[arg-type]


def forced(sampler: TransformersSampler, ids: tuple[int, ...], *stop_strings: str) -> Completion:
    """Generation that is made to draw these ids."""
    completion = Completion(max_tokens=1000)
    for number, token_id in enumerate(ids, 1):
        completion.add(token_id, -1.0, 0.0, sampler._stop_rule(stop_strings))
        assert (completion.finish_reason is not None) == (number == len(ids)), "ends with the last id, not before"
    return completion


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=ALPHABET, max_size=30), prompt=st.sampled_from([TEXT, CHAT]))
def test_a_completion_ends_with_a_stop_token_and_reads_as_its_text(
    chat_bench: Bench, text: str, prompt: Prompt
) -> None:
    sampler = sampler_of(chat_bench)
    ids = sampler.encode_completion(prompt, text)
    assert chat_bench.decode(ids) == text
    assert ids[-1] == chat_bench.tokenizer.eos_token_id
    completion = forced(sampler, ids)
    assert (completion.text, completion.finish_reason) == (text, "stop_token")


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=ALPHABET, max_size=30), stop=st.sampled_from(["\n\n", "🦊🦊", "##", "\n", "é", " b"]))
def test_a_completion_ends_with_the_stop_string_or_says_that_it_is_inside(
    chat_bench: Bench, text: str, stop: str
) -> None:
    sampler = sampler_of(chat_bench, stop_strings=(stop, "never"))
    start = (text + stop).index(stop)
    if not stop.startswith(text[start:]):
        with pytest.raises(DataError, match="goes on after a stop string"):
            sampler.encode_completion(TEXT, text)
        return
    ids = sampler.encode_completion(TEXT, text)
    assert chat_bench.decode(ids) == text[:start] + stop
    completion = forced(sampler, ids, stop, "never")
    assert (completion.text, completion.finish_reason) == (text[:start], "stop_string")


def test_text_and_stop_string_are_encoded_together_so_that_they_merge(chat_bench: Bench) -> None:
    def encode(text: str) -> tuple[int, ...]:
        return tuple(chat_bench.tokenizer(text, add_special_tokens=False)["input_ids"])

    assert len(encode(" 28")) == 1 < len(encode(" 2") + encode("8"))
    assert sampler_of(chat_bench, stop_strings=("8",)).encode_completion(TEXT, " 2") == encode(" 28")


def test_a_completion_has_no_bos_whatever_the_tokenizer_puts_before_texts(text_bench: Bench) -> None:
    ids = sampler_of(text_bench).encode_completion(TEXT, " 85")
    assert text_bench.tokenizer.bos_token_id in text_bench.render(TEXT)
    assert text_bench.tokenizer.bos_token_id not in ids
    assert (text_bench.decode(ids), ids[-1]) == (" 85", text_bench.tokenizer.eos_token_id)


def test_an_answer_to_messages_ends_as_the_template_says_and_one_to_a_text_with_eos(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", chat=True)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"eos_token": "<|endoftext|>"}))
    bench = Bench(ModelConfig(path=str(folder), device="cpu"))
    ids = bench.tokenizer.convert_tokens_to_ids
    assert sampler_of(bench).encode_completion(CHAT, "85")[-1] == ids("<|im_end|>")
    assert sampler_of(bench).encode_completion(TEXT, " 85")[-1] == ids("<|endoftext|>")


def test_without_eos_a_stop_token_of_the_recipe_ends_a_completion_or_there_is_none(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", chat=False)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"eos_token": None}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    (folder / "generation_config.json").unlink()
    bench = Bench(ModelConfig(path=str(folder), device="cpu"))
    assert sampler_of(bench, stop_token_ids=(0,)).encode_completion(TEXT, " 85")[-1] == 0
    with pytest.raises(ConfigError, match=r"set sample\.stop_strings"):
        sampler_of(bench).encode_completion(TEXT, " 85")


def test_a_special_token_in_a_completion_is_refused(chat_bench: Bench) -> None:
    with pytest.raises(DataError, match="comes back as '8585'"):
        sampler_of(chat_bench).encode_completion(TEXT, "85<|im_end|>85")


def test_a_stop_token_of_the_recipe_inside_a_completion_is_refused(chat_bench: Bench) -> None:
    (token,) = chat_bench.tokenizer("#", add_special_tokens=False)["input_ids"]
    with pytest.raises(DataError, match=r"would have ended after 2 of its 4 tokens, as 'a'"):
        sampler_of(chat_bench, stop_token_ids=(token,)).encode_completion(TEXT, "a#b")


def bench_with(folder: Path, tokenizer: object) -> Bench:
    from transformers import PreTrainedTokenizerFast

    shutil.rmtree(folder, ignore_errors=True)
    build_model(folder, chat=False)
    (folder / "tokenizer.json").unlink()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return Bench(ModelConfig(path=str(folder), device="cpu"))


def test_no_space_is_put_before_a_completion_by_a_tokenizer_that_puts_one_before_texts(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "a"], trainer)
    bench = bench_with(tmp_path / "model", tokenizer)
    before = bench.render(TEXT)
    plainly = tuple(bench.tokenizer("85", add_special_tokens=False)["input_ids"])
    assert bench.decode((*before, *plainly)) == "28 + 57 = 85", "the trap: a space that is not in the completion"
    for text in ("85", " 85", "  85"):
        assert bench.decode((*before, *sampler_of(bench).encode_completion(TEXT, text))) == "28 + 57 =" + text


def test_a_tokenizer_that_composes_accents_may_write_them_composed(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    bench = bench_with(tmp_path / "model", tokenizer)
    assert bench.decode(sampler_of(bench).encode_completion(TEXT, "cafe\u0301")) == "caf\u00e9"


@pytest.mark.parametrize("stop_strings", [(), ("\n",), ("\n\n", "##")])
def test_the_scripted_engine_writes_a_completion_as_it_answers(tmp_path: Path, stop_strings: tuple[str, ...]) -> None:
    (tmp_path / "answers.py").write_text(
        f"def answer(prompt, seed, policy_round):\n    return {' né' + ''.join(stop_strings[:1])!r}\n"
    )
    knobs = {"engine": "scripted", "params": {"function": "answers.py:answer"}, "stop_strings": stop_strings}
    sampler = build(SampleConfig(**knobs), lambda: pytest.fail("no model is needed"), tmp_path)  # type: ignore[arg-type]
    (one,) = sampler.sample(block_of(sampler, [TEXT], num_candidates=1, stop_strings=stop_strings))
    assert sampler.encode_completion(TEXT, one.text) == one.completion_token_ids
    assert one.entropy == 0.0


@pytest.mark.parametrize(
    ("text", "written"),
    [("a", "a\n\n"), ("a\n", "a\n\n"), ("a\n\n", "a\n\n"), ("a#", "a#\n\n"), ("", "\n\n")],
)
def test_a_text_may_end_with_a_stop_string_or_its_beginning_already(text: str, written: str) -> None:
    assert with_stop(text, ("\n\n", "##"), "it") == written
    assert with_stop(text, (), "it") == text


def test_a_text_that_goes_on_after_a_stop_string_is_named() -> None:
    with pytest.raises(DataError, match=r"it goes on after a stop string, .*'first', then '\\nsecond'"):
        with_stop("first\nsecond", ("\n",), "it")


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(alphabet=ALPHABET, max_size=20), max_size=6), prompt=st.sampled_from([TEXT, CHAT]))
def test_many_texts_are_encoded_as_each_would_be_alone(chat_bench: Bench, texts: list[str], prompt: Prompt) -> None:
    sampler = sampler_of(chat_bench)
    found = sampler.encode_written(prompt, [(text, "stop_token") for text in texts])
    assert found == [sampler.encode_completion(prompt, text) for text in texts]
    cut = sampler.encode_written(prompt, [(text, "length") for text in texts])
    assert cut == [ids[:-1] for ids in found if isinstance(ids, tuple)]


def test_of_many_texts_those_that_cannot_be_encoded_say_why_and_the_others_are(chat_bench: Bench) -> None:
    texts = ["58", "5<|im_end|>8", "a ## b", "a ##"]
    sampler = sampler_of(chat_bench, stop_strings=("##",))
    found = sampler.encode_written(TEXT, [(text, "stop_token") for text in texts])
    assert [isinstance(one, DataError) for one in found] == [False, True, True, False]
    assert "cannot be written in the model's tokens" in str(found[1])
    assert "goes on after a stop string" in str(found[2])
    assert found[3] == sampler.encode_completion(TEXT, "a ##")
    (whole,) = sampler.encode_written(TEXT, [("a ## b", "length")])
    assert isinstance(whole, DataError), "the policy would have stopped inside"
