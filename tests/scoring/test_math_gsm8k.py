"""Solutions in the shape of GSM8K's, written for this test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from groups import make_group, make_prompt

from selftrain.config import ScoreConfig
from selftrain.errors import DataError
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.perturbing import of_mathematics

SOLUTIONS = {
    "Two cats catch 4 mice each, so 2*4=<<2*4=8>>8 mice.\n#### 8": "8",
    "He saves 12*30=$<<12*30=360>>360 a year.\nTwice that is 360*2=$<<360*2=720>>720.\n#### 720": "720",
    "She walks 3.5*2=<<3.5*2=7>>7 miles a day.\n#### 7": "7",
    "The house costs 80000+50000=$<<80000+50000=130000>>130,000.\n#### 130,000": "130000",
    "Half of 5 is 5/2=<<5/2=2.5>>2.5 pies.\n#### 2.5": "2.5",
    "There are 40% girls, so 100-40=<<100-40=60>>60% boys.\n#### 60": "60",
    "He owes 20 and has 15, so 15-20=<<15-20=-5>>-5 is left.\n#### -5": "-5",
    "Nobody is left: 6-6=<<6-6=0>>0.\n#### 0": "0",
    "Each box holds 1/4 of 48: 48/4=<<48/4=12>>12 eggs.\nFive boxes hold 12*5=<<12*5=60>>60.\n#### 60": "60",
    "x + 2x = 36, so 3x = 36 and x = <<36/3=12>>12.\n#### 12": "12",
    "It takes 90 minutes, which is 90/60=<<90/60=1.5>>1.5 hours.\n#### 1.5": "1.5",
    "A dozen is 12, three are 3*12=<<3*12=36>>36.\n####36": "36",
    "The total is 1,000,000+250,000=<<1000000+250000=1250000>>1,250,000.\n#### 1,250,000": "1250000",
    "Ann has 7 more than 8: 7+8=<<7+8=15>>15 marbles\n#### 15 ": "15",
    "It costs $.75*4=$<<.75*4=3>>3\n#### 3": "3",
    "At 5 o'clock it is 5+4=<<5+4=9>>9.\n\n#### 9\n": "9",
    "The price falls by 10%: 200*.9=<<200*.9=180>>180\n#### $180": "180",
    "The third week has 21 days fewer than 365: <<365-21=344>>344\n#### 344": "344",
    "He reads 10 pages in 2/5 of an hour: 10/(2/5)=<<10/(2/5)=25>>25\n#### 25": "25",
    "No word about it.\n#### 1": "1",
}


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    with build(ScoreConfig.model_validate({"scorers": ["math"], "workers": 1}), Path()) as built:
        yield built


def test_solutions_can_be_references_and_are_right_for_themselves_in_every_form(scorer: CombinedScorer) -> None:
    scorer.check_references([make_prompt(str(number), one) for number, one in enumerate(SOLUTIONS)])
    for solution, answer in SOLUTIONS.items():
        with_a_unit = f"Thus:\n#### {answer} {'dollars' if '#### $' in solution else 'apples'}"
        texts = [solution, answer, f"#### {answer}", rf"So it is $\boxed{{{answer}}}$.", with_a_unit]
        scores = scorer.score(make_group(texts, reference=solution))
        assert [score.value for score in scores] == [1.0] * 5, [score.explanation for score in scores]
        assert {score.answer for score in scores} == {scores[0].answer}


def test_wrong_copies_of_solutions_are_refused(scorer: CombinedScorer) -> None:
    for solution, answer in SOLUTIONS.items():
        near = of_mathematics(solution)
        assert len(near) >= (1 if answer == "0" else 4)
        texts = [solution.rpartition("####")[0] + f"#### {copy}" for copy in near]
        assert {score.value for score in scorer.score(make_group(texts, reference=solution))} == {0.0}


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 8.",
        "2*4=<<2*4=8>>8 mice.",
        "#### 8\n#### 9",
        r"\boxed{8} \boxed{9}",
        "#### 8 or 9",
        "#### 2*4",
        "#### 2*4=8",
        "#### not 8",
        "#### The answer is 8",
        "####",
    ],
)
def test_what_is_no_final_answer_in_that_shape_is_refused(scorer: CombinedScorer, text: str) -> None:
    (score,) = scorer.score(make_group([text], reference=next(iter(SOLUTIONS))))
    assert (score.value, score.error) == (0.0, None), score.explanation


def test_a_solution_without_a_mark_is_no_reference(scorer: CombinedScorer) -> None:
    with pytest.raises(DataError, match=r"prompt b: the reference .* has no final answer"):
        scorer.check_references([make_prompt("a", "#### 8"), make_prompt("b", "Two cats catch 8 mice.")])
