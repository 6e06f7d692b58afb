"""Judging the blocks of a draw on the scorer's own threads: while later blocks are drawn, and once all are.

A block's scores are published as soon as they are there. Their file is marked by what they are judged with and by the
content of the candidates' file, so that it is taken exactly where it would be made again as it is, whichever phase was
at work when it was made: a kill loses at most the blocks in hand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from selftrain import tables
from selftrain.config import ScoreConfig
from selftrain.errors import DataError, Interrupted, PhaseError
from selftrain.records import Candidate, Group, Prompt, Score, digest
from selftrain.scoring import CANARIES, INFRA_ERROR, MAX_CANARY_RATE
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.remedies import remedy
from selftrain.store import file_sha256

STOP_GRACE_SECONDS = 5.0


@dataclass(slots=True)
class Tally:
    """How many scores there are, how many of them are none, and how many of those because the sandbox failed;
    seconds inside the scorer, of all threads together, and how many of them while blocks were drawn."""

    scores: int = 0
    failed: int = 0
    infra: int = 0
    first_error: str | None = None
    first_infra_error: str | None = None
    seconds: float = 0.0
    hidden_seconds: float = 0.0
    canaries: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What judges were asked about beside candidates, by name: how often, and how often it fooled them."""

    def count(self, scores: Sequence[Score]) -> int:
        """Add these; return how many of them are none."""
        errors = [one.error or "no value" for one in scores if one.value is None]
        of_infra = [one for one in errors if one.startswith(INFRA_ERROR)]
        self.first_error = self.first_error or next(iter(errors), None)
        self.first_infra_error = self.first_infra_error or next(iter(of_infra), None)
        self.scores += len(scores)
        self.failed += len(errors)
        self.infra += len(of_infra)
        for name, is_fooled in canaries_in(scores):
            asked, fooled = self.canaries.get(name, (0, 0))
            self.canaries[name] = asked + 1, fooled + is_fooled
        return len(errors)

    def metrics(self) -> dict[str, float]:
        """How long judging took in this attempt, on all ranks and threads together, and how much of that sampling
        hid."""
        share = self.hidden_seconds / self.seconds if self.seconds else 0.0
        return {"score/judge_seconds": self.seconds, "score/overlapped_share_of_seconds": share}


def together(tallies: Sequence[Tally]) -> Tally:
    """The sum; of the errors the first."""
    return Tally(
        scores=sum(one.scores for one in tallies),
        failed=sum(one.failed for one in tallies),
        infra=sum(one.infra for one in tallies),
        first_error=next((one.first_error for one in tallies if one.first_error), None),
        first_infra_error=next((one.first_infra_error for one in tallies if one.first_infra_error), None),
        seconds=sum(one.seconds for one in tallies),
        hidden_seconds=sum(one.hidden_seconds for one in tallies),
        canaries={
            name: (
                sum(one.canaries.get(name, (0, 0))[0] for one in tallies),
                sum(one.canaries.get(name, (0, 0))[1] for one in tallies),
            )
            for name in dict.fromkeys(name for one in tallies for name in one.canaries)
        },
    )


def require_scored(tally: Tally, config: ScoreConfig) -> None:
    """Raise PhaseError where more candidates went without a value than the config allows."""
    if tally.infra > config.max_infra_error_rate * tally.scores:
        raise PhaseError(
            f"{tally.infra} of {tally.scores} candidates could not be scored because the sandbox itself failed, twice "
            f"each (score.max_infra_error_rate is {config.max_infra_error_rate:g}); the first: "
            f"{tally.first_infra_error}. See what `selftrain doctor` says of the sandbox; where memory or processes "
            "ran short, set a smaller score.workers or end other programs. Then run the same command again: the "
            "candidates are kept"
        )
    _require_unfooled(tally, config)
    if tally.failed > config.max_unscored_rate * tally.scores:
        raise PhaseError(
            f"{tally.failed} of {tally.scores} candidates could not be scored (score.max_unscored_rate is "
            f"{config.max_unscored_rate:g}); the first: {tally.first_error}. {remedy(tally.first_error or '')}"
        )


def _require_unfooled(tally: Tally, config: ScoreConfig) -> None:
    asked = sum(count for count, _ in tally.canaries.values())
    fooled = {name: count for name, (_, count) in tally.canaries.items() if count}
    limits = [one.params.get("max_canary_rate", MAX_CANARY_RATE) for one in config.scorers if one.name == "llm_judge"]
    limit = min(limits, default=MAX_CANARY_RATE)
    if sum(fooled.values()) > limit * asked:
        listed = ", ".join(f"{name} ({count} of {tally.canaries[name][0]})" for name, count in fooled.items())
        raise PhaseError(
            f"the judge finds good what cannot be: {sum(fooled.values())} of {asked} canaries fooled it "
            f"(max_canary_rate is {limit:g}): {listed}. Nothing that it said is committed, and the candidates are "
            "kept: give the scorer another model, rubric or template and run the same command again"
        )


def canaries_in(scores: Iterable[Score]) -> Iterator[tuple[str, bool]]:
    """The names of what judges were asked about beside these candidates, each with whether it fooled them."""
    for one in scores:
        for column, values in one.extras.items():
            if column == CANARIES or column.endswith(f": {CANARIES}"):
                yield from ((str(name), bool(is_fooled)) for name, is_fooled in values)


@dataclass(slots=True)
class _Block:
    """A block in hand: its candidates' file, that file's sha256 once read, and the scores of its groups so far."""

    path: Path
    sha256: str = ""
    is_begun: bool = False
    is_withdrawn: bool = False
    scores: list[tuple[Score, ...] | None] = field(default_factory=list)


class Judging:
    """The judging of the blocks of one draw on this rank; `fingerprint` is of all that their scores depend on but the
    candidates. Scores go to files of the same names in `folder`, relative to the run.

    A block with unscored candidates, or a fooled judge, stays in memory until `publish_unscored`. What a thread raised
    is raised by the next `raise_if_failed` or `collect`, and nothing more is begun.
    """

    def __init__(
        self, run_path: Path, scorer: CombinedScorer, prompts: Mapping[str, Prompt], folder: str, fingerprint: str
    ) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.tally = Tally()
        self._run_path, self.scorer, self._prompts = run_path, scorer, prompts
        self._changed = threading.Condition()
        self._blocks: dict[str, _Block] = {}
        self._unread = 0
        self._groups_waiting = 0
        self._in_hand = 0
        self._judged = 0
        self._unscored: dict[str, tuple[list[Score], str]] = {}
        self._error: BaseException | None = None
        self._drawn_at: float | None = None

    # For the thread that samples

    def name(self, path: Path) -> str:
        """Where the scores of that file's candidates go, relative to the run."""
        return f"{self.folder}/{path.name}"

    def is_done(self, path: Path) -> bool:
        """Whether the scores of exactly those candidates, judged with this, are published."""
        out = self._run_path / self.name(path)
        return out.exists() and tables.fingerprint_of(out) == self._mark(file_sha256(path))

    def begin(self, path: Path) -> None:
        """Judge that file's candidates after those that wait; returns at once."""
        block = _Block(path)
        with self._changed:
            self._blocks[self.name(path)] = block
            self._unread += 1
            self._in_hand += 1
        self.scorer.threads.put(partial(self._do, partial(self._open, block)))

    def all_drawn(self) -> None:
        """Sampling is over: what is judged from here on is waited for."""
        with self._changed:
            self._drawn_at = time.monotonic()

    def withdraw(self) -> None:
        """Take back the blocks that are not begun, so that any rank may claim them."""
        with self._changed:
            for name, block in list(self._blocks.items()):
                if not block.is_begun:
                    block.is_withdrawn = True
                    del self._blocks[name]
                    self._unread -= 1
                    self._in_hand -= 1

    def names(self) -> set[str]:
        """The blocks that were begun here, done or not."""
        with self._changed:
            return set(self._blocks)

    @property
    def is_busy(self) -> bool:
        """Whether a block is in hand."""
        with self._changed:
            return self._in_hand > 0

    @property
    def wants_more(self) -> bool:
        """Whether a thread would soon have nothing to do."""
        with self._changed:
            return self._is_hungry()

    def collect(self, seconds: float, *, unless_hungry: bool = False) -> int:
        """How many candidates were judged since the last call; waits so long for any, or (`unless_hungry`) until more
        blocks are wanted."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._judged or self._error is not None or (unless_hungry and self._is_hungry()), seconds
            )
            self._raise_if_failed()
            judged, self._judged = self._judged, 0
            return judged

    def raise_if_failed(self) -> None:
        """Raise what a thread raised."""
        with self._changed:
            self._raise_if_failed()

    @property
    def num_unpublished(self) -> int:
        """The candidates of the blocks that wait for that word: without it, all of them are judged again."""
        return sum(len(scores) for scores, _ in self._unscored.values())

    def publish_unscored(self) -> None:
        """Publish the blocks that wait for the word that few enough candidates went unscored."""
        for name, (scores, mark) in self._unscored.items():
            tables.write(self._run_path / name, scores, Score, fingerprint=mark)
        self._unscored = {}

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Where the block is left by a request to stop, give what is begun a few seconds to end and be published."""
        try:
            yield
        except Interrupted:
            self.withdraw()
            with self._changed:
                self._changed.wait_for(lambda: not self._in_hand or self._error is not None, STOP_GRACE_SECONDS)
            raise

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _is_hungry(self) -> bool:
        return self._unread == 0 and self._groups_waiting < self.scorer.threads.count

    def _mark(self, sha256: str) -> str:
        return digest([self.fingerprint, sha256])

    # For the threads that judge

    def _do(self, work: Callable[[], None]) -> None:
        if self._error is None:
            try:
                work()
            except BaseException as error:  # raised where the main thread asks next
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()

    def _open(self, block: _Block) -> None:
        with self._changed:
            if block.is_withdrawn:
                return
            block.is_begun = True
        # From the file, as a resumed run does: its text is what can be written, its numbers are of the table's types.
        block.sha256 = file_sha256(block.path)
        groups = grouped(tables.read(block.path, Candidate), self._prompts)
        if not groups:
            raise DataError(f"{block.path} holds no candidates; delete it and run the same command again")
        with self._changed:
            block.scores = [None] * len(groups)
            self._unread -= 1
            self._groups_waiting += len(groups)
        # What judges blocks is given this one whole, whenever it is judged: its batches are the same each time.
        size = len(groups) if self.scorer.by_block else 1
        self.scorer.threads.put_first(
            [
                partial(self._do, partial(self._judge, block, start, groups[start : start + size]))
                for start in range(0, len(groups), size)
            ]
        )

    def _judge(self, block: _Block, start: int, groups: Sequence[Group]) -> None:
        with self._changed:
            self._groups_waiting -= len(groups)
            if self._is_hungry():
                self._changed.notify_all()
        started = time.monotonic()
        scores = self.scorer.score_block(groups)
        ended = time.monotonic()
        if self.scorer.threads.is_closed:
            return  # the processes that judge are being killed, and a candidate may seem to have died of it
        with self._changed:
            self.tally.seconds += ended - started
            self.tally.hidden_seconds += max(0.0, min(ended, self._drawn_at or ended) - started)
            block.scores[start : start + len(groups)] = scores
            if None in block.scores:
                return
        self._finish(block, [score for of_group in block.scores if of_group is not None for score in of_group])

    def _finish(self, block: _Block, scores: list[Score]) -> None:
        name, mark = self.name(block.path), self._mark(block.sha256)
        # What fooled a judge is asked again, as what could not be scored: it may be mended behind the same name.
        is_fooled = any(fooled for _, fooled in canaries_in(scores))
        if is_whole := not is_fooled and all(one.value is not None for one in scores):
            tables.write(self._run_path / name, scores, Score, fingerprint=mark)
        with self._changed:
            self.tally.count(scores)
            if not is_whole:
                self._unscored[name] = (scores, mark)
            block.scores = []
            self._judged += len(scores)
            self._in_hand -= 1
            self._changed.notify_all()


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
