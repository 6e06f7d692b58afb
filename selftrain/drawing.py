"""Sampling and scoring block by block, each block a published file: a kill loses at most the block in hand.

Shared by the sample and score phases and by evaluation. A block's file carries a fingerprint of what it was made with,
so that a block left by another configuration is never taken for this one's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from selftrain import tables
from selftrain.config import ScoreConfig
from selftrain.errors import PhaseError
from selftrain.planning import Draw, blocks
from selftrain.records import Block, Candidate, Group, Policy, Prompt, Score, digest
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.sampling import Generator, Holding
from selftrain.scoring.combined import CombinedScorer
from selftrain.streaming import Judging, Tally, grouped, require_scored, together
from selftrain.world import World

POLL_SECONDS = 0.25
Likened = Callable[[Sequence[Candidate]], tuple[Candidate, ...]]


class Drawing:
    """Draws and judges for one run, every rank a share of the blocks.

    `busy_seconds` is the time this rank spent so far inside samplers, or waiting for scores with nothing to sample;
    `drawn_tokens` is what all ranks sampled. `judged_on` is what scores depend on beside the configuration
    (`Rooms.judged_on`): those made on another one are taken only once they are committed. `rooms` are those whose
    models take turns where the config asks for it.
    """

    def __init__(
        self, run_path: Path, world: World, *, seed: int, judged_on: str | None = None, rooms: Rooms | None = None
    ) -> None:
        self._run_path, self._rooms = run_path, rooms
        self._world = world
        self._seed = seed
        self._judged_on = judged_on
        self.busy_seconds = 0.0
        self.drawn_tokens = 0
        self._begun: dict[str, Judging] = {}

    def draw(
        self,
        plan: Draw,
        rooms: Rooms,
        folder: str,
        fingerprint: str,
        display: Phase,
        judging: Judging | None = None,
    ) -> list[str]:
        """Sample every block that is not there yet; return all files, relative to the run, in block order.

        With `judging`, blocks are judged meanwhile; `judge` waits for what is not done at the end. What fails there is
        raised here, after the block in hand is published.
        """
        names = [f"{folder}/block-{index:05d}.parquet" for index in range(plan.num_blocks)]
        owed = self._owed(names, fingerprint, f"the blocks of {folder}")
        tokens_here = 0
        if owed:
            if judging is not None:
                self._begin_left(names, owed, judging)
            # Loads the model, which a draw that is done does not need.
            sampler = rooms.generator if plan.by_generator else rooms.sampler
            held = sampler.num_held if isinstance(sampler, Holding) else None
            planned = blocks(plan, seed=self._seed, render=sampler.render, context=sampler.context_length, held=held)
            likened = partial(with_base_logprob, rooms, plan.policy) if plan.with_base_logprob else None
            display.advance(sum(planned.num_candidates(index) for index in range(len(names)) if index not in owed))
            with nullcontext() if judging is None else judging.settled():
                for index in self._claimed(owed, f"draw {folder} {fingerprint}"):
                    tokens = self._draw_block(sampler, planned[index], names[index], fingerprint, likened)
                    tokens = tokens if held is None else 0  # nobody wrote them here
                    tokens_here += tokens
                    display.advance(planned.num_candidates(index), tokens=tokens)
                    if judging is not None:
                        judging.begin(self._run_path / names[index])
                        judging.raise_if_failed()
        self.drawn_tokens += sum(self._world.gather(tokens_here, f"all blocks of {folder}"))
        return names

    def _draw_block(
        self, sampler: Generator, block: Block, name: str, fingerprint: str, likened: Likened | None
    ) -> int:
        """Sample and publish a block; how many tokens that took."""
        started = time.monotonic()
        candidates = sampler.sample(block)
        candidates = candidates if likened is None else likened(candidates)
        self.busy_seconds += time.monotonic() - started
        tables.write(self._run_path / name, candidates, Candidate, fingerprint=fingerprint)
        return sum(len(one.completion_token_ids) for one in candidates)

    def judging(self, scorer: CombinedScorer, prompts: Mapping[str, Prompt], folder: str, fingerprint: str) -> Judging:
        """The judging into that folder: the one that was begun while its blocks were drawn, or a new one."""
        if folder not in self._begun:
            judged_with = fingerprint if self._judged_on is None else digest([fingerprint, self._judged_on])
            self._begun[folder] = Judging(self._run_path, scorer, prompts, folder, judged_with)
        return self._begun[folder]

    def judge(
        self, drawn: Sequence[Path], judging: Judging, display: Phase, config: ScoreConfig
    ) -> tuple[list[str], Tally]:
        """Score every block that is not there yet, and wait for those in hand; return all files, relative to the run,
        in block order, with the count of all ranks.

        Raises PhaseError if more candidates could not be scored than the config allows. A block with unscored
        candidates is published only after that, so that what made scoring fail can be mended and tried again.
        """
        started = time.monotonic()
        folder, names = judging.folder, [judging.name(path) for path in drawn]
        judging.all_drawn()
        if self._world.size > 1:
            judging.withdraw()
        in_hand = set[str]().union(*self._world.gather(judging.names(), f"the begun blocks of {folder}"))

        def missing() -> set[int]:
            left = (index for index, name in enumerate(names) if name not in in_hand)
            return {index for index in left if not judging.is_done(drawn[index])}

        owed = self._world.from_first(missing, f"the blocks of {folder}")
        kept = Tally()
        if self._world.is_first:
            for index, name in enumerate(names):
                if name not in in_hand and index not in owed:
                    kept.count(tables.read(self._run_path / name, Score))
        display.advance(kept.scores)
        rooms = self._rooms if config.one_model_at_a_time and owed else None
        with nullcontext() if rooms is None else rooms.taking_turns(judging.scorer):
            self._judge_blocks(owed, drawn, judging, display)
        self.busy_seconds += time.monotonic() - started
        tally = together(self._world.gather(together([kept, judging.tally]), f"all scores of {folder}"))
        try:
            require_scored(tally, config)
        except PhaseError:
            display.undo(judging.num_unpublished)
            raise
        judging.publish_unscored()
        self._world.barrier(f"the unscored blocks of {folder}")
        del self._begun[folder]
        return names, tally

    def _judge_blocks(self, owed: set[int], drawn: Sequence[Path], judging: Judging, display: Phase) -> None:
        """Claim blocks for as long as there are any, as many as keep the threads at work; return when all are done."""
        claimed = self._claimed(owed, f"judge {judging.folder} {judging.fingerprint}")
        with judging.settled():
            has_more = True
            while has_more or judging.is_busy:
                while has_more and judging.wants_more:
                    index = next(claimed, None)
                    has_more = index is not None
                    if index is not None:
                        judging.begin(drawn[index])
                self._world.check()
                display.advance(judging.collect(POLL_SECONDS, unless_hungry=has_more))
            display.advance(judging.collect(0.0))

    def _begin_left(self, names: Sequence[str], owed: Collection[int], judging: Judging) -> None:
        """Judge what an earlier attempt has drawn and not judged, each rank its share."""
        there = [self._run_path / name for index, name in enumerate(names) if index not in owed]
        for path in there[self._world.rank :: self._world.size]:
            if not judging.is_done(path):
                judging.begin(path)

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

    def _is_done(self, name: str, fingerprint: str) -> bool:
        path = self._run_path / name
        return path.exists() and tables.fingerprint_of(path) == fingerprint


def with_base_logprob(rooms: Rooms, policy: Policy, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The policy's candidates with `base_logprob`. A block at a time, whose batches are the same after a kill; that
    policy's own ones need no model."""
    if policy.digest == rooms.base_policy.digest:
        return tuple(replace(one, base_logprob=math.fsum(one.logprobs)) for one in candidates)
    from selftrain.models.likelihood import token_logprobs

    read = token_logprobs(
        rooms.bench,
        rooms.base_policy,
        [one.prompt_token_ids + one.completion_token_ids for one in candidates],
        scored_from=[len(one.prompt_token_ids) for one in candidates],
    )
    return tuple(replace(one, base_logprob=math.fsum(row)) for one, row in zip(candidates, read, strict=True))


def stream_groups(
    drawn: Iterable[Path], judged: Iterable[Path], prompts: Mapping[str, Prompt], *, without: Collection[str] = ()
) -> Iterator[Group]:
    """The candidates of some tables with their scores, by prompt, a block in memory at a time. A block's scores are in
    the file of the same name. `without`: columns of either that nobody will look at, as `tables.read` has it."""
    scores_of = {path.name: path for path in judged}
    for path in drawn:
        scores = {one.candidate_id: one for one in tables.read(scores_of[path.name], Score, without=without)}
        yield from grouped(tables.read(path, Candidate, without=without), prompts, scores)


def read_groups(drawn: Iterable[Path], judged: Iterable[Path], prompts: Mapping[str, Prompt]) -> list[Group]:
    """All of them."""
    return list(stream_groups(drawn, judged, prompts))
