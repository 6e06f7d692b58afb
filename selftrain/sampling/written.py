"""Completions that nobody sampled, as the token ids that a policy which wrote them would have left."""

from __future__ import annotations

import unicodedata

from selftrain.errors import ConfigError, DataError
from selftrain.models import Bench
from selftrain.records import Prompt
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
    ids = _continued(bench, prompt, with_stop(text, rule.stop_strings, f"the completion of prompt {prompt.id}"))
    if not rule.stop_strings:
        ids = (*ids, _stop_token_id(bench, rule, prompt))
    forced = Completion(max_tokens=len(ids) + 1)
    for token_id in ids:
        forced.add(token_id, 0.0, 0.0, rule)
        if forced.finish_reason is not None:
            break
    if forced.finish_reason is None or len(forced.token_ids) < len(ids):
        raise DataError(
            f"the completion of prompt {prompt.id} would have ended after {len(forced.token_ids)} of its {len(ids)} "
            f"tokens, as {forced.text[-60:]!r}: one of them is in sample.stop_token_ids; remove it there, or from the "
            "completion"
        )
    return ids


def _continued(bench: Bench, prompt: Prompt, text: str) -> tuple[int, ...]:
    """Ids that, after the rendered prompt's, read as the prompt and then the text."""
    before = bench.render(prompt)
    shown = bench.decode(before)
    read = ""
    for anchor in ANCHORS:
        ids = _after(bench, anchor, text)
        if ids is None:
            continue
        read = bench.decode((*before, *ids))
        # Some tokenizers compose accents first, so that a decomposed one never comes back.
        if unicodedata.normalize("NFC", read) == unicodedata.normalize("NFC", shown + text):
            return ids
    raise DataError(
        f"the completion of prompt {prompt.id} cannot be written in the model's tokens: {text[-60:]!r} comes back as "
        f"{read[len(shown) :][-60:]!r}; take out special tokens and characters that the tokenizer does not have"
    )


def _after(bench: Bench, anchor: str, text: str) -> tuple[int, ...] | None:
    """The ids of the text after those of the anchor; None where the two merge."""
    first = bench.tokenizer(anchor, add_special_tokens=False)["input_ids"] if anchor else []
    both = bench.tokenizer(anchor + text, add_special_tokens=False)["input_ids"]
    return tuple(both[len(first) :]) if both[: len(first)] == first else None


def _stop_token_id(bench: Bench, rule: StopRule, prompt: Prompt) -> int:
    own = bench.end_of_answer(prompt)
    if own is not None:
        return own
    if not rule.stop_token_ids:
        raise ConfigError("the model has no stop token to end a completion with; set sample.stop_strings")
    return min(rule.stop_token_ids)
