"""What holds for every tokenizer: prompts as its template says, its own stop tokens, sampled ids as training ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, Family, build_family
from trl import SFTTrainer

from selftrain import selection
from selftrain.config import ModelConfig, SampleConfig, SelectConfig, ThinkingConfig, TrainConfig
from selftrain.errors import ConfigError, DataError
from selftrain.models import Bench
from selftrain.records import (
    Block,
    Candidate,
    Digest,
    Group,
    Message,
    Policy,
    Prompt,
    SamplingParameters,
    Score,
    Survivor,
    seed_from,
)
from selftrain.sampling import Sampler, build
from selftrain.sampling.stopping import Completion
from selftrain.sampling.thinking import cut
from selftrain.selection.survivors import to_survivors
from selftrain.training.sft import SftTrainer
from selftrain.world import World

QUESTIONS = ("12 + 7 =", "the quick  brown fox\n3 + 4 =", "日本 é 5 + 5 =")
# As a policy of each format would write them, with the space before them where the format has one.
WRITTEN = ("57", " 57", "a\n\n b ", "é🦊 日", " jumps over")
BASE = Digest("base")


@dataclass
class Subject:
    """A family with its saved model, and candidates that its model sampled."""

    family: Family
    folder: Path
    thinking: ThinkingConfig | None = None

    @cached_property
    def bench(self) -> Bench:
        return Bench(ModelConfig(path=str(self.folder), device="cpu", thinking=self.thinking))

    @cached_property
    def sampler(self) -> Sampler:
        return build(SampleConfig(), lambda: self.bench, Path(), self.thinking)

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        if self.family.format == "text":
            return tuple(Prompt(one, one, None, one) for one in QUESTIONS)
        return tuple(Prompt(one, one, (Message("user", one),), None) for one in QUESTIONS)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.sample()

    def sample(self, *stop_strings: str) -> tuple[Candidate, ...]:
        count = 24
        block = Block(
            index=0,
            prompts=self.prompts,
            prompt_token_ids=tuple(self.sampler.render(one) for one in self.prompts),
            shared_prefix_length=0,
            num_candidates=count,
            seeds=tuple(tuple(seed_from("families", one.id, index) for index in range(count)) for one in self.prompts),
            candidate_ids=tuple(tuple(f"{one.id}/{index}" for index in range(count)) for one in self.prompts),
            wave=0,
            parameters=SamplingParameters(1.0, 1.0, 0, 0.0, 40, stop_strings),
            policy=Policy(str(self.folder), None, 0, BASE),
        )
        return self.sampler.sample(block)

    def id_of(self, token: str) -> int:
        return int(self.bench.tokenizer.convert_tokens_to_ids(token))


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def subject(name: str) -> Subject:
        folder = tmp_path_factory.mktemp("families")
        thinking = ThinkingConfig() if FAMILIES[name].plain_tokens else None
        return Subject(FAMILIES[name], build_family(folder, FAMILIES[name]), thinking)

    return subject


@pytest.fixture(params=list(FAMILIES))
def subject(request: pytest.FixtureRequest, subjects: Any) -> Subject:
    return subjects(request.param)  # type: ignore[no-any-return]


def test_prompts_are_rendered_byte_for_byte_as_the_template_says(subject: Subject) -> None:
    tokenizer = subject.bench.tokenizer
    for prompt in subject.prompts:
        ids = subject.sampler.render(prompt)
        if prompt.messages is None:
            assert prompt.text is not None
            assert subject.bench.decode(ids) == prompt.text
            continue
        turns = [{"role": one.role, "content": one.content} for one in prompt.messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_every_prompt_has_one_bos_where_the_family_has_one_and_never_eos_at_its_end(subject: Subject) -> None:
    for prompt in subject.prompts:
        ids = subject.sampler.render(prompt)
        if subject.family.bos is not None:
            bos = subject.id_of(subject.family.bos)
            assert (ids[0], ids.count(bos)) == (bos, 1)
        assert ids[-1] not in subject.bench.stop_token_ids


def test_the_stop_tokens_are_those_of_all_files_and_a_written_answer_ends_with_the_turns_own(subject: Subject) -> None:
    assert subject.bench.stop_token_ids == tuple(sorted(map(subject.id_of, subject.family.stops)))
    assert subject.bench.end_of_answer(subject.prompts[0]) == subject.id_of(subject.family.end)


def forced(subject: Subject, ids: Sequence[int], *stop_strings: str) -> Completion:
    """Generation that is made to draw these ids."""
    completion = Completion(max_tokens=1000)
    for token_id in ids:
        assert completion.finish_reason is None
        completion.add(token_id, -1.0, 0.0, subject.sampler._stop_rule(stop_strings))  # type: ignore[attr-defined]
    return completion


@pytest.mark.parametrize("text", WRITTEN)
def test_a_written_completion_comes_back_as_it_was_with_its_spaces(subject: Subject, text: str) -> None:
    text = text if subject.thinking is None else f"so</think>{text}"  # its prompts open the reasoning
    for prompt in subject.prompts:
        ids = subject.sampler.encode_completion(prompt, text)
        completion = forced(subject, ids)
        assert (completion.text, completion.finish_reason) == (text, "stop_token")
        assert ids[-1] == subject.id_of(subject.family.end)
        assert subject.family.bos is None or subject.id_of(subject.family.bos) not in ids


def test_sampled_text_goes_on_where_the_prompt_ends_no_space_lost_and_the_stop_token_apart(subject: Subject) -> None:
    bench = subject.bench
    stopped = [one for one in subject.candidates if one.finish_reason == "stop_token"]
    assert stopped, "some candidates must stop by themselves"
    for one in subject.candidates:
        ids = one.completion_token_ids
        stops = [number for number in ids if number in bench.stop_token_ids]
        assert stops == ([ids[-1]] if one in stopped else [])
        spoken = ids[:-1] if one in stopped else ids
        if one.reasoning is None:
            assert bench.decode(one.prompt_token_ids + spoken) == bench.decode(one.prompt_token_ids) + one.text
    assert any(one.text.startswith(" ") for one in subject.candidates) or subject.thinking is not None


def kept(candidates: Sequence[Candidate], **knobs: Any) -> tuple[Survivor, ...]:
    """Through the real selection: every finished candidate."""
    by_prompt: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_prompt.setdefault(one.prompt_id, []).append(one)
    groups = [
        Group(Prompt(name, name, None, name), tuple(ones), tuple(Score(one.id, 1.0, True) for one in ones))
        for name, ones in by_prompt.items()
    ]
    chosen = selection.select(groups, SelectConfig(dedup="none", **knobs), seed=0)
    texts = {name: name for name in by_prompt}
    return to_survivors(chosen.kept, round_number=1, prompt_texts=texts, train_on=knobs.get("train_on", "completion"))


def trained(subject: Subject, survivors: Sequence[Survivor], folder: Path) -> list[tuple[tuple[int, ...], ...]]:
    """One epoch of the real trainer: the ids and labels of each example, as they are in its batches."""
    seen: list[tuple[tuple[int, ...], ...]] = []
    step = SFTTrainer.training_step

    def recorded(trainer: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
            length = int(mask.sum())
            assert bool((labels[length:] == -100).all()), "padding is never trained on"
            seen.append((tuple(ids[:length].tolist()), tuple(labels[:length].tolist())))
        return step(trainer, model, inputs, *rest)

    (folder / "out").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SFTTrainer, "training_step", recorded)
        SftTrainer(lambda: subject.bench).train(
            survivors,
            start=Policy(str(subject.folder), None, 0, BASE),
            out=folder / "out",
            work=folder / "work",
            config=TrainConfig(batch_size=8, lora={"r": 2}),
            seed=1,
            should_stop=lambda: False,
            on_step=lambda row: None,
            world=World(),
        )
    return seen


def test_what_was_sampled_is_what_is_trained_on_to_the_id(subject: Subject, tmp_path: Path) -> None:
    # Where the prompt opens it, the reasoning of random weights never ends, and a blank answer would not survive.
    candidates = [replace(one, text=one.text or "an answer") for one in subject.candidates]
    finished = [one for one in candidates if one.finish_reason == "stop_token"]
    survivors = kept(candidates)
    assert sorted(one.candidate_id for one in survivors) == sorted(one.id for one in finished)
    expected = [
        (
            one.prompt_token_ids + one.completion_token_ids,
            (-100,) * len(one.prompt_token_ids) + one.completion_token_ids,
        )
        for one in finished
    ]
    assert sorted(trained(subject, survivors, tmp_path)) == sorted(expected)


def test_messages_of_a_family_without_a_template_are_refused(subjects: Any) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.format=text"):
        subjects("GPT-2").sampler.render(Prompt("p", "p", (Message("user", "hello"),), None))


# Reasoning: the prompt of "Qwen 3" opens it.


def test_sampled_reasoning_is_cut_off_and_the_answer_alone_can_be_trained_on(subjects: Any, tmp_path: Path) -> None:
    subject = subjects("Qwen 3")
    candidates = subject.sample("a", "7")
    closed = [one for one in candidates if subject.id_of("</think>") in one.completion_token_ids]
    assert closed
    assert all(one.reasoning is not None for one in candidates)
    for one in candidates:
        reasoning, answer = (
            one.completion_token_ids[: one.reasoning_tokens],
            one.completion_token_ids[one.reasoning_tokens :],
        )
        if one in closed:
            assert reasoning.index(subject.id_of("</think>")) == len(reasoning) - 1
            assert subject.bench.decode(reasoning) == f"{one.reasoning}</think>"
            assert subject.bench.decode(answer).startswith(one.text)
        else:
            assert (one.text, answer) == ("", ())
    survivors = kept(candidates, train_on="answer")
    assert {one.candidate_id for one in survivors} == {one.id for one in closed if one.finish_reason != "length"}
    for ids, labels in trained(subject, survivors, tmp_path):
        end = ids.index(subject.id_of("</think>"))
        assert set(labels[: end + 1]) == {-100}
        assert labels[end + 1 :] == ids[end + 1 :]


@pytest.mark.parametrize("special", [False, True], ids=["plain added tokens", "special tokens"])
def test_tags_are_seen_whether_or_not_decoding_skips_them(subjects: Any, tmp_path: Path, special: bool) -> None:
    family = FAMILIES["Qwen 3"]
    folder = build_family(tmp_path / "model", family)
    if special:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": list(family.plain_tokens)})
        tokenizer.save_pretrained(folder)
    subject = Subject(family, folder, ThinkingConfig())
    assert (subject.id_of("<think>") in subject.bench.tokenizer.all_special_ids) == special
    with pytest.raises(DataError, match="never ends its reasoning"):
        subject.sampler.encode_completion(subject.prompts[0], "so 4")
    ids = subject.sampler.encode_completion(subject.prompts[0], "so 4</think>\n\n5 <|x|>")
    assert subject.id_of("</think>") in ids
    assert forced(subject, ids).text == "so 4</think>\n\n5 <|x|>"
    assert subject.bench.decode(subject.sampler.render(subject.prompts[0])).endswith("assistant\n<think>\n")


def test_tags_may_be_made_of_several_special_tokens(subjects: Any) -> None:
    """As gpt-oss marks its channels."""
    header = "<|start_header_id|>{}<|end_header_id|>"
    tags = ThinkingConfig(open=header.format("analysis"), close=header.format("final"))
    subject = Subject(subjects("Llama 3").family, subjects("Llama 3").folder, tags)
    encoded = subject.bench.tokenizer(f"{tags.open}so 4{tags.close}57", add_special_tokens=False)["input_ids"]
    ids = [*encoded, subject.id_of("<|eot_id|>")]
    shown = subject.bench.decode(subject.sampler.render(subject.prompts[0]))
    completion = forced(subject, ids)
    found = cut(tags, completion.text, ids, after=shown, decode=subject.bench.decode_after)
    assert (found.text, found.reasoning) == ("57", "so 4")
    assert subject.bench.tokenizer.decode(ids[found.reasoning_tokens :]) == "57<|eot_id|>"


def test_variables_reach_the_template(subjects: Any) -> None:
    subject = subjects("Qwen 3")
    config = ModelConfig(path=str(subject.folder), device="cpu", chat_template_kwargs={"enable_thinking": False})
    bench = Bench(config)
    assert bench.decode(bench.render(subject.prompts[0])).endswith("assistant\n<think>\n\n</think>\n\n")
    assert bench.stop_token_ids == subject.bench.stop_token_ids
