"""What selection asks of texts, made for a run: bounds of quality, overlaps with evaluation sets, near-duplicates.

Evaluation sets are read here, by the room of prompts, and handed to selection as texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.config import Config, PerRound, SelectConfig, SourceConfig, config_of_arm
from selftrain.errors import ConfigError, DataError
from selftrain.fingerprints import HELD_OUT, against
from selftrain.prompts import PromptSets, wording
from selftrain.records import Prompt, digest

if TYPE_CHECKING:
    from selftrain.selection import RoundStep
    from selftrain.selection.contamination import Contaminated, EvaluationText, Overlaps
    from selftrain.selection.sifting import Given
    from selftrain.selection.steps import Step

KNOB = "select.decontaminate"
MANY = 100_000
LOOKED_AT = 1000
"""So many training prompts are compared before a run."""


def check(config: SelectConfig, base: Path) -> None:
    """ConfigError for a pattern or an embedding model that is none, DependencyError for a package that is missing.
    Imports only what the knobs ask for, and nothing heavy."""
    if config.quality is not None:
        from selftrain.selection import quality

        quality.check(config)
    if config.near_duplicates is not None:
        from selftrain.selection import near_duplicates

        near_duplicates.check(config, base)


def check_texts(config: Config, prompts: PromptSets, base: Path) -> None:
    """Raise for evaluation sets that cannot be read, hold nothing to compare with, or overlap with all that is asked:
    ConfigError, DataError or DependencyError."""
    if config.select.decontaminate is None:
        return
    overlaps = Screening(config, base).overlaps(prompts)
    if not overlaps.num_texts:
        raise ConfigError(
            f"{KNOB}: there is nothing to compare with: prompts.validate and prompts.test have no text that is long "
            f"enough (8 words, 4 of a question), or are not there; name evaluation sets in {KNOB}.against"
        )
    asked = prompts.train.prompts[:LOOKED_AT]
    first = overlaps.find(_own(asked[0], config))
    if first is not None and all(overlaps.find(_own(one, config)) for one in asked):
        every = "all" if len(asked) == len(prompts.train.prompts) else f"the first {len(asked):,}"
        raise DataError(
            f"{KNOB}: {every} of the training prompts overlap with an evaluation set, so that no candidate would be "
            f"left; the first shares {first}. Give other prompts; or, if these words stand before every "
            f"problem of the data, set {KNOB}.common: 10, or put them into prompts.template"
        )


def notes(config: Config, prompts: PromptSets, base: Path) -> Iterator[str]:
    """What to know before a run is started, one line each."""
    if config.select.decontaminate is not None:
        overlaps = Screening(config, base).overlaps(prompts)
        for name, one in (("train", prompts.train), ("seed_data", prompts.seed_data)):
            asked = () if one is None else one.prompts[:LOOKED_AT]
            found = [(prompt, overlap) for prompt in asked if (overlap := overlaps.find(_own(prompt, config, name)))]
            if found:
                first, overlap = found[0]
                leave = (
                    "its candidates will leave" if name == "train" else "select.decontaminate is for candidates alone"
                )
                every = f"{'first ' * (len(asked) == LOOKED_AT)}{len(asked):,} prompts of {name}"
                yield (
                    f"{len(found):,} of the {every} overlap with an evaluation set, for example {first.id}, which "
                    f"shares {overlap}: {leave}; prompts.{name}.exclude leaves a prompt out"
                )
    near = config.select.near_duplicates
    candidates = len(prompts.train.prompts) * _most(config.sample.num_candidates)
    if near is not None and near.by == "embedding" and near.within == "all" and candidates > MANY:
        yield (
            f"select.near_duplicates compares each embedding of a round with all that stay, and there are up to "
            f"{candidates:,} candidates: that takes time with their square; by: minhash does not"
        )


def in_words(config: SelectConfig) -> str:
    """What is asked of texts, after the rule; empty if nothing is."""
    asked = []
    if config.quality is not None:
        asked.append("bounds of quality")
    if config.decontaminate is not None:
        asked.append(f"no {config.decontaminate.ngram} words in a row of an evaluation set")
    if (near := config.near_duplicates) is not None:
        where = "in a prompt" if near.within == "prompt" else "in the round"
        asked.append(f"no near-duplicates {where} ({near.by} from {near.threshold:g})")
    return f" ({', '.join(asked)})" if asked else ""


def digests(config: Config, prompts: PromptSets, base: Path) -> dict[str, str]:
    """What stands for the content of the evaluation sets that any arm is compared with, by the names that fingerprints
    have for them."""
    every = (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides))
    knobs = [one.select.decontaminate for one in every if one.select.decontaminate is not None]
    if not knobs:
        return {}
    sources = {against(source): source for one in knobs for source in one.against}
    found = {name: _digest(_of_source(source, base, f"{KNOB}.against")) for name, source in sources.items()}
    return {HELD_OUT: _digest(_of_run(config, prompts)), **found}


class Screening:
    """The steps of one arm's selection, whose configuration is `config`; `base` is the recipe's folder."""

    def __init__(self, config: Config, base: Path) -> None:
        self._config = config
        self._base = base
        self._overlaps: Overlaps | None = None

    def steps(self, knobs: SelectConfig, prompts: PromptSets, report: Callable[[Contaminated], None]) -> Given:
        """Those that the knobs of a round ask for, by their names in the funnel; `report` is told of every candidate
        that overlaps with an evaluation set."""
        found: dict[str, Step | RoundStep] = {}
        if knobs.quality is not None:
            from selftrain.selection import quality

            found["quality"] = quality.step(knobs.quality)
        if knobs.decontaminate is not None:
            from selftrain.selection import contamination

            by_id = {one.id: one for one in prompts.train.prompts}
            found["decontaminate"] = contamination.step(
                self.overlaps(prompts), lambda name: _own(by_id[name], self._config), report
            )
        if knobs.near_duplicates is not None:
            from selftrain.selection import near_duplicates

            device = self._config.model.device
            found["near_duplicates"] = near_duplicates.step(knobs, self._base, None if device == "auto" else device)
        return found

    def overlaps(self, prompts: PromptSets) -> Overlaps:
        """Finds overlaps with the evaluation sets, which are read at the first call. Raises as the readers do."""
        if self._overlaps is None:
            from selftrain.selection.contamination import Overlaps

            knobs = self._config.select.decontaminate
            assert knobs is not None
            texts = [*_of_run(self._config, prompts)]
            for number, source in enumerate(knobs.against):
                of_source = list(_of_source(source, self._base, f"{KNOB}.against.{number}"))
                if not Overlaps(of_source, knobs.ngram).num_texts:
                    raise DataError(
                        f"{KNOB}.against.{number}: none of the {len(of_source):,} texts of {_name(source)} is long "
                        "enough to compare (8 words, 4 of a question); name other columns, or take it out"
                    )
                texts += of_source
            asked = (_own(one, self._config) for one in prompts.train.prompts)
            self._overlaps = Overlaps(texts, knobs.ngram, common=knobs.common, asked=asked)
        return self._overlaps


def _of_run(config: Config, prompts: PromptSets) -> Iterator[EvaluationText]:
    """Of the prompts that the run itself holds out."""
    from selftrain.selection.contamination import EvaluationText

    sources = {"validate": config.prompts.validate_, "test": config.prompts.test}
    for name, held_out in prompts.held_out().items():
        source = sources[name]
        assert source is not None
        for prompt in held_out.prompts:
            for each, kind, text in wording.of_prompt(prompt, config.prompts, source):
                yield EvaluationText(f"prompts.{name}", each, kind, text)


def _of_source(source: SourceConfig, base: Path, where: str) -> Iterator[EvaluationText]:
    from selftrain.selection.contamination import EvaluationText

    return (EvaluationText(_name(source), *each) for each in wording.of_source(source, base, where))


def _digest(texts: Iterable[EvaluationText]) -> str:
    return digest([[one.name, one.kind, one.text] for one in texts])


def _name(source: SourceConfig) -> str:
    """As reports name it."""
    names = [one.path if one.split is None else f"{one.path} ({one.split})" for one in source.sources.values()]
    return " + ".join(str(name) for name in names)


def _own(prompt: Prompt, config: Config, name: str = "train") -> str:
    source = getattr(config.prompts, name)
    return wording.own_text(prompt, config.prompts, source)


def _most(schedule: PerRound[Any]) -> int:
    """The greatest number of a schedule; 0 where it has none (all that a file holds)."""
    values = schedule if isinstance(schedule, tuple) else (schedule,)
    return max((one for one in values if isinstance(one, int)), default=0)
