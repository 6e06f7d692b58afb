"""Pairs of a right and a wrong candidate of one prompt, for the trained verifier (V-STaR, Hosseini et al. 2024, arXiv
2402.06457, section 3: the Cartesian product of a problem's correct and incorrect solutions)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from selftrain.errors import PhaseError
from selftrain.records import Candidate, Pair, Score, seed_from


@dataclass(slots=True)
class _Answers:
    """What one prompt was answered, by the digest of the token ids: the first candidate that said it, and its verdict;
    None where the same tokens were found right once and wrong once."""

    found: dict[bytes, tuple[str, bool | None]] = field(default_factory=dict)


class Pairing:
    """Collects candidates with their verdicts, and draws pairs. Holds ids and digests, no texts or tokens, so that the
    candidates of many rounds can be gone through.

    Token by token equal candidates count once. A right one must have come to its end; a wrong one need not. What could
    not be scored, and what is right but cut off, is in no pair. Of a prompt that was asked in other words (another
    rendering), pairs are made within each.
    """

    def __init__(self, *, per_prompt: int, seed: int) -> None:
        self._per_prompt = per_prompt
        self._seed = seed
        self._prompts: dict[tuple[str, bytes], _Answers] = {}

    def add(self, candidate: Candidate, score: Score) -> None:
        """One candidate. The order of calls decides which of equal ones stands for all."""
        if score.value is None or score.correct is None:
            return
        if score.correct and candidate.finish_reason == "length":
            return
        key = candidate.prompt_id, _digest(candidate.prompt_token_ids)
        found = self._prompts.setdefault(key, _Answers()).found
        said = _digest(candidate.completion_token_ids)
        first, verdict = found.get(said, (candidate.id, score.correct))
        found[said] = first, verdict if verdict == score.correct else None

    def drawn(self) -> list[tuple[str, str]]:
        """The ids of (right, wrong) candidates: of each prompt all pairs, or `per_prompt` of them at random, in the
        order in which prompts came."""
        return [pair for key, answers in self._prompts.items() for pair in self._of_prompt(key, answers)]

    def _of_prompt(self, key: tuple[str, bytes], answers: _Answers) -> Iterator[tuple[str, str]]:
        right = [name for name, verdict in answers.found.values() if verdict is True]
        wrong = [name for name, verdict in answers.found.values() if verdict is False]
        number = len(right) * len(wrong)
        chosen: Sequence[int] = range(number)
        if number > self._per_prompt:
            generator = random.Random(seed_from(self._seed, key[0], key[1].hex()))
            chosen = sorted(generator.sample(range(number), self._per_prompt))
        for index in chosen:
            yield right[index // len(wrong)], wrong[index % len(wrong)]

    @property
    def num_prompts(self) -> int:
        """Prompts with at least one pair."""
        verdicts = [{verdict for _, verdict in one.found.values()} for one in self._prompts.values()]
        return sum({True, False} <= one for one in verdicts)


def _digest(token_ids: Sequence[int]) -> bytes:
    return hashlib.sha256(",".join(map(str, token_ids)).encode()).digest()[:16]


def require_trainable(pairs: Sequence[Pair], context: int) -> None:
    """PhaseError, naming the candidate, for a pair that could only be trained on cut, or not at all."""
    for pair in pairs:
        sides = (pair.chosen_id, pair.chosen_token_ids), (pair.rejected_id, pair.rejected_token_ids)
        for name, ids in sides:
            length = len(pair.prompt_token_ids) + len(ids)
            if not pair.prompt_token_ids or not ids:
                raise PhaseError(f"candidate {name} has no token ids to train a verifier on; sample with a local model")
            if length > context:
                raise PhaseError(
                    f"candidate {name} has {length} tokens with its prompt, more than the model's context of "
                    f"{context}, and pairs are never cut; lower sample.max_new_tokens, or shorten the prompts"
                )
