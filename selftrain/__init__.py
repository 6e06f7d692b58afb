"""Iterative self-training of language models: sample, score, select, train, evaluate, and again."""

__version__ = "0.1.0"
