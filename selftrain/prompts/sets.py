"""What a run's prompts are: sets, what is measured for retention, and the digest that stands for a set's content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selftrain.records import Prompt, digest


@dataclass(frozen=True, slots=True)
class PromptSet:
    """One set of distinct prompts, in the order of the source; of a mix, task after task.

    In `seed_data`, where one prompt may be answered in several ways, prompt and answer together are distinct. `digest`
    covers content, references, metadata and tasks, and, in `seed_data`, completions.
    """

    name: str
    prompts: tuple[Prompt, ...]
    digest: str
    num_duplicates: int
    num_overlapping: int = 0
    num_excluded: int = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a mix, in its order; empty where the set is none."""
        return tuple(dict.fromkeys(one.task for one in self.prompts if one.task is not None))


@dataclass(frozen=True, slots=True)
class Retention:
    """What is measured to see what is forgotten: texts, or prompts (then `texts` is empty). `tasks` has the task of
    each text; it is empty where the texts are no mix."""

    texts: tuple[str, ...]
    prompts: PromptSet | None
    digest: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptSets:
    """The sets of a run; all but `train` may be absent."""

    train: PromptSet
    validate: PromptSet | None = None
    test: PromptSet | None = None
    seed_data: PromptSet | None = None
    retention: Retention | None = None

    def held_out(self) -> dict[str, PromptSet]:
        """The sets that evaluation uses, by name: validate first."""
        return {one.name: one for one in (self.validate, self.test) if one is not None}


def content_digest(name: str, prompts: Sequence[Prompt]) -> str:
    """The digest of a set of that name."""
    content = []
    for one in prompts:
        messages = [[m.role, m.content] for m in one.messages or ()]
        content.append([one.identity, messages, one.text, one.reference, dict(one.metadata)])
        # Of training prompts only the arm gold reads them, which has a digest of its own for that.
        if name == "seed_data" and one.completion is not None:
            content[-1].append(one.completion)
        if one.task is not None:
            content[-1].append({"task": one.task})
    return digest(content)


def in_both(first: PromptSet, second: PromptSet) -> list[Prompt]:
    """The prompts of the first whose problem is in the second too: of equal identity, or asked in the same words (one
    of the sets may name no identity)."""
    known = {name for one in second.prompts for name in (one.identity, one.id)}
    return [one for one in first.prompts if one.identity in known or one.id in known]


def without(prompts: PromptSet, held_out: PromptSet) -> PromptSet:
    """The set without the problems of the other one; `num_overlapping` counts them."""
    shared = {one.id for one in in_both(prompts, held_out)}
    left = tuple(one for one in prompts.prompts if one.id not in shared)
    return replace(
        prompts,
        prompts=left,
        digest=content_digest(prompts.name, left),
        num_overlapping=prompts.num_overlapping + len(prompts.prompts) - len(left),
    )


def asked(prompt: Prompt) -> str:
    """The end of what is asked, for errors."""
    return repr(prompt.question[-200:])
