"""Completions that nobody sampled, as the token ids that a policy which wrote them would have left."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from selftrain.errors import ConfigError, DataError
from selftrain.models import Bench
from selftrain.records import FinishReason, Prompt
from selftrain.sampling.stopping import Completion, StopRule, with_stop
from selftrain.sampling.thinking import never_ends

# Text that may stand before a completion while it is encoded. Some tokenizers (SentencePiece's way) put a space before
# whatever comes first, which in the middle of a sequence would be one space too many.
ANCHORS = ("", "\n", "a")


def encode_completion(bench: Bench, rule: StopRule, prompt: Prompt, text: str) -> tuple[int, ...]:
    """The ids of `text` as it would have been sampled after the rendered prompt.

    No BOS and no space is put before it. It ends as a sampled candidate does: with the first stop string, encoded
    together with the text so that tokens merge across, or, where there are none, with the stop token that ends a turn.
    Raises DataError where the tokenizer cannot write the text, the policy would have stopped before its end, or a
    thinking model would be shown reasoning that leads to no answer.
    """
    if never_ends(bench.config.thinking, text, after=bench.decode(bench.render(prompt))):
        raise DataError(
            f"the completion of prompt {prompt.id} never ends its reasoning, so that it has no answer: {text[-60:]!r}; "
            "write it as the policy would, with the reasoning before it and the closing tag of model.thinking between"
        )
    (found,) = encode_written(bench, rule, prompt, [(text, "stop_token")])
    if isinstance(found, DataError):
        raise found
    return found


def encode_written(
    bench: Bench, rule: StopRule, prompt: Prompt, texts: Sequence[tuple[str, FinishReason]]
) -> list[tuple[int, ...] | DataError]:
    """The same of many texts, each with how it ended: one that ended by `length` has no stop. For a text that has no
    such ids there is the reason. Reasoning may be without an end. ConfigError: the model has no stop token."""
    found: dict[int, tuple[int, ...] | DataError] = {}
    whole: dict[int, str] = {}
    for number, (text, reason) in enumerate(texts):
        try:
            stops = rule.stop_strings if reason != "length" else ()
            whole[number] = with_stop(text, stops, f"the completion of prompt {prompt.id}")
        except DataError as error:
            found[number] = error
    found |= _continued(bench, prompt, whole)
    for number, (_, reason) in enumerate(texts):
        ids = found[number]
        if isinstance(ids, DataError):
            continue
        if reason != "length" and not rule.stop_strings:
            ids = (*ids, _stop_token_id(bench, rule, prompt))
        found[number] = _ended_early(ids, rule, prompt, is_cut=reason == "length") or ids
    return [found[number] for number in range(len(texts))]


def _ended_early(ids: tuple[int, ...], rule: StopRule, prompt: Prompt, *, is_cut: bool) -> DataError | None:
    """Why the policy would not have left just these ids; None where it would. `is_cut`: it was not to stop at all."""
    if rule.stop_strings:
        forced = Completion(max_tokens=len(ids) + 1)
        for token_id in ids:
            forced.add(token_id, 0.0, 0.0, rule)
            if forced.finish_reason is not None:
                break
        ended, num_tokens, text = forced.finish_reason is not None, len(forced.token_ids), forced.text
    else:
        first = next((at for at, one in enumerate(ids) if one in rule.stop_token_ids), None)
        ended, num_tokens = first is not None, len(ids) if first is None else first + 1
        text = "" if first is None or num_tokens == len(ids) else rule.decode(ids[:first])
    if ended == (not is_cut) and num_tokens == len(ids):
        return None
    return DataError(
        f"the completion of prompt {prompt.id} would have ended after {num_tokens} of its {len(ids)} tokens, as "
        f"{text[-60:]!r}: one of them is in sample.stop_token_ids; remove it there, or from the completion"
    )


def _continued(bench: Bench, prompt: Prompt, texts: Mapping[int, str]) -> dict[int, tuple[int, ...] | DataError]:
    """Ids that, after the rendered prompt's, read as the prompt and then the text; by the text's number."""
    before = bench.render(prompt)
    shown = bench.decode(before)
    found: dict[int, tuple[int, ...] | DataError] = {}
    read: dict[int, str] = {}
    for anchor in ANCHORS:
        left = [number for number in texts if number not in found]
        for number, ids in zip(left, _after(bench, anchor, [texts[one] for one in left]), strict=True):
            if ids is None:
                continue
            read[number] = bench.decode((*before, *ids))
            # Some tokenizers compose accents first, so that a decomposed one never comes back.
            wanted = unicodedata.normalize("NFC", shown + texts[number])
            if unicodedata.normalize("NFC", read[number]) == wanted:
                found[number] = ids
    for number, text in texts.items():
        if number not in found:
            found[number] = DataError(
                f"the completion of prompt {prompt.id} cannot be written in the model's tokens: {text[-60:]!r} comes "
                f"back as {read.get(number, '')[len(shown) :][-60:]!r}; take out special tokens and characters that "
                "the tokenizer does not have"
            )
    return found


def _after(bench: Bench, anchor: str, texts: Sequence[str]) -> list[tuple[int, ...] | None]:
    """The ids of each text after those of the anchor; None where the two merge."""
    if not texts:
        return []
    first = bench.tokenizer(anchor, add_special_tokens=False)["input_ids"] if anchor else []
    all_ids = bench.tokenizer([anchor + text for text in texts], add_special_tokens=False)["input_ids"]
    return [tuple(ids[len(first) :]) if ids[: len(first)] == first else None for ids in all_ids]


def _stop_token_id(bench: Bench, rule: StopRule, prompt: Prompt) -> int:
    own = bench.end_of_answer(prompt)
    if own is not None:
        return own
    if not rule.stop_token_ids:
        raise ConfigError("the model has no stop token to end a completion with; set sample.stop_strings")
    return min(rule.stop_token_ids)
