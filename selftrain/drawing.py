"""Sampling and scoring block by block, each block a published file: a kill loses at most the block in hand.

Shared by the sample and score phases and by evaluation. A block's file carries the fingerprint of its phase, so that a
block left by another configuration is never taken for this one's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from selftrain import tables
from selftrain.errors import PhaseError
from selftrain.planning import Draw, blocks
from selftrain.records import Candidate, Group, Prompt, Score
from selftrain.reporting.terminal import Phase
from selftrain.rooms import Rooms
from selftrain.world import World


class Drawing:
    """Draws and judges for one run.

    `busy_seconds` is the time spent inside the sampler and the scorer so far, `drawn_tokens` what was sampled.
    """

    def __init__(self, rooms: Rooms, run_path: Path, world: World, *, seed: int, max_unscored_rate: float) -> None:
        self._rooms = rooms
        self._run_path = run_path
        self._world = world
        self._seed = seed
        self._max_unscored_rate = max_unscored_rate
        self.busy_seconds = 0.0
        self.drawn_tokens = 0

    def draw(self, plan: Draw, folder: str, fingerprint: str, display: Phase) -> list[str]:
        """Sample every block that is not there yet; return all files, relative to the run, in block order."""
        names = [f"{folder}/block-{index:05d}.parquet" for index in range(plan.num_blocks)]
        owed = [index for index, name in enumerate(names) if not self._is_done(name, fingerprint)]
        if owed:
            sampler = self._rooms.sampler
            planned = blocks(plan, seed=self._seed, render=sampler.render, context=sampler.context_length)
            display.advance((plan.num_blocks - len(owed)) * plan.block_size * plan.num_candidates)
            for index in owed:
                self._world.check()
                started = time.monotonic()
                candidates = sampler.sample(planned[index])
                self.busy_seconds += time.monotonic() - started
                tables.write(self._run_path / names[index], candidates, Candidate, fingerprint=fingerprint)
                tokens = sum(len(one.completion_token_ids) for one in candidates)
                self.drawn_tokens += tokens
                display.advance(len(candidates), tokens=tokens)
        return names

    def judge(
        self, drawn: Sequence[Path], prompts: Mapping[str, Prompt], folder: str, fingerprint: str, display: Phase
    ) -> tuple[list[str], list[Score]]:
        """Score every block that is not there yet; return all files and all scores, in block order.

        Raises PhaseError if more than `score.max_unscored_rate` of the candidates could not be scored. A block with
        unscored candidates is published only after that, so that what made scoring fail can be mended and tried again.
        """
        names, scores, waiting = [], [], {}
        for path in drawn:
            name = f"{folder}/{path.name}"
            if self._is_done(name, fingerprint):
                of_block = tables.read(self._run_path / name, Score)
            else:
                self._world.check()
                of_block = self._judge_block(path, prompts)
                if any(one.value is None for one in of_block):
                    waiting[name] = of_block
                else:
                    tables.write(self._run_path / name, of_block, Score, fingerprint=fingerprint)
            display.advance(len(of_block))
            names.append(name)
            scores.extend(of_block)
        self._refuse_unscored(scores)
        for name, of_block in waiting.items():
            tables.write(self._run_path / name, of_block, Score, fingerprint=fingerprint)
        return names, scores

    def _judge_block(self, path: Path, prompts: Mapping[str, Prompt]) -> list[Score]:
        started = time.monotonic()
        groups = grouped(tables.read(path, Candidate), prompts)
        scores = [score for group in groups for score in self._rooms.scorer.score(group)]
        self.busy_seconds += time.monotonic() - started
        return scores

    def _is_done(self, name: str, fingerprint: str) -> bool:
        path = self._run_path / name
        return path.exists() and tables.fingerprint_of(path) == fingerprint

    def _refuse_unscored(self, scores: Sequence[Score]) -> None:
        failed = [one for one in scores if one.value is None]
        if scores and len(failed) / len(scores) > self._max_unscored_rate:
            raise PhaseError(
                f"{len(failed)} of {len(scores)} candidates could not be scored (score.max_unscored_rate is "
                f"{self._max_unscored_rate:g}); the first: {failed[0].error}. Mend what made it fail (a missing "
                "package, an overloaded machine) and run the same command again: the candidates are kept. Another "
                "verifier or score.timeout_seconds is another experiment: name=NEW or --fork NEW"
            )


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
