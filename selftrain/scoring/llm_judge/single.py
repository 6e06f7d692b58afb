"""Candidates judged one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.records import Prompt
from selftrain.scoring import Asked, Verdict
from selftrain.scoring.llm_judge.canaries import Canary
from selftrain.scoring.llm_judge.hearing import REFUSED, Case, Hearing, canary_extras, excerpt, extras_of, merged


def judge_each(
    block: Sequence[tuple[Prompt, Sequence[Asked]]],
    canaries: Mapping[int, Sequence[Canary]],
    hearing: Hearing,
    canary_value: float,
) -> list[list[Verdict]]:
    """One Verdict per candidate of each prompt. Equal texts are asked about once. What the canaries of a prompt (by its
    index) took and showed goes with its first candidate."""
    cases: dict[tuple[int, str], Case] = {}
    for index, (prompt, asked) in enumerate(block):
        for one in asked:
            if not hearing.refuses(one.text):
                cases.setdefault((index, one.text), Case(prompt, (one.text,)))
    of_canaries = {index: [Case(one.prompt, (one.text,)) for one in ones] for index, ones in canaries.items()}
    hearing.hear([*cases.values(), *(case for ones in of_canaries.values() for case in ones)])
    verdicts = []
    for index, (_, asked) in enumerate(block):
        told: set[str] = set()
        of_prompt = []
        for one in asked:
            case = cases.get((index, one.text))
            of_prompt.append(REFUSED if case is None else _verdict(case, is_first=one.text not in told))
            told.add(one.text)
        if of_prompt and index in of_canaries:
            heard = of_canaries[index]
            results = [(canary.name, case.value) for canary, case in zip(canaries[index], heard, strict=True)]
            more = merged(dict(of_prompt[0].extras), extras_of(heard), canary_extras(results, canary_value))
            of_prompt[0] = replace(of_prompt[0], extras=more)
        verdicts.append(of_prompt)
    return verdicts


def _verdict(case: Case, *, is_first: bool) -> Verdict:
    extras = extras_of([case]) if is_first else {}
    if case.value is None:
        return Verdict(None, error=case.error, extras=extras)
    return Verdict(case.value, explanation=f"the judge said {excerpt(case.said)}", extras=extras)
