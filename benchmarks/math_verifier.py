"""What the scorer `math` says of a data set's own references, and how many answers it judges per second.

    python benchmarks/math_verifier.py FOLDER [--column answer] [--limit N] [--workers 1,2]

FOLDER holds `.jsonl` files of rows whose column is a solution with one final answer (`#### n`, `\\boxed{...}`, or the
answer alone), as GSM8K's. Every file is reported on its own: references that the scorer refuses at load, references
that are right for themselves as they stand and as `\\boxed{...}`, wrong copies of them that are refused (all that
`selftrain.scoring.perturbing` makes, and the answer of another row), and the speed of the rule in this process and
through its worker processes, as a run uses it. Expressions with roots go through sympy and have a speed of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selftrain.config import ScoreConfig
from selftrain.errors import DataError
from selftrain.records import Candidate, Group, Prompt
from selftrain.scoring import build
from selftrain.scoring.expressions import final_answer
from selftrain.scoring.mathematics import math, prepare
from selftrain.scoring.perturbing import of_mathematics

EXPRESSIONS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--column", default="answer")
    parser.add_argument("--limit", type=int, help="rows of each file")
    parser.add_argument("--workers", default="1,2", help="numbers of worker processes")
    args = parser.parse_args()
    prepare()
    workers = [int(one) for one in args.workers.split(",")]
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for path in sorted(args.folder.glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()[: args.limit]
        references = [str(json.loads(line)[args.column]) for line in lines if line.strip()]
        print(f"{path.name}: {len(references)} references")
        report(references)
        asked = [(copy, reference) for reference in references for copy in written(reference)]
        report_speed(asked, workers)
    print(f"expressions: {EXPRESSIONS} answers with roots, a third of them right")
    report_speed(list(expressions()), workers)


def written(reference: str) -> tuple[str, str]:
    """A reference as a model would give it: the whole solution, and the answer in a box."""
    return reference, rf"So it is $\boxed{{{final_answer(reference)[0]}}}$."


def report(references: Sequence[str]) -> None:
    """Print what is accepted and refused; references of others are wrong where their answers are not the same text."""
    knobs = ScoreConfig.model_validate({"scorers": ["math"], "workers": 1})
    with build(knobs, Path()) as scorer:
        start = time.perf_counter()
        try:
            scorer.check_references([group(index, one, []).prompt for index, one in enumerate(references)])
            refused = "none is refused at load"
        except DataError as error:
            refused = str(error)
        seconds = time.perf_counter() - start
    print(f"  {refused}; checked in {seconds:.1f} s ({len(references) / seconds:,.0f} references per second)")
    for number, name in enumerate(("as they stand", "in a box")):
        right = sum(math(written(one)[number], one).value == 1.0 for one in references)
        print(f"  right for themselves {name}: {right} of {len(references)}")
    near = [(rf"\boxed{{{copy}}}", one) for one in references for copy in of_mathematics(one)]
    answers = [math(one, one).answer for one in references]
    others = [
        (references[(index + 1) % len(references)], one)
        for index, one in enumerate(references)
        if answers[index] != answers[(index + 1) % len(references)]
    ]
    for name, pairs in (("wrong copies near them", near), ("the next row's answer, where it is another", others)):
        taken = [(text[-40:], one[-40:]) for text, one in pairs if math(text, one).value == 1.0]
        print(f"  {name}: {len(pairs) - len(taken)} of {len(pairs)} refused", *taken[:5])


def expressions() -> Iterable[tuple[str, str]]:
    """Answers and references, all different, that only sympy can compare."""
    for number in range(EXPRESSIONS):
        first, second = number + 2, 3 * number + 2
        answers = (rf"\sqrt{{{first**2 * second}}}", rf"{first}\sqrt{{{second + 1}}}", rf"{first + 1}\sqrt{{{second}}}")
        yield rf"\boxed{{{answers[number % 3]}}}", rf"{first}\sqrt{{{second}}}"


def report_speed(asked: Sequence[tuple[str, str]], workers: Sequence[int]) -> None:
    """Print answers per second: the rule here, and scorers with so many workers asked from as many threads. No answer
    may come twice: math-verify's results are kept."""
    show("the rule in this process", len(asked), lambda: [math(text, one) for text, one in asked])
    by_reference: dict[str, list[str]] = {}
    for text, one in asked:
        by_reference.setdefault(one, []).append(text)
    groups = [group(index, one, texts) for index, (one, texts) in enumerate(by_reference.items())]
    for count in workers:
        knobs = ScoreConfig.model_validate({"scorers": ["math"], "workers": count})
        with build(knobs, Path()) as scorer, ThreadPoolExecutor(count) as threads:
            list(threads.map(scorer.score, groups[:count]))
            number = sum(len(one.candidates) for one in groups)
            show(f"{count} worker process(es)", number, lambda: list(threads.map(scorer.score, groups)))


def show(name: str, count: int, judge: Callable[[], object]) -> None:
    start = time.perf_counter()
    judge()
    seconds = time.perf_counter() - start
    print(f"  {name}: {count / seconds:,.0f} answers per second ({count} in {seconds:.2f} s)")


def group(index: int, reference: str, texts: Sequence[str]) -> Group:
    prompt = Prompt(
        id=f"row-{index}", identity=f"row-{index}", messages=None, text="", reference=reference, metadata={}
    )
    candidates = (
        Candidate.unsampled(text, id=f"{index}/{number}", prompt_id=prompt.id, index=number)
        for number, text in enumerate(texts)
    )
    return Group(prompt, tuple(candidates))


if __name__ == "__main__":
    main()
