"""What a run will take, before it is made: tokens, time, disk and memory, each with what the figure rests on.

    work      which prompts are asked how often, in which round of which arm: what is shared is there once
    saved     a saved model as its files tell: sizes, layers, tokenizer, chat template
    lengths   how many tokens prompts and answers have
    measured  what an earlier run measured: lengths, rates, shares kept
    disk      bytes of a run directory
    memory    bytes of a process
    whole     all of it, for one recipe

Neither torch nor transformers is imported, nothing is downloaded and no model is loaded. The constants are measured
ones; beside each stands on what.
"""
