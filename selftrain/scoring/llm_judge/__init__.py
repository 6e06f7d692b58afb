"""A language model as judge, behind an endpoint or on this machine.

- `judge`         the scorer: its params, and what is done with a block of candidates
- `asking`        the prompt that the judge reads, from a template
- `neutral`       what is taken out of a candidate's text, and of a question, before a judge reads it
- `verdicts`      the judge's answer, read strictly
- `comparisons`   candidates against each other, in both orders
- `canaries`      what must never be found good, asked in every round
- `voices`        who answers: a server, or a model on this machine

A judge that could not be asked, or whose answer cannot be read, gives no value: that is never counted wrong.
"""
