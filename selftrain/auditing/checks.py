"""The checks of an audit, over the prompts of one task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from selftrain.auditing.asking import Asking, Wrong
from selftrain.auditing.progress import Progress
from selftrain.auditing.results import Check, Tally
from selftrain.config import ScorerConfig, ThinkingConfig
from selftrain.records import Prompt, Score
from selftrain.sampling.thinking import cut
from selftrain.scoring import SCORERS
from selftrain.scoring.cheats import Cheat, Subject
from selftrain.scoring.cheats.answers import cheats
from selftrain.scoring.cheats.degenerate import degenerates
from selftrain.scoring.cheats.differing import surely_differ
from selftrain.scoring.cheats.forms import Form, Forms, bare_answer, forms_of, is_right_by_form, num_choices
from selftrain.scoring.cheats.programs import programs
from selftrain.scoring.code.mutants import changed_lines
from selftrain.scoring.code.rows import Rows
from selftrain.scoring.perturbing import perturbed

CHEATS_ON = 50
DEGENERATES_ON = 20
SLOW_ON = 2
FORMS_USED = 2
PERTURBED_OF_EACH = 8
TRIES = 20
MUTANTS_KEPT = 200
TRIED_AGAIN_AFTER = 0.2
T = TypeVar("T")


@dataclass(slots=True)
class OfTask:
    """The checks of one task. `scorers` judge it together; `pool` has the prompts whose references are given as wrong
    answers; without `heavy`, nothing that is made to cost much is asked."""

    asking: Asking
    task: str | None
    scorers: tuple[ScorerConfig, ...]
    prompts: Sequence[Prompt]
    pool: Sequence[Prompt]
    thinking: ThinkingConfig | None
    seed: int
    heavy: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)
    """As `scoring.build` has them."""
    progress: Progress | None = None
    was_stopped: bool = False
    """By Ctrl-C, while its checks were under way."""
    rows: Rows | None = None
    begun: list[Tally] = field(default_factory=list)
    main: ScorerConfig = field(init=False)
    forms: Forms = field(init=False)
    live: tuple[Form, ...] = field(init=False)

    def __post_init__(self) -> None:
        in_order = sorted(self.scorers, key=lambda one: (one.name not in SCORERS, -one.weight))
        self.main = in_order[0]
        self.forms = forms_of(self.scorers, self.prompts[0])
        self.live = self.forms.forms[:1]
        if self.main.name == "code":
            self.rows = Rows(self.main.params, self.columns, weak=bool(self.main.params.get("weak")))

    def _known(self, prompt: Prompt) -> Mapping[str, Any]:
        """The columns of the prompt's row; of code with the function that its tests call."""
        return prompt.metadata if self.rows is None else self.rows.known(prompt)

    def expected(self) -> int:
        """About how many answers will be asked, by what there is for the first prompt."""
        first, number = self.prompts[0], len(self.prompts)
        near = min(len(self._near(first)), PERTURBED_OF_EACH)
        completions = sum(one.completion is not None for one in self.prompts)
        of_each = len(self._cheats_of(first, slow=False)) * min(number, CHEATS_ON)
        of_each += len(self._degenerates_of(first, slow=False)) * min(number, DEGENERATES_ON)
        return (2 + near) * number + completions + of_each

    def seconds_of_one(self) -> float:
        """How long one answer takes, asked apart from the audit: a second one where the first had something to load."""
        first = self.prompts[0]
        text = first.completion or self.live[0].wrap(bare_answer(first, self.main) or "0")
        asking = Asking(self.asking.scorer)
        asking.ask(first, text, "trial")
        if asking.seconds > TRIED_AGAIN_AFTER:
            asking.seconds = 0.0
            asking.ask(first, text, "trial")
        return asking.seconds

    @property
    def is_rule(self) -> bool:
        """Whether a rule of ours judges the answers, of which it is known what it may take."""
        takes = (self.main.params.get("take", "only"), self.main.extract.take)
        return self.main.name in SCORERS and takes == ("only", "only")

    def checks(self) -> Iterator[Check]:
        """Every check in turn. Where Ctrl-C stops it, also those that were begun."""
        told: set[str] = set()
        try:
            for one in self._checks():
                told.add(one.name)
                yield one
        except KeyboardInterrupt:
            self.was_stopped = True
            yield from (one.check(is_stopped=True) for one in self.begun if one.name not in told)

    def _each(self, tally: Tally, items: Sequence[T]) -> Iterator[T]:
        """The items, while progress is shown."""
        if items:
            self.begun.append(tally)
        if self.progress is not None:
            self.progress.begin(f"{self.task}: {tally.name}" if self.task else tally.name, len(items))
        for item in items:
            if tally.is_over:
                return
            yield item
            if self.progress is not None:
                self.progress.step()

    def _checks(self) -> Iterator[Check]:
        """First what must be accepted, as that says in which form answers are given."""
        references, accepted_in = self._references()
        completions = self._completions()
        if accepted_in:
            self.live = (
                tuple(one for one in self.forms.forms if one.name in dict(accepted_in.most_common(FORMS_USED)))
                or self.live
            )
        right = references.accepted + completions.accepted
        unproven = not right and bool(references.refused + completions.refused)
        if accepted_in and not self.forms.known:
            references.words.append("accepted " + ", ".join(f"{name}: {n}" for name, n in accepted_in.most_common(3)))
        no_reference = "no prompt has a reference"
        yield references.check(unproven=unproven, is_sure=self.forms.known, skipped=no_reference)
        if any(one.completion is not None for one in self.prompts):
            yield completions.check(unproven=unproven)
        # A mutant may be another right solution, which no program can tell in general.
        is_sure = self.main.name != "code"
        yield self._perturbed().check(unproven=unproven, is_sure=is_sure, skipped=self._why_none_is_near())
        yield self._others().check(unproven=unproven, skipped=self._why_no_other())
        yield self._cheats().check(unproven=unproven, skipped="none is known for this scorer")
        yield self._degenerates().check(unproven=unproven)

    # What must be accepted

    def _references(self) -> tuple[Tally, Counter[str]]:
        tally, accepted_in = Tally(self.task, "references", "accepted"), Counter[str]()
        for prompt in self._each(tally, [one for one in self.prompts if bare_answer(one, self.main) is not None]):
            answer = str(bare_answer(prompt, self.main))
            texts = {one.name: one.wrap(answer) for one in self.forms.forms}
            if not self.forms.known and prompt.reference not in (None, *texts.values()):
                texts["the reference in full"] = str(prompt.reference)
            name, score = self._first_accepted(prompt, texts, accepted_in)
            accepted_in[name] += score.correct is True
            why = "the reference is right, and in this form" if self.forms.known else "the reference is right"
            form = name if self.forms.known else "any of " + ", ".join(texts)
            tally.add(prompt, score, kind="reference", form=form, text=texts[name], why=why)
        if self.main.name == "choice":
            tally.words += self._guessing()
        return tally, +accepted_in

    def _guessing(self) -> list[str]:
        """What a policy is paid that only guesses."""
        sizes = [size for one in self.prompts if (size := num_choices(one, self.main))]
        if not sizes:
            return []
        span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
        share = sum(1 / size for size in sizes) / len(sizes)
        return [f"of {span} choices, a guess is right {100 * share:.0f}% of the time"]

    def _first_accepted(self, prompt: Prompt, texts: dict[str, str], before: Counter[str]) -> tuple[str, Score]:
        """The form that is accepted, the commonest first; else the first that was judged at all."""
        found: list[tuple[str, Score]] = []
        for name in sorted(texts, key=lambda one: -before[one]):
            score = self.asking.ask(prompt, texts[name], "reference")
            if score.correct:
                return name, score
            found.append((name, score))
        return next((one for one in found if one[1].value is not None), found[0])

    def _completions(self) -> Tally:
        tally = Tally(self.task, "completions", "accepted")
        for prompt in self._each(tally, [one for one in self.prompts if one.completion is not None]):
            answer = cut(self.thinking, str(prompt.completion), (), after="", decode=lambda _: "")
            score = self.asking.ask(prompt, answer.text, "completion", answer.reasoning)
            why = "the data calls it a good answer in full"
            tally.add(
                prompt, score, kind="completion", form="in full", text=answer.text, why=why, reasoning=answer.reasoning
            )
        return tally

    # What must be refused

    def _near(self, prompt: Prompt) -> tuple[str, ...]:
        try:
            near = perturbed(prompt.reference, self.main, self._known(prompt))
        except ValueError:
            return ()
        if self.main.name in SCORERS:
            return near
        # Whether 42 % is 42 is for the user's function to say.
        return tuple(one for one in near if not one.endswith("%"))

    def _perturbed(self) -> Tally:
        is_code = self.main.name == "code"
        many = {"kept": MUTANTS_KEPT, "of_a_kind": MUTANTS_KEPT} if is_code else {}
        tally = Tally(self.task, "perturbed references", "refused", **many)
        why = "the reference with one thing changed" if is_code else "it is near the reference, and another value"
        wrong = [
            Wrong(prompt, form.name, form.wrap(one), "perturbed reference", why, mutant=one if is_code else None)
            for prompt in self.prompts
            for one in self._near(prompt)[:PERTURBED_OF_EACH]
            for form in self.live
        ]
        self._ask_all(tally, wrong)
        if tally.accepted and is_code:
            tally.words.append("what is accepted is another right solution, or the tests do not tell it from one")
        elif tally.accepted and self.main.name not in SCORERS:
            tally.words.append("whether your function may accept these is for you to judge")
        return tally

    def _why_none_is_near(self) -> str:
        return self._why_several() or "nothing near the references is known to be wrong"

    def _why_several(self) -> str:
        """Why no answer is known to be wrong by its value; empty where that is not so."""
        if all(one.reference is None for one in self.prompts):
            return "no prompt has a reference"
        if self.main.name == "reasoning_gym":
            return "a task of reasoning_gym may have several right answers"
        is_any = self.main.name == "json_schema" and self.main.params.get("match") == "none"
        return "any value that fits the schema is right (match: none)" if is_any else ""

    def _others(self) -> Tally:
        tally = Tally(self.task, "other references", "refused")
        draw = random.Random(f"other references {self.seed}")
        wrong = []
        for prompt in self.prompts:
            drawn = (draw.choice(self.pool) for _ in range(TRIES))
            mine = self._with_known(prompt)
            other = next((one for one in drawn if surely_differ(mine, self._with_known(one), self.main)), None)
            answer = None if other is None else bare_answer(other, self.main)
            if other is not None and answer is not None:
                why = f"it is the answer to prompt {other.id}"
                wrong += [Wrong(prompt, one.name, one.wrap(answer), "other reference", why) for one in self.live]
        self._ask_all(tally, wrong)
        return tally

    def _with_known(self, prompt: Prompt) -> Prompt:
        return prompt if self.rows is None else replace(prompt, metadata=self._known(prompt))

    def _why_no_other(self) -> str:
        return self._why_several() or "no two references are surely different in value"

    def _cheats(self) -> Tally:
        tally = Tally(self.task, "cheating answers", "refused")
        asked = self.prompts[:CHEATS_ON]
        if self.main.name != "code" and not any(self._near(one) for one in asked):
            tally.words.append("without hedges and lists, as no answers near the references are known to be wrong")
        made = [self._cheats_of(prompt, slow=number < SLOW_ON) for number, prompt in enumerate(asked)]
        self._ask_all(tally, [one for of_prompt in made for one in of_prompt])
        return tally

    def _cheats_of(self, prompt: Prompt, *, slow: bool) -> list[Wrong]:
        subject = Subject(
            question=prompt.question,
            answer=bare_answer(prompt, self.main),
            wrong=self._near(prompt),
            rule=self.main.name,
            params=self.main.params,
            metadata=self._known(prompt),
            reference=prompt.reference,
            thinks=self.thinking is not None,
        )
        found: list[Wrong] = []
        for form in self.live:
            is_code = self.main.name == "code"
            made = programs(subject, form.wrap) if is_code else cheats(subject, form.wrap, is_rule=self.is_rule)
            found += self._surely_wrong(prompt, made, form, slow=slow)
        return found

    def _degenerates(self) -> Tally:
        tally = Tally(self.task, "empty and degenerate", "refused")
        asked = enumerate(self.prompts[:DEGENERATES_ON])
        made = [self._degenerates_of(prompt, slow=number < SLOW_ON) for number, prompt in asked]
        self._ask_all(tally, [one for of_prompt in made for one in of_prompt])
        return tally

    def _degenerates_of(self, prompt: Prompt, *, slow: bool) -> list[Wrong]:
        found: list[Wrong] = []
        for form in self.live:
            found += self._surely_wrong(prompt, degenerates(prompt.question, form.wrap), form, slow=slow)
        return found

    def _surely_wrong(self, prompt: Prompt, made: Iterator[Cheat], form: Form, *, slow: bool) -> Iterator[Wrong]:
        answer = bare_answer(prompt, self.main)
        for one in made:
            if one.slow and not (slow and self.heavy):
                continue
            if not is_right_by_form(one.text, self.scorers, answer):
                yield Wrong(prompt, form.name, one.text, one.name, one.why, one.reasoning)

    def _ask_all(self, tally: Tally, wrong: Sequence[Wrong]) -> None:
        for one in self._each(tally, wrong):
            score = self.asking.ask(one.prompt, one.text, one.kind, one.reasoning)
            changed = self._changed(one) if score.correct is not False else ()
            tally.add(
                one.prompt,
                score,
                kind=one.kind,
                form=one.form,
                text=one.text,
                why=one.why,
                reasoning=one.reasoning,
                changed=changed,
            )

    def _changed(self, one: Wrong) -> tuple[str, ...]:
        """What a mutant changes of its reference."""
        if one.mutant is None or one.prompt.reference is None or self.rows is None:
            return ()
        before = self.rows.text(one.prompt, "prepend")
        return changed_lines(one.prompt.reference, one.mutant, self.rows.entry_point(one.prompt), prepend=before)
