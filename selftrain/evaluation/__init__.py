"""Evaluation: how good a policy is, how sure that is, and what follows from it.

    rounds      the metrics of a round, phase by phase
    coverage    which prompts are solved, how hard they are, pass@k and maj@k over k
    collapse    variety, duplication, lengths, KL to the base model
    retention   what is kept of the likelihood of other texts
    alarms      what in those metrics is worth a warning
    metrics     pass@k, maj@k and the flat metrics of one set of held-out prompts
    statistics  intervals of means and of paired differences, over prompts
    figures     pass@1, value and parts: what a set of held-out prompts has for each prompt
    spans       intervals of values that may be any number
    labels      how good labels are that come from no reference
    decisions   the best round, what to build upon, when to stop
    verdicts    what a run may claim, in numbers and words
    wording     how figures are written
    across_seeds  one figure over several seeds
    seeds       the seeds of one recipe together: intervals over seeds, over prompts, over both
    comparison  runs against each other, on the prompts that both were asked

`validate` decides and `test` is only reported. A prompt that could not be scored is left out and counted, never
counted wrong.
"""
