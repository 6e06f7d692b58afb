"""Evaluation: how good a policy is, how sure that is, and what follows from it.

    rounds      metrics of a round's sampling and scoring
    metrics     pass@k and the flat metrics of one set of held-out prompts
    statistics  intervals of means and of paired differences, over prompts
    decisions   the best round, when to stop, and the verdict of a run

`validate` decides and `test` is only reported. A prompt that could not be scored is left out and counted, never
counted wrong.
"""
