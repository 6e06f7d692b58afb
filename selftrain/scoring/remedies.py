"""What to do where too many candidates could not be scored, by the error of the first of them."""

from __future__ import annotations

from selftrain.scoring import NO_COLUMN, NO_NUMBER, NO_ROOM, UNANSWERED, UNREADABLE

_ANOTHER = "another experiment: name=NEW or --fork NEW"
_COLUMN = (
    "Name another column that the candidates brought (params.column of given), or, where those without a number "
    "may stay unscored, which never survive, raise score.max_unscored_rate, and run the same command again. Mended "
    "in the file of sample.policy itself, they are other candidates: take those in a run of their own with name=NEW"
)
_TEXTS = {
    UNANSWERED: (
        "Mend that (the endpoint's url, key_variable, timeout_seconds, retries and concurrency may be changed) and run "
        "the same command again: the candidates are kept"
    ),
    NO_ROOM: (
        "Give llm_judge a judge model that reads more, or a shorter rubric or template, and run the same command "
        "again: the candidates are kept. Once something that it judged is committed, another judge is " + _ANOTHER
    ),
    UNREADABLE: (
        "Give llm_judge a rubric or a template that says more plainly how to end, a larger max_new_tokens where "
        "answers are cut, or another judge model, and run the same command again: the candidates are kept. Once "
        "something that it judged is committed, another judge is " + _ANOTHER
    ),
    NO_NUMBER: _COLUMN,
    NO_COLUMN: _COLUMN,
}
_OF_OTHERS = (
    "Mend what made it fail (a missing package, an overloaded machine) and run the same command again: the candidates "
    "are kept. That may be the verifier's own file or score.timeout_seconds as long as nothing that it judges is "
    "committed; once something is, another verifier is " + _ANOTHER
)


def remedy(error: str) -> str:
    """The way on after the error of a candidate that has no value."""
    return next((text for said, text in _TEXTS.items() if said in error), _OF_OTHERS)
