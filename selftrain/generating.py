"""Who writes the training candidates of a run, where it is not the policy: built, checked, and told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain import contents, generators
from selftrain.adapters import adapter_digest, check_lora
from selftrain.config import Config
from selftrain.endpoint import check_endpoint
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.planning import Draw
from selftrain.prompts import PromptSet, brought
from selftrain.prompts.cells import NOT_FINITE, READ, Unusable
from selftrain.records import Digest, Policy, digest
from selftrain.reporting.terminal import Terminal
from selftrain.sampling import Generator, Sampler
from selftrain.sampling.asked import WHERE, EndpointSampler
from selftrain.sampling.brought import BroughtSampler
from selftrain.sampling.texts import Texts
from selftrain.whereabouts import beside, cache_dir

if TYPE_CHECKING:
    from selftrain.models import Bench
    from selftrain.sampling.others import Member, OtherModel


@dataclass(frozen=True, slots=True)
class Given:
    """What a generator is built with: the configuration, its folder, the policy's sampler (None: no model is loaded)
    and bench, and the prompts that may be asked."""

    config: Config
    folder: Path
    policy: Sampler | None
    bench: Callable[[], Bench]
    asked: PromptSet


def build(given: Given) -> Generator:
    """The generator that `sample.policy` names. Raises ConfigError, DataError or DependencyError."""
    generator = given.config.sample.policy
    assert generator is not None
    texts = Texts(given.policy, given.config.model.thinking)
    who = generators.generator_digest(given.config, given.folder)  # before what it names is read
    if generator.file is not None:
        wanted = [one.id for one in given.asked.prompts]
        spool = cache_dir() / "candidates"
        held = brought.BroughtCandidates(generator, given.config.prompts, given.folder, wanted, spool)
        return BroughtSampler(held, texts, who)
    if generator.endpoint is not None:
        return EndpointSampler(generator.endpoint, texts, who)
    from selftrain.sampling.others import Ensemble

    if generator.model is not None:
        return _other(given, generator.model, texts, "sample.policy.model")
    assert given.policy is not None, "an ensemble is built upon the policy's model"
    members = [_member(given, name, texts) for name in generator.checkpoints]
    return Ensemble(members, given.policy)


def _other(given: Given, name: str, texts: Texts, what: str) -> OtherModel:
    from selftrain.models import Bench
    from selftrain.sampling.others import OtherModel

    place = contents.place(name, given.folder, what=what)
    update = {"path": place.path, "revision": place.revision, "adapter": None, "quantization": None}
    bench = Bench(given.config.model.model_copy(update=update), where=what)
    who = Digest(contents.model_content(name, given.folder, what=what))
    of_policy = None if given.config.sample.engine == "scripted" else given.bench()
    return OtherModel(given.config.sample, bench, texts, of_policy, who, given.config.model.thinking)


def _member(given: Given, name: str, texts: Texts) -> Member:
    from selftrain.sampling.others import Member

    assert given.policy is not None
    if name == generators.POLICY:
        return Member(name, given.policy, None)
    folder = beside(name, given.folder)
    if not (folder / contents.ADAPTER).is_file():
        return Member(name, _other(given, name, texts, "sample.policy.checkpoints"), None)
    folder = folder.resolve()
    given.bench().adopted.add(str(folder))
    return Member(name, given.policy, Policy(given.config.model.path, str(folder), 0, adapter_digest(folder)))


def check(config: Config, folder: Path, *, has_held_out: bool) -> None:
    """Raise ConfigError, DataError or DependencyError for a generator that cannot work, before anything is loaded."""
    generator = config.sample.policy
    if generator is not None and generator.file is not None:
        brought.check(generator, config.prompts, folder)
    _check_given(config, folder, has_held_out=has_held_out)
    if generator is None:
        return
    if generator.endpoint is not None:
        check_endpoint(generator.endpoint, WHERE)
    if generator.checkpoints and config.sample.engine != "transformers":
        raise ConfigError(
            "sample.policy.checkpoints are adapters on model.path, and sample.engine "
            f"{config.sample.engine} has no model"
        )
    if generator.model is not None:
        contents.require_generator(generator.model, folder, what="sample.policy.model")
    for name in generator.checkpoints:
        if name == generators.POLICY:
            continue
        if (beside(name, folder) / contents.ADAPTER).is_file():
            check_lora(beside(name, folder))
        else:
            contents.require_generator(name, folder, what="sample.policy.checkpoints")
    generators.part(config, folder)


def _check_given(config: Config, folder: Path, *, has_held_out: bool) -> None:
    """The scorer `given` reads what candidates of a file bring, which answers of the policy do not."""
    named = [one for one in config.score.scorers if one.name == "given"]
    generator = config.sample.policy
    if named and (generator is None or generator.file is None):
        raise ConfigError(
            "score.scorers: given reads a column of the candidates in sample.policy.file, and there is no such file"
        )
    held_out = [*config.judging_held_out.scorers, *config.judging_retention.scorers]
    if has_held_out and any(one.name == "given" for one in held_out):
        raise ConfigError(
            "score.scorers: given reads what the candidates in sample.policy.file bring, and answers to held-out "
            "prompts bring nothing; name their scorers in evaluate.scorers (evaluate.retention_scorers of retention). "
            "`selftrain curate` asks none of them, and `selftrain plan --curate` shows what it does"
        )
    if named and generator is not None:
        known = brought.columns(generator, config.prompts, folder)
        for one in named:
            if "column" not in one.params:
                raise ConfigError(f"score.scorers: given needs params.column; the file has: {', '.join(known)}")
            name = one.params["column"]
            if name not in known:
                raise ConfigError(
                    f"score.scorers: given: params.column: the first row of sample.policy.file has no column "
                    f"{name!r}; it has: {', '.join(known)}"
                )
            _require_read("score.scorers: given: params.column", name, known[name])


def check_columns(config: Config, folder: Path) -> None:
    """Raise ConfigError where `curate.columns` names what candidates do not bring; and as reading them does."""
    generator, wanted = config.sample.policy, config.curate.columns
    if not wanted:
        return
    if generator is None or generator.file is None:
        raise ConfigError("curate.columns names columns of sample.policy.file, and there is no such file; take it out")
    known = brought.columns(generator, config.prompts, folder)
    if missing := [name for name in wanted if name not in known]:
        raise ConfigError(
            f"curate.columns: the first row of sample.policy.file brings no column {missing[0]!r}; it brings: "
            f"{', '.join(known) or 'none'}"
        )
    for name in wanted:
        _require_read("curate.columns", name, known[name])


def _require_read(where: str, name: str, unread: Unusable | None) -> None:
    """Raise ConfigError for a column of candidates that holds what is not read; one without a number may have it in
    other rows."""
    if unread is not None and unread.what != NOT_FINITE:
        raise ConfigError(
            f"{where}: the column {name!r} of sample.policy.file holds {unread.what} in the first row, which is not "
            f"read ({READ} are); write it as one of those, or name another column"
        )


def met(
    draw: Draw, generator: Generator, fingerprinted: Mapping[str, Any], now: Digest, terminal: Terminal
) -> tuple[Draw, dict[str, float]]:
    """The draw without the prompts that have no candidates in `sample.policy.file`, and metrics of what does not meet;
    the terminal is told. `fingerprinted` is the part of the generator in the phase's fingerprint, `now` stands for the
    files as they are.

    Raises DataError where no prompt has any candidate, PhaseError where they are not those of the fingerprint.
    """
    assert isinstance(generator, BroughtSampler)
    if not digest(fingerprinted) == generator.digest == now:
        raise PhaseError(
            "sample.policy.file was changed since this attempt began, so that its candidates would pass for those of "
            "the file before; run the same command again"
        )
    held = generator.held
    assert isinstance(held, brought.BroughtCandidates)
    prompts = tuple(one for one in draw.prompts if generator.num_held(one))
    elsewhere, without = held.elsewhere, len(draw.prompts) - len(prompts)
    where = ", ".join(elsewhere.places)
    if not prompts:
        of_others = f"they are in {where}, ..." if where else "it has others' alone"
        first = draw.prompts[0]
        raise DataError(
            f"sample.policy.file: none of its candidates answers a prompt of this round ({of_others}; a prompt is "
            f"{first.question[-80:]!r}, id {first.id}): a prompt is the same where its words are; correct the columns "
            "or the template, or name a column of ids in sample.policy.prompt_id"
        )
    if without:
        terminal.info(f"{without:,} of {len(draw.prompts):,} prompts have no candidates in sample.policy.file")
    if elsewhere.count:
        terminal.info(f"sample.policy.file: {elsewhere.count:,} candidates answer no prompt of prompts.train: {where}")
    metrics = {"sample/prompts_without_candidates": float(without), "sample/candidates_unasked": float(elsewhere.count)}
    return replace(draw, prompts=prompts), metrics


def close(generator: Generator) -> None:
    """Give back what it holds open."""
    if isinstance(generator, BroughtSampler | EndpointSampler):
        generator.close()
