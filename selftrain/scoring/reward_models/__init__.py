"""Scorers that are models: how good an answer is, or each step of it.

    scorers    `reward_model` and `process_reward_model`: their parameters, what is checked before any work
    members    one model of the list: its text, its numbers, its scale
    rendering  a prompt and an answer as the ids that a model reads
    reading    rows of ids in batches of so many tokens, smaller ones where memory runs out
    loading    the weights, shared by all scorers of a process that name the same model
    outcome    the value of a whole answer, by one model or several
    pairwise   the value of an answer from which of two is better
    steps      the value of an answer from those of its steps

Only `rendering`'s tokenizers, `reading` and `loading` need torch and transformers, and they are imported when
something is judged.
"""
