"""What a run does, counted: every sampling, evaluation and training once, whichever arms share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from selftrain import controls
from selftrain import prompts as prompt_room
from selftrain.arms import Arm, arms_of, names_round
from selftrain.config import Config, at_round, one, resolved
from selftrain.planning import for_training, greedy, num_candidates
from selftrain.prompts import PromptSets
from selftrain.records import Prompt

UNKNOWN = 8  # candidates of a prompt
Kind = Literal["candidates", "greedy", "sampled", "retention"]


@dataclass(frozen=True, slots=True)
class Asking:
    """Prompts of one set that are asked in one round of one arm, `num_candidates` answers each."""

    arm: str
    round: int
    kind: Kind
    set_name: str
    prompts: tuple[Prompt, ...]
    num_candidates: int
    max_new_tokens: int
    block_size: int
    is_drawn_here: bool = True
    """False of candidates that exist, or that a server or another model writes."""
    held: int | None = None
    """Of candidates that exist, how many, where that is known; else each prompt has its number."""

    @property
    def answers(self) -> int:
        """How many in all."""
        if self.held is not None:
            return self.held
        return len(self.prompts) * self.num_candidates

    @property
    def num_blocks(self) -> int:
        """Files of answers."""
        return -(-len(self.prompts) // self.block_size)


@dataclass(frozen=True, slots=True)
class Choosing:
    """A selection, and the training on what it leaves, in one round of one arm. `has_selection` is False where main's
    is used; `candidates` is how many there are to choose from; `in_reach` about how many different prompts were asked
    up to there."""

    arm: str
    round: int
    prompts: int
    candidates: int
    in_reach: int
    has_selection: bool = True


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run does if no stop rule ends it. `texts` are read, of retention, in `text_rounds`."""

    askings: tuple[Asking, ...]
    trainings: tuple[Choosing, ...]
    texts: tuple[str, ...]
    text_rounds: tuple[int, ...]

    def of(self, arm: str, *kinds: Kind) -> list[Asking]:
        """What one arm asks."""
        return [asking for asking in self.askings if asking.arm == arm and asking.kind in kinds]


def count(config: Config, prompts: PromptSets, held: int | None = None) -> Work:
    """The work of a run. The headline round, at which arms are measured too, is taken to be the last. `held`: how many
    candidates sample.policy.file holds, where that is known."""
    askings: list[Asking] = []
    trainings: list[Choosing] = []
    asked = Asked(prompts, held)
    for arm in arms_of(config):
        of_main = shared(arm)
        for number in range(1, config.rounds + 1):
            if of_main.samples_itself(number):
                askings.append(_candidates(arm, asked, number))
            if of_main.trains_itself(number):
                trainings.append(_training(arm, asked, number, of_main.selects_itself(number)))
        askings += _measured(config, arm, prompts, asked)
    retention = prompts.retention
    text_rounds = _retention_rounds(config) if retention is not None and retention.prompts is None else []
    texts = retention.texts if retention is not None and retention.prompts is None else ()
    return Work(tuple(askings), tuple(trainings), texts, tuple(text_rounds))


@dataclass(frozen=True, slots=True)
class Shared:
    """What an arm does itself: everything from a round and a phase of it on, which is where it leaves main's way."""

    arm: Arm
    first_own: int
    first_section: str
    measured: tuple[int, ...]

    def samples_itself(self, number: int) -> bool:
        """Whether it draws candidates in that round."""
        return controls.samples(self.arm) and self.is_own(number, "sample")

    def selects_itself(self, number: int) -> bool:
        """Whether it chooses training examples."""
        return self.trains_itself(number) and self.is_own(number, "select")

    def trains_itself(self, number: int) -> bool:
        """Whether it trains."""
        if self.arm.source is self.arm.main and number not in self.measured:
            return False
        return self.is_own(number, "train")

    def is_own(self, number: int, section: str) -> bool:
        """Whether that phase (sample, score, select, train) of that round is after it left main's way."""
        if number != self.first_own:
            return number > self.first_own
        order = ("sample", "score", "select", "train")
        return order.index(section) >= order.index(self.first_section)


def shared(arm: Arm) -> Shared:
    """How far the arm goes main's way, as its knobs tell."""
    if arm.main is None:
        return Shared(arm, 1, "sample", ())
    config = arm.main.config
    measured = tuple(_measured_rounds(config, arm))
    if arm.control is not None:  # round 1's candidates are those of the base model, which is main's policy too
        return Shared(arm, 1, "select", measured)
    for number in range(1, config.rounds + 1):
        for section in ("sample", "score", "select", "train"):
            if not _is_equal(arm.config, config, section, number):
                return Shared(arm, number, section, measured)
    return Shared(arm, config.rounds + 1, "sample", measured)


def _is_equal(one_config: Config, other: Config, section: str, number: int) -> bool:
    asked = at_round(one_config.prompts, number)["per_round"] == at_round(other.prompts, number)["per_round"]
    knobs = at_round(getattr(one_config, section), number) == at_round(getattr(other, section), number)
    return knobs and (asked or section != "sample")


class Asked:
    """The prompts of each round, each shuffle made once: arms ask main's, unless they set `prompts.per_round`."""

    def __init__(self, prompts: PromptSets, held: int | None = None) -> None:
        self._held = held
        self.num_known = len(prompts.train.prompts)
        self._train = prompts.train
        self._found: dict[tuple[object, int], tuple[Prompt, ...]] = {}

    def __call__(self, arm: Arm, number: int) -> tuple[Prompt, ...]:
        """Those that the arm asks in that round."""
        config, key = arm.config, (arm.config.prompts.per_round, number)
        if key not in self._found:
            found = prompt_room.of_round(self._train, config.prompts, seed=config.seed, round_number=number)
            self._found[key] = found
        return self._found[key]

    def each(self, arm: Arm, number: int) -> int:
        """Candidates of each prompt; of a file, the mean. What one holds whose rows cannot be counted is known once it
        is read, and taken to be `UNKNOWN`, unless it is that of the prompts."""
        count = num_candidates(arm.config, number)
        if count is not None:
            return count
        if self._held is not None:
            return max(1, round(self._held / max(1, self.num_known)))
        policy = arm.config.sample.policy
        is_same = policy is not None and policy.file is not None and policy.file.path == arm.config.prompts.train.path
        num_rows = self.num_known + self._train.num_duplicates
        return max(1, round(num_rows / max(1, self.num_known))) if is_same else UNKNOWN

    def held(self, arm: Arm, number: int) -> int | None:
        """How many candidates of that round's prompts there are, at most so many of each; None where it is not known,
        or where none are there to begin with."""
        policy = arm.config.sample.policy
        if self._held is None or policy is None or policy.file is None:
            return None
        asked, limit = len(self(arm, number)), num_candidates(arm.config, number)
        of_round = round(self._held * asked / max(1, self.num_known))
        return of_round if limit is None else min(of_round, limit * asked)


def _candidates(arm: Arm, asked: Asked, number: int) -> Asking:
    knobs = resolved(arm.config.sample, number)
    return Asking(
        arm.name,
        number,
        "candidates",
        "train",
        asked(arm, number),
        asked.each(arm, number),
        for_training(arm.config, number).max_new_tokens,
        one(knobs.block_size),
        arm.config.sample.policy is None or bool(arm.config.sample.policy.checkpoints),
        asked.held(arm, number),
    )


def _training(arm: Arm, asked: Asked, number: int, selects: bool) -> Choosing:
    num_prompts = len(asked(arm, number))
    num_candidates = asked.each(arm, number)
    in_reach = min(num_prompts * number, asked.num_known)
    held = asked.held(arm, number)
    candidates = num_prompts * num_candidates if held is None else held
    return Choosing(arm.name, number, num_prompts, candidates, in_reach, selects)


def _measured(config: Config, arm: Arm, prompts: PromptSets, asked: Asked) -> Iterator[Asking]:
    for number in _measured_rounds(config, arm):
        for name, one_set in prompts.held_out().items():
            yield _evaluated(config, arm, number, "greedy", name, one_set.prompts)
        if arm.main is None and number and prompts.held_out() and config.evaluate.trained_prompts:
            trained = sorted(asked(arm, number), key=lambda prompt: prompt.id)
            yield _evaluated(config, arm, number, "greedy", "trained", trained[: config.evaluate.trained_prompts])
    if arm.main is not None:
        return
    held_out = prompts.held_out()
    sampled = held_out.get("test") or held_out.get("validate")
    for number in range(config.rounds + 1):
        if sampled is not None and names_round(config.evaluate.sampled_rounds, number, last=config.rounds):
            yield _evaluated(config, arm, number, "sampled", sampled.name, sampled.prompts)
    if prompts.retention is not None and prompts.retention.prompts is not None:
        for number in _retention_rounds(config):
            yield _evaluated(config, arm, number, "retention", "retention", prompts.retention.prompts.prompts)


def _evaluated(config: Config, arm: Arm, number: int, kind: Kind, name: str, prompts: Sequence[Prompt]) -> Asking:
    limit, block = greedy(config).max_new_tokens, config.evaluate.block_size
    answers = config.evaluate.num_samples if kind == "sampled" else 1
    return Asking(arm.name, number, kind, name, tuple(prompts), answers, limit, block)


def _measured_rounds(config: Config, arm: Arm) -> list[int]:
    """Where an arm is evaluated. Round 0 is the same policy in all arms, and main's."""
    if arm.main is None:
        return list(range(config.rounds + 1))
    assert arm.settings is not None
    named = arm.settings.evaluate_rounds
    rounds = range(1, config.rounds + 1)
    return [number for number in rounds if number == config.rounds or names_round(named, number, last=config.rounds)]


def _retention_rounds(config: Config) -> list[int]:
    """Round 0 always, as the others are compared with it."""
    rounds = config.evaluate.retention_rounds
    if rounds == "none":
        return []
    return [
        number for number in range(config.rounds + 1) if not number or names_round(rounds, number, last=config.rounds)
    ]
