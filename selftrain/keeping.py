"""Which adapters stay on disk: all, or of each arm the best and the last round's (`keep`); of verifiers the best
round's, and the last one that was trained.

An adapter goes when the round after it is done and nothing that is known to come needs it. Whatever turns out to need
it all the same (an arm that is added later, more measurements, a best round that changes because answers of a later one
could not be scored) has it trained again from the survivors, which always stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from selftrain.arms import Arm
from selftrain.commits import Commits
from selftrain.config import Config
from selftrain.evaluation import decisions
from selftrain.pruning import prune
from selftrain.records import Policy, Report

WHY = "keep: best_and_last"
SHARED_PHASES = ("sample", "score", "select", "train")


class Keeping:
    """The adapters of one run."""

    def __init__(self, config: Config, commits: Commits) -> None:
        self._config = config
        self._commits = commits

    def after_round(self, arm: Arm, round_number: int) -> None:
        """Remove what the arm does not need any more, now that the round is done."""
        if self._config.keep == "best_and_last":
            awaited = self.rounds_awaited if arm.main is None else 0
            self._prune(arm, _of(arm, needed(arm, round_number) | set(range(1, awaited + 1))))

    def at_end(self, arms: Sequence[Arm]) -> None:
        """Remove what of main other arms could have needed, now that all are done."""
        if self._config.keep == "best_and_last":
            self._prune(arms[0], [one for arm in arms for one in _of(arm, needed(arm, max(arm.policies)))])

    @cached_property
    def rounds_awaited(self) -> int:
        """Up to which round an arm beside main may go on from main's adapters, which have to wait for it.

        The one-round diagnostic starts where main did in a round that is known when main is done. An arm with knobs of
        its own shares main's rounds for as long as its knobs come to the same.
        """
        if any(one.name == "random_selection_shared" for one in self._config.arms):
            return self._config.rounds
        part, most = self._commits.fingerprints.part, 0
        for name in [one.name for one in self._config.arms if not one.is_control]:
            for number in range(1, self._config.rounds + 1):
                if any(part(phase, number, name) != part(phase, number) for phase in SHARED_PHASES):
                    break
                most = max(most, number)
        return most

    def _prune(self, arm: Arm, staying: Iterable[Policy]) -> None:
        run, world = self._commits.run, self._commits.world
        adapters = {policy.adapter for policy in staying}

        def remove() -> int:
            freed = self._prune_verifiers(arm)
            for number in sorted(arm.policies):
                folder = arm.adapter(number)
                receipt = arm.receipts.get(arm.key(number, "train-improve-00"))
                is_own = receipt is not None and receipt.arm == arm.name and bool(receipt.files)
                if is_own and str(run.path / folder) not in adapters:
                    assert receipt is not None
                    _unlink_best(run.path / "best", run.path / folder)
                    freed += prune(run, receipt, folder, why=WHY)
            return freed

        freed = world.from_first(remove, f"removing adapters of {arm.name}")
        if freed:
            self._commits.terminal.info(f"{arm.name} · adapters of earlier rounds removed ({WHY}): {freed:,} bytes")

    def _prune_verifiers(self, arm: Arm) -> int:
        """Remove the arm's verifiers but the last one and the best round's; how many bytes that freed."""
        run, last = self._commits.run, max(arm.policies)
        receipts = {number: arm.receipts.get(arm.key(number, "verifier")) for number in range(1, last + 1)}
        trained = {number: one for number, one in receipts.items() if one is not None and one.files}
        staying = needed(arm, last) | {max(trained, default=0)}
        folders = {f"{arm.verifier(number)}/adapter": one for number, one in trained.items() if number not in staying}
        return sum(prune(run, one, folder, why=WHY) for folder, one in folders.items())


def _unlink_best(link: Path, folder: Path) -> None:
    """Take away the link to the best adapter where it is that of fewer rounds; it is made again when the run ends."""
    if link.is_symlink() and link.resolve() == folder.resolve():
        link.unlink()


def needed(arm: Arm, round_number: int) -> set[int]:
    """The rounds, up to this one which is done, whose policies the arm still needs: this one, and the best.

    Main's validation decides for every arm. Beside main it is known how main went on: an arm may start a round from the
    best one so far, and is promoted at the best one of all.
    """
    reports = (arm.main or arm).reports_in_order()
    numbers = {round_number}
    for known in ([one for one in reports if one.round <= round_number], reports):
        if _are_validated(known):
            numbers.add(decisions.best_round(known, by=(arm.main or arm).config.evaluate.decide_by))
    return {number for number in numbers if number <= round_number}


def _are_validated(reports: Sequence[Report]) -> bool:
    return any("validate" in report.outcomes for report in reports)


def _of(arm: Arm, numbers: Iterable[int]) -> list[Policy]:
    return [arm.policies[number] for number in numbers if number in arm.policies]
