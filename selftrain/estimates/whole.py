"""The whole estimate of a recipe, as figures and as rows for people: what, how much, and what that rests on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import fsum
from pathlib import Path
from typing import Any

from selftrain.compose import Composed
from selftrain.config import Config
from selftrain.estimates import disk as on_disk
from selftrain.estimates import duration as in_time
from selftrain.estimates import memory as in_memory
from selftrain.estimates.amounts import Amounts, lengths_by_set
from selftrain.estimates.lengths import Counter, counter
from selftrain.estimates.measured import last_run
from selftrain.estimates.memory import Memory
from selftrain.estimates.saved import SavedModel, find
from selftrain.estimates.work import Asking, Work, count
from selftrain.prompts import PromptSets
from selftrain.prompts.counting import num_candidates
from selftrain.reporting.figures import duration, size
from selftrain.whereabouts import NO_MODEL, cache_dir

Row = tuple[str, str, str]
# Each round's prompts are drawn anew, and an arm may go its own way in any of them: more rounds are not counted out.
COUNTED_ROUNDS = 200


@dataclass(frozen=True)
class Estimate:
    """What a run will take. `disk` and `seconds` are by kind and phase; `memory` is None where the model's files are
    not on this machine."""

    work: Work
    amounts: Amounts
    model: SavedModel | None
    disk: dict[str, float]
    free: int | None
    seconds: dict[str, float | None]
    memory: Memory | None
    has_model: bool
    trains: bool = True
    """False of a curated round: sampling, scoring and selection alone."""
    rounds: int = 0
    """Of the recipe; of more than `COUNTED_ROUNDS`, only so many are in the figures."""

    @property
    def sampled_tokens(self) -> float:
        """Of candidates, in all arms."""
        drawn = (one for one in self.work.askings if one.kind == "candidates" and one.is_drawn_here)
        return fsum(map(self.amounts.sampled_tokens, drawn))

    @property
    def evaluated_tokens(self) -> float:
        """Of answers to held-out, trained and retention prompts."""
        return fsum(self.amounts.sampled_tokens(one) for one in self.work.askings if one.kind != "candidates")

    @property
    def read_tokens(self) -> float:
        """Of prompts, each read once whenever it is asked."""
        return fsum(map(self.amounts.read_tokens, self.work.askings))

    @property
    def trained_tokens(self) -> float:
        """Read by training, over all steps."""
        return fsum(map(self.amounts.trained_tokens, self.work.trainings))

    @property
    def total_seconds(self) -> float | None:
        """Of all phases; None where one of them was never measured."""
        known = [one for one in self.seconds.values() if one is not None]
        return fsum(known) if known and len(known) == len(self.seconds) else None

    def notes(self) -> Iterator[str]:
        """What does not go with the model's context, tokens and layers or `train.max_length`, a sentence each."""
        asked, config = self.amounts.prompts["train"].longest, self.amounts.config
        drawn = [one for one in self.work.askings if one.kind == "candidates" and one.is_drawn_here]
        policy = config.sample.policy
        assumed = [one.num_candidates for one in self.work.askings if one.kind == "candidates" and one.held is None]
        if policy is not None and policy.file is not None and assumed:
            yield (
                "sample.policy.file is a function, a folder or a hub data set, whose candidates are not counted before "
                f"they are read: the figures take {max(assumed)} of each prompt"
            )
        limit = max((one.max_new_tokens for one in drawn), default=0)
        context = self.model.context if self.model is not None else None
        if context is not None and asked + limit > context:
            yield (
                f"sample.max_new_tokens {limit} and the longest prompt ({asked} tokens) are over the model's context "
                f"of {context}: answers end there"
            )
        size = self.model.vocabulary if self.model is not None else 0
        if beyond := [one for one in config.sample.stop_token_ids if size and not 0 <= one < size]:
            yield (
                f"sample.stop_token_ids names {', '.join(map(str, beyond))}, and the model's tokens are 0 to "
                f"{size - 1}: no candidate ends there"
            )
        longest = config.train.max_length
        if self.trains and longest is not None and asked + limit > longest:
            yield (
                f"train.max_length is {longest}, and an example may have {asked + limit} tokens (prompt {asked}, "
                f"answer {limit}): a longer one ends the round with an error; raise it, or lower sample.max_new_tokens"
            )
        if self.trains and self.model is not None and self.model.linear and not self.model.targets(_targets(config)):
            yield (
                f"train.lora.target_modules {_targets(config)!r} names no linear layer of the model; its layers end in "
                f"{', '.join(sorted({name.rpartition('.')[2] for name in self.model.linear}))}"
            )

    def does_not_fit(self) -> Iterator[str]:
        """A sentence for each thing that there is too little of."""
        needed = on_disk.in_all(self.disk.values())
        if self.free is not None and needed > self.free:
            is_all = self.rounds <= COUNTED_ROUNDS
            what = "the run needs" if is_all else f"the first {COUNTED_ROUNDS:,} rounds need"
            yield (
                f"{what} about {size(needed)} of disk, and {size(self.free)} are free: free some, choose "
                "another --runs-dir, or set keep: best_and_last"
            )
        one = self.memory
        if one is not None and one.there is not None and one.peak > one.there:
            remedy = {
                "sampling": "lower sample.block_size, evaluate.block_size, the number of candidates, or max_new_tokens",
                "training": "lower train.micro_batch_size, or set train.sft: {activation_checkpointing: true}",
                "reading": "lower evaluate.drift_candidates",
            }[one.at]
            yield (
                f"{one.at} needs about {size(one.peak)} of memory, and {size(one.there)} are there "
                f"({one.device}): {remedy}"
            )


def estimate(composed: Composed, prompts: PromptSets, runs_dir: Path, *, trains: bool = True) -> Estimate:
    """Estimate a run of the recipe with these prompts, kept under `runs_dir`; unless it `trains`, up to selection."""
    config = composed.config.model_copy(update={"rounds": min(composed.config.rounds, COUNTED_ROUNDS)})
    is_scripted = config.sample.engine == "scripted" and config.train.trainer == "scripted"
    has_model = not is_scripted and config.model.path != NO_MODEL
    model = find(config.model, composed.folder, cache_dir()) if has_model else None
    device, there = in_memory.device_of(config)  # before the tokenizer, which does not like forks
    in_bytes = "in bytes, which a scripted engine takes for tokens"  # sampling/scripted.py
    in_bytes = in_bytes if is_scripted else "in bytes, as no model is loaded that has tokens"
    count_tokens = counter(config.model, model) if has_model else Counter(config.model, None, None, in_bytes)
    work = count(config, prompts, _held(config, composed.folder))
    # Of a model that thinks, an answer is the least of what it writes.
    shown = prompts.train.prompts if config.model.thinking is None else ()
    completions = [one.completion for one in shown if one.completion is not None]
    amounts = Amounts(
        config,
        lengths_by_set(count_tokens, prompts, work),
        count_tokens.texts(completions, ended=True) if completions else None,
        last_run(config, composed.recipe, prompts.train.digest, runs_dir),
    )
    disk, seconds = on_disk.disk(config, work, amounts, model), in_time.seconds(config, work, amounts)
    if not trains:
        work = replace(work, trainings=())
        disk = {name: size for name, size in disk.items() if name not in ("adapters", "evaluation")}
        seconds = {name: seconds[name] for name in ("sample", "score", "select")}
    return Estimate(
        work,
        amounts,
        model,
        disk,
        _free(runs_dir),
        seconds,
        in_memory.memory(config, work, amounts, model, device, there) if model is not None else None,
        has_model,
        trains,
        composed.config.rounds,
    )


def _held(config: Config, folder: Path) -> int | None:
    """How many candidates `sample.policy.file` holds, where that can be counted."""
    policy = config.sample.policy
    return None if policy is None or policy.file is None else num_candidates(policy, config.prompts, folder)


def _targets(config: Config) -> Any:
    return config.train.lora.get("target_modules", "all-linear")


def _free(folder: Path) -> int | None:
    """Bytes free where the folder is, or will be."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


# For people


def work_rows(found: Estimate) -> list[tuple[str, ...]]:
    """The table of the work: arm, rounds, and of each of these rounds prompts, candidates, and tokens; then in all."""
    rows: list[tuple[str, ...]] = [("arm", "round", "prompts", "candidates", "tokens", "evaluated", "tokens")]
    arms = dict.fromkeys([one.arm for one in found.work.askings] + [one.arm for one in found.work.trainings])
    for arm in arms:
        of_arm = [one for one in found.work.askings if one.arm == arm]
        numbers = sorted({one.round for one in of_arm})
        cells = [(number, _cells([one for one in of_arm if one.round == number], found.amounts)) for number in numbers]
        for same, group in groupby(cells, key=lambda cell: cell[1]):
            which = [number for number, _ in group]
            text = str(which[0]) if len(which) == 1 else f"{which[0]}-{which[-1]}, each"
            rows.append((arm, text, *same))
    rows.append(("in all", "", *_cells(found.work.askings, found.amounts)))
    return rows


def _cells(askings: list[Asking] | tuple[Asking, ...], amounts: Amounts) -> tuple[str, ...]:
    drawn = [one for one in askings if one.kind == "candidates"]
    measured = [one for one in askings if one.kind != "candidates"]
    numbers = (
        sum(len(one.prompts) for one in drawn),
        sum(one.answers for one in drawn),
        0 if amounts.are_taken else round(fsum(map(amounts.sampled_tokens, drawn))),
        sum(one.answers for one in measured),
        round(fsum(map(amounts.sampled_tokens, measured))),
    )
    return tuple(f"{number:,}" if number else "" for number in numbers)


def rows(found: Estimate) -> Iterator[Row]:
    """(what, how much, what that rests on)."""
    amounts, work = found.amounts, found.work
    asked = amounts.prompts["train"]
    if found.rounds > COUNTED_ROUNDS:
        yield "rounds counted", f"the first {COUNTED_ROUNDS:,} of {found.rounds:,}", "all figures are of these"
    yield "tokens of a prompt", f"{asked.mean:,.1f}, at most {asked.longest:,}", asked.rests_on
    if amounts.are_taken:
        yield "tokens of an answer", "none", "texts of sample.policy.file, taken as they are; nothing is sampled"
        yield _time_row(found)
        yield from _disk_rows(found)
        yield from _memory_rows(found)
        return
    of_answers = [amounts.answer_tokens(one) for one in work.askings if one.kind == "candidates"]
    if of_answers:
        span = f"{min(of_answers):,.1f}" + (f" to {max(of_answers):,.1f}" if len(set(of_answers)) > 1 else "")
        yield "tokens of an answer", span, amounts.answers_rest_on
    yield "tokens sampled", f"{found.sampled_tokens + found.evaluated_tokens:,.0f}", "candidates and evaluation"
    yield "tokens of prompts read", f"{found.read_tokens:,.0f}", "each prompt once, whatever the number of candidates"
    kept = "at most: all that the rule can keep" if amounts.kept_is_bound else f"the shares kept in {_run(found)}"
    if found.trains:
        yield "tokens trained on", f"{found.trained_tokens:,.0f}", f"prompts and epochs included; {kept}"
    yield _time_row(found)
    yield from _disk_rows(found)
    yield from _memory_rows(found)


def _run(found: Estimate) -> str:
    return str(found.amounts.measured.path) if found.amounts.measured is not None else "an earlier run"


def _time_row(found: Estimate) -> Row:
    known = {name: value for name, value in found.seconds.items() if value is not None}
    if not known:
        return "time", "unknown until a run has been made", ""
    parts = ", ".join(f"{name} {duration(value)}" for name, value in known.items() if value >= 1)
    parts = parts or "each phase under a second"
    missing = [name for name, value in found.seconds.items() if value is None]
    beside = f"; not measured yet: {', '.join(missing)}" if missing else ""
    return "time", f"about {duration(fsum(known.values()))}", f"the rates of {_run(found)}: {parts}{beside}"


def _disk_rows(found: Estimate) -> Iterator[Row]:
    free = f" of {size(found.free)} free" if found.free is not None else ""
    parts = ", ".join(f"{name} {size(value)}" for name, value in found.disk.items() if value >= 1000)
    config: Config = found.amounts.config
    if found.has_model and found.model is None:
        parts += "; the adapters are unknown, as the model is not on this machine yet"
    yield "disk", f"about {size(on_disk.in_all(found.disk.values()))}{free}", f"{parts}; keep: {config.keep}"


def _memory_rows(found: Estimate) -> Iterator[Row]:
    one = found.memory
    if not found.has_model:
        yield "memory", "no model is loaded", ""
        return
    if one is None:
        yield "memory", "unknown", "the model's files are not on this machine yet"
        return
    there = f" of {size(one.there)} there" if one.there is not None else ", and what is there is unknown"
    parts = ", ".join(f"{name} {size(value)}" for name, value in one.parts.items() if value)
    before = found.amounts.measured.peak_memory() if found.amounts.measured is not None else None
    was = f"; {_run(found)} took {size(before)}" if before is not None and one.device == "cpu" else ""
    yield (
        f"memory ({one.device})",
        f"about {size(one.peak)}{there}",
        f"of each process, in {one.at}, with the longest answers: {parts}{was}",
    )
