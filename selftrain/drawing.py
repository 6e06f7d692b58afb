"""Sampling and scoring block by block, each block a published file: a kill loses at most the block in hand.

Shared by the sample and score phases and by evaluation. A block's file carries the fingerprint of its phase, so that a
block left by another configuration is never taken for this one's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain import tables
from selftrain.errors import PhaseError
from selftrain.planning import Draw, blocks
from selftrain.records import Candidate, Group, Prompt, Score
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.scoring import Scorer
from selftrain.world import World


class Drawing:
    """Draws and judges for one run, every rank a share of the blocks.

    `busy_seconds` is the time this rank spent inside samplers and scorers so far, `drawn_tokens` what all
    ranks sampled.
    """

    def __init__(self, run_path: Path, world: World, *, seed: int) -> None:
        self._run_path = run_path
        self._world = world
        self._seed = seed
        self.busy_seconds = 0.0
        self.drawn_tokens = 0

    def draw(self, plan: Draw, rooms: Rooms, folder: str, fingerprint: str, display: Phase) -> list[str]:
        """Sample every block that is not there yet; return all files, relative to the run, in block order."""
        names = [f"{folder}/block-{index:05d}.parquet" for index in range(plan.num_blocks)]
        owed = self._owed(names, fingerprint, f"the blocks of {folder}")
        tokens_here = 0
        if owed:
            sampler = rooms.sampler  # loads the model, which a draw that is done does not need
            planned = blocks(plan, seed=self._seed, render=sampler.render, context=sampler.context_length)
            display.advance((plan.num_blocks - len(owed)) * plan.block_size * plan.num_candidates)
            for index in self._claimed(owed, f"draw {folder} {fingerprint}"):
                started = time.monotonic()
                candidates = sampler.sample(planned[index])
                self.busy_seconds += time.monotonic() - started
                tables.write(self._run_path / names[index], candidates, Candidate, fingerprint=fingerprint)
                tokens = sum(len(one.completion_token_ids) for one in candidates)
                tokens_here += tokens
                display.advance(len(candidates), tokens=tokens)
        self.drawn_tokens += sum(self._world.gather(tokens_here, f"all blocks of {folder}"))
        return names

    def judge(
        self,
        drawn: Sequence[Path],
        scorer: Scorer,
        prompts: Mapping[str, Prompt],
        folder: str,
        fingerprint: str,
        display: Phase,
        max_unscored_rate: float,
    ) -> list[str]:
        """Score every block that is not there yet; return all files, relative to the run, in block order.

        Raises PhaseError if more than `max_unscored_rate` of the candidates could not be scored. A block with
        unscored candidates is published only after that, so that what made scoring fail can be mended and tried again.
        """
        names = [f"{folder}/{path.name}" for path in drawn]
        owed = self._owed(names, fingerprint, f"the blocks of {folder}")
        kept = [index for index in range(len(names)) if index not in owed] if self._world.is_first else []
        unscored = Unscored()
        for index in kept:
            unscored.count(tables.read(self._run_path / names[index], Score))
        display.advance(unscored.scores)
        waiting = {}
        for index in self._claimed(owed, f"judge {folder} {fingerprint}"):
            of_block = self._judge_block(drawn[index], scorer, prompts)
            if unscored.count(of_block):
                waiting[names[index]] = of_block
            else:
                tables.write(self._run_path / names[index], of_block, Score, fingerprint=fingerprint)
            display.advance(len(of_block))
        _refuse(self._world.gather(unscored, f"all scores of {folder}"), max_unscored_rate)
        for name, of_block in waiting.items():
            tables.write(self._run_path / name, of_block, Score, fingerprint=fingerprint)
        self._world.barrier(f"the unscored blocks of {folder}")
        return names

    def _owed(self, names: Sequence[str], fingerprint: str, what: str) -> set[int]:
        """The blocks that are not there yet, as the first rank sees it: the others may see one appear."""

        def missing() -> set[int]:
            return {index for index, name in enumerate(names) if not self._is_done(name, fingerprint)}

        return self._world.from_first(missing, what)

    def _claimed(self, owed: set[int], work: str) -> Iterator[int]:
        """The blocks that fall to this rank: its own share first, then what others have not begun."""
        rank, size = self._world.rank, self._world.size
        in_order = sorted(owed)
        shares = [in_order[(rank + offset) % size :: size] for offset in range(size)]
        others = sorted((index for share in shares[1:] for index in share), reverse=True)
        for index in [*shares[0], *others]:
            self._world.check()
            if self._world.claim(work, index):
                yield index

    def _judge_block(self, path: Path, scorer: Scorer, prompts: Mapping[str, Prompt]) -> list[Score]:
        started = time.monotonic()
        groups = grouped(tables.read(path, Candidate), prompts)
        scores = [score for group in groups for score in scorer.score(group)]
        self.busy_seconds += time.monotonic() - started
        return scores

    def _is_done(self, name: str, fingerprint: str) -> bool:
        path = self._run_path / name
        return path.exists() and tables.fingerprint_of(path) == fingerprint


@dataclass(slots=True)
class Unscored:
    """How many scores there are, and how many of them are none."""

    scores: int = 0
    failed: int = 0
    first_error: str | None = None

    def count(self, scores: Sequence[Score]) -> int:
        """Add these; return how many of them are none."""
        without = [one for one in scores if one.value is None]
        self.first_error = self.first_error if self.failed or not without else without[0].error
        self.scores += len(scores)
        self.failed += len(without)
        return len(without)


def _refuse(counts: Sequence[Unscored], max_unscored_rate: float) -> None:
    scores, failed = sum(one.scores for one in counts), sum(one.failed for one in counts)
    if scores and failed / scores > max_unscored_rate:
        first = next(one.first_error for one in counts if one.failed)
        raise PhaseError(
            f"{failed} of {scores} candidates could not be scored (score.max_unscored_rate is "
            f"{max_unscored_rate:g}); the first: {first}. Mend what made it fail (a missing "
            "package, an overloaded machine) and run the same command again: the candidates are kept. That may be the "
            "verifier's own file or score.timeout_seconds as long as nothing that it judged is committed; once "
            "something is, another verifier is another experiment: name=NEW or --fork NEW"
        )


def read_groups(drawn: Iterable[Path], judged: Iterable[Path], prompts: Mapping[str, Prompt]) -> list[Group]:
    """The candidates of some tables with their scores, by prompt."""
    candidates = (one for path in drawn for one in tables.read(path, Candidate))
    scores = {one.candidate_id: one for path in judged for one in tables.read(path, Score)}
    return grouped(candidates, prompts, scores)


def grouped(
    candidates: Iterable[Candidate], prompts: Mapping[str, Prompt], scores: Mapping[str, Score] | None = None
) -> list[Group]:
    """Candidates by prompt, in order of appearance, with their scores if given."""
    by_prompt: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_prompt.setdefault(one.prompt_id, []).append(one)
    return [
        Group(prompts[name], tuple(ones), tuple(scores[one.id] for one in ones) if scores is not None else ())
        for name, ones in by_prompt.items()
    ]
