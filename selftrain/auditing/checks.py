"""The checks of an audit, over the prompts of one task."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from selftrain.auditing.results import Check, Speed, Tally, question_of
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
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.perturbing import perturbed

CHEATS_ON = 50
DEGENERATES_ON = 20
SLOW_ON = 2
FORMS_USED = 2
PERTURBED_OF_EACH = 8
TRIES = 20


@dataclass(slots=True)
class Asking:
    """Asks the scorer about one answer at a time, as `explain` does, and keeps the time."""

    scorer: CombinedScorer
    answers: int = 0
    unscored: int = 0
    timed_out: int = 0
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    told: Callable[[int], None] | None = None
    """Is told how many answers were judged, after each."""

    def ask(self, prompt: Prompt, text: str, kind: str, reasoning: str | None = None) -> Score:
        """The score of an answer."""
        started = time.perf_counter()
        score = self.scorer.explain(prompt, text, reasoning=reasoning)
        seconds = time.perf_counter() - started
        self.answers += 1
        if self.told is not None:
            self.told(self.answers)
        self.seconds += seconds
        self.slowest = max(self.slowest, (seconds, f"{kind}, prompt {prompt.id}"))
        self.unscored += score.value is None
        self.timed_out += "timed out" in (score.error or "") or any(score.extras.get("score/code/timeout_rate", ()))
        return score

    def speed(self) -> Speed:
        """What it took so far."""
        return Speed(
            answers=self.answers,
            seconds=round(self.seconds, 3),
            per_second=round(self.answers / max(self.seconds, 1e-9), 1),
            unscored_rate=self.unscored / max(self.answers, 1),
            timed_out=self.timed_out,
            slowest_seconds=round(self.slowest[0], 4),
            slowest=self.slowest[1],
        )


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
    main: ScorerConfig = field(init=False)
    forms: Forms = field(init=False)
    live: tuple[Form, ...] = field(init=False)

    def __post_init__(self) -> None:
        in_order = sorted(self.scorers, key=lambda one: (one.name not in SCORERS, -one.weight))
        self.main = in_order[0]
        self.forms = forms_of(self.scorers, self.prompts[0])
        self.live = self.forms.forms[:1]

    @property
    def is_rule(self) -> bool:
        """Whether a rule of ours judges the answers, of which it is known what it may take."""
        takes = (self.main.params.get("take", "only"), self.main.extract.take)
        return self.main.name in SCORERS and takes == ("only", "only")

    def checks(self) -> Iterator[Check]:
        """Every check in turn: first what must be accepted, as that says in which form answers are given."""
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
        for prompt in self.prompts:
            answer = bare_answer(prompt, self.main)
            if answer is None or tally.is_over:
                continue
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
        for prompt in self.prompts:
            if prompt.completion is None or tally.is_over:
                continue
            answer = cut(self.thinking, prompt.completion, (), after="", decode=lambda _: "")
            score = self.asking.ask(prompt, answer.text, "completion", answer.reasoning)
            why = "the data calls it a good answer in full"
            tally.add(
                prompt, score, kind="completion", form="in full", text=answer.text, why=why, reasoning=answer.reasoning
            )
        return tally

    # What must be refused

    def _near(self, prompt: Prompt) -> tuple[str, ...]:
        try:
            near = perturbed(prompt.reference, self.main, prompt.metadata)
        except ValueError:
            return ()
        if self.main.name in SCORERS:
            return near
        # Whether 42 % is 42 is for the user's function to say.
        return tuple(one for one in near if not one.endswith("%"))

    def _perturbed(self) -> Tally:
        tally = Tally(self.task, "perturbed references", "refused")
        is_code = self.main.name == "code"
        why = "the reference with one thing changed" if is_code else "it is near the reference, and another value"
        for prompt in self.prompts:
            for wrong in self._near(prompt)[:PERTURBED_OF_EACH]:
                self._refused(tally, prompt, wrong, "perturbed reference", why)
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
        for prompt in self.prompts:
            drawn = (draw.choice(self.pool) for _ in range(TRIES))
            other = next((one for one in drawn if surely_differ(prompt, one, self.main)), None)
            answer = None if other is None else bare_answer(other, self.main)
            if other is not None and answer is not None:
                why = f"it is the answer to prompt {other.id}"
                self._refused(tally, prompt, answer, "other reference", why)
        return tally

    def _why_no_other(self) -> str:
        return self._why_several() or "no two references are surely different in value"

    def _refused(self, tally: Tally, prompt: Prompt, answer: str, kind: str, why: str) -> None:
        for form in self.live:
            if not tally.is_over:
                text = form.wrap(answer)
                score = self.asking.ask(prompt, text, kind)
                tally.add(prompt, score, kind=kind, form=form.name, text=text, why=why)

    def _cheats(self) -> Tally:
        tally = Tally(self.task, "cheating answers", "refused")
        make = programs if self.main.name == "code" else None
        if make is None and not any(self._near(one) for one in self.prompts[:CHEATS_ON]):
            tally.words.append("without hedges and lists, as no answers near the references are known to be wrong")
        for number, prompt in enumerate(self.prompts[:CHEATS_ON]):
            subject = Subject(
                question=question_of(prompt),
                answer=bare_answer(prompt, self.main),
                wrong=self._near(prompt),
                rule=self.main.name,
                params=self.main.params,
                metadata=prompt.metadata,
                reference=prompt.reference,
                thinks=self.thinking is not None,
            )
            for form in self.live:
                made = make(subject, form.wrap) if make else cheats(subject, form.wrap, is_rule=self.is_rule)
                self._ask_all(tally, prompt, made, form, slow=number < SLOW_ON)
        return tally

    def _degenerates(self) -> Tally:
        tally = Tally(self.task, "empty and degenerate", "refused")
        for number, prompt in enumerate(self.prompts[:DEGENERATES_ON]):
            for form in self.live:
                self._ask_all(tally, prompt, degenerates(question_of(prompt), form.wrap), form, slow=number < SLOW_ON)
        return tally

    def _ask_all(self, tally: Tally, prompt: Prompt, made: Iterator[Cheat], form: Form, *, slow: bool) -> None:
        answer = bare_answer(prompt, self.main)
        for one in made:
            if tally.is_over:
                return
            if one.slow and not (slow and self.heavy):
                continue
            if is_right_by_form(one.text, self.scorers, answer):
                continue
            score = self.asking.ask(prompt, one.text, one.name, one.reasoning)
            tally.add(
                prompt,
                score,
                kind=one.name,
                form=form.name,
                text=one.text,
                why=one.why,
                reasoning=one.reasoning,
            )
